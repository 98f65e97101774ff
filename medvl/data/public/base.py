"""Base class of the public data sets, each read from the layout in which it is published."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np

from medvl.data.cells import normalize_name
from medvl.data.manifest import CONTENT_KEYS, Manifest
from medvl.data.public.views import keep_views
from medvl.data.splits import SPLITS
from medvl.data.tables import read_table
from medvl.utils.checks import check_option, error_message
from medvl.utils.errors import StudyError

#: What a study of a manifest may have beside the keys of a table: the view of its image, what is marked in it, a phrase.
_EXTRA_KEYS = ("regions", "phrase")
_IDS = ("study_id", "patient_id", "split")


class PublicDataset(Sequence[dict[str, Any]], ABC):
    """A public data set as a datalist: a sequence of dictionaries, one a study.

    A study has ``study_id`` and, where the data set publishes them, ``patient_id``, ``split`` (train, val or test), ``image``
    (list of paths, one a view), ``views`` (the view of each image, as published), ``report``, ``label`` (float32 (K,): 1
    present, 0 absent, -1 uncertain, NaN not mentioned, in the order of ``names``), ``regions`` (what is marked in the images,
    by finding: :class:`medvl.transforms.DrawRegions`) and ``phrase`` (the text that the regions belong to).

    A subclass says in its class attributes what it reads, and yields its studies from :meth:`read_studies`.

    Args:
        path: folder (or archive) of the data set, as it is published.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        views: ``"all"``, ``"frontal"``, ``"lateral"``, or published names of views, one or several; studies without any of them
            are dropped.
        check_files: whether an image that is not there is an error of its study. Without the check, studies keep the paths that
            follow from the tables, as for the texts of a data set whose images have not been loaded.
        on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies and keep their errors in ``skipped``.

    Attributes:
        title: the name under which the data set is known.
        layout: the files that it is read from.
        license: the terms of its use.
        url: where to apply for it, or to load it from.
        names: the K finding names.
        skipped: the errors of the studies that were skipped.

    Raises:
        FileNotFoundError: If a file of the layout is missing.
        ValueError: If ``split``, ``views`` or ``on_error`` is unknown, or splits or views are asked for that there are not.
        medvl.utils.errors.StudyError: If a study cannot be read and ``on_error`` is ``"raise"``.
    """

    title: ClassVar[str] = ""
    layout: ClassVar[str] = ""
    license: ClassVar[str] = ""
    url: ClassVar[str] = ""
    names: tuple[str, ...] = ()

    def __init__(
        self,
        path: str | Path,
        split: str = "all",
        views: str | Sequence[str] = "all",
        check_files: bool = True,
        on_error: str = "raise",
    ) -> None:
        check_option(split, "split", (*SPLITS, "all"))
        check_option(on_error, "on_error", ("raise", "skip"))
        self.path = Path(path).expanduser()
        self.check_files, self._on_error = check_files, on_error
        self.skipped: list[StudyError] = []
        if not self.path.exists():
            raise FileNotFoundError(f"path: there is no file or folder {self.path}.")
        studies = list(self.read_studies())
        if split != "all":
            if studies and not any("split" in study for study in studies):
                raise ValueError(error_message("split", f"be 'all', since {self.title} has no splits", repr(split)))
            studies = [study for study in studies if study.get("split") == split]
        self._studies = keep_views(studies, views, self.title)

    @abstractmethod
    def read_studies(self) -> Iterator[dict[str, Any]]:
        """Yield every study of every split, reading each inside :meth:`handle_study_errors`."""

    @contextmanager
    def handle_study_errors(self) -> Iterator[None]:
        """Raise or record a :class:`~medvl.utils.errors.StudyError` of the block, as ``on_error`` says."""
        try:
            yield
        except StudyError as error:
            if self._on_error == "raise":
                raise
            self.skipped.append(error)

    def find(self, *patterns: str) -> Path | None:
        """The first file or folder of the data set that matches one of the patterns, compressed (``.gz``) or not; else None.

        Args:
            patterns: of ``pathlib.Path.glob``, the one to prefer first.
        """
        for pattern in patterns:
            for name in (pattern, f"{pattern}.gz"):
                found = min(self.path.glob(name), default=None)
                if found is not None:
                    return found
        return None

    def require(self, *patterns: str) -> Path:
        """The first file or folder that matches (:meth:`find`).

        Raises:
            FileNotFoundError: If there is none, with the layout that is expected.
        """
        found = self.find(*patterns)
        if found is None:
            raise FileNotFoundError(
                f"{self.path} holds no {' or '.join(patterns)}{self._archives}; {self.title} is read from {self.layout}."
            )
        return found

    @cached_property
    def _archives(self) -> str:
        """For an error: the first archive that lies where unpacked files were expected. A folder may hold 100,000 files."""
        if self.path.is_file():
            return ", since it is a file, which must be unpacked"
        found = sorted(
            file.name for file in self.path.glob("*") if file.name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))
        )
        return f" ({found[0]} is not unpacked)" if found else ""

    def read_rows(
        self, path: Path, columns: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> Iterator[dict[str, str]]:
        """The rows of one of the data set's tables as text; a row that cannot be read is raised or recorded.

        White space around cells and names of columns is dropped: it would part ids and labels that belong together.

        Args:
            path: the file, of any format that :func:`medvl.data.tables.read_table` reads.
            columns: columns that it must have, in whatever case.
            optional: columns that it may have, in whatever case.

        Raises:
            ValueError: If one of the columns is missing, or the table is broken.
            medvl.utils.errors.StudyError: If a row cannot be read and ``on_error`` is ``"raise"``.
        """
        table = read_table(path)
        published = {normalize_name(column): column for column in (*columns, *optional)}
        names = {name: published.get(normalize_name(name), name.strip()) for name in table.columns}
        missing = [column for column in columns if column not in names.values()]
        if missing:
            raise ValueError(f"{path.name} has no column {', '.join(missing)}; use the data set's original table.")
        if len(set(names.values())) < len(names):
            raise ValueError(f"{path.name} has two columns of one name; use the data set's original table.")
        for row in table:
            if row.problem:
                with self.handle_study_errors():
                    raise StudyError(f"row {row.number}", path.name, f"{row.position}: {row.problem}")
            else:
                yield {names[column]: "" if cell is None else str(cell).strip() for column, cell in row.cells.items()}

    def image_path(self, path: Path, study_id: str, *suffixes: str) -> str:
        """The path of an image, whose file may have another suffix than the published one.

        Args:
            path: the file as it is published.
            study_id: for the error.
            suffixes: the other suffixes.

        Raises:
            medvl.utils.errors.StudyError: If there is no such file and files are checked.
        """
        if not self.check_files and not suffixes:
            return str(path)
        for candidate in (path, *(path.with_suffix(suffix) for suffix in suffixes)):
            if candidate.is_file():
                return str(candidate)
        if self.check_files:
            names = " or ".join([path.name, *(path.with_suffix(suffix).name for suffix in suffixes)])
            raise StudyError(study_id, "image", f"there is no file {names} in {path.parent}{self._archives}")
        return str(path)

    def indexed_images(self, index: ImageIndex, stem: str, study_id: str) -> list[str]:
        """The path of an image that may be in any folder, alone in a list, which is empty if it is not there.

        Args:
            index: the images that are there.
            stem: file name without suffix.
            study_id: for the error.

        Raises:
            medvl.utils.errors.StudyError: If there is no such file and files are checked.
        """
        found = index.get(stem)
        if found is None and self.check_files:
            raise StudyError(study_id, "image", f"there is no image {stem} in {self.path}{self._archives}")
        return [] if found is None else [found]

    def __len__(self) -> int:
        return len(self._studies)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._studies[index]

    def to_manifest(self, name: str = "") -> Manifest:
        """The studies as a :class:`~medvl.data.Manifest`, where each view is a dictionary of its own with its study's id.

        Args:
            name: of the manifest; the title and the path's name by default.

        Raises:
            FileNotFoundError: If there is no study.
        """
        if not len(self) and not self.skipped:
            raise FileNotFoundError(f"There is no study of {self.title} in {self.path}.")
        studies = [view for row, study in enumerate(self, start=1) for view in _split_views(study, row)]
        number = len(self) + len(self.skipped)
        return Manifest.from_studies(
            name or f"{self.title}:{self.path.name}", studies, number, self.names, self.skipped
        )


class ImagesElsewhere(PublicDataset):
    """A public data set whose texts or annotations are published apart from the images.

    Args:
        path: as for :class:`PublicDataset`.
        split: as for :class:`PublicDataset`.
        views: as for :class:`PublicDataset`.
        images: folder of the images; that of ``path`` if it is blank.
        check_files: as for :class:`PublicDataset`.
        on_error: as for :class:`PublicDataset`.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    def __init__(
        self,
        path: str | Path,
        split: str = "all",
        views: str | Sequence[str] = "all",
        images: str | Path = "",
        check_files: bool = True,
        on_error: str = "raise",
    ) -> None:
        self.images = Path(images or path)
        if images and not self.images.is_dir():
            raise FileNotFoundError(f"images: there is no folder {self.images}.")
        super().__init__(path, split, views, check_files, on_error)


