"""Reading a table of studies into a :class:`Manifest`; every row is read, skipped with its error, or an error."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data.cells import CellError, describe_cell, is_blank, read_id, strip_text
from medvl.data.column_selection import listed
from medvl.data.default_columns import default_column, split_name, warn_of_unused
from medvl.data.image_files import ImageFiles
from medvl.data.image_template import ImageTemplate
from medvl.data.label_columns import LabelReader, label_reader
from medvl.data.locations import parse_location
from medvl.data.manifest import Manifest
from medvl.data.manifest_checks import StudyCollector, contradicting_rows, leaking_rows, warn_of_spellings
from medvl.data.tables import Row, Table, read_joined_table
from medvl.data.tables.header import describe_columns
from medvl.data.tables.reports import ReportColumns
from medvl.utils.checks import check_option, check_text, error_message
from medvl.utils.errors import StudyError


def read_manifest(
    path: str | Path,
    *,
    image_column: str | None = "image",
    report_column: str | Sequence[str] | None = "report",
    label_column: str | Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    split_column: str | None = None,
    patient_column: str | None = None,
    study_column: str | None = None,
    image_root: str | Path | None = None,
    image_suffix: str = "",
    image_template: str | None = None,
    join: str | Sequence[str] = (),
    on_error: str = "raise",
    on_leak: str = "error",
) -> Manifest:
    """Read a table of studies into a MONAI datalist: CSV, TSV, JSON, JSONL, also as ``.gz``, Parquet or Excel.

    A named column must exist. A cell may be empty: a study without a report, an image or a label has no such key. A row with
    neither image nor report, a missing image file, an invalid finding state, a label of the wrong width, an unknown split, a
    patient or an image in two splits, or an image whose rows state a finding differently is an error that names row and column.

    Args:
        path: the table (:func:`medvl.data.tables.read_table`), or an image folder with a table ``metadata.jsonl``; relative
            image paths are relative to its folder. Or ``NAME:PATH`` of a public data set
            (:func:`medvl.data.public.registry.parse_public_location`) or ``shards:FOLDER`` of packed studies
            (:func:`medvl.workflows.pack_studies`), which have columns of their own.
        image_column: paths of PNG, JPEG, TIFF, DICOM or NIfTI files or of folders that hold a DICOM series; in JSON a
            list of paths gives one study dictionary for each view. None for a table without images.
        report_column: raw report text; several columns are joined, each under its name as a header if it is that of a section
            of reports (``["findings", "impression"]``). None for a table without reports; the default name may also be absent
            where the table has labels.
        label_column: a list of columns, one a finding, with 1, 0, -1 or blank; or one column with a class name in each
            cell (several separated by ``|`` or ``;``, by commas where the parts are known classes, or in a list as
            ``['a', 'b']``) or with a list of numbers (``1;0;-1;;1``). None takes CheXpert's fourteen columns, in CheXpert's
            order, where the table has two or more of them.
        label_names: finding names for one column that holds them all. Default: the names that occur, sorted.
        split_column: train, val or test (or training, valid, validation, dev). Default: ``split`` if there is one, also as
            ``Split`` if it holds nothing but names of splits.
        patient_column: Default: ``patient_id``, ``patient`` or ``subject_id`` if there is one, or else another spelling of the
            first or the last, as ``PatientID``. Rows without a patient get the one in file names of CT-RATE
            (``train_2_a_1.nii.gz``), ChestX-ray14, CheXpert, MIMIC-CXR and BIDS.
        study_column: rows of one study are views that belong to the same report. Default: ``study_id`` or ``study`` if
            there is one, else rows that name the same image are one study. An id that several
            patients have, as where each patient's studies are numbered from 1, gets the patient before it ("p7/1").
        image_root: the folder that relative image paths are relative to. Default: the table's.
        image_suffix: what is added to image paths that do not end in it, as ``.png``.
        image_template: the path of a row's image, made of columns, instead of ``image_column``: ``"{split}/{VolumeName}"``,
            see :class:`~medvl.data.image_template.ImageTemplate`.
        join: other tables whose columns are added, each as ``TABLE:KEY`` or, where the names of the key differ,
            ``TABLE:KEY=KEY_OF_TABLE``. Several rows may have one key; in the other table it is in one row. Rows without a row
            there are counted in ``counts`` and the summary.
        on_error: ``"raise"`` the first bad row's error, or ``"skip"`` such rows and keep their errors in ``skipped``.
        on_leak: whether a patient or an image in two splits is an ``"error"``, handled as ``on_error`` says; or ``"keep"`` such
            rows, to list them (:func:`~medvl.data.find_shared_items`).

    Returns:
        The :class:`Manifest`.

    Raises:
        OSError: If the table cannot be read.
        TypeError: If a name is not a string.
        ValueError: If a named column does not exist, the table is empty or broken, or columns of a public data set are named.
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
    _check_texts(
        single={
            "image_column": image_column, "split_column": split_column, "patient_column": patient_column,
            "study_column": study_column, "image_suffix": image_suffix, "image_template": image_template,
        },
        several={
            "report_column": report_column, "label_column": label_column, "label_names": label_names, "join": join
        },
        paths={"path": path, "image_root": "" if image_root is None else image_root},
    )  # fmt: skip
    check_option(on_error, "on_error", ("raise", "skip"))
    check_option(on_leak, "on_leak", ("error", "keep"))
    location = parse_location(path, "path")
    if location is not None:
        named = (label_column, label_names, split_column, patient_column, study_column, image_root, image_template)
        if any(value is not None for value in named) or image_suffix or join:
            raise ValueError(f"columns and image files cannot be named for {location}, which has its own.")
        return location.read(on_error)
    table = read_joined_table(path, join)
    labels = label_reader(table, label_column, label_names)
    label_columns = [table.resolve_column(column, "label_column") for column in listed(label_column)]
    defaults = table.default_columns
    if report_column == "report":
        report_column = defaults["report_column"]
        if report_column not in table.columns and labels is not None:
            warn_of_unused(table, "report_column", None, label_columns)
            report_column = None
    if image_template is not None and image_column not in ("image", None):
        raise ValueError(error_message("image_template", "be given without image_column", repr(image_column)))
    template = None if image_template is None else ImageTemplate(image_template, table)
    image_column = defaults["image_column"] if image_column == "image" else image_column
    columns = _Columns(
        image=table.resolve_column(image_column, "image_column") if image_column and template is None else None,
        template=template,
        report=ReportColumns(table, report_column) if report_column else None,
        split=_column_or_default(table, split_column, "split_column"),
        patient=_column_or_default(table, patient_column, "patient_column"),
        study=_column_or_default(table, study_column, "study_column"),
    )
    texts = columns.report.columns if columns.report else []
    used = [columns.patient, columns.study, columns.split, columns.image, *texts, *label_columns]
    for argument, given, column in (
        ("patient_column", patient_column, columns.patient),
        ("study_column", study_column, columns.study),
        ("split_column", split_column, columns.split),
    ):
        if given is None:
            warn_of_unused(table, argument, column, used)
    if columns.image is None and columns.template is None and columns.report is None:
        raise ValueError(
            f"image_column or report_column must name a column of {table.name}, got None for both; "
            f"{describe_columns(table.columns)}."
        )
    folder = table.folder if image_root is None else Path(image_root).expanduser()
    if image_root is not None and not folder.is_dir():
        raise FileNotFoundError(error_message("image_root", "be a folder that exists", repr(str(image_root))))
    files = ImageFiles(folder, image_suffix)
    read = StudyCollector(0 if labels is None else labels.width, str(folder.absolute()))
    skipped: list[StudyError] = []
    rows = 0
    for row in table:
        rows += 1
        try:
            read.add(*_read_row(row, files, columns, labels))
        except CellError as error:
            bad = StudyError(_error_id(row, columns), error.column, f"{row.position}: {error.reason}")
            if on_error == "raise":
                raise bad from error
            skipped.append(bad)
    studies, source = read.resolved(folder)
    warn_of_spellings(studies, table.name)
    names = labels.names if labels else ()
    leaking = leaking_rows(studies, read.images, source) if on_leak == "error" else {}
    contradicting = contradicting_rows(studies, read.images, names)
    for errors in (leaking, contradicting):
        if errors and on_error == "raise":
            first = errors[min(errors)]
            more = f" ({len(errors)} such rows)" if len(errors) > 1 else ""
            raise StudyError(first.study_id, first.key, first.reason + more)
    bad_rows = contradicting | leaking
    skipped += bad_rows.values()
    if bad_rows:
        studies = studies.select(~np.isin(studies.rows(), list(bad_rows)))
    manifest = Manifest.from_studies(table.name, studies, rows, names, skipped, table.encoding)
    return replace(
        manifest, unmatched=dict(table.unmatched), columns=columns.describe(label_columns, labels, bool(source))
    )


