"""Batches drawn from several pools at stated rates: exact by epoch, seeded, each process its own share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch.distributed
from torch.utils.data import Sampler

from medvl.data.splits import apportion

#: What is drawn at once: an index, or alternatives of which each draw takes the next (each the indices that go together).
Unit: TypeAlias = "int | Sequence[Sequence[int]]"


class MixedBatchSampler(Sampler[list[int]]):
    """Batches that mix pools of studies at stated rates.

    The rates hold for the epoch, to the draw, and for every run of draws within it, to about one: each batch is a mixture
    like the epoch's. A pool is gone through in a new order each time, from epoch to epoch without a break: no unit is drawn
    again before all others of its pool were. What is drawn depends on (seed, epoch) alone.

    Batches have ``batch_size`` units or a few less, all of one size but for one unit: no small one comes at the end.
    Processes get as many batches as each other, and together draw what a single one would draw.

    Args:
        pools: for each source its units: indices of the dataset, or lists of alternatives (several views of a study, or
            several sentences of a report, one of which is drawn each time), each the list of indices to draw together.
        batch_size: units of a process in a step, at least 1.
        rates: share of each pool, at least 0; scaled to sum 1. Default: by size, each unit once an epoch.
        length: units that all processes draw in an epoch. Default: as many as there are.
        steps: batches of an epoch, in place of ``length``: each then has ``batch_size`` units.
        seed: an integer, at least 0.
        num_replicas: number of processes. Default: those of ``torch.distributed`` where it runs, else 1.
        rank: which of them this is.

    Raises:
        ValueError: for no unit at all, a rate above 0 of an empty pool, fewer units than processes, or an argument out of
            its range.

    Example:
        >>> sampler = MixedBatchSampler([range(4), range(4, 12)], batch_size=4, rates=[0.5, 0.5])
        >>> [sorted(index >= 4 for index in batch) for batch in sampler]
        [[False, False, True, True], [False, False, True, True], [False, False, True, True]]
    """

    def __init__(
        self,
        pools: Sequence[Sequence[Unit]],
        batch_size: int,
        rates: Sequence[float] | None = None,
        length: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("length", length), ("steps", steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, received {value}")
        if length is not None and steps is not None:
            raise ValueError(f"length and steps exclude each other, received {length} and {steps}")
        self.num_replicas, self.rank = process_place(num_replicas, rank)
        self.pools = [list(map(_alternatives, pool)) for pool in pools]
        sizes = [len(pool) for pool in self.pools]
        shares = _shares(sizes, rates)
        if steps is None:
            length = length or sum(sizes)
            # never fewer units in a step than processes
            steps = min(math.ceil(length / (batch_size * self.num_replicas)), length // self.num_replicas)
        else:
            length = steps * batch_size * self.num_replicas
        if not steps:
            raise ValueError(f"{length} units cannot be shared out among {self.num_replicas} processes")
        self.steps, self.length, self.seed, self.epoch = steps, length, seed, 0
        self.counts = apportion(length, shares)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 0 on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        draws = self._draws()
        for step in range(self.steps):
            start = self.length * step // self.steps
            size = self.length * (step + 1) // self.steps - start
            # neighbours and not every n-th: those would be of one pool where the pools take turns
            first = start + size * self.rank // self.num_replicas
            last = start + size * (self.rank + 1) // self.num_replicas
            yield [index for unit in draws[first:last] for index in unit]

    def _draws(self) -> list[Sequence[int]]:
        """What all processes draw in this epoch, in order; each unit as the indices to draw together."""
        units = [self._from_pool(i, count) for i, count in enumerate(self.counts)]
        when = np.concatenate([(np.arange(count) + 0.5) / count if count else np.zeros(0) for count in self.counts])
        flat = [unit for drawn in units for unit in drawn]
        return [flat[i] for i in np.argsort(when, kind="stable")]

    def _from_pool(self, number: int, count: int) -> list[Sequence[int]]:
        pool = self.pools[number]
        drawn: list[Sequence[int]] = []
        position = self.epoch * count
        while len(drawn) < count:
            turn, begin = divmod(position, len(pool))
            order = np.random.default_rng([self.seed, number, turn]).permutation(len(pool))
            for i in order[begin : begin + count - len(drawn)]:
                drawn.append(pool[i][(int(i) + turn) % len(pool[i])])
            position = self.epoch * count + len(drawn)
        return drawn


class DecoupledBatchSampler(Sampler[list[int]]):
    """Any images against any texts: each batch has images and texts that were drawn without regard to each other.

    From N images and M texts a loss that goes by labels learns from N x M combinations (MedCLIP, Wang et al., EMNLP 2022).
    An epoch goes once through the images (or ``length`` of them); the texts go on where the epoch before left them.

    Args:
        image_pools: units of images of each source, see :class:`MixedBatchSampler`.
        text_pools: units of texts of each source.
        num_images: images of a process in a step, N.
        num_texts: texts of a process in a step, M. Default: N.
        image_rates: share of each image pool.
        text_rates: share of each text pool.
        length: images that all processes draw in an epoch. Default: as many as there are.
        seed: an integer, at least 0.
        num_replicas: see :class:`MixedBatchSampler`.
        rank: see :class:`MixedBatchSampler`.

    Raises:
        ValueError: where there are no images or no texts; for the rest see :class:`MixedBatchSampler`.

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
        image_rates: Sequence[float] | None = None,
        text_rates: Sequence[float] | None = None,
        length: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        for name, pools in (("image_pools", image_pools), ("text_pools", text_pools)):
            if not any(len(pool) for pool in pools):
                raise ValueError(f"{name} must hold at least one unit, received none")
        self.images = MixedBatchSampler(
            image_pools, num_images, image_rates, length, seed=seed, num_replicas=num_replicas, rank=rank
        )
        self.texts = MixedBatchSampler(
            text_pools,
            num_images if num_texts is None else num_texts,
            text_rates,
            steps=len(self.images),
            seed=seed + 1,
            num_replicas=num_replicas,
            rank=rank,
        )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 0 on."""
        self.images.set_epoch(epoch)
        self.texts.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[list[int]]:
        for images, texts in zip(self.images, self.texts, strict=True):
            yield [*images, *texts]


def _alternatives(unit: Unit) -> Sequence[Sequence[int]]:
    return ((unit,),) if isinstance(unit, int | np.integer) else unit


def _shares(sizes: Sequence[int], rates: Sequence[float] | None) -> list[float]:
    if not sum(sizes):
        raise ValueError(f"pools must hold at least one unit, received sizes {list(sizes)}")
    given = [float(rate) for rate in (sizes if rates is None else rates)]
    if len(given) != len(sizes) or min(given) < 0 or not 0 < sum(given) < math.inf:
        raise ValueError(f"rates must be {len(sizes)} numbers of at least 0, one for each pool, received {given}")
    empty = [i for i, (size, rate) in enumerate(zip(sizes, given, strict=True)) if rate and not size]
    if empty:
        raise ValueError(f"rates: pool {empty[0]} has a rate of {given[empty[0]]:g} but no units")
    return [rate / sum(given) for rate in given]


def process_place(num_replicas: int | None = None, rank: int | None = None) -> tuple[int, int]:
    """How many processes share the work, and which of them this is; by default as ``torch.distributed`` has it, or alone."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if num_replicas is None:
        num_replicas = torch.distributed.get_world_size() if distributed else 1
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if not 0 <= rank < num_replicas:
        raise ValueError(f"rank must be in [0, {num_replicas}), received {rank}")
    return num_replicas, rank
