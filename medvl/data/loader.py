"""Data loaders of studies: reproducible order, bad studies raised or skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from medvl.data.collate import collate_studies
from medvl.data.dataset import StudyDataset
from medvl.data.samplers import DistributedBatchSampler
from medvl.data.unified import UnifiedDataset
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.distributed import get_world_size
from medvl.utils.errors import StudyError


class StudyLoader(DataLoader[dict[str, Any]]):
    """A ``DataLoader`` whose batches depend only on the dataset's seed and the epoch, not on the global random state.

    Every pass over the loader is a new epoch: the first is epoch 0, and each has its own order and augmentation.
    :meth:`set_epoch` sets the epoch of the next pass, to repeat one exactly or to resume; the passes after it count on.
    :meth:`state_dict` says how far a pass has got, and :meth:`load_state_dict` lets the next pass go on with the batch after
    it, without reading the studies before it, whatever the number of workers.

    Args:
        dataset: the studies, a :class:`StudyDataset` or :class:`UnifiedDataset`.
        batch_size: studies in a batch, at least 1; omit it if ``batch_sampler`` is given.
        shuffle: whether to shuffle in every epoch; with several processes each then gets its share of the batches that all of
            them draw together, each study once (:class:`~medvl.data.DistributedBatchSampler`).
        on_error: ``"raise"`` the :class:`~medvl.utils.errors.StudyError` of the first bad study; or ``"skip"`` bad studies and
            record them in ``skipped``. An empty batch is skipped, and if an epoch has no study at all, iterating raises
            ``ValueError``.
        required_keys: a batch without all of these keys is skipped, such as one whose only image could not be read.
        advance_epoch: whether every pass is a new epoch. False repeats the same epoch until :meth:`set_epoch`, as for
            validation, which must draw the same batches each time.
        **options: as for ``torch.utils.data.DataLoader``; ``set_epoch`` of a sampler is called if it has one.

    Attributes:
        skipped: the errors of the studies skipped so far, by study id.

    Raises:
        ValueError: If ``on_error`` is unknown, or ``shuffle`` is given with a sampler.

    Example:
        >>> loader = StudyLoader(StudyDataset([{"study_id": str(i), "age": i} for i in range(5)]), batch_size=2)
        >>> [batch["age"].tolist() for batch in loader]
        [[0, 1], [2, 3], [4]]
    """

    dataset: StudyDataset | UnifiedDataset

    def __init__(
        self,
        dataset: StudyDataset | UnifiedDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        on_error: str = "raise",
        required_keys: Sequence[str] = (),
        advance_epoch: bool = True,
        **options: Any,
    ) -> None:
        check_option(on_error, "on_error", ("raise", "skip"))
        self.on_error = on_error
        self.advance_epoch = advance_epoch
        self.required_keys = tuple(required_keys)
        self.skipped: dict[str, StudyError] = {}
        options.setdefault("collate_fn", collate_studies)
        # The order has a generator of its own: what torch draws for its workers must not change it.
        self._order = torch.Generator()
        if shuffle and options.get("sampler") is not None:
            raise ValueError(error_message("shuffle", "be False where a sampler is given", shuffle))
        if shuffle:
            order = RandomSampler(dataset, generator=self._order)
            if get_world_size() > 1 and len(dataset):
                drop_last = options.pop("drop_last", False)
                options["batch_sampler"] = DistributedBatchSampler(order, batch_size, drop_last)
                batch_size = 1  # what DataLoader takes beside a batch sampler
            else:
                options["sampler"] = order
        super().__init__(dataset, batch_size=batch_size, generator=torch.Generator(), **options)
        self._batches = _RemainingBatches(super()._index_sampler)
        self.set_epoch(0)

    @property
    def _index_sampler(self) -> Any:
        return getattr(self, "_batches", None) or super()._index_sampler

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass, which the order of the studies and the random transforms depend on.

        Args:
            epoch: at least 0.
        """
        check_integer(epoch, "epoch", minimum=0)
        self._start_at(epoch, 0)

    def _start_at(self, epoch: int, batch: int) -> None:
        """Let the next pass begin with a batch of an epoch."""
        self._next_epoch, self._next_batch = self._position = epoch, batch
        self._seed(epoch)

    def state_dict(self) -> dict[str, int]:
        """How far the loader has got: the epoch, and the number of its batches that were taken, empty ones included."""
        epoch, batches = self._position
        return {"epoch": epoch, "batches": batches, "studies": len(self.dataset), "seed": self.dataset.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next pass go on where a loader of the same studies had got to.

        Args:
            state: what :meth:`state_dict` returned.

        Raises:
            ValueError: If the state is that of another number of studies or another seed, or has more batches than an epoch.
        """
        own = self.state_dict()
        for name in ("studies", "seed"):
            if state[name] != own[name]:
                raise ValueError(error_message(f"{name} of the state", f"be {own[name]}, as here", state[name]))
        if not 0 <= state["batches"] <= len(self):
            expected = f"be at least 0 and at most {len(self)}, the batches of an epoch"
            raise ValueError(error_message("batches of the state", expected, state["batches"]))
        self._start_at(state["epoch"], state["batches"])

    def _seed(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)
        seed = np.random.SeedSequence([self.dataset.seed, epoch]).generate_state(1, np.uint64)[0]
        self._order.manual_seed(int(seed) >> 1)
        for sampler in (self.sampler, self.batch_sampler):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # a generator
        # Seeded when the pass begins: the dataset may be shared with a loader that is at another epoch.
        epoch, first = self._position = self._next_epoch, self._next_batch
        self._seed(epoch)
        self._batches.start = first
        self._next_epoch, self._next_batch = epoch + self.advance_epoch, 0
        skipped: dict[str, StudyError] = {}
        all_lost = True
        for number, batch in enumerate(super().__iter__(), start=first + 1):
            self._position = epoch, number
            errors = batch.pop("errors", [])
            if errors and self.on_error == "raise":
                raise errors[0]
            skipped.update((error.study_id, error) for error in errors)
            self.skipped.update(skipped)
            all_lost &= not batch
            if batch and all(key in batch for key in self.required_keys):
                yield batch
        self._position = self._next_epoch, self._next_batch
        if all_lost and skipped:
            error = next(iter(skipped.values()))
            raise ValueError(
                f"No study is left: {len(skipped)} skipped for an error, the first: {str(error).removesuffix('.')}."
            )


class _RemainingBatches:
    """The batches of a sampler from number ``start`` on; its length is that of the whole epoch.

    Args:
        sampler: gives the indices of each batch.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.start = sampler, 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.sampler), self.start, None)


