"""Images that are stored as they come out of the preprocessing: scaled to [0, 1] and resized."""

from __future__ import annotations

import functools
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image
from torch import Tensor

from medvl.utils.checks import check_option, error_message
from medvl.utils.checksums import CHECKSUMS, check_digest, parse_checksums, read_checksums
from medvl.utils.errors import plain_reason
from medvl.utils.http_ranges import is_url, read_url
from medvl.utils.io import content_sha256
from medvl.utils.limits import TEXT, check_size, read_small_file
from medvl.utils.tar_members import TarMember
from medvl.utils.tensors import as_plain

INDEX = "index.json"
"""The file of a packed folder that says how its images were made."""

DTYPES = ("uint8", "uint16", "float16", "float32")
"""Types of stored pixels. Integers hold [0, 1] as 0 to their maximum."""

ROUNDING = 1e-5
"""How far resizing may lead beyond 0 or 1: a mean of pixels of 1 is 1.0000001."""

SCALED = "scaled"
"""Key in the metadata of a packed image: the arguments of the ``RadiographIntensity`` that has scaled it."""

_KEYS = {
    "format": str, "name": str, "settings": dict, "names": list, "counts": dict, "unmatched": dict, "encoding": str,
    "skipped": list, "files": list, "shards": list,
}  # fmt: skip
_SETTINGS = {"image_size": int, "spatial_dims": int, "dtype": str, "hu_range": list | None}
_MAXIMUM = {"uint8": 255, "uint16": 65535}


def encode_image(image: Tensor, dtype: str = "uint8") -> tuple[str, bytes]:
    """The file of an image in [0, 1]: PNG for an image of integers, else NumPy's format.

    Args:
        image: (1, H, W[, D]), in [0, 1] but for :data:`ROUNDING`.
        dtype: one of :data:`DTYPES`. Integers are off by at most half a step, 0.5 / 255 or 0.5 / 65535.

    Returns:
        The file's suffix, ``png`` or ``npy``, and its content.

    Raises:
        ValueError: If ``dtype`` is unknown, or the image is of another shape or range.

    Example:
        >>> suffix, content = encode_image(torch.tensor([[[0.0, 0.5, 1.0]]]))
        >>> suffix, [round(value, 3) for value in decode_image(content).flatten().tolist()]
        ('png', [0.0, 0.502, 1.0])
    """
    check_option(dtype, "dtype", DTYPES)
    if image.ndim not in (3, 4) or image.shape[0] != 1:
        raise ValueError(error_message("image", "have shape (1, H, W) or (1, H, W, D)", tuple(image.shape)))
    pixels = as_plain(image)[0].numpy()
    low, high = pixels.min(), pixels.max()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(error_message("image", "be in [0, 1]", f"[{low:g}, {high:g}]"))
    if dtype in _MAXIMUM:
        pixels = np.rint(pixels.clip(0, 1) * np.float32(_MAXIMUM[dtype]))
    pixels = np.ascontiguousarray(pixels, dtype=dtype)
    file = io.BytesIO()
    if pixels.ndim == 2 and dtype in _MAXIMUM:
        Image.fromarray(pixels).save(file, format="PNG")
        return "png", file.getvalue()
    np.lib.format.write_array(file, pixels, version=(1, 0), allow_pickle=False)
    return "npy", file.getvalue()


def decode_image(content: bytes) -> Tensor:
    """The image in a file that :func:`encode_image` made: float32 (1, H, W[, D]) in [0, 1].

    Raises:
        ValueError: If the content is neither PNG with one channel nor a NumPy array of one of :data:`DTYPES`.
    """
    pixels = _array(content) if content.startswith(b"\x93NUMPY") else _png(content)
    scaled = pixels.astype(np.float32)
    if pixels.dtype.name in _MAXIMUM:
        scaled /= np.float32(_MAXIMUM[pixels.dtype.name])
    return torch.from_numpy(scaled)[None]


def _png(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        check_size(math.prod(image.size) * 4, "its image")
        if image.mode != "L" and not image.mode.startswith("I;16"):
            raise ValueError(error_message("the packed image", "have one channel of 8 or 16 bits", image.mode))
        return np.asarray(image)


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("the packed image must be an array in NumPy's format 1.0.")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.name not in DTYPES or fortran_order:
        raise ValueError(error_message("the packed image", f"be of type {', '.join(DTYPES)}", dtype))
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)  # an error unless it is all there


def read_packed_image(member: TarMember) -> MetaTensor:
    """The image at a place in a packed folder, which ``RadiographIntensity`` leaves as it is.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is damaged, or of no packed folder.
    """
    try:
        image = decode_image(member.read())
    except (OSError, ValueError) as error:
        raise type(error)(f"the packed image cannot be read: {plain_reason(error)}.") from error
    return MetaTensor(image, meta={SCALED: read_settings(member.folder)})


@functools.lru_cache(maxsize=64)
def read_settings(folder: str) -> Mapping[str, Any]:
    """How the images of a packed folder were made: ``image_size``, ``spatial_dims``, ``hu_range``, ``dtype``.

    Args:
        folder: path or URL.

    Raises:
        OSError: If the index cannot be read.
        ValueError: If it is damaged.
    """
    return read_index(folder)["settings"]


def read_index(folder: str, verify: bool = True) -> dict[str, Any]:
    """The content of ``index.json`` of a packed folder.

    Args:
        folder: path or URL.
        verify: whether it is compared with its line in ``SHA256SUMS``.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged.
    """
    path = f"{folder.rstrip('/')}/{INDEX}" if is_url(folder) else str(Path(folder) / INDEX)
    if not is_url(folder) and not Path(path).is_file():
        raise FileNotFoundError(f"{folder} holds no {INDEX}: it is no folder that medvl pack has finished.")
    content = read_url(path, name=TEXT) if is_url(folder) else read_small_file(path)
    if verify:
        _verify(path, content)
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error
    problem = _problem(index)
    if problem:
        raise ValueError(f"{path} is damaged: {problem}.")
    return index


def _verify(path: str, content: bytes) -> None:
    sums = path.removesuffix(INDEX) + CHECKSUMS
    digests = parse_checksums(read_url(sums, name=TEXT), sums) if is_url(path) else read_checksums(Path(path).parent)
    if INDEX in digests:
        check_digest(path, content_sha256(content), digests[INDEX])


def _problem(index: Any) -> str:
    """What keeps a value from being the content of ``index.json``; ``""`` if nothing does."""
    if not isinstance(index, dict):
        return "it holds no settings"
    for key, expected in _KEYS.items():
        if not isinstance(index.get(key), expected):
            return f"it has no {key}"
    for key, setting in _SETTINGS.items():
        if not isinstance(index["settings"].get(key), setting):
            return f"its settings have no {key}"
    if not all(isinstance(name, str) for name in index["names"]):
        return "its names are not texts"
    if not all(isinstance(value, int) for key in ("counts", "unmatched") for value in index[key].values()):
        return "its counts are not numbers"
    if not all(
        isinstance(e, list) and len(e) == 3 and all(isinstance(part, str) for part in e) for e in index["skipped"]
    ):
        return "its list of what was skipped is not a list of studies"
    for kind, counted in (("files", ("bytes",)), ("shards", ("bytes", "studies", "images"))):
        for entry in index[kind]:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "sha256")):
                return "it lists a file without a name or a checksum"
            if not all(isinstance(entry.get(key), int) for key in counted):
                return f"it does not count what is in {entry['name']}"
            if os.path.basename(entry["name"]) != entry["name"]:
                return f"{entry['name']} is not the name of a file"
    return ""
