"""What work on a study depends on, for the records by which an interrupted command goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from medvl.utils.image_parts import files_of_image

PACKAGES = ("medvl", "numpy", "pillow", "torch", "monai", "pydicom", "nibabel")
"""The packages that read and prepare images."""


def work_digest(settings: Any, studies: Iterable[tuple[Any, Mapping[str, Any]]], packages: Iterable[str] = ()) -> str:
    """A hash of what some studies are worked on with: settings, libraries, the studies and the state of their image files.

    Args:
        settings: a value whose ``repr`` tells it from others.
        studies: each with a value of its own, such as its number.
        packages: further packages whose version counts, beside :data:`PACKAGES`.
    """
    digest = hashlib.blake2b(digest_size=16)
    versions = [version(name) for name in (*PACKAGES, *packages)]
    digest.update(repr((settings, versions)).encode("utf-8", "surrogatepass"))
    for own, study in studies:
        label = study.get("label")
        parts = {**study, "label": None if label is None else label.tolist()}
        state = _file_state(study["image"]) if "image" in study else ()
        digest.update(repr((own, sorted(parts.items()), state)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _file_state(path: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of an image's files."""
    states = []
    for file in files_of_image(path):
        try:
            status = os.stat(file)
        except (OSError, ValueError):  # said when the image is read
            continue
        states.append((os.path.basename(file), status.st_size, status.st_mtime_ns))
    return states
