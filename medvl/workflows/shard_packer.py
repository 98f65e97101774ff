"""Packing of the studies of one shard into a tar file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from medvl.data import StudyDataset
from medvl.data.shards import FORMAT, Sample, ShardColumns, shard_name, source_file
from medvl.data.source_texts import split_into_sentences
from medvl.data.text_labels import read_text, text_key
from medvl.text import Vocabulary, load_vocabulary
from medvl.transforms import ExtractSections, image_preprocessing
from medvl.transforms.image import DEFAULT_HU_RANGE, RadiographIntensity
from medvl.transforms.packed_image import DTYPES, encode_image
from medvl.utils.checks import check_integer, check_option
from medvl.utils.checksums import read_sealed, write_sealed
from medvl.utils.errors import StudyError
from medvl.utils.io import atomic_write, file_sha256
from medvl.workflows.study_state import work_digest

PROGRESS = ".progress"
"""A folder beside the shards with a record of each that is whole, until all are."""


@dataclass(frozen=True)
class PackSettings:
    """How studies are packed.

    Args:
        image_size: length of the longest side of the stored images, in pixels.
        spatial_dims: 2 for radiographs, 3 for volumes.
        dtype: type of the stored pixels: ``"uint8"``, ``"uint16"``, ``"float16"`` or ``"float32"``.
        hu_range: Hounsfield units that become 0 and 1 in CT volumes, see
            :class:`~medvl.transforms.RadiographIntensity`.
        shard_size: number of studies in a shard; those with several images count once an image.
        vocabulary: findings that the reports are labeled with; None does not label them.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If a value is out of its range.
    """

    image_size: int = 224
    spatial_dims: int = 2
    dtype: str = "uint8"
    hu_range: Sequence[float] | None = DEFAULT_HU_RANGE
    shard_size: int = 1000
    vocabulary: str | None = "chexpert14"

    def __post_init__(self) -> None:
        check_integer(self.image_size, "image_size", minimum=1)
        check_integer(self.shard_size, "shard_size", minimum=1)
        check_option(self.spatial_dims, "spatial_dims", (2, 3))
        check_option(self.dtype, "dtype", DTYPES)
        RadiographIntensity(hu_range=self.hu_range)

    def to_dict(self) -> dict[str, Any]:
        """The settings for a JSON file, with the percentiles that :class:`~medvl.transforms.RadiographIntensity` has."""
        intensity = RadiographIntensity(hu_range=self.hu_range)
        hu_range = None if intensity.hu_range is None else list(intensity.hu_range)
        return {**asdict(self), "hu_range": hu_range, "lower": intensity.lower, "upper": intensity.upper}


class ShardJob(NamedTuple):
    """The studies of one shard: for each its number, its dictionary and the number of the first study with its image file."""

    shard: int
    samples: list[tuple[int, dict[str, Any], int | None]]


class ShardPacker:
    """Packs shards.

    Args:
        folder: the folder to write to.
        settings: how.
        names: the K finding names.
        on_error: what an image does that cannot be read.
        stopped: whether to stop; asked before each study.
    """

    def __init__(
        self,
        folder: Path,
        settings: PackSettings,
        names: Sequence[str],
        on_error: str,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.settings, self.names, self.on_error, self.stopped = folder, settings, names, on_error, stopped
        size, dims = settings.image_size, settings.spatial_dims
        # All but the padding, which is made again on reading.
        self._steps = image_preprocessing(size, dims, hu_range=settings.hu_range, allow_missing_keys=True).transforms[
            :-1
        ]
        self._vocabulary = None if settings.vocabulary is None else load_vocabulary(settings.vocabulary)
        self._extract = ExtractSections()

    def pack(self, job: ShardJob) -> tuple[int, bool]:
        """Pack a shard unless it is whole; the number of its studies, and whether it was whole."""
        path, record = self.folder / shard_name(job.shard), record_path(self.folder, job.shard)
        digest = self._digest(job)
        if _is_whole(path, record, digest):
            return len(job.samples), True
        dataset = StudyDataset([study for _, study, _ in job.samples], self._steps)
        columns = ShardColumns(path.name, self.names)
        skipped: list[StudyError] = []
        labels: dict[bytes, Any] = {}
        with atomic_write(path, "wb") as file:
            hashed = _HashedFile(file)
            for place, (number, study, first) in enumerate(job.samples):
                if self.stopped():
                    raise KeyboardInterrupt
                try:
                    sample = self._sample(number, study, dataset[place].get("image"), first)
                except StudyError as error:
                    if self.on_error == "raise":
                        raise
                    skipped.append(error)
                    continue
                columns.write(hashed, sample)
                if self._vocabulary is not None and "report" in study:
                    self._label(study["report"], self._vocabulary, labels)
            columns.close(hashed)
        content = {
            "digest": digest,
            "shard": {
                "name": path.name,
                "bytes": columns.size,
                "sha256": hashed.digest.hexdigest(),
                "studies": len(columns.columns["number"]),
                "images": sum(size > 0 for size in columns.columns["size"]),
            },
            "skipped": [error.args for error in skipped],
            "labels": {key.hex(): states.tolist() for key, states in labels.items()},
            "columns": columns.columns,
        }
        write_sealed(record, content)
        return len(job.samples), False

    def _sample(self, number: int, study: Mapping[str, Any], image: Any, first: int | None) -> Sample:
        if image is None:
            return Sample(number, study)
        try:
            file = encode_image(image, self.settings.dtype)
        except ValueError as error:
            raise StudyError(study["study_id"], "image", str(error).rstrip(".")) from error
        return Sample(number, study, file, source_file(study["image"]), first)

    def _label(self, report: str, vocabulary: Vocabulary, labels: dict[bytes, Any]) -> None:
        """The states of a report's sections and of their sentences, which are the texts that recipes train on."""
        text = self._extract(report)
        for one in (text, *split_into_sentences(text)):
            key = text_key(one)
            if key not in labels:
                labels[key] = read_text(one, vocabulary)

    def _digest(self, job: ShardJob) -> str:
        """A hash of what a shard is made from."""
        studies = (((number, first), study) for number, study, first in job.samples)
        return work_digest((FORMAT, self.settings, self.names, self.on_error), studies)


class _HashedFile:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> None:
        """Write and hash."""
        self._file.write(content)
        self.digest.update(content)


def record_path(folder: Path, shard: int) -> Path:
    """Where the record of a shard that is whole is, until all are."""
    return folder / PROGRESS / f"{shard_name(shard)}.json"


def _is_whole(path: Path, record: Path, digest: str) -> bool:
    try:
        content = read_sealed(record)
        return bool(content["digest"] == digest and file_sha256(path) == content["shard"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