def check_joined(table: Path | None, keys: Iterable[str], wanted: Collection[str]) -> None:
    """Check that a table beside that of the studies has a row of one of them.

    Args:
        table: the table; None if there is none.
        keys: what its rows belong to.
        wanted: the keys of the studies.

    Raises:
        ValueError: If it has rows, and none of them is of a study.
    """
    rest = set(keys)
    if table is not None and rest and wanted and rest.isdisjoint(wanted):
        raise ValueError(
            f"{table.name} has no row of any study: its ids, such as {min(rest)[:40]!r}, are not written like those of the "
            f"studies, such as {min(wanted)[:40]!r}."
        )


def parse_box(cells: Sequence[str | float], study_id: str, key: str) -> list[float]:
    """A box of four numbers: left, top, width and height.

    Args:
        cells: the numbers.
        study_id: for the error.
        key: for the error.

    Raises:
        medvl.utils.errors.StudyError: If they are not four finite numbers, or a side is below 0.
    """
    try:
        box = [float(cell) for cell in cells]
    except ValueError:
        box = []
    if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) < 0:
        raise StudyError(study_id, key, "expected a box of four numbers with sides of at least 0")
    return box


class ImageIndex:
    """The image files below folders by their names, for data sets that are unpacked in more than one way.

    Args:
        folders: the folders; those that do not exist are left out.
        suffixes: of the image files, in lower case.
    """

    def __init__(self, *folders: Path, suffixes: Sequence[str] = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")) -> None:
        self._paths: dict[str, str] = {}
        for folder in folders:
            for parent, below, files in os.walk(folder, followlinks=True):
                below.sort()
                for file in sorted(files):
                    stem = next((file[: -len(end)] for end in suffixes if file.lower().endswith(end)), None)
                    if stem is not None:
                        self._paths.setdefault(stem, os.path.join(parent, file))

    def __len__(self) -> int:
        return len(self._paths)

    def get(self, stem: str) -> str | None:
        """The path of an image by its file name without suffix; None if there is none."""
        return self._paths.get(stem)


def join_sections(sections: Mapping[str, str]) -> str:
    """A report of its sections, each behind its name as a header and on a line of its own; those without text are left out.

    Example:
        >>> join_sections({"findings": "Clear lungs.", "impression": " "})
        'FINDINGS: Clear lungs.'
    """
    return "\n".join(f"{name.upper()}: {text.strip()}" for name, text in sections.items() if text.strip())


def _split_views(study: Mapping[str, Any], row: int) -> list[dict[str, Any]]:
    """A study as one dictionary for each view, with the keys of a manifest that have content."""
    kept = {key: study[key] for key in (*_IDS, *CONTENT_KEYS[1:], *_EXTRA_KEYS) if key in study}
    if not str(kept.get("report", "")).strip():
        kept.pop("report", None)
    if "label" in kept and np.isnan(kept["label"]).all():
        del kept["label"]
    kept["row"] = row
    images = study.get("image") or []
    views = study.get("views") or [""] * len(images)
    return [
        {**kept, "image": image, **({"view": view} if view else {})} for image, view in zip(images, views, strict=True)
    ] or [kept]
