"""Studies through transforms, into batches: reproducible, and nothing lost without being counted."""

from __future__ import annotations

import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, MapTransform, RandGaussianNoised, Randomizable
from torch.utils.data import SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from medvl.data import StudyDataset, StudyLoader, collate_studies
from medvl.transforms import LoadStudyImaged
from medvl.utils.errors import StudyError
from medvl.utils.ids import hash_id


def studies(count=8):
    return [{"study_id": f"s{i}", "image": torch.full((1, 4, 4), float(i)), "age": i} for i in range(count)]


class FailOn(MapTransform):
    """Fails on the images with these values."""

    def __init__(self, keys, values):
        super().__init__(keys)
        self.values = values
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        if float(data["image"].max()) in self.values:
            raise OSError("the file is truncated\nat byte 7")
        return dict(data)


class Draw(Randomizable, MapTransform):
    """Puts a random number under the key "drawn"."""

    def __call__(self, data):
        return {**data, "drawn": float(self.R.rand())}


def noisy(**options):
    transform = Compose([Draw("image"), Compose([RandGaussianNoised("image", prob=1.0)])])
    return StudyDataset(studies(), transform, **options)


def contents(loader):
    return [
        (batch["study_id"], batch["image"].as_subclass(torch.Tensor).tolist(), batch["drawn"].tolist())
        for batch in loader
    ]


class TestDataset:
    def test_items_depend_on_seed_epoch_and_index_alone(self):
        dataset = noisy(seed=5)
        first = [dataset[i]["image"].clone() for i in range(8)]
        again = [dataset[i]["image"] for i in reversed(range(8))][::-1]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        noise = torch.stack([image - i for i, image in enumerate(first)])
        assert len({round(float(x.sum()), 6) for x in noise}) == 8, "each study has noise of its own"
        dataset.set_epoch(1)
        assert not torch.equal(dataset[0]["image"], first[0])
        dataset.set_epoch(0)
        assert torch.equal(dataset[0]["image"], first[0])
        assert not torch.equal(noisy(seed=6)[0]["image"], first[0])
        assert dataset[0]["drawn"] != dataset[1]["drawn"]

    def test_two_random_steps_draw_independently(self):
        dataset = StudyDataset(studies(), Compose([Draw("image"), Lambdad("image", lambda x: x), Draw("image")]))
        other = StudyDataset(studies(), Compose([Draw("image")]))
        assert dataset[3]["drawn"] != other[3]["drawn"]

    def test_deterministic_steps_run_once_where_cached(self):
        counting = FailOn("image", ())
        dataset = StudyDataset(studies(), Compose([counting, Draw("image")]), cache_bytes=1 << 20)
        dataset.load()
        dataset.load()
        assert [dataset[i]["age"] for i in range(8)] == list(range(8))
        assert counting.calls == 8

    def test_cache_stops_at_its_size(self):
        counting = FailOn("image", ())
        dataset = StudyDataset(studies(), counting, cache_bytes=3 * 16 * 4)
        for _ in range(2):
            for i in range(8):
                assert float(dataset[i]["image"].max()) == i
        assert counting.calls == 3 + 5 * 2

    def test_loading_stops_where_the_cache_is_full(self):
        counting = FailOn("image", ())
        dataset = StudyDataset(studies(400), counting, cache_bytes=3 * 16 * 4)
        dataset.load(threads=2)
        assert 3 < counting.calls <= 32
        whole = StudyDataset(studies(50), FailOn("image", {7.0}), cache_bytes=1 << 20)
        shown = []
        whole.load(progress=lambda items: (shown.append(0) or item for item in items))
        assert len(shown) == whole.steps[0].calls == 50
        whole.load()
        assert whole.steps[0].calls == 50

    def test_workers_share_what_their_parent_has_left(self, monkeypatch):
        item = 16 * 4
        dataset = StudyDataset(studies(40), FailOn("image", ()), cache_bytes=14 * item)
        for i in range(6):
            dataset[i]
        monkeypatch.setattr("medvl.data.dataset.get_worker_info", lambda: SimpleNamespace(num_workers=4))
        calls = dataset.steps[0].calls
        for _ in range(2):
            for i in range(12):
                dataset[i]
        # Of 14 there is room for 8 more, 2 in each of the 4 workers.
        assert dataset.steps[0].calls - calls == 2 + 4 * 2

    def test_a_cached_item_is_not_changed_by_random_steps(self):
        class InPlace(Randomizable, MapTransform):
            def __call__(self, data):
                data["image"].add_(1)
                return data

        dataset = StudyDataset(
            studies(2), Compose([Lambdad("image", lambda x: x * 1), InPlace("image")]), cache_bytes=1 << 20
        )
        assert [float(dataset[0]["image"].max()) for _ in range(3)] == [1, 1, 1]

    def test_error_names_study_key_and_reason(self):
        dataset = StudyDataset(studies(), Compose([FailOn("image", {3.0})]))
        with pytest.raises(StudyError, match=r"^study 's3', image: the file is truncated$"):
            dataset[3]
        with pytest.raises(IndexError):
            dataset[8]
        assert dataset[-1]["study_id"] == "s7"

    def test_the_reason_is_that_of_the_cause(self):
        class Missing(Randomizable, MapTransform):
            def __call__(self, data):
                return data["other"]

        def fails(value):
            raise RuntimeError

        with pytest.raises(StudyError, match=r"^study 's0', image: KeyError 'other'$"):
            StudyDataset(studies(), Missing("image"))[0]
        with pytest.raises(StudyError, match=r"^study 's0', image: RuntimeError$"):
            StudyDataset(studies(), Lambdad("image", fails))[0]

    def test_a_cached_error_holds_on_to_nothing(self):
        dataset = StudyDataset(studies(), [FailOn("image", {3.0})], cache_bytes=1 << 20)
        for _ in range(3):
            errors = [item for item in dataset.__getitems__(range(8)) if isinstance(item, StudyError)]
            assert [error.__traceback__ for error in errors] == [None]
            with pytest.raises(StudyError) as caught:
                dataset[3]
        assert len(caught.traceback) == 3, "this line and the two that raise, not those of the epochs before"

    def test_pickles_and_stops_as_an_iterable(self):
        dataset = pickle.loads(pickle.dumps(noisy()))
        assert [item["age"] for item in dataset] == list(range(8))


