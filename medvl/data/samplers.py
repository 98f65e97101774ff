"""Batch samplers that draw from several pools with given weights: exact over an epoch, seeded, one share for each process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from medvl.data.splits import allocate_counts
from medvl.data.units import Unit
from medvl.utils.checks import check_integer, error_message
from medvl.utils.distributed import get_rank, get_world_size


class MixedBatchSampler(Sampler[list[int]]):
    """Batches that mix several pools of studies in given proportions.

    The proportions hold exactly for the epoch, and to about one unit for every batch. Each pool is permuted anew on each
    pass and passes continue across epochs: no unit is drawn again before all other units of its pool were. The draws
    depend only on ``seed`` and the epoch.

    All batches have the same size to within one unit, at most ``batch_size``; there is no small last batch. All processes
    get the same number of batches, and together they draw what a single process would draw.

    Args:
        pools: for each source its units: indices into the dataset, or lists of alternatives (several views of a study, or
            several sentences of a report, one of which is drawn each time), each alternative a list of indices that are
            drawn together.
        batch_size: units for each process in a step, at least 1.
        sampling_weights: weight of each pool, at least 0; normalized to sum 1. Default: the pools' sizes, so that each unit
            is drawn once in an epoch.
        length: units that all processes draw in an epoch. Default: the number of units.
        steps: batches in an epoch, instead of ``length``; every batch then has ``batch_size`` units.
        seed: an integer, at least 0.
        num_replicas: number of processes. Default: the world size.
        rank: rank of this process. Default: the current rank.

    Raises:
        TypeError: If ``batch_size``, ``length`` or ``steps`` is not an integer.
        ValueError: If there are no units or fewer units than processes, if an empty pool has a positive weight, or if an
            argument is out of range.

    Example:
        >>> sampler = MixedBatchSampler([range(4), range(4, 12)], batch_size=4, sampling_weights=[0.5, 0.5])
        >>> [sorted(index >= 4 for index in batch) for batch in sampler]
        [[False, False, True, True], [False, False, True, True], [False, False, True, True]]
    """

    def __init__(
        self,
        pools: Sequence[Sequence[Unit]],
        batch_size: int,
        sampling_weights: Sequence[float] | None = None,
        length: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("length", length), ("steps", steps)):
            if value is not None:
                check_integer(value, name, minimum=1)
        if length is not None and steps is not None:
            raise ValueError(error_message("length", "be None where steps is given", length))
        self.num_replicas, self.rank = resolve_rank(num_replicas, rank)
        self.pools = list(pools)
        sizes = [len(pool) for pool in self.pools]
        shares = _shares(sizes, sampling_weights)
        if steps is None:
            length = length or sum(sizes)
            # Never fewer units in a step than processes.
            steps = min(math.ceil(length / (batch_size * self.num_replicas)), length // self.num_replicas)
        else:
            length = steps * batch_size * self.num_replicas
        if not steps:
            raise ValueError(error_message("length", f"be at least {self.num_replicas}, one unit a process", length))
        self.steps, self.length, self.seed, self.epoch = steps, length, seed, 0
        self.counts = allocate_counts(length, shares)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0 on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        pools, units, passes = self._draw_epoch()
        for step in range(self.steps):
            start = self.length * step // self.steps
            size = self.length * (step + 1) // self.steps - start
            # Adjacent units rather than every n-th: where pools alternate, every n-th would come from one pool.
            own = slice(
                start + size * self.rank // self.num_replicas, start + size * (self.rank + 1) // self.num_replicas
            )
            batch: list[int] = []
            for pool, unit, number in zip(*(values[own].tolist() for values in (pools, units, passes)), strict=True):
                alternatives = _alternatives(self.pools[pool][unit])
                batch += alternatives[(unit + number) % len(alternatives)]
            yield batch

    def _draw_epoch(self) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int64]]:
        """The draws of all processes in this epoch, in order: of each its pool, its unit in that, and the pass over it."""
        drawn = [self._draw_from_pool(number, count) for number, count in enumerate(self.counts)]
        # Each pool's draws are evenly spaced over the epoch, which makes every batch a mixture like the whole.
        when = np.concatenate([(np.arange(count) + 0.5) / count if count else np.zeros(0) for count in self.counts])
        order = np.argsort(when, kind="stable")
        pools = np.repeat(np.arange(len(self.counts), dtype=np.int16), self.counts)
        units, passes = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        return pools[order], units[order], passes[order]

    def _draw_from_pool(self, number: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The units that are drawn from a pool, and of each the number of the pass over the pool."""
        size = len(self.pools[number])
        units, passes = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        done = 0
        while done < count:
            number_of_pass, begin = divmod(self.epoch * count + done, size)
            order = np.random.default_rng([self.seed, number, number_of_pass]).permutation(size)
            some = order[begin : begin + count - done]
            units[done : done + len(some)], passes[done : done + len(some)] = some, number_of_pass
            done += len(some)
        return units, passes


