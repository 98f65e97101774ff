"""Batches of studies: shuffled reproducibly, bad studies counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from medvl.data.collate import collate_studies
from medvl.data.dataset import StudyDataset
from medvl.data.samplers import process_place
from medvl.data.unified import UnifiedDataset
from medvl.utils.errors import StudyError, check_on_error


class StudyLoader(DataLoader):
    """A ``DataLoader`` whose batches depend on (seed, epoch) alone, not on the global state.

    Args:
        dataset: the studies, a :class:`StudyDataset` or :class:`UnifiedDataset`.
        batch_size: studies in a batch, at least 1; leave it out where ``batch_sampler`` is given.
        shuffle: whether to draw a new order each epoch; where ``torch.distributed`` runs, each process then has its own share
            (all of one length, for which a few studies may be drawn twice).
        on_error: "raise" stops at the first bad study with its :class:`~medvl.utils.errors.StudyError`; "skip" leaves it out of
            its batch and records it in ``skipped``; a batch left with no study at all is passed over, and where no study at
            all is left, iterating raises ``ValueError``.
        require: keys without which a batch is passed over, as one that has lost its only image.
        **options: as for ``torch.utils.data.DataLoader``; a ``sampler`` is told the epoch.

    Attributes:
        skipped: the errors of the studies left out so far, by study id.

    Raises:
        ValueError: where ``on_error`` is neither "raise" nor "skip", or for ``shuffle`` beside a sampler.

    Example:
        >>> loader = StudyLoader(StudyDataset([{"study_id": str(i), "age": i} for i in range(5)]), batch_size=2)
        >>> [batch["age"].tolist() for batch in loader]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: StudyDataset | UnifiedDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        on_error: str = "raise",
        require: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.on_error = check_on_error(on_error)
        self.require = tuple(require)
        self.skipped: dict[str, StudyError] = {}
        options.setdefault("collate_fn", collate_studies)
        # one generator for the order and one for what torch draws for its workers: their number must not change the order
        self._order = torch.Generator()
        if shuffle and options.get("sampler") is not None:
            raise ValueError("shuffle and sampler exclude each other: the sampler decides on the order")
        if shuffle:
            replicas, rank = process_place()
            options["sampler"] = (
                DistributedSampler(dataset, replicas, rank, seed=dataset.seed)
                if replicas > 1
                else RandomSampler(dataset, generator=self._order)
            )
        super().__init__(dataset, batch_size=batch_size, generator=torch.Generator(), **options)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch: the order of studies and what the random transforms draw."""
        self.dataset.set_epoch(epoch)
        seed = np.random.SeedSequence([self.dataset.seed, epoch]).generate_state(1, np.uint64)[0]
        self._order.manual_seed(int(seed) >> 1)
        for sampler in (self.sampler, self.batch_sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        left_out: dict[str, StudyError] = {}
        all_lost = True
        for batch in super().__iter__():
            errors = batch.pop("errors", [])
            if errors and self.on_error == "raise":
                raise errors[0]
            left_out.update((error.study_id, error) for error in errors)
            self.skipped.update(left_out)
            all_lost &= not batch
            if batch and all(key in batch for key in self.require):
                yield batch
        if all_lost and left_out:
            first = next(iter(left_out.values()))
            raise ValueError(f"no study is left: {len(left_out)} skipped for an error, the first: {first}")


def unified_loader(
    dataset: UnifiedDataset,
    batch_size: int,
    num_texts: int | None = None,
    rates: Mapping[str, float] | None = None,
    text_rates: Mapping[str, float] | None = None,
    on_error: str = "raise",
    num_workers: int = 0,
    may_be_empty: bool = False,
    **options: Any,
) -> StudyLoader:
    """The loader of a :class:`UnifiedDataset`, with its sampler; every batch has an image and a text.

    Args:
        dataset: the studies.
        batch_size: see :meth:`UnifiedDataset.sampler`, as for the next three.
        num_texts: see there.
        rates: see there.
        text_rates: see there.
        on_error: see :class:`StudyLoader`.
        num_workers: processes that load.
        may_be_empty: give a loader without studies where there are no images or no texts, as in a validation split, in
            place of an error.
        **options: as for ``torch.utils.data.DataLoader``.

    Raises:
        ValueError: where there are no images or no texts; for the rest see :meth:`UnifiedDataset.sampler`.
    """
    sides = {"image": len(dataset.images), "text": len(dataset.texts) + len(dataset.prompts)}
    missing = [side for side, number in sides.items() if not number]
    if missing and may_be_empty:
        return StudyLoader(UnifiedDataset([]), on_error=on_error)
    if missing:
        raise ValueError(f"the studies have no {missing[0]} to train on; expected images and texts")
    sampler = dataset.sampler(batch_size, num_texts, rates, text_rates)
    return StudyLoader(
        dataset,
        batch_sampler=sampler,
        on_error=on_error,
        require=("image", "input_ids"),
        num_workers=num_workers,
        **options,
    )
