"""Mixed and decoupled batches: exact proportions, equal shares, nothing drawn twice before its turn."""

from __future__ import annotations

from collections import Counter

import pytest

from medvl.data import DecoupledBatchSampler, MixedBatchSampler
from medvl.data.samplers import resolve_rank
from medvl.data.splits import allocate_counts


def drawn(sampler, epochs=1):
    """All indices of so many epochs from 0 on."""
    out = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        out += [index for batch in sampler for index in batch]
    return out


def pools_of(*sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def counts(indices, pools):
    return [sum(index in pool for index in indices) for pool in pools]


class TestMixed:
    def test_by_size_each_unit_once_an_epoch(self):
        pools = pools_of(7, 0, 30, 3)
        sampler = MixedBatchSampler(pools, 8, seed=3)
        assert sorted(drawn(sampler)) == list(range(40))
        assert [len(batch) for batch in sampler] == [8] * 5 == [8] * len(sampler)

    @pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3], [5, 0.0, 2], [0.97, 0.02, 0.01]])
    @pytest.mark.parametrize("length", [None, 50, 101])
    def test_weights_hold_for_the_epoch_and_for_each_batch(self, weights, length):
        pools = pools_of(10, 20, 17)
        sampler = MixedBatchSampler(pools, 9, sampling_weights=weights, length=length)
        total = length or 47
        shares = [weight / sum(weights) for weight in weights]
        for epoch in range(3):
            sampler.set_epoch(epoch)
            batches = list(sampler)
            found = counts([i for batch in batches for i in batch], pools)
            assert sum(found) == total
            assert all(abs(n - share * total) < 1 for n, share in zip(found, shares, strict=True))
            for batch in batches:
                here = counts(batch, pools)
                assert all(abs(n - share * len(batch)) < 2 for n, share in zip(here, shares, strict=True))

    def test_no_unit_again_before_all_others_of_its_pool(self):
        pools = pools_of(5, 11)
        sampler = MixedBatchSampler(pools, 4, sampling_weights=[0.7, 0.3], length=23, seed=1)
        order = drawn(sampler, epochs=12)
        for pool in pools:
            own = [i for i in order if i in pool]
            assert len(own) > 2 * len(pool)
            for start in range(0, len(own) - len(pool) + 1, len(pool)):
                assert sorted(own[start : start + len(pool)]) == list(pool)
        assert drawn(sampler) != drawn(MixedBatchSampler(pools, 4, sampling_weights=[0.7, 0.3], length=23, seed=2))

    @pytest.mark.parametrize("world", [2, 3, 5])
    @pytest.mark.parametrize("length", [5, 23, 47, 48])
    def test_processes_share_the_draws_of_one_in_as_many_batches(self, world, length):
        pools = pools_of(31, 16)

        def sampler(replicas, rank):
            return MixedBatchSampler(pools, 4, [0.5, 0.5], length, seed=4, num_replicas=replicas, rank=rank)

        shares = [list(sampler(world, rank)) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        assert all(batch for share in shares for batch in share)
        for step in range(len(shares[0])):
            sizes = [len(share[step]) for share in shares]
            assert max(sizes) - min(sizes) <= 1
        together = [i for step in zip(*shares, strict=True) for batch in step for i in batch]
        assert together == drawn(sampler(1, 0))

    def test_every_process_gets_every_source(self):
        pools = pools_of(40, 40)
        for rank in range(2):
            batches = MixedBatchSampler(pools, 4, num_replicas=2, rank=rank)
            assert all(counts(batch, pools) == [2, 2] for batch in batches)

    def test_no_small_batch_at_the_end(self):
        assert [len(batch) for batch in MixedBatchSampler([range(33)], 32)] == [16, 17]

    def test_alternatives_take_turns(self):
        pool = [((0,), (1,), (2,)), ((3, 4),)]
        sampler = MixedBatchSampler([pool], 2)
        order = drawn(sampler, epochs=6)
        assert Counter(order) == {0: 2, 1: 2, 2: 2, 3: 6, 4: 6}

    def test_clear_errors(self):
        with pytest.raises(ValueError, match=r"^sampling_weights must be 0 for pool 1, which is empty, got 0\.5\.$"):
            MixedBatchSampler([range(3), []], 2, sampling_weights=[0.5, 0.5])
        with pytest.raises(ValueError, match=r"^pools must hold at least one unit, got pools of sizes \[0, 0\]\.$"):
            MixedBatchSampler([[], []], 2)
        with pytest.raises(
            ValueError,
            match=r"^sampling_weights must be 2 numbers of at least 0, one for each pool, with .*, got \[1\.0\]\.$",
        ):
            MixedBatchSampler([range(3), range(3)], 2, sampling_weights=[1.0])
        with pytest.raises(ValueError, match=r"^length must be at least 4, one unit a process, got 3\.$"):
            MixedBatchSampler([range(3)], 1, num_replicas=4, rank=0)
        with pytest.raises(ValueError, match=r"^rank must be in \[0, 2\), got 2\.$"):
            MixedBatchSampler([range(3)], 1, num_replicas=2, rank=2)
        with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0\.$"):
            MixedBatchSampler([range(3)], 0)
        with pytest.raises(TypeError, match=r"^steps must be an integer, got 1\.5\.$"):
            MixedBatchSampler([range(3)], 1, steps=1.5)
        with pytest.raises(ValueError, match=r"^length must be None where steps is given, got 3\.$"):
            MixedBatchSampler([range(3)], 1, length=3, steps=2)
        for weights in ([0.0, 0.0], [-1.0, 2.0], [1.0, float("inf")]):
            with pytest.raises(ValueError, match=r"^sampling_weights must be 2 numbers of at least 0"):
                MixedBatchSampler([range(3), range(3)], 2, weights)

    def test_steps_fill_every_batch(self):
        sampler = MixedBatchSampler([range(5)], 3, steps=4)
        assert [len(batch) for batch in sampler] == [3] * 4
        assert (sampler.length, sampler.counts) == (12, [12])


def test_rank_and_number_of_processes_default_to_those_running(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert resolve_rank() == (3, 2)
    assert resolve_rank(4, 1) == (4, 1)
    monkeypatch.delenv("WORLD_SIZE")
    assert resolve_rank() == (1, 0)


@pytest.mark.parametrize(("total", "counts"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (3, [1, 1, 1]), (100, [98, 1, 1])])
def test_counts_are_allocated(total, counts):
    assert allocate_counts(total, [0.98, 0.01, 0.01]) == counts


class TestDecoupled:
    def test_images_once_texts_go_on(self):
        images, texts = pools_of(6, 4), [range(10, 50), range(50, 53)]
        sampler = DecoupledBatchSampler(
            images, texts, num_images=5, num_texts=7, text_sampling_weights=[0.5, 0.5], seed=2
        )
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            batches = list(sampler)
            assert [len(batch) for batch in batches] == [12, 12] == [12] * len(sampler)
            flat = [i for batch in batches for i in batch]
            assert sorted(i for i in flat if i < 10) == list(range(10))
            assert counts(flat, texts) == [7, 7]
        order = [i for i in drawn(sampler, epochs=6) if 10 <= i < 50]
        assert len(set(order[:40])) == 40

    def test_processes(self):
        shares = [
            list(DecoupledBatchSampler([range(11)], [range(11, 30)], 3, 4, num_replicas=2, rank=rank))
            for rank in range(2)
        ]
        assert [len(share) for share in shares] == [2, 2]
        images = sorted(i for share in shares for batch in share for i in batch if i < 11)
        assert images == list(range(11))
        assert all(sum(i >= 11 for i in batch) == 4 for share in shares for batch in share)

    def test_one_side_empty(self):
        with pytest.raises(ValueError, match=r"^text_pools must hold at least one unit, got none\.$"):
            DecoupledBatchSampler([range(3)], [[]], 2)

    def test_no_texts_asked_for(self):
        with pytest.raises(ValueError, match=r"^num_texts must be at least 1, got 0\.$"):
            DecoupledBatchSampler([range(3)], [range(3)], 2, num_texts=0)
