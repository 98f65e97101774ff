"""Studies in tar files: what a packed folder holds, and how its index is read as a table."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medvl.data.manifest import Manifest
from medvl.data.study_columns import NOT_MENTIONED, TextColumn
from medvl.data.study_list import StudyList
from medvl.transforms.packed_image import INDEX, read_index
from medvl.utils.checks import error_message
from medvl.utils.errors import StudyError, plain_reason
from medvl.utils.http_ranges import is_url, read_url
from medvl.utils.tar_members import TarMember, short_digest

PREFIX = "shards:"
FORMAT = "medvl packed studies 1"
STUDIES = "studies.jsonl"
"""The table of a packed folder: a line a shard, its studies by column."""

TEXT_LABELS = "text_labels.npz"
"""The states of its texts, as :func:`medvl.data.label_texts` caches them."""

TEXTS = ("study_id", "patient_id", "split", "report")
NUMBERS = ("number", "row", "offset", "size", "source_size")
_STATES = {"1": 1, "0": 0, "u": -1, ".": NOT_MENTIONED}
_CODE_OF_STATE = {state: code for code, state in _STATES.items()}
_STATE_OF_BYTE = np.zeros(256, dtype=np.int8)
for _code, _state in _STATES.items():
    _STATE_OF_BYTE[ord(_code)] = _state


class PackedLocation(NamedTuple):
    """Where a packed folder is: ``shards:FOLDER``, or ``shards:http(s)://HOST/FOLDER``.

    Args:
        folder: path or URL.
    """

    folder: str

    @classmethod
    def parse(cls, location: str | Path) -> PackedLocation | None:
        """The location that a text names; None if it does not begin with ``shards:``.

        Raises:
            ValueError: If no folder is given.

        Example:
            >>> PackedLocation.parse("shards:packed"), PackedLocation.parse("cases.csv")
            (PackedLocation(folder='packed'), None)
        """
        text = str(location)
        if not text.startswith(PREFIX):
            return None
        if text.strip() == PREFIX:
            raise ValueError(error_message("the location", f"have a folder after {PREFIX}", repr(text)))
        folder = text.removeprefix(PREFIX).rstrip("/") or "/"
        folder = re.sub(r"^(https?):/+", r"\1://", folder)  # pathlib leaves one slash
        return cls(folder if is_url(folder) else os.path.expanduser(folder))

    def absolute(self) -> PackedLocation:
        """The same location from any folder."""
        return self if is_url(self.folder) else PackedLocation(os.path.abspath(self.folder))

    def __str__(self) -> str:
        return f"{PREFIX}{self.folder}"

    def read(self, on_error: str = "raise") -> Manifest:
        """The studies as a :class:`~medvl.data.Manifest`, as the table had them from which they were packed.

        Args:
            on_error: as for a table; what could not be read was left out when the studies were packed.

        Raises:
            OSError: If a file cannot be read.
            ValueError: If a file is damaged.
        """
        folder = self.absolute().folder
        index = read_index(folder)
        if index["format"] != FORMAT:
            raise ValueError(f"{folder} was packed by another version of medvl ({index['format']}); pack it again.")
        listed = {entry["name"]: entry["sha256"] for entry in index["files"]}
        studies = read_studies(folder, len(index["names"]), listed.get(STUDIES))
        expected = sum(shard["studies"] for shard in index["shards"])
        if len(studies) != expected:
            raise ValueError(f"{folder}/{STUDIES} is damaged: it has {len(studies)} of {expected} studies.")
        skipped = [StudyError(*error) for error in index["skipped"]]
        return Manifest(
            name=folder.rpartition("/")[2] or folder,
            studies=studies,
            names=tuple(index["names"]),
            counts=dict(index["counts"]),
            skipped=skipped,
            encoding=index["encoding"],
            unmatched=dict(index["unmatched"]),
        )

    def text_labels(self) -> Path | None:
        """The file of the texts' states; None if there is none, or the folder is on a web server."""
        path = Path(self.folder) / TEXT_LABELS
        return path if not is_url(self.folder) and path.is_file() else None


def shard_name(number: int) -> str:
    """The file name of a shard.

    Example:
        >>> shard_name(7)
        'shard-000007.tar'
    """
    return f"shard-{number:06d}.tar"


