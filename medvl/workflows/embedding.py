"""Embedding of a table's studies into a file, part by part, by one or several processes, resumable."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvl.data import Manifest
from medvl.evaluation.embedding_files import (
    check_embedding_file,
    embedding_arrays,
    write_embeddings,
)
from medvl.evaluation.embeddings import embed_studies
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.checksums import CHECKSUMS
from medvl.utils.distributed import all_gather_object, barrier, get_rank, get_world_size, is_rank_zero
from medvl.utils.errors import StudyError
from medvl.utils.io import atomic_write, file_sha256, remove_partial_files
from medvl.workflows.folder_lock import LOCK, FolderLock
from medvl.workflows.run_records import MODEL
from medvl.workflows.study_state import work_digest
from medvl.workflows.trained_run import TrainedRun

PART_SIZE = 4096
"""Studies in a part, of which one is in memory at a time."""

_PART = re.compile(r"part-\d{6,}\.npz(\..*\.partial)?")


@dataclass(frozen=True)
class EmbeddingSummary:
    """What a file of embeddings holds.

    Args:
        studies: number of rows.
        parts: number of parts that they were embedded in.
        kept: parts that an interrupted run had finished.
        skipped: what was left out for an error.
    """

    studies: int
    parts: int
    kept: int
    skipped: list[StudyError]


class _Part(NamedTuple):
    """What is in a part: its studies, those skipped, and whether an interrupted run had finished it."""

    studies: int
    skipped: list[tuple[str, str, str]]
    kept: bool


def embed_to_file(
    run: TrainedRun,
    manifest: Manifest,
    output: str | Path,
    *,
    batch_size: int = 64,
    part_size: int = PART_SIZE,
    num_workers: int = 0,
    on_error: str = "raise",
    resume: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> EmbeddingSummary:
    """Embed the images and reports of studies into a file or folder, see :func:`~medvl.evaluation.save_embeddings`.

    The studies are embedded in parts, which are files in the folder ``OUTPUT.parts`` until all are there and are joined. One
    part is in memory at a time. Of several processes, as ``torchrun`` starts them, each embeds its share of the parts, and the
    first one joins them. A run that was killed at any moment, and resumed, ends with the same bytes as one that was not.

    Args:
        run: the model.
        manifest: the studies, each with an image (:meth:`TrainedRun.studies`).
        output: the file or folder to write.
        batch_size: studies at once; a batch is of one part.
        part_size: studies in a part.
        num_workers: processes that read and prepare images for each of those that embed; 0 for none but these.
        on_error: ``"raise"`` the error of the first study that cannot be read, or ``"skip"`` and count them.
        resume: go on with the parts that an interrupted run left. A part whose studies, model or settings have changed is
            embedded again.
        progress: called with the number of studies after each batch, and each part that was there.

    Returns:
        Counts of what the file holds; of all processes.

    Raises:
        OSError: If the output cannot be written.
        ValueError: If an option is wrong, another run is writing the same output, ``OUTPUT.parts`` holds
            something else than parts, or every study was skipped.
        medvl.utils.errors.StudyError: If a study cannot be read and ``on_error`` is ``"raise"``.

    Example:
        >>> run = TrainedRun("runs/first")  # doctest: +SKIP
        >>> embed_to_file(run, run.studies("cases.csv", "all"), "embeddings", resume=True)  # doctest: +SKIP
    """
    check_option(on_error, "on_error", ("raise", "skip"))
    for value, name, minimum in (
        (batch_size, "batch_size", 1),
        (part_size, "part_size", 1),
        (num_workers, "num_workers", 0),
    ):
        check_integer(value, name, minimum=minimum)
    output = Path(output)
    check_embedding_file(output)
    folder = output.with_name(f"{output.name}.parts")
    _check_parts(folder)
    count = -(-len(manifest) // part_size)
    paths = [folder / f"part-{number:06d}.npz" for number in range(count)]
    lock = FolderLock(folder)
    if is_rank_zero():
        lock.acquire()
        _prepare(folder, paths, resume)
    barrier()
    try:
        embedder = _PartEmbedder(run, manifest, batch_size, num_workers, on_error, progress)
        own = {}
        for number in range(get_rank(), count, get_world_size()):
            rows = range(number * part_size, min((number + 1) * part_size, len(manifest)))
            own[number] = embedder.embed(paths[number], [dict(manifest.studies[row]) for row in rows])
        done = {number: part for each in all_gather_object(own) for number, part in each.items()}
        summary = _summary([done[number] for number in range(count)])
        if is_rank_zero():
            filled = [path for number, path in enumerate(paths) if done[number].studies]
            write_embeddings(output, manifest.names, lambda name: _read(filled, name), embedder.model_hash)
            _remove_parts(folder)
        barrier()
    finally:
        if is_rank_zero():
            lock.release()
            with suppress(OSError):  # parts to go on with, or no folder
                folder.rmdir()
    return summary


def _check_parts(folder: Path) -> None:
    """Raise where the folder of the parts is a user's own, of which something would be written over or deleted.

    Raises:
        ValueError: If it is a link, or holds something that no part is.
    """
    expected = "be a new folder, or one that an interrupted run left"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(error_message(str(folder), expected, "a link" if folder.is_symlink() else "a file"))
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    other = [name for name in names if not (_PART.fullmatch(name) or name.startswith(LOCK))]
    if other:
        raise ValueError(error_message(str(folder), expected, f"one with {other[0]}"))


def _remove_parts(folder: Path) -> None:
    for path in folder.glob("part-*.npz"):
        path.unlink()
    remove_partial_files(folder)


def _prepare(folder: Path, paths: Sequence[Path], resume: bool) -> None:
    """Remove what is not gone on with: all parts, or those beyond the end of a table that has become shorter."""
    own = set(paths) if resume else set()
    for path in folder.glob("part-*.npz"):
        if path not in own:
            path.unlink()
    remove_partial_files(folder)


def _summary(parts: Sequence[_Part]) -> EmbeddingSummary:
    skipped = [StudyError(*error) for part in parts for error in part.skipped]
    studies = sum(part.studies for part in parts)
    if not studies:
        raise ValueError(f"No study is left: {len(skipped)} skipped for an error, the first: {skipped[0]}.")
    return EmbeddingSummary(studies, len(parts), sum(part.kept for part in parts), skipped)


def _read(paths: Sequence[Path], name: str) -> Iterator[NDArray[Any]]:
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            yield archive[name]


class _PartEmbedder:
    """Embeds parts with a run's model."""

    def __init__(
        self,
        run: TrainedRun,
        manifest: Manifest,
        batch_size: int,
        num_workers: int,
        on_error: str,
        progress: Callable[[int], Any] | None,
    ) -> None:
        self.run, self.manifest, self.batch_size = run, manifest, batch_size
        self.num_workers, self.on_error, self.progress = num_workers, on_error, progress
        sums = run.path / MODEL / CHECKSUMS
        self.model_hash = file_sha256(sums if sums.is_file() else run.path / MODEL / "model.safetensors")
        self._settings = (self.model_hash, manifest.names, batch_size, on_error, run.model.device.type)

    def embed(self, path: Path, studies: Sequence[dict[str, Any]]) -> _Part:
        """Embed the studies of a part unless it is whole."""
        digest = work_digest(self._settings, enumerate(studies), ("transformers", "tokenizers"))
        found = _find_part(path, digest)
        if found is not None:
            if self.progress is not None:
                self.progress(len(studies))
            return found
        loader = self.run.loader(
            replace(self.manifest, studies=studies), self.batch_size, self.on_error, self.num_workers
        )
        arrays: dict[str, NDArray[Any]] = {}
        try:
            embeddings = embed_studies(self.run.model, loader, device=self.run.model.device, progress=self.progress)
        except ValueError:
            if {study["study_id"] for study in studies} != set(loader.skipped):
                raise
        else:
            split_of = {str(study["study_id"]): study.get("split", "") for study in studies}
            arrays = embedding_arrays(embeddings, [split_of[study_id] for study_id in embeddings.study_ids])
        skipped = [(error.study_id, error.key, error.reason) for error in loader.skipped.values()]
        number = len(arrays.get("study_id", ()))
        record = {"digest": digest, "studies": number, "skipped": skipped}
        with atomic_write(path, "wb") as file:
            np.savez(file, allow_pickle=False, record=np.array(json.dumps(record)), **arrays)
        return _Part(number, skipped, kept=False)


def _find_part(path: Path, digest: str) -> _Part | None:
    """What is in a part that is whole and that ``digest`` is of."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            record = json.loads(str(archive["record"]))
        if record["digest"] != digest:
            return None
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        return None if damaged else _Part(record["studies"], [tuple(error) for error in record["skipped"]], kept=True)
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None
