"""Images, studies and patients that are in a data set more than once, and those that are in two splits."""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medvl.data.study_list import StudyList, text_column
from medvl.utils.image_parts import files_of_image, header_and_data
from medvl.utils.io import file_sha256
from medvl.utils.tar_members import TarMember

logger = logging.getLogger(__name__)

SAMPLE_BYTES = 4096
"""Bytes at the start, in the middle and at the end of a file that are compared before the whole file is."""

_READ_AT_ONCE = 4096

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", int, str)


@dataclass(frozen=True)
class SharedItem:
    """Something that several rows have in common.

    Args:
        kind: ``"patient"`` or ``"study"``, in two splits; ``"image"``, one file in several rows, by whatever path;
            ``"content"``, files that are copies of each other.
        rows: indices of the studies.
        splits: the splits that they are in.
    """

    kind: str
    rows: tuple[int, ...]
    splits: tuple[str, ...]

    @property
    def is_leak(self) -> bool:
        """Whether it is in two splits."""
        return len(self.splits) > 1


def find_shared_items(studies: Sequence[Mapping[str, Any]], compare_content: bool = True) -> list[SharedItem]:
    """Find patients and studies in two splits, and images that several rows have.

    One file has many paths: relative and absolute ones, symbolic and hard links, and the two names of a NIfTI pair. Copies are
    found by their bytes: images of one size are compared by three samples of 4 KiB of each file, and only those whose samples
    agree are read whole.

    Args:
        studies: dictionaries with ``study_id`` and, where known, ``source``, ``patient_id``, ``image`` (a path) and ``split``.
        compare_content: whether to look for copies, which reads files.

    Returns:
        The items, leaks first.

    Example:
        >>> studies = [{"study_id": str(i), "patient_id": "p", "split": split} for i, split in enumerate(["train", "test"])]
        >>> find_shared_items(studies)
        [SharedItem(kind='patient', rows=(0, 1), splits=('test', 'train'))]
    """
    rows_of: dict[tuple[str, Hashable], list[int]] = defaultdict(list)
    path_of: dict[Hashable, str] = {}
    for row, study in enumerate(studies):
        patient = study.get("patient_id")
        own = ("study", (study.get("source"), study["study_id"]))  # a study's id says nothing beyond its source
        rows_of[own if patient is None else ("patient", patient)].append(row)
        for path in image_paths(study):
            identity = file_identity(path)
            path_of.setdefault(identity, path)
            rows_of["image", identity].append(row)
    items = [_item(kind, rows, studies) for (kind, _), rows in rows_of.items()]
    found = [item for item in items if item.is_leak or (item.kind == "image" and len(item.rows) > 1)]
    if compare_content:
        for identities in equal_files(path_of):
            rows = [row for identity in identities for row in rows_of["image", identity]]
            found.append(_item("content", rows, studies))
    return sorted(found, key=lambda item: (not item.is_leak, item.rows))


def find_copies_across_splits(studies: Sequence[Mapping[str, Any]]) -> list[SharedItem]:
    """The files in one split of which another split has a copy; files are read only if a size is in both.

    Args:
        studies: as for :func:`find_shared_items`, with ``split``.
    """
    if isinstance(studies, StudyList) and (digests := studies.image_digests) is not None:
        return _equal_digests(studies, digests)
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    path_of: dict[Hashable, str] = {}
    for row in _rows_of_possible_copies(studies):
        for path in image_paths(studies[row]):
            identity = file_identity(path)
            path_of.setdefault(identity, path)
            rows_of[identity].append(row)

    def is_leak(identities: Sequence[Hashable]) -> bool:
        return len({studies[row].get("split") for identity in identities for row in rows_of[identity]}) > 1

    groups = equal_files(path_of, is_leak)
    items = [_item("content", [row for one in group for row in rows_of[one]], studies) for group in groups]
    return sorted(items, key=lambda item: item.rows)


