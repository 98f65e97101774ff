"""Batches of studies: shuffled reproducibly, bad studies counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from medvl.data.collate import collate_studies
from medvl.data.dataset import StudyDataset
from medvl.data.unified import UnifiedDataset
from medvl.errors import StudyError, check_on_error


class StudyLoader(DataLoader):
    """A ``DataLoader`` whose batches depend on (seed, epoch) alone, not on the global state.

    Args:
        dataset: the studies, a :class:`StudyDataset` or :class:`UnifiedDataset`.
        batch_size: studies in a batch, at least 1; leave it out where ``batch_sampler`` is given.
        shuffle: whether to draw a new order each epoch.
        on_error: "raise" stops at the first bad study with its :class:`~medvl.errors.StudyError`; "skip" leaves it out of
            its batch and records it in ``skipped``; a batch left with no study at all is passed over.
        require: keys without which a batch is passed over, as one that has lost its only image.
        **options: as for ``torch.utils.data.DataLoader``.

    Attributes:
        skipped: the errors of the studies left out so far, by study id.

    Raises:
        ValueError: where ``on_error`` is neither "raise" nor "skip".

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
        if shuffle:
            options["sampler"] = RandomSampler(dataset, generator=self._order)
        super().__init__(dataset, batch_size=batch_size, generator=torch.Generator(), **options)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch: the order of studies and what the random transforms draw."""
        self.dataset.set_epoch(epoch)
        seed = np.random.SeedSequence([self.dataset.seed, epoch]).generate_state(1, np.uint64)[0]
        self._order.manual_seed(int(seed) >> 1)
        if hasattr(self.batch_sampler, "set_epoch"):
            self.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in super().__iter__():
            errors = batch.pop("errors", [])
            if errors and self.on_error == "raise":
                raise errors[0]
            self.skipped.update((error.study_id, error) for error in errors)
            if batch and all(key in batch for key in self.require):
                yield batch