class TestLoader:
    def test_order_and_draws_do_not_depend_on_workers(self):
        alone = StudyLoader(noisy(), batch_size=3, shuffle=True)
        shared = StudyLoader(noisy(), batch_size=3, shuffle=True, num_workers=2, persistent_workers=True)
        for epoch in (1, 2):
            for loader in (alone, shared):
                loader.set_epoch(epoch)
                torch.manual_seed(epoch + id(loader) % 7)  # the global state must not matter
            assert contents(alone) == contents(shared)
        alone.set_epoch(1)
        first = contents(alone)
        alone.set_epoch(2)
        assert contents(alone) != first

    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize(
        "options", [{}, {"num_workers": 1}, {"num_workers": 2, "persistent_workers": True}], ids=["0", "1", "2"]
    )
    def test_a_plain_loop_is_a_new_epoch_each_time(self, shuffle, options):
        loader = StudyLoader(noisy(), batch_size=3, shuffle=shuffle, **options)
        passes = [contents(loader) for _ in range(3)]
        for number, one in enumerate(passes):
            drawn = {study: value for ids, _, values in one for study, value in zip(ids, values, strict=True)}
            for other in passes[:number]:
                before = {study: value for ids, _, values in other for study, value in zip(ids, values, strict=True)}
                assert all(drawn[study] != before[study] for study in drawn)
        for epoch in (2, 0, 1):
            loader.set_epoch(epoch)
            assert contents(loader) == passes[epoch], "set_epoch repeats a pass exactly"
        assert contents(loader) == passes[2], "and the passes after it count on"

    def test_a_pass_that_ends_early_is_an_epoch_too(self):
        loader = StudyLoader(noisy(), batch_size=3, shuffle=True)
        first = next(iter(loader))
        assert contents(loader)[0][2] != first["drawn"].tolist()
        unused = iter(loader)
        loader.set_epoch(0)
        assert next(unused)["drawn"].tolist() == first["drawn"].tolist(), "an iterator that was not used is no pass"

    def test_validation_repeats_one_epoch(self):
        loader = StudyLoader(noisy(), batch_size=3, shuffle=True, advance_epoch=False)
        first = contents(loader)
        assert contents(loader) == first
        loader.set_epoch(1)
        second = contents(loader)
        assert second != first
        assert contents(loader) == second

    def test_loaders_that_share_a_dataset_keep_their_own_epochs(self):
        dataset = noisy()
        training = StudyLoader(dataset, batch_size=8)
        validation = StudyLoader(dataset, batch_size=8, advance_epoch=False)
        fixed = contents(validation)
        passes = []
        for _ in range(3):
            passes.append(contents(training))
            assert contents(validation) == fixed
        assert passes[0] == fixed
        assert len({str(one) for one in passes}) == 3

    @pytest.mark.parametrize("workers", [0, 2])
    def test_bad_studies_stop_or_are_counted(self, workers):
        def loader(on_error, bad):
            dataset = StudyDataset(studies(), Compose([FailOn("image", bad)]), cache_bytes=0)
            return StudyLoader(dataset, batch_size=2, num_workers=workers, on_error=on_error)

        with pytest.raises(StudyError, match=r"^study 's5', image: the file is truncated$"):
            list(loader("raise", {5.0}))
        skipping = loader("skip", {2.0, 3.0, 5.0})
        kept = [study for batch in skipping for study in batch["study_id"]]
        assert kept == ["s0", "s1", "s4", "s6", "s7"]
        assert {key: error.reason for key, error in skipping.skipped.items()} == dict.fromkeys(
            ["s2", "s3", "s5"], "the file is truncated"
        )
        with pytest.raises(
            ValueError,
            match=r"^No study is left: 8 skipped for an error, the first: study 's0', image: the file is truncated\.$",
        ):
            list(loader("skip", set(map(float, range(8)))))
        with pytest.raises(ValueError, match=r"^on_error must be one of 'raise', 'skip', got 'ignore'\.$"):
            loader("ignore", ())

    def test_a_sampler_decides_on_the_order_and_is_told_the_epoch(self):
        dataset = noisy()
        with pytest.raises(ValueError, match=r"^shuffle must be False where a sampler is given, got True\.$"):
            StudyLoader(dataset, batch_size=2, shuffle=True, sampler=SequentialSampler(dataset))
        loaders = [
            StudyLoader(dataset, batch_size=2, sampler=DistributedSampler(dataset, 2, rank)) for rank in range(2)
        ]
        self.check_shares(loaders)

    def test_each_process_has_its_share(self, monkeypatch):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
        loaders = []
        for rank in range(2):
            monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
            loaders.append(StudyLoader(noisy(), batch_size=2, shuffle=True))
        self.check_shares(loaders)

    @staticmethod
    def check_shares(loaders):
        orders = []
        for epoch in range(2):
            for loader in loaders:
                loader.set_epoch(epoch)
            orders.append([study for loader in loaders for batch in loader for study in batch["study_id"]])
        assert sorted(orders[0]) == sorted(orders[1]) == [f"s{i}" for i in range(8)]
        assert orders[0] != orders[1]


