"""A table of studies becomes a MONAI datalist, and nothing gets lost on the way without being counted."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medvl.data.label_columns import CellError, LabelReader, is_missing, label_reader
from medvl.data.splits import SPLITS, patient_of, split_by_patient
from medvl.data.tables import Row, Table, read_table
from medvl.utils.errors import StudyError, check_on_error

# The first of these that the table has is used where the caller names no column.
_PATIENT_COLUMNS = ("patient_id", "patient", "subject_id")
_STUDY_COLUMNS = ("study_id", "study")
_SPLIT_COLUMNS = ("split",)

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_CONTENT = ("image", "report", "label")


@dataclass(frozen=True)
class Manifest:
    """The studies of a table, and an account of every row.

    Args:
        name: the table's file name.
        studies: the datalist. Each dictionary holds ``study_id``, ``row`` (1 is the first below the header) and, where
            the table has them, ``image`` (absolute path), ``report`` (text), ``label`` (float32 (K,): 1 present,
            0 absent, -1 uncertain, NaN not mentioned), ``patient_id`` and ``split`` (``train``, ``val``, ``test``).
        names: the K finding names; empty where there are no labels or they came without names.
        counts: ``rows`` of the table, rows ``skipped``, and of the others those with ``image``, ``report`` and ``label``.
        skipped: the error of every row that was left out for one (``on_error="skip"``).
        left_out: studies without a key that :meth:`require` asked for, by that key.
        encoding: how the file was read, where it is not UTF-8.
    """

    name: str
    studies: list[dict[str, Any]] = field(repr=False)
    names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    skipped: list[StudyError] = field(default_factory=list, repr=False)
    left_out: dict[str, int] = field(default_factory=dict)
    encoding: str = "utf-8"

    def __len__(self) -> int:
        return len(self.studies)

    def summary(self) -> str:
        """What became of the rows, in plain sentences."""
        read = self.counts["rows"] - self.counts["skipped"]
        skipped = f" ({self.counts['skipped']} skipped for an error)" if self.counts["skipped"] else ""
        parts = [f"{self.counts[key]} with {_article(key)}, {read - self.counts[key]} without" for key in _CONTENT]
        text = f"{self.name}: {_count(self.counts['rows'], 'row')}{skipped}: {'; '.join(parts)}."
        for key, count in self.left_out.items():
            text += f" {_count(count, 'study', 'studies')} without {_article(key)} left out."
        if self.encoding != "utf-8":
            text += f" The file is not UTF-8 and was read as {self.encoding}."
        return text

    def require(self, *keys: str) -> Manifest:
        """Keep the studies that have all of these keys, and count the others in ``left_out``.

        Args:
            keys: ``image``, ``report``, ``label`` or any other key of a study.

        Raises:
            ValueError: no study is left.
        """
        kept = []
        left_out = Counter(self.left_out)
        for study in self.studies:
            missing = next((key for key in keys if key not in study), None)
            if missing is None:
                kept.append(study)
            else:
                left_out[missing] += 1
        if not kept and not self.studies and self.skipped:
            raise ValueError(f"every row of {self.name} was skipped for an error, the first: {self.skipped[0]}")
        if not kept:
            wanted = " and ".join(_article(key) for key in keys)
            absent = [_article(key) for key in keys if not self.counts.get(key, 1)]
            hint = f"; no row has {' or '.join(absent)}, so check which column is read for it" if absent else ""
            raise ValueError(f"none of the {len(self.studies)} studies of {self.name} has {wanted}{hint}")
        return replace(self, studies=kept, left_out=dict(left_out))

    def with_splits(self, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Manifest:
        """The table's own splits where it has them, else :func:`split_by_patient`."""
        if all("split" in study for study in self.studies):
            return self
        return replace(self, studies=split_by_patient(self.studies, fractions, seed))

    def split(self, name: str) -> list[dict[str, Any]]:
        """The studies of one split.

        Args:
            name: ``train``, ``val`` or ``test``.

        Raises:
            ValueError: the name is none of these, or the studies have no splits yet.
        """
        if name not in SPLITS:
            raise ValueError(f"name: expected one of {', '.join(SPLITS)}, received {name!r}")
        if not all("split" in study for study in self.studies):
            raise ValueError(f"{self.name} has no split column; use with_splits() to split it by patient")
        return [study for study in self.studies if study["split"] == name]

    def of_split(self, name: str) -> Manifest:
        """The manifest with the studies of one split; of every split for ``all``.

        Raises:
            ValueError: another name, or a split without a study.
        """
        if name == "all":
            return self
        if name not in SPLITS:
            raise ValueError(f"split must be {', '.join(SPLITS)} or all, received {name!r}")
        studies = self.split(name)
        if not studies:
            raise ValueError(
                f"{self.name} has {_count(len(self.studies), 'study', 'studies')} and none in the split {name}"
            )
        return replace(self, studies=studies)

    def fingerprint(self) -> str:
        """A SHA-256 of the studies' content: file names and sizes of images, texts, labels, groups and splits.

        It stays the same where the table and its images are moved, and changes with anything that training sees.
        """
        digest = hashlib.sha256(repr(self.names).encode())
        # The number of its group stands for a study's id, which may hold the image's path.
        groups: dict[str, int] = {}
        for study in self.studies:
            image = study.get("image")
            label = study.get("label")
            parts: tuple[Any, ...] = (
                groups.setdefault(study["study_id"], len(groups)),
                study.get("patient_id"),
                study.get("split"),
                image and (os.path.basename(image), _size(image)),
                study.get("report"),
                None if label is None else label.tolist(),
            )
            if "text_label" in study:
                parts += (study["kind"], study["text_label"].tolist())
            digest.update(repr(parts).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_manifest(
    path: str | Path,
    *,
    image_column: str | None = "image",
    report_column: str | None = "report",
    label_column: str | Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    split_column: str | None = None,
    patient_column: str | None = None,
    study_column: str | None = None,
    on_error: str = "raise",
) -> Manifest:
    """Read a CSV, TSV, JSON or JSONL table of studies into a MONAI datalist.

    A column that is named must exist. A cell may be empty: a study without a report, an image or a label simply has no
    such key. A row with neither image nor report, an image file that does not exist, a state that is not one, a label of
    the wrong width or an unknown split is an error that names row and column.

    Args:
        path: the table; relative image paths are relative to its folder.
        image_column: paths of PNG, JPEG, TIFF, DICOM or NIfTI files or of folders that hold a DICOM series; in JSON a
            list of paths gives one study dictionary for each view. None for a table without images.
        report_column: raw report text. None for a table without reports; the default name may also be absent where the
            table has labels.
        label_column: a list of columns, one a finding, with 1, 0, -1 or blank; or one column with a class name in each
            cell (several separated by ``|`` or ``;``) or with a list of numbers (``1;0;-1;;1``). None takes CheXpert's
            fourteen columns, in CheXpert's order, where the table has two or more of them.
        label_names: finding names for one column that holds them all. Default: the names that occur, sorted.
        split_column: train, val or test (or training, valid, validation, dev). Default: ``split`` if there is one.
        patient_column: Default: ``patient_id``, ``patient`` or ``subject_id`` if there is one.
        study_column: rows of one study are views that belong to the same report. Default: ``study_id`` or ``study`` if
            there is one, else rows that name the same image are one study. An id that several patients have, as where
            each patient's studies are numbered from 1, gets the patient before it ("p7/1").
        on_error: ``"raise"`` the first bad row's error, or ``"skip"`` such rows and keep their errors in ``skipped``.

    Returns:
        The :class:`Manifest`.

    Raises:
        OSError: the table cannot be read.
        ValueError: an argument names a column that is absent, or the table is empty or broken.
        StudyError: a bad row, where ``on_error`` is ``"raise"``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder) / "texts.csv"
        ...     _ = table.write_text("study_id,report,finding\\na,Clear lungs.,No Finding\\nb,,Edema\\nc,Wet lungs.,Edema\\n")
        ...     manifest = read_manifest(table, image_column=None, label_column="finding", on_error="skip")
        >>> manifest.names
        ('Edema', 'No Finding')
        >>> [(study["study_id"], study["label"].tolist()) for study in manifest.studies]
        [('a', [0.0, 1.0]), ('c', [1.0, 0.0])]
        >>> manifest.summary()
        'texts.csv: 3 rows (1 skipped for an error): 0 with an image, 2 without; 2 with a report, 0 without;
        2 with a label, 0 without.'
        >>> print(manifest.skipped[0])
        study 'b', report: row 2 (line 3): there is neither an image nor a report
    """
    check_on_error(on_error)
    table = read_table(path)
    labels = label_reader(table, label_column, label_names)
    if report_column == "report" and "report" not in table.columns and labels is not None:
        report_column = None
    columns = _Columns(
        image=image_column and table.require(image_column, "image_column"),
        report=report_column and table.require(report_column, "report_column"),
        split=_optional(table, split_column, _SPLIT_COLUMNS, "split_column"),
        patient=_optional(table, patient_column, _PATIENT_COLUMNS, "patient_column"),
        study=_optional(table, study_column, _STUDY_COLUMNS, "study_column"),
    )
    if columns.image is None and columns.report is None:
        raise ValueError("image_column, report_column: expected at least one of the two, received None for both")
    studies: list[dict[str, Any]] = []
    skipped: list[StudyError] = []
    for row in table.rows:
        try:
            studies += _read_row(row, table, columns, labels)
        except CellError as error:
            bad = StudyError(_error_id(row, columns), error.column, f"{row.place}: {error.reason}")
            if on_error == "raise":
                raise bad from error
            skipped.append(bad)
    _settle_patients(studies)
    leaking = _patients_in_two_splits(studies)
    if leaking and on_error == "raise":
        raise leaking[min(leaking)]
    skipped += leaking.values()
    studies = [study for study in studies if study["row"] not in leaking]
    counts = {"rows": len(table.rows), "skipped": len(skipped)}
    counts |= {key: len({study["row"] for study in studies if key in study}) for key in _CONTENT}
    return Manifest(table.path.name, studies, labels.names if labels else (), counts, skipped, encoding=table.encoding)


@dataclass(frozen=True)
class _Columns:
    image: str | None
    report: str | None
    split: str | None
    patient: str | None
    study: str | None


def _optional(table: Table, column: str | None, defaults: Sequence[str], argument: str) -> str | None:
    if column is not None:
        return table.require(column, argument)
    return next((name for name in defaults if name in table.columns), None)


def _read_row(row: Row, table: Table, columns: _Columns, labels: LabelReader | None) -> list[dict[str, Any]]:
    """The row's studies: one, or one for each view where the image cell is a list."""
    content = columns.report or columns.image or ""
    if row.problem:
        raise CellError(content, row.problem)
    study: dict[str, Any] = {"study_id": _study_id(row, columns), "row": row.number}
    if columns.patient and not is_missing(patient := row.cells.get(columns.patient)):
        study["patient_id"] = _text_of(patient)
    if columns.split:
        study["split"] = _split_name(row.cells.get(columns.split), columns.split)
    if columns.report and not is_missing(report := row.cells.get(columns.report)):
        if not isinstance(report, str):
            raise CellError(columns.report, f"expected text, received a {type(report).__name__}")
        study["report"] = report
    if labels is not None and (label := labels.parse(row.cells)) is not None:
        study["label"] = label
    images = [_image_path(cell, table, columns.image) for cell in _image_cells(row, columns)]
    if not images and "report" not in study:
        raise CellError(content, "there is neither an image nor a report")
    return [{**study, "image": image} for image in images] or [study]


def _image_cells(row: Row, columns: _Columns) -> list[Any]:
    cell = row.cells.get(columns.image) if columns.image else None
    cells = cell if isinstance(cell, list) else [cell]
    return [cell for cell in cells if not is_missing(cell)]


def _image_path(cell: Any, table: Table, column: str | None) -> str:
    column = column or ""
    if not isinstance(cell, str):
        raise CellError(column, f"expected a path, received a {type(cell).__name__}")
    name = os.path.expanduser(cell.strip())
    path = os.path.abspath(os.path.join(table.path.parent, name))
    if not os.path.exists(path) and "\\" in name:  # a table written on Windows
        path = os.path.abspath(os.path.join(table.path.parent, name.replace("\\", "/")))
    if os.path.exists(path):
        return path
    # A report in the wrong column is not repeated.
    if re.fullmatch(r"\S{1,250}|[^\n]{1,250}\.\w{2,5}", name):
        raise CellError(column, f"the file {cell.strip()} does not exist (looked for {path})")
    raise CellError(column, f"expected the path of an image, received a text of {len(cell)} characters")


def _study_id(row: Row, columns: _Columns) -> str:
    """The study column's cell; without one, the image as the table names it; for a text alone, its row."""
    images = _image_cells(row, columns)
    return _given_id(row, columns) or (str(images[0]).strip() if images else f"row {row.number}")


def _error_id(row: Row, columns: _Columns) -> str:
    """The study's id where it is not known that the image cell holds a path and not a patient's report."""
    return _given_id(row, columns) or f"row {row.number}"


def _given_id(row: Row, columns: _Columns) -> str:
    cell = row.cells.get(columns.study) if columns.study else None
    return "" if is_missing(cell) else _text_of(cell)


def _text_of(cell: Any) -> str:
    return str(cell).strip()


def _split_name(cell: Any, column: str) -> str:
    name = _SPLIT_NAMES.get(_text_of(cell).lower())
    if name is None:
        text = _text_of(cell)
        received = "an empty cell" if is_missing(cell) else repr(text) if len(text) <= 20 else "a longer text"
        raise CellError(column, f"expected train, val or test, received {received}")
    return name


def _settle_patients(studies: Sequence[dict[str, Any]]) -> None:
    """One patient a study: a cell left blank is filled from the study's other rows, and ids that count the studies of each
    patient anew get the patient before them, lest two patients' images and reports be taken for one study's."""
    patients: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        if "patient_id" in study:
            patients[study["study_id"]].add(study["patient_id"])
    for study in studies:
        own = patients[study["study_id"]]
        if len(own) == 1:
            (study["patient_id"],) = own
        elif "patient_id" in study:
            study["study_id"] = f"{study['patient_id']}/{study['study_id']}"


def _patients_in_two_splits(studies: Sequence[Mapping[str, Any]]) -> dict[int, StudyError]:
    """By row number, the studies whose patient is also in a split of which evaluation must be clean.

    Test keeps its patients, then validation: what is wrong is to have trained or chosen on them.
    """
    last: dict[Any, str] = {}
    for study in studies:
        if "split" in study:
            group = patient_of(study)
            last[group] = max(study["split"], last.get(group, SPLITS[0]), key=SPLITS.index)
    return {
        study["row"]: StudyError(
            study["study_id"],
            "split",
            f"row {study['row']}: the patient is in {study['split']} and in {last[patient_of(study)]}; "
            "expected all studies of a patient in one split",
        )
        for study in studies
        if "split" in study and study["split"] != last[patient_of(study)]
    }


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder; 0 for one that is not there, which loading it will tell."""
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _article(key: str) -> str:
    return f"an {key}" if key[0] in "aeiou" else f"a {key}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"
