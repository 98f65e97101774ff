"""The record of which studies a run trained, validated and tested on, by which a table is recognized after it changed."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import secrets
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data import Manifest
from medvl.data.leaks import content_key, image_paths
from medvl.data.shards import source_file
from medvl.data.splits import SPLITS, group_key, patient_spelling
from medvl.utils.checksums import verify_file, write_listed
from medvl.utils.errors import plain_reason
from medvl.utils.image_parts import header_and_data

SPLITS_FILE, KEY_FILE = "splits.json", "splits.key"
KEYS = ("image", "study", "patient", "spelling", "file", "header", "content")
"""What a study is recognized by: the path of its image, its ids, the patient's id without case and zeros before its number, the
name and size of the image's file, or of a header whose voxels are in other files, and the image's content."""

KEY_BYTES = 32

THREADS, AT_ONCE = 8, 4096
"""Threads that read images, and the studies that they are given at a time."""

CHANCE = 0.05
"""Fraction of image files whose name and size may be those of files of the training by chance."""


class SplitRecord:
    """The split of every study of a run. Ids and paths are kept as hashes, never as they are.

    The hashes are keyed by a random number of the run, which is in a file of its own (``splits.key``): without that file no
    id can be found by trying, however short it is, and studies cannot be recognized.

    Args:
        splits: for each split, the hashes of its studies by key, integers of 64 bits: "image", "study", "patient", "spelling",
            "file", "header", "content".
        key: of the hashes, 32 bytes.
    """

    def __init__(self, splits: Mapping[str, Mapping[str, Iterable[int]]], key: bytes) -> None:
        self.key = key
        self.splits = {split: {key: HashSet(splits[split][key]) for key in KEYS} for split in SPLITS}

    @classmethod
    def from_studies(cls, studies: Iterable[Mapping[str, Any]], key: bytes | None = None) -> SplitRecord:
        """The record of studies that have a ``split``, with a new key if none is given."""
        key = secrets.token_bytes(KEY_BYTES) if key is None else key
        splits: dict[str, dict[str, Any]] = {split: {key: array("Q") for key in KEYS} for split in SPLITS}
        remaining = iter(studies)
        with ThreadPoolExecutor(THREADS) as pool:  # samples of every file are read
            while some := list(islice(remaining, AT_ONCE)):
                contents = pool.map(partial(_contents, secret=key), some)
                for study, content in zip(some, contents, strict=True):
                    for name, values in (_hashes(study, key) | content).items():
                        splits[study["split"]][name].extend(values)
        return cls(splits, key)

    @classmethod
    def load(cls, folder: Path) -> SplitRecord:
        """Read the record of a run folder.

        Raises:
            ValueError: If a file is missing or damaged.
        """
        path, key = folder / SPLITS_FILE, read_key(folder)
        if not path.is_file() or key is None:
            raise ValueError(
                f"{folder} holds no {KEY_FILE if path.is_file() else SPLITS_FILE}, which says which studies the run was "
                "trained on: the file was removed, or the run was trained by an earlier version of medvl."
            )
        verify_file(path)
        try:
            content = _read_lists(path)
            for split in SPLITS:  # a run that was trained before these were recorded has none
                content[split] = {key: array("Q") for key in ("content", "header", "spelling")} | content[split]
            return cls({split: {name: content[split][name] for name in KEYS} for split in SPLITS}, key)
        except (AttributeError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error

    def save(self, folder: Path) -> None:
        """Write the record to a run folder, the key for its owner alone."""
        if read_key(folder) != self.key:
            write_listed(folder / KEY_FILE, self.key.hex() + "\n", private=True)
        content = bytearray()  # as json.dumps writes it, without a text for each hash at once
        for number, (split, keys) in enumerate(self.splits.items()):
            content += f'{", " if number else "{"}"{split}": '.encode()
            for place, (name, values) in enumerate(keys.items()):
                content += f'{", " if place else "{"}"{name}": ['.encode()
                for piece in values.as_json():
                    content += piece.encode()
                content += b"]"
            content += b"}"
        content += b"}\n"
        write_listed(folder / SPLITS_FILE, content)

    def split_of(self, study: Mapping[str, Any]) -> str | None:
        """The split that a study had, by its image, else its study id, else its patient; None for a new study.

        What is found in several splits counts as the earliest, so that a study of the training is never taken for another.
        """
        hashes = _hashes(study, self.key)
        for key in ("image", "study", "patient", "spelling"):
            for split in SPLITS:
                if self.splits[split][key].has_any(hashes.get(key, ())):
                    return split
        return None

    def knows_image(self, study: Mapping[str, Any]) -> bool:
        """Whether the study's image, by its path, the name and size of its file or its content, was in the run's data.

        Name and size of a header are compared with those of single files, packed images among them, and not with those of
        headers, which are alike in a whole data set.
        """
        hashes = _hashes(study, self.key)
        file, header = hashes.get("file", set()), hashes.get("header", set())
        compared = {"image": hashes.get("image", set()), "file": file | header, "header": file}
        return self._knows(study, compared, tuple(compared), SPLITS)

    def _knows(
        self, study: Mapping[str, Any], hashes: Mapping[str, set[int]], keys: Sequence[str], splits: Sequence[str]
    ) -> bool:
        """Whether the hash of one of these keys of a study, or of the content of its image, is in one of the splits."""
        # Files are read only where nothing else is known.
        return self._holds(hashes, keys, splits) or self._holds(_contents(study, self.key), ("content",), splits)

    def _holds(self, hashes: Mapping[str, set[int]], keys: Sequence[str], splits: Sequence[str] = SPLITS) -> bool:
        """Whether the hash of one of these keys is in one of the splits."""
        return any(self.splits[split][key].has_any(hashes.get(key, ())) for key in keys for split in splits)

    def assign_splits(self, manifest: Manifest, seed: int) -> Manifest | None:
        """The splits of the training for a table without a split column.

        The table is split by the rule of the training where that gives every known study the split it had; else known studies
        have the split they had, other studies of their patients the same one, and new studies are test.

        Args:
            manifest: the table's studies.
            seed: of the rule.

        Returns:
            The manifest with splits; None if no study is known.

        Raises:
            ValueError: If ids are known and no image is, or image files and no id, so that it cannot be told whether these are
                the same people.
        """
        known = [self.split_of(study) for study in manifest.studies]
        number = sum(split is not None for split in known)
        same_files = sum(self.knows_image(study) for study in manifest.studies)
        if not number and same_files <= CHANCE * len(known):
            return None
        if not number or not same_files:
            shared, other = (
                ("study or patient id", "image") if number else ("name and size, or content, of the image", "id")
            )
            raise ValueError(
                f"{manifest.name} has {number or same_files} of its {len(known)} studies in common with the training by "
                f"{shared}, and no {other}. If they are other studies, evaluate them all (--split all); if they are the same, "
                "give the table a split column."
            )
        ruled = manifest.assign_splits(seed=seed)
        if all(old in (None, study["split"]) for old, study in zip(known, ruled.studies, strict=True)):
            return ruled
        by_group: dict[Any, set[str]] = defaultdict(set)
        for study, split in zip(manifest.studies, known, strict=True):
            if split is not None:
                by_group[group_key(study)].add(split)
        studies = [
            {**study, "split": split or min(by_group[group_key(study)], key=SPLITS.index, default="test")}
            for study, split in zip(manifest.studies, known, strict=True)
        ]
        return replace(manifest, studies=studies)

    def count_in(self, studies: Sequence[Mapping[str, Any]], split: str, patients: Collection[str] = ()) -> int:
        """How many of these studies, their patients, or copies of their images were in a split of the run.

        A patient whose id the run does not have is taken for one whose id is spelled otherwise (``7`` and ``007``).

        Args:
            studies: the studies.
            split: the split.
            patients: others that are known to have been in that split.
        """
        number = 0
        for study in studies:
            if study.get("patient_id") in patients:
                number += 1
                continue
            hashes = _hashes(study, self.key)
            patient = "patient" if self._holds(hashes, ("patient",)) else "spelling"
            number += self._knows(study, hashes, ("image", "study", patient), (split,))
        return number

    def count_changed(self, studies: Sequence[Mapping[str, Any]]) -> int:
        """How many of these studies have an image at a path of the training, but of a content that was not in its data."""
        if not any(len(self.splits[split]["content"]) for split in SPLITS):
            return 0
        return sum(
            self._holds(_hashes(study, self.key), ("image",))
            and not self._holds(_contents(study, self.key), ("content",))
            for study in studies
        )


def read_key(folder: Path) -> bytes | None:
    """The key of the hashes of a run folder; None if there is none yet.

    Raises:
        ValueError: If the file is damaged.
    """
    path = folder / KEY_FILE
    if not path.is_file():
        return None
    try:
        key = bytes.fromhex(path.read_text())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} is damaged: it holds no {2 * KEY_BYTES} hexadecimal digits.")
    verify_file(path)
    return key


class HashSet:
    """Numbers of 64 bits, each once, in eight bytes.

    Args:
        values: the numbers.

    Example:
        >>> numbers = HashSet([7, 3, 7])
        >>> len(numbers), numbers.has_any([4, 3]), list(numbers.as_json())
        (2, True, ['"0000000000000003", "0000000000000007"'])
    """

    def __init__(self, values: Iterable[int] = ()) -> None:
        numbers = values if isinstance(values, array) else array("Q", values)
        self._sorted: NDArray[np.uint64] = np.unique(np.frombuffer(numbers, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._sorted)

    def has_any(self, values: Iterable[int]) -> bool:
        """Whether one of some numbers is in the set."""
        wanted = np.array(list(values), dtype=np.uint64)
        places = np.searchsorted(self._sorted, wanted)
        inside = places < len(self._sorted)
        return bool((self._sorted[places[inside]] == wanted[inside]).any())

    def as_json(self) -> Iterator[str]:
        """The numbers in ascending order as hexadecimal texts of a JSON list, in pieces."""
        for start in range(0, len(self), _PIECE):
            texts = (f'"{number:016x}"' for number in self._sorted[start : start + _PIECE].tolist())
            yield (", " if start else "") + ", ".join(texts)


_PIECE = 10_000
"""Numbers of a list that are written at once."""

_PIECE_BYTES = 200_000
"""Bytes of a list that are read at once."""


def _read_lists(path: Path) -> Any:
    """The content of a JSON file whose lists hold hexadecimal numbers, each list as an array.

    The lists are read piece by piece: as texts, the hashes of a million studies would take ten times the memory of the file.

    Raises:
        ValueError: If the file is not JSON, or a text of a list is not a hexadecimal number.
    """
    lists: list[array[int]] = []

    def take(found: re.Match[bytes]) -> bytes:
        numbers, start = array("Q"), found.start(1)
        while start < found.end(1):
            comma = content.find(b",", start + _PIECE_BYTES, found.end(1))
            end = found.end(1) if comma < 0 else comma
            numbers.extend(int(text, 16) for text in json.loads(b"[" + content[start:end] + b"]"))
            start = end + 1
        lists.append(numbers)
        return b"[%d]" % (len(lists) - 1)  # not the number alone, which may be in the file in place of a list

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        skeleton = json.loads(re.sub(rb"\[([^][]*)\]", take, content))
    return {split: {name: lists[number] for name, (number,) in keys.items()} for split, keys in skeleton.items()}


def _hashes(study: Mapping[str, Any], secret: bytes) -> dict[str, set[int]]:
    """A study's hashes by key. An id that begins with the name of its source counts also without it."""
    found: dict[str, set[int]] = {}
    source = str(study.get("source", "")).removesuffix(f":{study.get('kind')}")
    for key, value in (("study", study["study_id"]), ("patient", study.get("patient_id"))):
        if value is not None:
            texts = {str(value), str(value).removeprefix(f"{source}/")}
            found[key] = {_hash(key, text, secret) for text in texts}
            if key == "patient":
                found["spelling"] = {_hash("spelling", patient_spelling(text), secret) for text in texts}
    for path in map(os.path.abspath, image_paths(study)):
        header, *data = header_and_data(path)  # either file of a NIfTI pair names it
        paths = {spelling for one in {path, header} for spelling in (one, _real_path(one))}
        found.setdefault("image", set()).update(_hash("image", spelling, secret) for spelling in paths)
        name, size = source_file(path)
        found.setdefault("header" if data else "file", set()).add(_hash("file", f"{name}:{size}", secret))
    return found


def _contents(study: Mapping[str, Any], secret: bytes) -> dict[str, set[int]]:
    """The hash of the content of a study's images, which reads their files."""
    return {"content": {_hash("content", key, secret) for key in map(content_key, image_paths(study)) if key}}


def _real_path(path: str) -> str:
    """``os.path.realpath``, whose look at every folder of a path is done once a folder."""
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder), name)


_real_folder = lru_cache(maxsize=4096)(os.path.realpath)


def _hash(key: str, value: str, secret: bytes) -> int:
    text = f"{key}:{value}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, key=secret, digest_size=8).digest(), "big")