def _rows_of_possible_copies(studies: Sequence[Mapping[str, Any]]) -> list[int]:
    """The studies with an image of whose size and samples another split has one too.

    What is known of an image is its row, split and a hash, in arrays: a million files as objects would need two gigabytes.
    """
    rows, splits, sizes = array("q"), array("q"), array("q")
    names: dict[Any, int] = {}
    for row, study in enumerate(studies):
        split = names.setdefault(study.get("split"), len(names))
        for path in image_paths(study):
            if size := _readable(_size)(path):
                rows.append(row)
                splits.append(split)
                sizes.append(hash(size))
    row_of, split_of = np.asarray(rows, dtype=np.int64), np.asarray(splits, dtype=np.int64)
    kept = np.flatnonzero(_in_two_splits(np.asarray(sizes, dtype=np.int64), split_of))
    possible = np.unique(row_of[kept]).tolist()
    rows, splits, samples = array("q"), array("q"), array("q")
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(possible), _READ_AT_ONCE):
            images = [
                (row, path) for row in possible[start : start + _READ_AT_ONCE] for path in image_paths(studies[row])
            ]
            read = pool.map(_readable(_size_and_sample), (path for _, path in images))
            for (row, _), sample in zip(images, read, strict=True):
                rows.append(row)
                splits.append(names[studies[row].get("split")])
                samples.append(hash(sample))
    shared = _in_two_splits(np.asarray(samples, dtype=np.int64), np.asarray(splits, dtype=np.int64))
    return [int(row) for row in np.unique(np.asarray(rows, dtype=np.int64)[shared])]


