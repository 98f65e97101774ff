"""Reading a table of studies into a :class:`Manifest`; every row is read, skipped with its error, or an error."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.data.cells import CellError, is_blank, read_id, strip_text
from medvl.data.label_columns import LabelReader, label_reader
from medvl.data.manifest import Manifest
from medvl.data.splits import SPLITS, group_key
from medvl.data.tables import Row, Table, read_table
from medvl.utils.checks import check_option
from medvl.utils.errors import StudyError

# The first of these columns that the table has is used if no column is named.
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

    A named column must exist. A cell may be empty: a study without a report, an image or a label has no such key. A row with
    neither image nor report, a missing image file, an invalid finding state, a label of the wrong width or an unknown split is
    an error that names row and column.

    Args:
        path: the table; relative image paths are relative to its folder.
        image_column: paths of PNG, JPEG, TIFF, DICOM or NIfTI files or of folders that hold a DICOM series; in JSON a
            list of paths gives one study dictionary for each view. None for a table without images.
        report_column: raw report text. None for a table without reports; the default name may also be absent where the
            table has labels.
        label_column: a list of columns, one a finding, with 1, 0, -1 or blank; or one column with a class name in each
            cell (several separated by ``|`` or ``;``, by commas where the parts are known classes, or in a list as
            ``['a', 'b']``) or with a list of numbers (``1;0;-1;;1``). None takes CheXpert's fourteen columns, in CheXpert's
            order, where the table has two or more of them.
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
        OSError: If the table cannot be read.
        ValueError: If a named column does not exist, or the table is empty or broken.
        medvl.utils.errors.StudyError: If a row is bad and ``on_error`` is ``"raise"``.

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
    check_option(on_error, "on_error", ("raise", "skip"))
    table = read_table(path)
    labels = label_reader(table, label_column, label_names)
    if report_column == "report" and "report" not in table.columns and labels is not None:
        report_column = None
    columns = _Columns(
        image=image_column and table.resolve_column(image_column, "image_column"),
        report=report_column and table.resolve_column(report_column, "report_column"),
        split=_column_or_default(table, split_column, _SPLIT_COLUMNS, "split_column"),
        patient=_column_or_default(table, patient_column, _PATIENT_COLUMNS, "patient_column"),
        study=_column_or_default(table, study_column, _STUDY_COLUMNS, "study_column"),
    )
    if columns.image is None and columns.report is None:
        raise ValueError("image_column or report_column must name a column, got None for both.")
    studies: list[dict[str, Any]] = []
    skipped: list[StudyError] = []
    for row in table.rows:
        try:
            studies += _read_row(row, table, columns, labels)
        except CellError as error:
            bad = StudyError(_error_id(row, columns), error.column, f"{row.position}: {error.reason}")
            if on_error == "raise":
                raise bad from error
            skipped.append(bad)
    _resolve_patients(studies)
    leaking = _patients_in_two_splits(studies)
    if leaking and on_error == "raise":
        raise leaking[min(leaking)]
    skipped += leaking.values()
    studies = [study for study in studies if study["row"] not in leaking]
    names = labels.names if labels else ()
    return Manifest.from_studies(table.path.name, studies, len(table.rows), names, skipped, table.encoding)


@dataclass(frozen=True)
class _Columns:
    image: str | None
    report: str | None
    split: str | None
    patient: str | None
    study: str | None


def _column_or_default(table: Table, column: str | None, defaults: Sequence[str], argument: str) -> str | None:
    if column is not None:
        return table.resolve_column(column, argument)
    return next((name for name in defaults if name in table.columns), None)


def _read_row(row: Row, table: Table, columns: _Columns, labels: LabelReader | None) -> list[dict[str, Any]]:
    """The row's studies: one, or one for each view where the image cell is a list."""
    content = columns.report or columns.image or ""
    if row.problem:
        raise CellError(content, row.problem)
    study: dict[str, Any] = {"study_id": _study_id(row, columns), "row": row.number}
    if columns.patient and (patient := read_id(row.cells.get(columns.patient), columns.patient)):
        study["patient_id"] = patient
    if columns.split:
        study["split"] = _split_name(row.cells.get(columns.split), columns.split)
    if columns.report and not is_blank(report := row.cells.get(columns.report)):
        if not isinstance(report, str):
            raise CellError(columns.report, f"expected a str, got {type(report).__name__}")
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
    return [cell for cell in cells if not is_blank(cell)]


def _image_path(cell: Any, table: Table, column: str | None) -> str:
    column = column or ""
    if not isinstance(cell, str):
        raise CellError(column, f"expected a path, got {type(cell).__name__}")
    name = os.path.expanduser(strip_text(cell))
    path = os.path.abspath(os.path.join(table.path.parent, name))
    if not os.path.exists(path) and "\\" in name:  # a table written on Windows
        path = os.path.abspath(os.path.join(table.path.parent, name.replace("\\", "/")))
    if os.path.exists(path):
        return path
    # A report in the wrong column is not repeated.
    if re.fullmatch(r"\S{1,250}|[^\n]{1,250}\.\w{2,5}", name):
        raise CellError(column, f"the file {cell.strip()} does not exist (looked for {path})")
    raise CellError(column, f"expected the path of an image, got a text of {len(cell)} characters")


def _study_id(row: Row, columns: _Columns) -> str:
    """The study column's cell, else the image path as written in the table, else the row."""
    images = _image_cells(row, columns)
    return _given_id(row, columns) or (str(images[0]).strip() if images else f"row {row.number}")


def _error_id(row: Row, columns: _Columns) -> str:
    """The study's id for an error: not the image cell, which may hold a patient's report by mistake."""
    try:
        return _given_id(row, columns) or f"row {row.number}"
    except CellError:
        return f"row {row.number}"


def _given_id(row: Row, columns: _Columns) -> str:
    return read_id(row.cells.get(columns.study), columns.study) if columns.study else ""


def _split_name(cell: Any, column: str) -> str:
    text = strip_text(str(cell))
    name = _SPLIT_NAMES.get(text.lower())
    if name is None:
        received = "an empty cell" if is_blank(cell) else repr(text) if len(text) <= 20 else "a longer text"
        raise CellError(column, f"expected train, val or test, got {received}")
    return name


def _resolve_patients(studies: Sequence[dict[str, Any]]) -> None:
    """Give each study one patient. A blank patient is filled from the study's other rows. Where several patients have
    studies of the same id (ids numbered per patient), the patient's id is put before it to keep the studies apart."""
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
    """The errors, by row number, of studies whose patient is also in a split that is evaluated later.

    The test split keeps its patients, then the validation split: what must not happen is training or model selection on them.
    """
    last: dict[Any, str] = {}
    for study in studies:
        if "split" in study:
            group = group_key(study)
            last[group] = max(study["split"], last.get(group, SPLITS[0]), key=SPLITS.index)
    return {
        study["row"]: StudyError(
            study["study_id"],
            "split",
            f"row {study['row']}: the patient is in {study['split']} and in {last[group_key(study)]}; "
            "expected all studies of a patient in one split",
        )
        for study in studies
        if "split" in study and study["split"] != last[group_key(study)]
    }