def encode_label(label: NDArray[np.float32] | None) -> str:
    """Finding states as a character each: ``1``, ``0``, ``u`` uncertain, ``.`` not mentioned; ``""`` without a label.

    Raises:
        ValueError: If a state is none of these.

    Example:
        >>> encode_label(np.array([1, 0, -1, np.nan], dtype=np.float32))
        '10u.'
    """
    if label is None:
        return ""
    states = np.nan_to_num(np.asarray(label, dtype=np.float32), nan=NOT_MENTIONED)
    try:
        return "".join(_CODE_OF_STATE[state] for state in states.tolist())
    except KeyError as error:
        raise ValueError(f"label must hold 1, 0, -1 and NaN, got {error.args[0]:g}.") from error


def source_file(path: str) -> tuple[str, int]:
    """Name of an image file, and its bytes or, of a folder, the number of its files; 0 for what cannot be read.

    Of a packed image, those of the file that it was made from.
    """
    member = TarMember.parse(path)
    if member is not None:
        return member.source_name, member.source_size
    try:
        return os.path.basename(path), len(os.listdir(path)) if os.path.isdir(path) else os.path.getsize(path)
    except OSError:
        return os.path.basename(path), 0


class Sample(NamedTuple):
    """A study as it goes into a shard.

    Args:
        number: its place among the studies of the table, from 0.
        study: its dictionary.
        image: suffix and content of the image's file; None for a study without an image.
        source: the file that the image was read from (:func:`source_file`).
        first: number of the first study with the same image file, if that is another one.
    """

    number: int
    study: Mapping[str, Any]
    image: tuple[str, bytes] | None = None
    source: tuple[str, int] = ("", 0)
    first: int | None = None


