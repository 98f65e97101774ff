"""Packing of a table's studies into tar files, by several processes, shard by shard."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medvl.data import Manifest
from medvl.data.column_selection import ColumnSelection
from medvl.data.leaks import file_identity
from medvl.data.shards import (
    FORMAT,
    STUDIES,
    TEXT_LABELS,
    read_studies,
    shard_name,
)
from medvl.data.sources import Source, read_source
from medvl.data.studies import SYNTHETIC
from medvl.data.tables.files import STANDARD_INPUT
from medvl.data.text_labels import labeler_version, write_label_cache
from medvl.transforms.packed_image import INDEX, read_index
from medvl.utils.checks import check_integer, check_option, error_message
from medvl.utils.checksums import CHECKSUMS, read_sealed, write_sealed
from medvl.utils.errors import StudyError
from medvl.utils.io import (
    atomic_write,
    check_writable,
    file_sha256,
    remove_partial_files,
    write_text,
)
from medvl.utils.worker_processes import begin_worker, worker_context
from medvl.workflows.folder_lock import LOCK, FolderLock
from medvl.workflows.shard_packer import PROGRESS, PackSettings, ShardJob, ShardPacker, record_path

SETTINGS = "settings.json"


@dataclass(frozen=True)
class PackSummary:
    """What a packed folder holds.

    Args:
        shards: number of tar files.
        studies: number of studies in them; those with several images count once an image.
        images: number of images.
        bytes: of all tar files together.
        kept: shards that an interrupted run had finished.
        skipped: what was left out for an error.
    """

    shards: int
    studies: int
    images: int
    bytes: int
    kept: int
    skipped: list[StudyError]

    @classmethod
    def from_index(cls, index: Mapping[str, Any], kept: int) -> PackSummary:
        """The summary of a folder's index."""
        totals = {key: sum(shard[key] for shard in index["shards"]) for key in ("studies", "images", "bytes")}
        skipped = [StudyError(*error) for error in index["skipped"]]
        return cls(shards=len(index["shards"]), kept=kept, skipped=skipped, **totals)


def pack_studies(
    data: str | Path,
    output: str | Path,
    settings: PackSettings | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    num_workers: int = 0,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PackSummary:
    """Pack the studies of a table into tar files, which ``shards:FOLDER`` reads as that table.

    Each image is read, scaled to [0, 1] and resized as :func:`~medvl.transforms.image_preprocessing` does, and stored as PNG or
    NumPy array. ``studies.jsonl`` holds ids, splits, reports, labels and the place of each image, ``text_labels.npz`` the
    states of the texts, ``index.json`` settings, counts and checksums. ``index.json`` is written last: a folder without it is
    not whole. The bytes depend on the table, the settings and the versions of the libraries alone, not on the number of
    processes or on how often a run was killed and resumed.

    Args:
        data: a table or a public data set, as for :func:`~medvl.data.read_manifest`.
        output: the folder to write.
        settings: how; by default :class:`PackSettings`.
        columns: arguments of :func:`~medvl.data.read_manifest` that name columns or say where images are.
        on_error: ``"raise"`` the error of the first row or image that cannot be read, or ``"skip"`` and count them.
        num_workers: processes that pack; 0 for this one.
        resume: go on with what an interrupted run left in the folder.
        progress: called after each shard with the number of studies done, and of all.

    Returns:
        Counts of what the folder holds.

    Raises:
        OSError: If the table cannot be read, or the folder cannot be written, as where the disk is full.
        ValueError: If the table is invalid, or the folder holds something else, or a run with other settings.
        medvl.utils.errors.StudyError: If a row or image cannot be read and ``on_error`` is ``"raise"``.

    Example:
        >>> pack_studies("cases.csv", "packed", PackSettings(image_size=128), num_workers=8)  # doctest: +SKIP
    """
    settings = settings or PackSettings()
    check_option(on_error, "on_error", ("raise", "skip"))
    check_integer(num_workers, "num_workers", minimum=0)
    if str(data) in (SYNTHETIC, STANDARD_INPUT):
        raise ValueError(error_message("data", "be a table or NAME:PATH of a public data set", repr(str(data))))
    folder = Path(output)
    check_writable(folder / INDEX)
    _check_folder(folder, settings, resume)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        _check_folder(folder, settings, resume)
        if (folder / INDEX).is_file():
            index = read_index(str(folder))
            kept = len(index["shards"])
            _check_unchanged(folder, index, _read(data, columns or {}, on_error))
        else:
            (folder / PROGRESS).mkdir(exist_ok=True)
            write_sealed(folder / PROGRESS / SETTINGS, settings.to_dict())
            manifest = _read(data, columns or {}, on_error)
            kept = _pack_shards(folder, manifest, settings, on_error, num_workers, progress)
            index = _write_index(folder, manifest, settings)
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)
        remove_partial_files(folder)
    finally:
        lock.release()
    return PackSummary.from_index(index, kept)