class DecoupledBatchSampler(Sampler[list[int]]):
    """Batches of N images and M texts that are sampled independently of each other.

    A loss that compares labels learns from all N x M combinations (MedCLIP, Wang et al., EMNLP 2022). An epoch is one pass
    over the images (or ``length`` of them); the texts continue where the previous epoch ended.

    Args:
        image_pools: units of images for each source, see :class:`MixedBatchSampler`.
        text_pools: units of texts for each source.
        num_images: images for each process in a step, N.
        num_texts: texts for each process in a step, M. Default: N.
        image_sampling_weights: weight of each image pool.
        text_sampling_weights: weight of each text pool.
        length: images that all processes draw in an epoch. Default: the number of images.
        seed: an integer, at least 0.
        num_replicas: see :class:`MixedBatchSampler`.
        rank: see :class:`MixedBatchSampler`.

    Raises:
        ValueError: If there are no images or no texts, or as :class:`MixedBatchSampler`.

    Example:
        >>> sampler = DecoupledBatchSampler([range(6)], [range(6, 100)], num_images=2, num_texts=3)
        >>> [(sum(i < 6 for i in batch), sum(i >= 6 for i in batch)) for batch in sampler]
        [(2, 3), (2, 3), (2, 3)]
    """

    def __init__(
        self,
        image_pools: Sequence[Sequence[Unit]],
        text_pools: Sequence[Sequence[Unit]],
        num_images: int,
        num_texts: int | None = None,
        image_sampling_weights: Sequence[float] | None = None,
        text_sampling_weights: Sequence[float] | None = None,
        length: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        for name, pools in (("image_pools", image_pools), ("text_pools", text_pools)):
            if not any(len(pool) for pool in pools):
                raise ValueError(error_message(name, "hold at least one unit", "none"))
        num_texts = num_images if num_texts is None else num_texts
        check_integer(num_images, "num_images", minimum=1)
        check_integer(num_texts, "num_texts", minimum=1)
        self.images = MixedBatchSampler(
            image_pools, num_images, image_sampling_weights, length, seed=seed, num_replicas=num_replicas, rank=rank
        )
        self.texts = MixedBatchSampler(
            text_pools,
            num_texts,
            text_sampling_weights,
            steps=len(self.images),
            seed=seed + 1,
            num_replicas=num_replicas,
            rank=rank,
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0 on."""
        self.images.set_epoch(epoch)
        self.texts.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[list[int]]:
        for images, texts in zip(self.images, self.texts, strict=True):
            yield [*images, *texts]


class DistributedBatchSampler(Sampler[list[int]]):
    """The share of one process in batches that all processes draw together.

    The batches of all processes at one step are the batch of ``num_replicas`` times the size that a single process would draw,
    cut into adjacent shares whose sizes differ by at most one. Every index is drawn once in an epoch, however many processes
    there are, and all processes have the same number of batches. A rest of fewer indices than processes joins the batch before
    it, so that no share is empty.

    Args:
        sampler: the order of the indices of an epoch, the same in every process.
        batch_size: indices for each process in a step, at least 1.
        drop_last: whether to drop the indices after the last whole batch of all processes.
        num_replicas: number of processes. Default: the world size.
        rank: rank of this process. Default: the current rank.

    Raises:
        TypeError: If ``batch_size`` is not an integer.
        ValueError: If ``batch_size`` is below 1, or there are fewer indices than processes.

    Example:
        >>> [list(DistributedBatchSampler(range(9), 2, num_replicas=2, rank=rank)) for rank in (0, 1)]
        [[[0, 1], [4, 5]], [[2, 3], [6, 7, 8]]]
    """

    def __init__(
        self,
        sampler: Sequence[int] | Sampler[int],
        batch_size: int,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        check_integer(batch_size, "batch_size", minimum=1)
        self.num_replicas, self.rank = resolve_rank(num_replicas, rank)
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        total = len(sampler)  # type: ignore[arg-type]  # of a sampler with a length
        if total < self.num_replicas:
            expected = f"have at least {self.num_replicas} indices, one for each process"
            raise ValueError(error_message("sampler", expected, total))
        steps, rest = divmod(total, batch_size * self.num_replicas)
        if not drop_last and (rest >= self.num_replicas or not steps):
            steps += 1
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size * self.num_replicas
        order = iter(self.sampler)
        for step in range(self.steps):
            last = step == self.steps - 1 and not self.drop_last
            batch = list(order if last else islice(order, size))
            first = len(batch) * self.rank // self.num_replicas
            yield batch[first : len(batch) * (self.rank + 1) // self.num_replicas]


def _alternatives(unit: Unit) -> Sequence[Sequence[int]]:
    return ((int(unit),),) if isinstance(unit, int | np.integer) else unit


def _shares(sizes: Sequence[int], sampling_weights: Sequence[float] | None) -> list[float]:
    if not sum(sizes):
        raise ValueError(error_message("pools", "hold at least one unit", f"pools of sizes {list(sizes)}"))
    weights = [float(weight) for weight in (sizes if sampling_weights is None else sampling_weights)]
    if len(weights) != len(sizes) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        expected = f"be {len(sizes)} numbers of at least 0, one for each pool, with a positive sum"
        raise ValueError(error_message("sampling_weights", expected, weights))
    for i, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        if weight and not size:
            raise ValueError(error_message("sampling_weights", f"be 0 for pool {i}, which is empty", f"{weight:g}"))
    return [weight / sum(weights) for weight in weights]


def resolve_rank(num_replicas: int | None = None, rank: int | None = None) -> tuple[int, int]:
    """Number of processes and rank of this one; those that are None come from :mod:`medvl.utils.distributed`.

    Raises:
        ValueError: If ``rank`` is not in [0, ``num_replicas``).
    """
    num_replicas = get_world_size() if num_replicas is None else num_replicas
    rank = get_rank() if rank is None else rank
    if not 0 <= rank < num_replicas:
        raise ValueError(error_message("rank", f"be in [0, {num_replicas})", rank))
    return num_replicas, rank
