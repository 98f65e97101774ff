"""A hash of what a training sees of its studies: texts, labels, groups, splits and the content of image files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from medvl.data.leaks import image_paths
from medvl.utils.tar_members import TarMember

FULL_BYTES = 8 * 2**30
"""Image files are read whole if all of them together are no larger than this."""

BLOCKS, BLOCK_BYTES = 8, 4096
"""Of larger data sets these are read of each file: blocks at equal distances from its first byte to its last."""

THREADS = 8


def studies_fingerprint(
    names: Sequence[str], studies: Iterable[Mapping[str, Any]], full_bytes: int = FULL_BYTES
) -> str:
    """A SHA-256 of the studies' content.

    It covers names and content of image files, texts, labels, groups and splits; it stays the same if the table and its images
    are moved. Image files are read whole, up to 8 GiB together (about 10 s); of larger data sets, of each file its size and
    eight blocks of 4 KiB at equal distances are read, the first and the last byte among them.

    Args:
        names: of the findings.
        studies: dictionaries as :class:`~medvl.data.Manifest` has them.
        full_bytes: the limit up to which image files are read whole.

    Example:
        >>> studies_fingerprint((), [{"study_id": "a", "report": "Clear."}])[:8]
        'c755c6fd'
    """
    studies = studies if isinstance(studies, Sequence) else list(studies)
    images = _image_digests(studies, full_bytes)
    digest = hashlib.sha256(repr(tuple(names)).encode())
    # The number of its group replaces a study's id, which may contain the image's path.
    groups: dict[str, int] = {}
    for study in studies:
        label = study.get("label")
        parts: tuple[Any, ...] = (
            groups.setdefault(study["study_id"], len(groups)),
            study.get("patient_id"),
            study.get("split"),
            [(os.path.basename(path), images.get(path, "")) for path in image_paths(study)],
            study.get("report"),
            None if label is None else label.tolist(),
        )
        if "text_label" in study:
            parts += (study["kind"], study["text_label"].tolist())
        digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _image_digests(studies: Iterable[Mapping[str, Any]], full_bytes: int) -> dict[str, str]:
    """A hash of every image file, or of the files of an image folder; none of packed images, whose paths hold a hash."""
    every = (path for study in studies for path in image_paths(study))
    paths = list(dict.fromkeys(path for path in every if TarMember.parse(path) is None))
    files = {path: _files(path) for path in paths}
    with ThreadPoolExecutor(THREADS) as pool:
        each = [file for path in paths for file in files[path]]
        sizes = list(pool.map(_size, each))
        whole = sum(sizes) <= full_bytes
        digests = dict(zip(each, pool.map(lambda file, size: _digest(file, size, whole), each, sizes), strict=True))
    return {path: ",".join(digests[file] for file in files[path]) for path in paths}


def _files(path: str) -> list[str]:
    """The file, or those in a folder (a DICOM series)."""
    if not os.path.isdir(path):
        return [path]
    return sorted(entry.path for entry in os.scandir(path) if entry.is_file())


def _size(file: str) -> int:
    """Bytes of a file; 0 if it does not exist, which is reported on loading."""
    try:
        return os.path.getsize(file)
    except (OSError, ValueError):
        return 0


def _digest(file: str, size: int, whole: bool) -> str:
    if not os.path.isfile(file):  # missing, a pipe or a device: reported on loading
        return ""
    digest = hashlib.sha256(str(size).encode())
    try:
        with open(file, "rb") as content:
            if whole or size <= BLOCKS * BLOCK_BYTES:
                while block := content.read(2**20):
                    digest.update(block)
            else:
                for number in range(BLOCKS):
                    content.seek((size - BLOCK_BYTES) * number // (BLOCKS - 1))
                    digest.update(content.read(BLOCK_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()