def _read(data: str | Path, columns: Mapping[str, Any], on_error: str) -> Manifest:
    selection = ColumnSelection(columns)
    manifest = read_source(Source(None, str(data)), selection, on_error)
    selection.check_all_found()
    if not len(manifest):
        raise ValueError(f"{manifest.name} has no study to pack.")
    return manifest


def _check_unchanged(folder: Path, index: Mapping[str, Any], manifest: Manifest) -> None:
    """Raise where a folder that is whole is of another table: of other studies, splits or reports. Pixels are not compared."""
    keys = ("study_id", "patient_id", "split", "report")
    skipped = {str(error[0]) for error in index["skipped"]}
    packed = [[str(study.get(key)) for key in keys] for study in read_studies(str(folder), len(index["names"]))]
    kept = {row[0] for row in packed}
    now = [[str(study.get(key)) for key in keys] for study in manifest.studies]
    if [row for row in now if row[0] in kept or row[0] not in skipped] != packed:
        raise ValueError(
            f"{manifest.name} has changed since it was packed to {folder}, which is whole; pack it to another folder."
        )


def _check_folder(folder: Path, settings: PackSettings, resume: bool) -> None:
    """Raise where a folder holds what would be written over, or what was packed in another way."""
    if not folder.is_dir():
        return
    if (folder / INDEX).is_file():
        before, state = read_index(str(folder))["settings"], "packed studies"
    elif (folder / PROGRESS).is_dir():
        path = folder / PROGRESS / SETTINGS
        before, state = read_sealed(path) if path.is_file() else None, "an interrupted packing"
    else:
        found = sorted(name for name in os.listdir(folder) if not name.startswith(LOCK))
        if found:
            raise ValueError(f"{folder} must be a new or empty folder, got one with {found[0]}.")
        return
    if not resume:
        raise ValueError(f"{folder} already holds {state}; continue it (--resume) or choose another folder.")
    now = settings.to_dict()
    changed = [key for key in now if before is not None and before.get(key) != now[key]]
    if changed:
        raise ValueError(
            f"{changed[0]} is {now[changed[0]]!r} but was {before.get(changed[0])!r} in {folder}; resume it with the same "
            "settings, or choose another folder."
        )


def _jobs(manifest: Manifest, shard_size: int) -> Iterator[ShardJob]:
    studies = manifest.studies
    identities = np.fromiter(
        (
            hash(file_identity(study["image"])) if "image" in study else -number
            for number, study in enumerate(studies, 1)
        ),
        dtype=np.int64,
        count=len(studies),
    )
    _, first, group = np.unique(identities, return_index=True, return_inverse=True)
    same = first[group]
    for shard, start in enumerate(range(0, len(studies), shard_size)):
        numbers = range(start, min(start + shard_size, len(studies)))
        yield ShardJob(shard, [(n, dict(studies[n]), int(same[n]) if same[n] != n else None) for n in numbers])


