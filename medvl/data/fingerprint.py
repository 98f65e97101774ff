"""A hash of what a training sees of its studies: texts, labels, groups, splits and the content of image files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.leaks import image_paths
from medvl.data.study_list import hash_column
from medvl.utils.image_parts import files_of_image
from medvl.utils.tar_members import TarMember

FULL_BYTES = 8 * 2**30
"""Image files are read whole if all of them together are no larger than this."""

BLOCKS, BLOCK_BYTES = 8, 4096
"""Of larger data sets these are read of each file: blocks at equal distances from its first byte to its last."""

THREADS = 8
BLOCK_PATHS = 4096


def studies_fingerprint(
    names: Sequence[str], studies: Iterable[Mapping[str, Any]], full_bytes: int = FULL_BYTES
) -> str:
    """A SHA-256 of the studies' content.

    It covers names and content of image files, those with the voxels of a header among them, texts, labels, groups and splits;
    it stays the same if the table and its images are moved. Image files are read whole, up to 8 GiB together (about 10 s); of
    larger data sets, of each file its size and eight blocks of 4 KiB at equal distances are read, the first and the last byte
    among them.

    Args:
        names: of the findings.
        studies: dictionaries as :class:`~medvl.data.Manifest` has them.
        full_bytes: the limit up to which image files are read whole.

    Example:
        >>> studies_fingerprint((), [{"study_id": "a", "report": "Clear."}])[:8]
        'c755c6fd'
    """
    studies = studies if isinstance(studies, Sequence) else list(studies)
    images = _ImageDigests(studies, full_bytes)
    digest = hashlib.sha256(repr(tuple(names)).encode())
    for group, study in zip(_group_numbers(studies), studies, strict=True):
        label = study.get("label")
        parts: tuple[Any, ...] = (
            group,
            study.get("patient_id"),
            study.get("split"),
            [(os.path.basename(path), images.of(path)) for path in image_paths(study)],
            study.get("report"),
            None if label is None else label.tolist(),
        )
        if "text_label" in study:
            parts += (study["kind"], study["text_label"].tolist())
        digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _group_numbers(studies: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """A number for the id of each study, in order of first appearance: it replaces the id, which may hold the image's path."""
    _, first, group = np.unique(
        hash_column(studies, lambda study: study["study_id"]), return_index=True, return_inverse=True
    )
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return (int(number[place]) for place in group)


class _ImageDigests:
    """A hash of every file of every image; none of packed images, whose paths hold a hash.

    A file is known by the hash of its path and kept as 32 bytes: the paths and texts of a million would take two gigabytes.
    """

    def __init__(self, studies: Sequence[Mapping[str, Any]], full_bytes: int) -> None:
        every = np.fromiter((hash(path) for path in _paths(studies)), dtype=np.int64)
        self._paths, first = np.unique(every, return_index=True)
        self._single = np.zeros((len(self._paths), 32), dtype=np.uint8)
        self._other: dict[int, str] = {}  # of images of several files, and of files that cannot be read
        first.sort()
        with ThreadPoolExecutor(THREADS) as pool:
            sizes = (sum(pool.map(_size, files)) for _, files in _in_blocks(studies, first))
            whole = sum(sizes) <= full_bytes
            for paths, files in _in_blocks(studies, first):
                digests = pool.map(partial(_digest, whole=whole), files)
                for path, number in paths:
                    self._keep(path, list(islice(digests, number)))

    def _keep(self, path: str, digests: list[str]) -> None:
        place = int(np.searchsorted(self._paths, hash(path)))
        if len(digests) == 1 and digests[0]:
            self._single[place] = np.frombuffer(bytes.fromhex(digests[0]), dtype=np.uint8)
        else:
            self._other[place] = ",".join(digests)

    def of(self, path: str) -> str:
        """The hashes of an image's files."""
        if TarMember.parse(path) is not None:
            return ""
        place = int(np.searchsorted(self._paths, hash(path)))
        return self._other[place] if place in self._other else self._single[place].tobytes().hex()


def _paths(studies: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (path for study in studies for path in image_paths(study) if TarMember.parse(path) is None)


def _in_blocks(
    studies: Sequence[Mapping[str, Any]], chosen: NDArray[np.int64]
) -> Iterator[tuple[list[tuple[str, int]], list[str]]]:
    """Some of the paths of all images, each with the number of its files, and all files of these; a few thousand at once."""
    is_chosen = np.zeros(int(chosen[-1]) + 1 if len(chosen) else 0, dtype=bool)
    is_chosen[chosen] = True
    paths = compress(_paths(studies), is_chosen)
    while block := list(islice(paths, BLOCK_PATHS)):
        files = [files_of_image(path) for path in block]
        yield (
            [(path, len(own)) for path, own in zip(block, files, strict=True)],
            [file for own in files for file in own],
        )


def _size(file: str) -> int:
    """Bytes of a file; 0 if it does not exist, which is reported on loading."""
    try:
        return os.path.getsize(file)
    except (OSError, ValueError):
        return 0


def _digest(file: str, whole: bool) -> str:
    size = _size(file)
    if not os.path.isfile(file):  # missing, a pipe or a device: reported on loading
        return ""
    digest = hashlib.sha256(str(size).encode())
    try:
        with open(file, "rb") as content:
            if whole or size <= BLOCKS * BLOCK_BYTES:
                part = min(max(size + 1, 2**16), 2**20)  # little memory for small files, of which many are read at once
                while block := content.read(part):
                    digest.update(block)
            else:
                for number in range(BLOCKS):
                    content.seek((size - BLOCK_BYTES) * number // (BLOCKS - 1))
                    digest.update(content.read(BLOCK_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()
