"""A map-style dataset of studies with reproducible random transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms import Compose, Randomizable
from monai.transforms import Transform as MonaiTransform
from torch.utils.data import Dataset, get_worker_info

from medvl.transforms.study import study_id_of
from medvl.utils.checks import check_integer, error_message
from medvl.utils.errors import StudyError
from medvl.utils.threads import torch_threads

Transform: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
TransformChain: TypeAlias = Transform | Sequence[Transform]


class StudyDataset(Dataset[dict[str, Any]]):
    """Studies with transforms whose random draws are reproducible for every item.

    Random transforms are seeded from (``seed``, epoch, index), so an item does not depend on the order of access, the worker
    process, the number of workers and of PyTorch's threads or whether the run was resumed. :class:`StudyLoader` makes every
    pass a new epoch; with a plain ``DataLoader``, which knows of no epochs, call :meth:`set_epoch` before each pass.

    The transforms before the first random one are applied once a study and cached, as in MONAI's ``CacheDataset``, up to
    ``cache_bytes`` of tensors; :meth:`load` fills the cache. The random transforms get a copy of the cached item, with
    plain tensors instead of ``MetaTensor``.

    Args:
        studies: dictionaries with at least ``study_id`` (see :func:`~medvl.data.read_manifest`).
        transform: a callable on dictionaries, usually MONAI's ``Compose``, or a list of them.
        seed: of the random transforms; an integer, at least 0.
        cache_bytes: maximum size of the cached tensors, those of all worker processes of a loader together; 0 disables the
            cache.

    Raises:
        TypeError: If ``studies`` is not a sequence, or ``seed`` not an integer.
        ValueError: If ``seed`` is below 0.

    Example:
        >>> from monai.transforms import RandLambdad
        >>> noise = RandLambdad("image", lambda x: x + torch.rand(()) * 0, prob=0.5)
        >>> dataset = StudyDataset([{"study_id": "a", "image": torch.ones(1, 4, 4)}], noise, seed=3)
        >>> bool((dataset[0]["image"] == dataset[0]["image"]).all())
        True
    """

    def __init__(
        self,
        studies: Sequence[Mapping[str, Any]],
        transform: TransformChain | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        if not (hasattr(studies, "__len__") and hasattr(studies, "__getitem__")) or isinstance(studies, str | Mapping):
            raise TypeError(error_message("studies", "be a sequence of dictionaries", type(studies).__name__))
        check_integer(seed, "seed", minimum=0)
        self.studies = studies
        self.steps = list(_flatten(transform))
        self.seed = seed
        self.cache_bytes = cache_bytes
        self._cache: dict[int, dict[str, Any] | StudyError] = {}
        self._cached_bytes = self._parent_bytes = 0
        self._full = False
        self._first_random = next((i for i, step in enumerate(self.steps) if _may_be_random(step)), len(self.steps))
        self._random = np.random.RandomState()
        # In shared memory, so that persistent workers see a new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.studies)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the random transforms are seeded with, at least 0."""
        check_integer(epoch, "epoch", minimum=0)
        self._epoch.fill_(epoch)

    def load(self, progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None, threads: int = 2) -> None:
        """Fill the cache up to ``cache_bytes``; a study that fails raises when it is accessed.

        Args:
            progress: wraps the iteration over studies, as ``tqdm`` does.
            threads: number of files that are decoded at once.
        """

        def fill() -> Iterator[Any]:
            indices = iter(range(len(self)))
            with ThreadPoolExecutor(threads) as pool:
                # Few at a time: what comes after the cache is full is not read.
                while not self._full and (some := list(islice(indices, 16 * threads))):
                    yield from pool.map(self._prepare, some)

        if self.cache_bytes and self._first_random:
            with torch_threads(1):
                for _ in progress(fill()) if progress else fill():
                    pass

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The study after all transforms.

        Raises:
            StudyError: If a transform fails; it names the study, the transform's keys and the reason.
        """
        with torch_threads(1):  # as in a worker process
            return self._item(range(len(self))[index])

    def _item(self, index: int) -> dict[str, Any]:
        prepared = self._prepare(index)
        if isinstance(prepared, StudyError):
            raise prepared
        item = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in prepared.items()}
        random_steps = self.steps[self._first_random :]
        if not random_steps:
            return item
        # One state for all steps: creating a RandomState costs more than most transforms.
        self._random.seed(np.random.SeedSequence([self.seed, int(self._epoch), index]).generate_state(1))
        for step in random_steps:
            if isinstance(step, Randomizable):
                step.set_random_state(state=self._random)
        with _plain_tensors():
            return self._apply(random_steps, item)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any] | StudyError]:
        """Several studies at once; one that fails is replaced by its :class:`StudyError`.

        A ``DataLoader`` calls this method, so a bad study neither stops a worker nor loses its message there.
        """
        return get_items(self, indices)

    def _prepare(self, index: int) -> dict[str, Any] | StudyError:
        """The study after the deterministic transforms, from the cache if it is there."""
        if index in self._cache:
            cached = self._cache[index]
            return without_traceback(cached) if isinstance(cached, StudyError) else cached
        size = 0
        item: dict[str, Any] | StudyError
        try:
            study = self.studies[index]
            if not isinstance(study, Mapping):
                raise TypeError(error_message(f"studies[{index}]", "be a dictionary", type(study).__name__))
            item = self._apply(self.steps[: self._first_random], dict(study))
            size = sum(
                value.numel() * value.element_size() for value in item.values() if isinstance(value, torch.Tensor)
            )
        except StudyError as error:
            item = error
        if self.cache_bytes and self._first_random:
            self._keep(index, item, size)
        return item

    def _keep(self, index: int, item: dict[str, Any] | StudyError, size: int) -> None:
        """Cache an item if there is room: the workers of a loader have equal shares of what their parent has left."""
        worker = get_worker_info()
        own, room = self._cached_bytes, self.cache_bytes
        if worker is not None:
            own, room = own - self._parent_bytes, (room - self._parent_bytes) // worker.num_workers
        if own + size > room:
            self._full = True
            return
        self._cache[index] = without_traceback(item) if isinstance(item, StudyError) else item
        self._cached_bytes += size
        if worker is None:
            self._parent_bytes = self._cached_bytes

    def _apply(self, steps: Sequence[Transform], item: dict[str, Any]) -> dict[str, Any]:
        study_id = study_id_of(item)
        for step in steps:
            try:
                item = step(item)
            except StudyError:
                raise
            except Exception as error:
                keys = getattr(step, "keys", None)
                where = ", ".join(map(str, keys)) if isinstance(keys, tuple | list) else type(step).__name__
                raise StudyError(study_id, where, _reason(error)) from error
        return item


def get_items(dataset: Dataset[dict[str, Any]], indices: Sequence[int]) -> list[dict[str, Any] | StudyError]:
    """The items at ``indices``; one that raises a :class:`StudyError` is replaced by it."""
    items: list[dict[str, Any] | StudyError] = []
    for index in indices:
        try:
            items.append(dataset[index])
        except StudyError as error:
            items.append(without_traceback(error))
    return items


def without_traceback(error: StudyError) -> StudyError:
    """A copy that can be pickled and kept: a traceback keeps the local variables of its frames alive, whole batches."""
    return StudyError(error.study_id, error.key, error.reason)


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Make MONAI's transforms return plain tensors: creating a MetaTensor takes longer than augmenting a small image."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _flatten(transform: Any) -> Iterator[Transform]:
    if (type(transform) is Compose and not transform.lazy) or isinstance(transform, list | tuple):
        for step in getattr(transform, "transforms", transform):
            yield from _flatten(step)
    elif transform is not None:
        yield transform


def _may_be_random(step: Transform) -> bool:
    return isinstance(step, Randomizable) or not isinstance(step, MonaiTransform)


def _reason(error: BaseException) -> str:
    """The error's first line; if MONAI wrapped it ("applying transform ..."), that of its cause."""
    while str(error).startswith("applying transform") and error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().split("\n")[0]
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()