def _pack_shards(
    folder: Path,
    manifest: Manifest,
    settings: PackSettings,
    on_error: str,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Pack every shard that is not whole; the number of those that are."""
    jobs = _jobs(manifest, settings.shard_size)
    options = (folder, settings, manifest.names, on_error)
    done = kept = 0
    for number, was_whole in _map_jobs(jobs, options, num_workers):
        done, kept = done + number, kept + was_whole
        if progress is not None:
            progress(done, len(manifest))
    return kept


def _map_jobs(jobs: Iterable[ShardJob], options: tuple[Any, ...], num_workers: int) -> Iterator[tuple[int, bool]]:
    if not num_workers:
        packer = ShardPacker(*options)
        yield from map(packer.pack, jobs)
        return
    context = worker_context()
    stop = context.Event()
    waiting: deque[Future[tuple[int, bool]]] = deque()
    with ProcessPoolExecutor(num_workers, context, _start_worker, (*options, stop)) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(_work, job))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ValueError(
                "num_workers: a packing process was ended from outside, as by a lack of memory; use fewer, and --resume."
            ) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


_packer: ShardPacker


def _start_worker(folder: Path, settings: PackSettings, names: Sequence[str], on_error: str, stop: Any) -> None:
    global _packer
    begin_worker()
    torch.set_num_threads(1)
    _packer = ShardPacker(folder, settings, names, on_error, stop.is_set)


def _work(job: ShardJob) -> tuple[int, bool]:
    return _packer.pack(job)


def _write_index(folder: Path, manifest: Manifest, settings: PackSettings) -> dict[str, Any]:
    """Join the records of the shards to the files of the whole folder, of which ``index.json`` comes last."""
    count = -(-len(manifest) // settings.shard_size)
    shards, skipped = [], [list(error.args) for error in manifest.skipped]
    labels: dict[bytes, Any] = {}
    for path in folder.glob("shard-*.tar"):
        if path.name >= shard_name(count):  # of an interrupted run on a longer table
            path.unlink()
    with atomic_write(folder / STUDIES, "wb") as file:
        for number in range(count):
            record = read_sealed(record_path(folder, number))
            file.write(json.dumps(record["columns"], separators=(",", ":")).encode() + b"\n")
            shards.append(record["shard"])
            skipped += record["skipped"]
            labels |= {bytes.fromhex(key): np.array(states, dtype=np.int8) for key, states in record["labels"].items()}
    files = [STUDIES]
    if labels and settings.vocabulary is not None:
        keys = np.frombuffer(b"".join(sorted(labels)), dtype=np.uint8).reshape(-1, 16)
        states = np.array([labels[key] for key in sorted(labels)])
        write_label_cache(folder / TEXT_LABELS, labeler_version(settings.vocabulary), keys, states)
        files.append(TEXT_LABELS)
    packed = Manifest.from_studies(
        manifest.name, read_studies(str(folder), len(manifest.names)), manifest.counts["rows"], manifest.names
    )
    index = {
        "format": FORMAT,
        "name": manifest.name,
        "settings": settings.to_dict(),
        "names": list(manifest.names),
        "counts": {**packed.counts, "skipped": len(skipped)},
        "unmatched": dict(manifest.unmatched),
        "encoding": manifest.encoding,
        "skipped": skipped,
        "files": [_describe(folder / name) for name in files],
        "shards": shards,
    }
    if not packed.studies:
        raise ValueError(
            f"Every study of {manifest.name} was skipped for an error, the first: {StudyError(*skipped[0])}."
        )
    content = json.dumps(index, indent=1) + "\n"
    sums = {entry["name"]: entry["sha256"] for entry in (*index["files"], *shards)}
    sums[INDEX] = hashlib.sha256(content.encode()).hexdigest()
    write_text(folder / CHECKSUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    write_text(folder / INDEX, content)
    return index


def _describe(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