def _in_two_splits(keys: NDArray[np.int64], splits: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the key of each item is in another split too."""
    distinct, number = np.unique(keys, return_inverse=True)
    first = np.full(len(distinct), np.iinfo(np.int64).max)
    np.minimum.at(first, number, splits)
    last = np.full(len(distinct), np.iinfo(np.int64).min)
    np.maximum.at(last, number, splits)
    found: NDArray[np.bool_] = (first != last)[number]
    return found


def _equal_digests(studies: StudyList, digests: NDArray[np.uint64]) -> list[SharedItem]:
    """The images of packed studies in one split of which another split has a copy, by the hashes of their content."""
    _, splits = np.unique(np.array(list(text_column(studies, "split"))), return_inverse=True)
    crossing = np.unique(digests[_in_two_splits(digests.view(np.int64), splits) & (digests != 0)])
    return [_item("content", np.flatnonzero(digests == digest).tolist(), studies) for digest in crossing]


def warn_of_copies(studies: Sequence[Mapping[str, Any]], name: str) -> None:
    """Warn if images of one split are copies of images of another, and count them.

    Args:
        studies: as for :func:`find_shared_items`, with ``split``.
        name: of the table or the sources.
    """
    from medvl.utils.distributed import get_rank  # with torch, which a table does not need

    # Every process reads the same files; one says so.
    copies = find_copies_across_splits(studies) if get_rank() == 0 else []
    if copies:
        first, second = _first_of_two_splits(copies[0], studies)
        logger.warning(
            "%s: %d %s of the same content in two splits, the first in study %r (%s) and in study %r (%s); "
            "medvl audit lists them.",
            name,
            len(copies),
            "image has copies" if len(copies) == 1 else "images have copies",
            studies[first]["study_id"],
            studies[first]["split"],
            studies[second]["study_id"],
            studies[second]["split"],
        )


def _first_of_two_splits(item: SharedItem, studies: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    first = item.rows[0]
    return first, next(row for row in item.rows if studies[row]["split"] != studies[first]["split"])


def image_paths(study: Mapping[str, Any]) -> list[str]:
    """The image files of a study; none if its image is an array."""
    image = study.get("image")
    images = image if isinstance(image, list | tuple) else [image]
    return [os.fspath(path) for path in images if isinstance(path, str | os.PathLike)]


def file_identity(path: str, status: os.stat_result | None = None) -> Hashable:
    """What all paths of one image file have in common, whatever their spelling and whatever links lead there.

    An image whose voxels are in other files than its header is all of these: both names of a NIfTI pair are one image, and two
    images are not one because a link shares their header.

    Args:
        path: the file; it need not exist.
        status: its status if it is known.
    """
    if status is None and TarMember.parse(path) is not None:
        return path
    files = header_and_data(path)
    return _identity(path, status) if len(files) == 1 else _digest(str(_identity(file)) for file in files)


def _identity(path: str, status: os.stat_result | None = None) -> Hashable:
    if status is None:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return os.path.realpath(path) if "\0" not in path else path
    # Some network file systems have no numbers of files.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def equal_files(
    paths: Mapping[Key, str], keep: Callable[[Sequence[Key]], bool] = lambda group: len(group) > 1
) -> list[list[Key]]:
    """Groups of images, files or folders, whose content is equal, that of a header's data files included.

    Args:
        paths: each image by its key; unreadable and empty ones are left out.
        keep: whether a group of candidates is of interest; those that are not are not read further.

    Returns:
        The keys of each group, in the order given.
    """
    groups = [list(paths)]
    with ThreadPoolExecutor(4) as pool:
        for measure in (_size, _sample, _content):
            refined = []
            for group in groups:
                by_value: dict[Hashable, list[Key]] = defaultdict(list)
                for key, value in zip(group, pool.map(_readable(measure), (paths[key] for key in group)), strict=True):
                    if value:
                        by_value[value].append(key)
                refined += [part for part in by_value.values() if len(part) > 1 and keep(part)]
            groups = refined
    return groups


def content_key(path: str) -> str | None:
    """A short hash of an image's files by size and the three samples that :func:`equal_files` compares.

    Args:
        path: the file or folder; packed images are known by the hash of their content.

    Returns:
        The hash; None if the file cannot be read or is empty.
    """
    measured = _readable(_size_and_sample)(path)
    return None if measured is None else hashlib.sha256(str(measured).encode()).hexdigest()[:32]


def join_groups(keys: Iterable[Sequence[Hashable]]) -> list[int]:
    """Number the connected groups: two items that share a key are in one group.

    Args:
        keys: the keys of each item.

    Returns:
        For each item the index of the first item of its group.

    Example:
        >>> join_groups([["a"], ["b"], ["c", "a"], ["b", "d"], ["d"]])
        [0, 1, 0, 1, 1]
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    items, hashes = array("q"), array("q")
    number = 0
    for number, own in enumerate(keys, start=1):
        for key in own:
            items.append(number - 1)
            hashes.append(hash(key))
    # Keys by their 64-bit hashes, in arrays: a million patients and images as objects would need hundreds of megabytes.
    _, nodes = np.unique(np.asarray(hashes, dtype=np.int64), return_inverse=True)
    total = number + int(nodes.max(initial=-1)) + 1
    edges = csr_array((np.ones(len(items), dtype=np.int8), (np.asarray(items), number + nodes)), shape=(total, total))
    _, groups = connected_components(edges, directed=False)
    first = np.full(total, total)
    np.minimum.at(first, groups[:number], np.arange(number))
    return first[groups[:number]].tolist()


def _item(kind: str, rows: Iterable[int], studies: Sequence[Mapping[str, Any]]) -> SharedItem:
    distinct = sorted(set(rows))
    return SharedItem(
        kind, tuple(distinct), tuple(sorted({studies[row]["split"] for row in distinct if "split" in studies[row]}))
    )


def _readable(measure: Callable[[str], Hashable]) -> Callable[[str], Hashable]:
    def value(path: str) -> Hashable:
        try:
            return measure(path)
        except (OSError, ValueError):  # reported when the image is loaded
            return None

    return value


def _of_files(measure: Callable[[str], Value], path: str) -> list[Value]:
    """A measure of each file of an image, in a folder (a DICOM series) whatever the names of the files."""
    values = [measure(file) for file in files_of_image(path)]
    return sorted(values) if os.path.isdir(path) else values


def _size(path: str) -> Hashable:
    if (member := TarMember.parse(path)) is not None:
        return (member.size,)
    sizes = _of_files(os.path.getsize, path)
    # A header whose data file is empty, a pipe or a device is no image.
    return tuple(sizes) if (any(sizes) if os.path.isdir(path) else all(sizes)) else None


def _sample(path: str) -> Hashable:
    if (member := TarMember.parse(path)) is not None:
        return member.digest
    return _digest(_of_files(_sample_of_file, path))


def _size_and_sample(path: str) -> str | None:
    size = _size(path)  # None of a pipe, on which reading would wait
    return None if size is None else f"{size}:{_sample(path)}"


def _content(path: str) -> Hashable:
    if (member := TarMember.parse(path)) is not None:
        return member.digest
    return _digest(_of_files(file_sha256, path))


def _sample_of_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        for start in (0, size // 2, max(0, size - SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _digest(parts: Iterable[str]) -> str:
    """One hash of several."""
    return hashlib.sha256("".join(parts).encode()).hexdigest()