def unified_loader(
    dataset: UnifiedDataset,
    batch_size: int,
    num_texts: int | None = None,
    sampling_weights: Mapping[str, float] | None = None,
    text_sampling_weights: Mapping[str, float] | None = None,
    on_error: str = "raise",
    num_workers: int = 0,
    allow_empty: bool = False,
    **options: Any,
) -> StudyLoader:
    """The loader of a :class:`UnifiedDataset` with its sampler; every batch has an image and a text.

    Args:
        dataset: the studies.
        batch_size: see :meth:`UnifiedDataset.sampler`.
        num_texts: see :meth:`UnifiedDataset.sampler`.
        sampling_weights: see :meth:`UnifiedDataset.sampler`.
        text_sampling_weights: see :meth:`UnifiedDataset.sampler`.
        on_error: see :class:`StudyLoader`.
        num_workers: number of worker processes.
        allow_empty: whether to return a loader without studies, instead of an error, if there are no images or no texts
            (as may happen in a validation split).
        **options: as for :class:`StudyLoader` and ``torch.utils.data.DataLoader``.

    Raises:
        ValueError: If there are no images or no texts, or as :meth:`UnifiedDataset.sampler`.
    """
    counts = {"image": len(dataset.images), "text": len(dataset.texts) + len(dataset.prompts)}
    missing = [name for name, count in counts.items() if not count]
    if missing and allow_empty:
        return StudyLoader(UnifiedDataset([]), on_error=on_error)
    if missing:
        raise ValueError(error_message("dataset", "have images and texts", f"no {missing[0]}"))
    sampler = dataset.sampler(batch_size, num_texts, sampling_weights, text_sampling_weights)
    return StudyLoader(
        dataset,
        batch_sampler=sampler,
        on_error=on_error,
        required_keys=("image", "input_ids"),
        num_workers=num_workers,
        **options,
    )