class TestCollate:
    def test_pads_stacks_and_lists(self):
        batch = collate_studies(
            [
                {
                    "study_id": "a",
                    "image": torch.zeros(1, 2, 2),
                    "input_ids": torch.tensor([2, 3]),
                    "attention_mask": torch.tensor([1, 1]),
                    "sentence_ids": torch.tensor([-1, 0]),
                    "label": np.ones(3, np.float32),
                },
                {
                    "study_id": "b",
                    "image": torch.ones(1, 2, 2),
                    "input_ids": torch.tensor([2, 9, 3]),
                    "attention_mask": torch.tensor([1, 1, 1]),
                    "sentence_ids": torch.tensor([0, 0, 1]),
                    "label": np.zeros(3, np.float32),
                },
            ]
        )
        assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 9, 3]]
        assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
        assert batch["sentence_ids"].tolist() == [[-1, 0, -1], [0, 0, 1]]
        assert batch["image"].shape == (2, 1, 2, 2)
        assert batch["label"].dtype == torch.float32
        assert batch["study_id"] == ["a", "b"]
        assert batch["image_ids"].tolist() == [hash_id("a"), hash_id("b")] == batch["text_ids"].tolist()
        assert batch["errors"] == []

    def test_numbers_arrays_and_lists_of_every_library(self):
        batch = collate_studies(
            [
                {
                    "study_id": "a",
                    "age": np.float32(7),
                    "row": np.int64(1),
                    "label": torch.ones(2),
                    "input_ids": [2, 3],
                },
                {"study_id": "b", "age": 8.5, "row": 2, "label": np.zeros(2, np.float32), "input_ids": [2, 9, 3]},
            ]
        )
        assert (batch["age"].tolist(), batch["row"].tolist()) == ([7, 8.5], [1, 2])
        assert batch["label"].tolist() == [[1, 1], [0, 0]]
        assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 9, 3]]

    def test_errors_are_passed_on(self):
        error = StudyError("x", "image", "gone")
        assert collate_studies([error]) == {"errors": [error]}

    def test_ids_are_the_same_everywhere(self):
        assert hash_id("s1") == 4958643428320449706

    def test_clear_errors(self):
        with pytest.raises(
            ValueError, match=r"^studies of one batch must all have 'report', got study 'b' without it\.$"
        ):
            collate_studies([{"study_id": "a", "report": "x"}, {"study_id": "b"}])
        with pytest.raises(
            ValueError, match=r"^'image' must have one shape within a batch, got \(1, 2\) and \(1, 3\)\.$"
        ):
            collate_studies([{"image": torch.zeros(1, 2)}, {"image": torch.zeros(1, 3)}])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StudyDataset(None), "studies must be a sequence of dictionaries, got NoneType."),
        (lambda: StudyDataset(5), "studies must be a sequence of dictionaries, got int."),
        (lambda: StudyDataset("ab"), "studies must be a sequence of dictionaries, got str."),
        (lambda: StudyDataset(studies()[0]), "studies must be a sequence of dictionaries, got dict."),
        (lambda: StudyDataset([5])[0], "studies[0] must be a dictionary, got int."),
        (lambda: StudyDataset([], seed=-1), "seed must be at least 0, got -1."),
        (lambda: StudyDataset([]).set_epoch(-1), "epoch must be at least 0, got -1."),
        (lambda: StudyLoader(noisy()).set_epoch(-1), "epoch must be at least 0, got -1."),
        (lambda: StudyLoader(noisy()).set_epoch(1.5), "epoch must be an integer, got 1.5."),
    ],
)
def test_wrong_arguments_are_named(make, sentence):
    with pytest.raises((TypeError, ValueError), match=rf"^{re.escape(sentence)}$"):
        make()


def test_a_sentence_has_one_full_stop():
    loader = StudyLoader(
        StudyDataset([{"study_id": "a", "image": "/no.png"}], LoadStudyImaged("image")), on_error="skip"
    )
    with pytest.raises(ValueError, match=r"does not exist\.$"):
        list(loader)