@dataclass(frozen=True)
class _Columns:
    image: str | None
    template: ImageTemplate | None
    report: ReportColumns | None
    split: str | None
    patient: str | None
    study: str | None

    @property
    def image_name(self) -> str:
        """What names the images, for errors."""
        return self.template.name if self.template else self.image or ""

    def describe(
        self, label_columns: Sequence[str], labels: LabelReader | None, patients_in_names: bool
    ) -> dict[str, str]:
        """What each part of a study is read from, see :class:`Manifest`."""
        several = f"{labels.width} columns" if labels is not None else ""
        return {
            "image": self.template.text if self.template else self.image or "",
            "report": self.report.name if self.report else "",
            "label": label_columns[0] if len(label_columns) == 1 else several,
            "patient": " + ".join(filter(None, [self.patient, "file names" if patients_in_names else ""])),
            "study": self.study or "",
            "split": self.split or "",
        }


def _check_texts(single: Mapping[str, object], several: Mapping[str, object], paths: Mapping[str, object]) -> None:
    """Raise ``TypeError`` unless these arguments are strings or None, strings or lists of them or None, and paths."""
    for name, value in single.items():
        if value is not None:
            check_text(value, name)
    for name, value in several.items():
        texts = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(texts, Iterable) or isinstance(value, bytes):
            raise TypeError(error_message(name, "be a string or a list of strings", type(value).__name__))
        for text in texts:
            check_text(text, f"each name of {name}" if text is not value else name)
    for name, value in paths.items():
        if not isinstance(value, str | os.PathLike):
            raise TypeError(error_message(name, "be a path", type(value).__name__))


