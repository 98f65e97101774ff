"""Examination of a packed folder: which of its files are not what was written, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.shards import (
    END_OF_TAR,
    STUDIES,
    PackedLocation,
    Sample,
    decode_labels,
    read_shard_columns,
    sample_files,
    tar_entry,
)
from medvl.data.study_columns import NOT_MENTIONED
from medvl.transforms.packed_image import INDEX, read_index
from medvl.utils.checksums import CHECKSUMS
from medvl.utils.errors import plain_reason
from medvl.utils.http_ranges import is_url
from medvl.utils.io import file_sha256
from medvl.utils.tar_members import short_digest

_KIND = {"png": "image", "npy": "image", "txt": "report", "json": "record"}


def verify_packed(folder: str | Path) -> list[str]:
    """Read every file of a packed folder and compare it with its checksum.

    Args:
        folder: the folder, or ``shards:FOLDER``.

    Returns:
        A sentence on each file that is missing, cut off or damaged. Of a damaged shard it names the byte, and the study; of a
        damaged image the study alone. None if all is as it was written.

    Raises:
        OSError: If the folder holds no packed studies, or is not on this machine.
        ValueError: If ``index.json`` is so damaged that it cannot be read.
    """
    place = PackedLocation.parse(folder)
    folder = str(folder) if place is None else place.folder
    if is_url(folder):
        raise OSError(f"{folder} is on a web server; copy the folder to verify it.")
    index = read_index(folder, verify=False)
    problems = _check_sums(Path(folder), index)
    damaged: dict[str, Mapping[str, Any]] = {}
    for entry in (*index["files"], *index["shards"]):
        problem = _check_file(Path(folder) / entry["name"], entry)
        if problem == "":
            damaged[entry["name"]] = entry
        elif problem is not None:
            problems.append(problem)
    return problems + _locate(Path(folder), index, damaged)


def _check_sums(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """Problems of ``SHA256SUMS``, or between it and ``index.json``."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return [f"{path} is missing."]
    expected = {entry["name"]: entry["sha256"] for entry in (*index["files"], *index["shards"])}
    expected[INDEX] = file_sha256(folder / INDEX)
    lines = path.read_text(errors="replace").splitlines()
    found = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if not differing:
        return []
    if differing == [INDEX]:
        return [f"{folder / INDEX} is not the file that {CHECKSUMS} lists: one of the two is damaged."]
    return [f"{path} and {folder / INDEX} differ on {', '.join(differing)}: one of the two is damaged."]


def _check_file(path: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file; ``""`` if it has the right size and the wrong content, None if nothing is."""
    if not path.is_file():
        return f"{path} is missing."
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            state = "is cut off" if size < entry["bytes"] else "is longer than it was written"
            return f"{path} {state}: it has {size} bytes, expected {entry['bytes']}."
        return None if file_sha256(path) == entry["sha256"] else ""
    except OSError as error:
        return f"{path} cannot be read: {plain_reason(error)}."


def _locate(folder: Path, index: Mapping[str, Any], damaged: Mapping[str, Any]) -> list[str]:
    """Where in the damaged files, by the lines of ``studies.jsonl`` if that is whole."""
    problems = [f"{folder / name} is damaged." for name in damaged if not name.endswith(".tar")]
    shards = [name for name in damaged if name.endswith(".tar")]
    if not shards:
        return problems
    if STUDIES in damaged or not (folder / STUDIES).is_file():
        return problems + [f"{folder / name} is damaged." for name in shards]
    places = {}
    try:
        for columns in read_shard_columns(str(folder)):
            if columns["shard"] in shards:
                places[columns["shard"]] = list(_damaged_places(folder, columns, index["names"]))
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
    ):  # of a file that is cut off, which is among the problems
        pass
    for name in shards:
        where = "; ".join(places.get(name) or [""])
        problems.append(f"{folder / name} is damaged{where and ': '}{where}.")
    return problems


def _damaged_places(folder: Path, columns: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """The files in a shard whose bytes are not what its line says they were."""
    content = (folder / columns["shard"]).read_bytes()
    position = 0
    for place in range(len(columns["number"])):
        study = _study(columns, place, len(names))
        image = None
        if columns["size"][place]:
            start = columns["offset"][place]
            image = _suffix(content, position), content[start : start + columns["size"][place]]
        sample = Sample(columns["number"][place], study, image)
        for name, body in sample_files(sample, names):
            header, padded = tar_entry(name, body)
            own = f"study {study['study_id']!r}"
            kind = _KIND[name.rpartition(".")[2]]
            expected = header + padded
            found = content[position : position + len(expected)]
            if image is not None and body is image[1] and short_digest(body) != columns["digest"][place]:
                yield f"the image of {own} (bytes {columns['offset'][place]} to {start + len(body) - 1})"
            elif found != expected:
                yield f"byte {position + _first_difference(found, expected)}, in the {kind} of {own}"
            position += len(expected)
    if content[position:] != END_OF_TAR:
        yield f"byte {position + _first_difference(content[position:], END_OF_TAR)}, after the last study"


def _suffix(content: bytes, position: int) -> str:
    """The suffix of an image by its first bytes, or by those of its name where these are damaged."""
    start = content[position + 512 : position + 520]
    if start.startswith((b"\x89PNG", b"\x93NUMPY")):
        return "png" if start.startswith(b"\x89PNG") else "npy"
    return "npy" if b".npy" in content[position : position + 100] else "png"


def _study(columns: Mapping[str, Any], place: int, width: int) -> dict[str, Any]:
    keys = ("study_id", "patient_id", "split", "report")
    study: dict[str, Any] = {key: columns[key][place] for key in keys if columns[key][place]}
    study["row"] = columns["row"][place]
    if columns["label"][place]:
        states = np.frombuffer(decode_labels([columns["label"][place]], width), dtype=np.int8).astype(np.float32)
        states[states == NOT_MENTIONED] = np.nan
        study["label"] = states
    return study


def _first_difference(one: bytes, other: bytes) -> int:
    unequal = np.frombuffer(one[: len(other)], np.uint8) != np.frombuffer(other[: len(one)], np.uint8)
    return int(unequal.argmax()) if unequal.any() else min(len(one), len(other))