def sample_files(sample: Sample, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The files of a sample in its shard, by WebDataset's convention: ``NUMBER.png`` or ``.npy``, ``.txt`` and ``.json``.

    Args:
        sample: the study.
        names: the K finding names.
    """
    study = sample.study
    if sample.image is not None:
        suffix, content = sample.image
        yield f"{sample.number:09d}.{suffix}", content
    if "report" in study:
        yield f"{sample.number:09d}.txt", study["report"].encode("utf-8", "replace")
    record = {key: study[key] for key in ("study_id", "patient_id", "split", "row") if key in study}
    if "label" in study:
        states = zip(names or map(str, range(len(study["label"]))), study["label"].tolist(), strict=True)
        record["label"] = {name: int(state) for name, state in states if state == state}
    yield f"{sample.number:09d}.json", json.dumps(record).encode()


def tar_entry(name: str, content: bytes) -> tuple[bytes, bytes]:
    """The header of a file in a tar file, and its content with padding."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(content), 0o644
    return header.tobuf(tarfile.USTAR_FORMAT), content + bytes(-len(content) % tarfile.BLOCKSIZE)


END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


class ShardColumns:
    """The line of one shard in ``studies.jsonl``, collected while the shard is written.

    Args:
        name: of the shard.
        names: the K finding names.
    """

    def __init__(self, name: str, names: Sequence[str]) -> None:
        self._names = names
        self.columns: dict[str, Any] = {"shard": name}
        self.columns |= {key: [] for key in (*TEXTS, *NUMBERS, "label", "digest", "source_name")}
        self.columns["first"] = {}
        self.size = 0

    def write(self, file: Any, sample: Sample) -> None:
        """Write a sample to the shard."""
        columns, study = self.columns, sample.study
        place: dict[str, Any] = {"offset": 0, "size": 0, "digest": ""}
        for name, content in sample_files(sample, self._names):
            header, body = tar_entry(name, content)
            if sample.image is not None and content is sample.image[1]:
                place = {"offset": self.size + len(header), "size": len(content), "digest": short_digest(content)}
            file.write(header)
            file.write(body)
            self.size += len(header) + len(body)
        if sample.first is not None:
            columns["first"][str(sample.number)] = sample.first
        for key in TEXTS:
            columns[key].append(study.get(key, ""))
        columns["label"].append(encode_label(study.get("label")))
        place |= {"number": sample.number, "row": study["row"]}
        place["source_name"], place["source_size"] = sample.source
        for key, value in place.items():
            columns[key].append(value)

    def close(self, file: Any) -> None:
        """Write the end of the shard."""
        file.write(END_OF_TAR)
        self.size += len(END_OF_TAR)

    def line(self) -> bytes:
        """The line."""
        return json.dumps(self.columns, separators=(",", ":")).encode() + b"\n"


class _ImageColumn:
    """The places of images in shards, as arrays; each is a text (:class:`TarMember`) when it is asked for."""

    prefix = ""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._shards: list[str] = []
        self._shard, self._source_name = array("l"), TextColumn()
        self._numbers = {key: array("q") for key in ("number", "offset", "size", "source_size")}
        self._digest = array("Q")
        self._same: dict[int, int] = {}

    def extend(self, columns: Mapping[str, Any]) -> None:
        """Add the images of a shard."""
        count = len(columns["number"])
        self._shard.extend([len(self._shards)] * count)
        if os.path.basename(columns["shard"]) != columns["shard"]:
            raise ValueError(f"{columns['shard']!r} is not the name of a file.")
        self._shards.append(columns["shard"])
        for key, column in self._numbers.items():
            column.extend(columns[key])
        self._digest.extend([int(digest, 16) if digest else 0 for digest in columns["digest"]])
        self._source_name.extend(columns["source_name"])
        self._same |= {int(number): first for number, first in columns["first"].items()}

    def resolve(self) -> None:
        """Let studies of one image file have one place, that of the first of them."""
        numbers = np.asarray(self._numbers["number"])
        if self._same:
            own = np.searchsorted(numbers, list(self._same))
            first = np.searchsorted(numbers, list(self._same.values()))
            for column in (self._shard, self._digest, *self._numbers.values()):
                values = np.frombuffer(column, dtype=column.typecode)
                values[own] = values[first]

    def __getitem__(self, index: int) -> str:
        size = self._numbers["size"][index]
        if not size:
            return ""
        shard = f"{self._folder}/{self._shards[self._shard[index]]}"
        place, source = self._numbers["offset"][index], self._numbers["source_size"][index]
        return str(TarMember(shard, place, size, f"{self._digest[index]:016x}", source, self._source_name[index]))

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which studies have an image."""
        return np.asarray(self._numbers["size"]) > 0

    @property
    def digests(self) -> NDArray[np.uint64]:
        """A hash of each image's content; 0 where there is none."""
        return np.frombuffer(self._digest, dtype=np.uint64)


def read_studies(folder: str, width: int, sha256: str | None = None) -> StudyList:
    """The studies of a packed folder.

    Args:
        folder: path or URL.
        width: K, the number of findings.
        sha256: of the file of the studies, with which it is compared.

    Raises:
        OSError: If the file of the studies cannot be read.
        ValueError: If it is damaged.
    """
    texts: dict[str, Any] = {key: TextColumn() for key in TEXTS}
    texts["image"] = images = _ImageColumn(folder)
    rows, labels = array("q"), bytearray()
    for number, columns in enumerate(read_shard_columns(folder, sha256), start=1):
        try:
            for key in TEXTS:
                texts[key].extend(columns[key])
            rows.extend(columns["row"])
            images.extend(columns)
            labels += decode_labels(columns["label"], width)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{folder}/{STUDIES}, line {number} is damaged: {plain_reason(error)}.") from error
    try:
        images.resolve()
    except (IndexError, ValueError) as error:
        raise ValueError(f"{folder}/{STUDIES} is damaged: {plain_reason(error)}.") from error
    return StudyList.from_columns(width, texts, rows, labels)


def decode_labels(labels: Sequence[str], width: int) -> bytes:
    """The states of N labels as int8, N x K bytes; those of a study without a label are not mentioned.

    Raises:
        ValueError: If a label does not have K states.
    """
    unknown = "." * width
    joined = "".join([label or unknown for label in labels])
    if len(joined) != width * len(labels):
        raise ValueError(f"the labels must have {width} states each.")
    return _STATE_OF_BYTE[np.frombuffer(joined.encode("latin-1"), dtype=np.uint8)].tobytes()


def read_shard_columns(folder: str, sha256: str | None = None) -> Iterator[dict[str, Any]]:
    """The lines of ``studies.jsonl``: for each shard its studies by column.

    Args:
        folder: path or URL.
        sha256: of the file, with which it is compared once all of it is read.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not JSON, or the file has another hash.
    """
    path = f"{folder}/{STUDIES}"
    if not is_url(folder) and not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is missing, which {INDEX} lists.")
    with io.BytesIO(read_url(path)) if is_url(folder) else Path(path).open("rb") as file:
        digest = hashlib.sha256()
        for number, line in enumerate(file, start=1):
            digest.update(line)
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number} is damaged: {plain_reason(error)}.") from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ValueError(
            f"{path} is damaged: its content is not what was packed; medvl pack --verify examines the folder."
        )