def _column_or_default(table: Table, column: str | None, argument: str) -> str | None:
    return default_column(table, argument) if column is None else table.resolve_column(column, argument)


def _read_row(
    row: Row, files: ImageFiles, columns: _Columns, labels: LabelReader | None
) -> tuple[dict[str, Any], list[tuple[str, Hashable]], str]:
    """The row's study, its views as paths and identities, and the name of the first where the study has no id."""
    content = columns.report.name if columns.report else columns.image_name
    if row.problem:
        raise CellError(content, row.problem)
    study: dict[str, Any] = {"study_id": _given_id(row, columns), "row": row.number}
    if columns.patient and (patient := read_id(row.cells.get(columns.patient), columns.patient)):
        study["patient_id"] = patient
    if columns.split:
        study["split"] = _split_name(row.cells.get(columns.split), columns.split)
    if columns.report and (report := columns.report.read(row.cells)) is not None:
        study["report"] = report
    if labels is not None and (label := labels.parse(row.cells)) is not None:
        study["label"] = label
    cells = _image_cells(row, columns)
    images = [files.find(cell, columns.image_name) for cell in cells]
    name = ""
    if not study["study_id"]:
        name = strip_text(str(cells[0])) if images else ""
        study["study_id"] = name or f"row {row.number}"
    if not images and "report" not in study:
        raise CellError(content, "there is neither an image nor a report")
    return study, images, name


def _image_cells(row: Row, columns: _Columns) -> list[Any]:
    if columns.template is not None:
        cell: Any = columns.template.path(row.cells)
    else:
        cell = row.cells.get(columns.image) if columns.image else None
    cells = cell if isinstance(cell, list) else [cell]
    return [cell for cell in cells if not is_blank(cell)]


def _error_id(row: Row, columns: _Columns) -> str:
    """The study's id for an error: not the image cell, which may hold a patient's report by mistake."""
    try:
        return _given_id(row, columns) or f"row {row.number}"
    except CellError:
        return f"row {row.number}"


def _given_id(row: Row, columns: _Columns) -> str:
    return read_id(row.cells.get(columns.study), columns.study) if columns.study else ""


def _split_name(cell: Any, column: str) -> str:
    name = split_name(cell)
    if name is None:
        received = "an empty cell" if is_blank(cell) else describe_cell(cell)
        raise CellError(column, f"expected train, val or test, got {received}")
    return name
