"""Tables of every format give the same rows; what is not whole is an error, and no byte of a wrong file is shown."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import os
import re
import subprocess
import sys
import time
import warnings
import zipfile

import pandas
import pytest

from medvl.data import load_sources, read_manifest
from medvl.data.tables import read_joined_table, read_table
from medvl.data.tables.reports import join_texts
from medvl.utils.errors import StudyError
from medvl.utils.extras import MissingExtraError

FRAME = pandas.DataFrame(
    {"id": ["a", "b", "c"], "report": ["Zwerchfell, Größe\nnormal.", '"Quoted"; =1', None], "n": [1, 2, 3]}
)
WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".tab.gz": lambda frame, path: path.write_bytes(
        gzip.compress(frame.to_csv(index=False, sep="\t").encode(), mtime=0)
    ),
    ".json": lambda frame, path: frame.to_json(path, orient="records"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".ndjson.gz": lambda frame, path: path.write_bytes(
        gzip.compress(frame.to_json(orient="records", lines=True).encode(), mtime=0)
    ),
    ".parquet": lambda frame, path: frame.to_parquet(path),
    ".xlsx": lambda frame, path: frame.to_excel(path, index=False),
}


def cells(table):
    return [{key: "" if value is None else str(value) for key, value in row.cells.items()} for row in table]


def problems(path):
    return [row.problem for row in read_table(path)]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_rows_as_often_as_asked(tmp_path, suffix):
    path = tmp_path / f"cases{suffix}"
    WRITERS[suffix](FRAME, path)
    table = read_table(path)
    assert table.columns == ("id", "report", "n")
    expected = [{**row, "report": row["report"] or "", "n": str(row["n"])} for row in FRAME.to_dict("records")]
    expected[2]["report"] = ""
    assert cells(table) == cells(table) == expected
    assert [row.number for row in table] == [1, 2, 3]
    assert not any(problems(path))
    manifest = read_manifest(path, image_column=None, study_column="id", on_error="skip")
    assert [study["report"] for study in manifest.studies] == [expected[0]["report"], '"Quoted"; =1']
    assert len(manifest.skipped) == 1


@pytest.mark.parametrize(
    ("separator", "name"), [(",", "c.csv"), (";", "c.csv"), ("\t", "c.csv"), ("|", "c.csv"), ("\t", "c.tsv")]
)
def test_separators_are_those_that_rows_agree_on(tmp_path, separator, name):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator)
    writer.writerows([["id", 'Findings, "or" else; more', "n"], ["a", "x, y; z", "1,5"], ["b", "x", "2,0"]])
    (tmp_path / name).write_text(buffer.getvalue())
    table = read_table(tmp_path / name)
    assert table.columns == ("id", 'Findings, "or" else; more', "n")
    assert [row.cells["n"] for row in table] == ["1,5", "2,0"]


def test_a_line_for_excel_and_a_header_with_two_separators(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\nid;size, cm\na;1\n\nb;2\n")
    assert cells(read_table(tmp_path / "a.csv")) == [{"id": "a", "size, cm": "1"}, {"id": "b", "size, cm": "2"}]
    assert [row.line for row in read_table(tmp_path / "a.csv")] == [3, 5]
    (tmp_path / "b.csv").write_text("id;size, cm, mm\na;1\nb;2\n")
    assert read_table(tmp_path / "b.csv").columns == ("id", "size, cm, mm")


TEXT = "id,report\na,naïve Größe\nb,clear\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TEXT.encode(), "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8"),
        (TEXT.encode("utf-16"), "utf-16"),
        (TEXT.encode("utf-32"), "utf-32"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("cp1252"), "cp1252"),
        (TEXT.replace("\n", "\r").encode(), "utf-8"),
        (TEXT.replace("\n", "\r\n").encode(), "utf-8"),
    ],
)
def test_encodings_and_line_ends(tmp_path, data, said):
    path = tmp_path / "cases.csv"
    path.write_bytes(data)
    table = read_table(path)
    assert cells(table) == [{"id": "a", "report": "naïve Größe"}, {"id": "b", "report": "clear"}]
    assert table.encoding == said


def test_lines_of_two_encodings_are_read_each_as_its_own(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_bytes("id,report\na,Größe\n".encode() + "b,Größe\n".encode("cp1252"))
    manifest = read_manifest(path, image_column=None)
    assert [study["report"] for study in manifest.studies] == ["Größe", "Größe"]
    assert "was read as utf-8 and cp1252." in manifest.summary()


def test_cells_of_columns_without_a_name_at_the_end_may_be_missing(tmp_path):
    """As in the table of ChestX-ray14, whose header ends with a comma."""
    path = tmp_path / "cases.csv"
    path.write_text("id,age,,\nr0,4,,\nr1,5\nr2,6,\nr3\n")
    assert problems(path) == ["", "", "", "the row has 1 cells, expected 4 as in the header"]
    assert list(cells(read_table(path)))[:3] == [
        {"id": "r0", "age": "4"},
        {"id": "r1", "age": "5"},
        {"id": "r2", "age": "6"},
    ]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            "r1,No edema, no effusion,4",
            "the row has 4 cells, expected 3 as in the header; is a text with the separator not in",
        ),
        ("r1,No edema", "the row has 2 cells, expected 3 as in the header"),
        ('r1,"No edema.,4\nr2,Effusion.,5\nr3,Fracture.",6', "the column 'report' holds a line that looks like a row"),
        ('r1,"No edema.,4\nr2,Effusion.",5', "the column 'report' holds a line that looks like a row"),
        ("r1,No\0edema,4", "the row holds NUL bytes"),
    ],
)
def test_rows_that_are_not_whole(tmp_path, rows, reason):
    path = tmp_path / "cases.csv"
    path.write_text(f"id,report,age\nr0,Clear.,4\n{rows}\nr9,Clear.,5\n")
    found = problems(path)
    assert (found[0], found[2]) == ("", "")
    assert reason in found[1]
    with pytest.raises(StudyError, match=re.escape(reason)):
        read_manifest(path, image_column=None)
    manifest = read_manifest(path, image_column=None, on_error="skip")
    assert (len(manifest), manifest.counts["skipped"]) == (2, 1)


@pytest.mark.parametrize(
    "report",
    [
        "FINDINGS: Clear.\n1. Heart, lungs\n2. No effusion, no edema",
        "Heart normal,\nlungs clear,\n",
        "Seen on 3, 4 and 5.\nSize 4, 5, 6 mm",
        "\n\na,b,c\n",
    ],
)
def test_reports_of_several_lines_are_whole(tmp_path, report):
    path = tmp_path / "cases.csv"
    pandas.DataFrame({"id": ["p07", "p08"], "report": [report, report], "age": [4, 50]}).to_csv(path, index=False)
    assert problems(path) == ["", ""]
    assert [row.cells["report"] for row in read_table(path)] == [report, report]


def test_cells_behind_the_last_name_are_a_problem_but_not_the_numbers_of_pandas(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("id,report,\nr0,Clear.,\nr1,No edema, no effusion\n")
    assert problems(path)[0] == ""
    assert problems(path)[1].startswith("cell 3 is in a column without a name")
    FRAME[:2].to_csv(path)
    assert problems(path) == ["", ""]
    assert read_table(path).columns == ("id", "report", "n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'id,report\na,x\nb,"open\nc,y\n',
            "cannot be read as a table from row 2 on (line 3): a quote is never closed.",
        ),
        ('id,report\na,"x" y\n', "from row 1 on (line 2): a quoted cell goes on behind its closing quote"),
        ('id,report\na,"x\nb,"y"\n', "from row 1 on (line 2): a quoted cell goes on behind its closing quote"),
        ("id, report ,report\na,x,y\n", "has more than one column named 'report'."),
        ("id,report,\ufeffreport\na,x,y\n", "has more than one column named 'report'."),
        (f'id,report\na,"{"x" * 10_000_001}"\n', "a cell has more than 10000000 characters, so a quote is probably"),
    ],
)
def test_broken_tables_are_one_sentence(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        list(read_table(path))
    assert "\n" not in str(raised.value)


def test_columns_that_differ_in_case_only_are_not_chosen_between(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("id,Report,report\na,x,y\n")
    message = r"^report_column: cases\.csv has the columns 'report' and 'Report', whose names differ only in case"
    with pytest.raises(ValueError, match=message):
        read_manifest(path, image_column=None)
    path.write_text("split,Split,report\ntrain,test,y\n")
    with pytest.raises(ValueError, match=r"^split_column: cases\.csv has the columns 'split' and 'Split'"):
        read_manifest(path, image_column=None)


VALUES = {"split": "test", "patient_id": "p7"}


@pytest.mark.parametrize(
    ("header", "argument", "key"),
    [
        *((name, "split_column", "split") for name in ("Split", "SPLIT", "split_")),
        *((name, "patient_column", "patient_id") for name in ("Patient_ID", "PatientID", "Patient ID", "Patient.ID")),
        *((name, "patient_column", "patient_id") for name in ("SubjectID", "SUBJECT-ID")),
    ],
)
def test_a_column_is_found_in_whatever_case_and_signs(tmp_path, caplog, header, argument, key):
    path = tmp_path / "cases.csv"
    path.write_text(f"{header},report\n{VALUES[key]},Clear.\n")
    assert read_manifest(path, image_column=None).studies[0][key] == VALUES[key]
    assert not caplog.records


@pytest.mark.parametrize(
    ("one", "other", "argument", "key"),
    [
        ("Split", "SPLIT", "split_column", "split"),
        ("PatientID", "Patient.ID", "patient_column", "patient_id"),
    ],
)
def test_two_columns_in_other_spellings_are_not_chosen_between(tmp_path, one, other, argument, key):
    path = tmp_path / "cases.csv"
    path.write_text(f"{one},report,{other}\n{VALUES[key]},Clear.,{VALUES[key]}\n")
    message = f"{argument}: cases.csv has the columns {one!r} and {other!r}, whose names differ only in case, spaces or signs; "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}rename one.$"):
        read_manifest(path, image_column=None)
    if argument != "split_column":  # those two differ in case alone
        assert read_manifest(path, image_column=None, **{argument: other}).studies[0][key] == VALUES[key]


@pytest.mark.parametrize("others", ["PatientID", "PatientID,SubjectID", "Patient,patientid"])
def test_a_column_of_exactly_the_usual_name_counts_more(tmp_path, caplog, others):
    path = tmp_path / "cases.csv"
    cells = ",x" * len(others.split(","))
    path.write_text(f"report,subject_id,{others}\nClear.,p7{cells}\n")
    assert read_manifest(path, image_column=None).studies[0]["patient_id"] == "p7"
    assert [message for message in caplog.messages if "SubjectID" not in message] == []
    caplog.clear()
    path.write_text(f"report,patient_id,{others}\nClear.,p7{cells}\n")
    assert read_manifest(path, image_column=None).studies[0]["patient_id"] == "p7"
    (message,) = caplog.messages
    name = "patientid" if "patientid" in others else "PatientID"
    assert (
        message == f"cases.csv: the column '{name}' is not used as patient_column, since its name is not 'patient_id'."
    )


@pytest.mark.parametrize(
    ("header", "cells", "argument", "key"),
    [
        *((name, ["1", "1"], "study_column", "study_id") for name in ("StudyID", "Study ID", "STUDY_ID")),
        ("Study", ["XR CHEST", "XR CHEST"], "study_column", "study_id"),
        ("Patient", ["male", "male"], "patient_column", "patient_id"),
        ("Patient #", ["1", "1"], "patient_column", "patient_id"),
    ],
)
def test_a_word_that_may_mean_something_else_is_not_used_and_said(tmp_path, caplog, header, cells, argument, key):
    path = tmp_path / "cases.csv"
    path.write_text(f"report,{header}\nA.,{cells[0]}\nB.,{cells[1]}\n")
    studies = read_manifest(path, image_column=None).studies
    assert [study["study_id"] for study in studies] == ["row 1", "row 2"]
    assert "patient_id" not in studies[0]
    usual = {"s": "study_id" if "ID" in header else "study", "p": "patient"}[argument[0]]
    said = f"cases.csv: the column '{header}' is not used as {argument}, since its name is not '{usual}'."
    assert caplog.messages == [said]
    assert [study[key] for study in read_manifest(path, image_column=None, **{argument: header}).studies] == cells


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("Split", ["0", "1"]),
        ("Split", ["train", "fold 2"]),
        ("SPLIT", ["", "NA"]),
        ("Split", ["train", ""]),
        *((name, ["train", "test"]) for name in ("subset", "Set", "data_split", "Partition")),
        ("phase", ["", "Validation"]),
    ],
)
def test_a_column_that_may_hold_splits_is_not_used_and_said(tmp_path, caplog, header, cells):
    path = tmp_path / "cases.csv"
    path.write_text(f"report,{header}\nA.,{cells[0]}\nB.,{cells[1]}\n")
    assert not any("split" in study for study in read_manifest(path, image_column=None).studies)
    assert caplog.messages == [f"cases.csv: the column '{header}' is not used as split_column; it may hold splits."]


def test_no_column_seems_to_hold_splits_where_one_does(tmp_path, caplog):
    path = tmp_path / "cases.csv"
    path.write_text("report,split,first\nA.,train,test\nB.,test,test\n")
    assert [study["split"] for study in read_manifest(path, image_column=None).studies] == ["train", "test"]
    path.write_text("report,first\nA.,test\nB.,dev\nC.,tests\n")
    assert len(read_manifest(path, image_column=None)) == 3
    assert not caplog.records


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ("StudyID", {"patient_column": "StudyID"}),
        ("Patient", {"study_column": "Patient"}),
        ("Study", {"label_column": "Study"}),
        ("Patient,Study", {"label_column": ["Patient", "Study"]}),
        ("phase", {"label_column": "phase"}),
        ("Study", {"report_column": ["report", "Study"]}),
    ],
)
def test_a_column_that_is_used_is_not_said_to_be_unused(tmp_path, caplog, columns, options):
    (tmp_path / "cases.csv").write_text(
        f"report,{columns}\nA.{',test' * len(columns.split(','))}\n".replace(",test,test", ",1,1")
    )
    read_manifest(tmp_path / "cases.csv", image_column=None, **options)
    assert not caplog.records


def test_reports_and_images_in_another_case_are_never_left_out_silently(tmp_path, caplog):
    (tmp_path / "a.png").touch()
    path = tmp_path / "cases.csv"
    path.write_text("Image,Report,Edema,Fracture\na.png,Clear.,1,0\n")
    with pytest.raises(ValueError, match=r"no column 'image' \(did you mean 'Image'\?\)"):
        read_manifest(path)
    assert "report" not in read_manifest(path, image_column="Image").studies[0]
    assert "the column 'Report' is not used as report_column, since its name is not 'report'." in caplog.text
    assert "report" in read_manifest(path, image_column="Image", report_column="Report").studies[0]
    caplog.clear()
    path.write_text("Image,report\na.png,Clear.\n")
    load_sources(data=path)
    assert "the column 'Image' is not used as image_column, since its name is not 'image'." in caplog.text


def test_a_split_in_another_case_is_one_of_a_joined_table_too(tmp_path):
    (tmp_path / "cases.csv").write_text("study_id,report\n7,A.\n8,B.\n")
    (tmp_path / "more.csv").write_text("StudyID,Split\n7,train\n8,test\n")
    join = f"{tmp_path / 'more.csv'}:study_id=StudyID"
    studies = read_manifest(tmp_path / "cases.csv", image_column=None, join=join).studies
    assert [(study["study_id"], study["split"]) for study in studies] == [("7", "train"), ("8", "test")]


def test_a_column_of_findings_is_the_one_of_exactly_this_name(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("report,CD4,CD4+,CD4-,Age,Age:\nClear.,1,0,0,1,0\n")
    for column in ("CD4", "CD4+", "CD4-", "Age", "Age:"):
        assert read_manifest(path, image_column=None, label_column=column).names == (column,)


@pytest.mark.parametrize("header", ["report,finding", "Report,FINDING", "finding,report", '" report","\ufefffinding"'])
def test_a_header_that_is_repeated_is_an_error_that_names_the_line(tmp_path, header):
    path = tmp_path / "cases.csv"
    path.write_text(f"report,finding\nClear.,No Finding\n{header}\nWet.,Edema\n", encoding="utf-8")
    message = r"row 2 \(line 3\): the row repeats the names of the columns, as where two tables were put into one file$"
    with pytest.raises(StudyError, match=message):
        read_manifest(path, image_column=None, label_column="finding")
    manifest = read_manifest(path, image_column=None, label_column="finding", on_error="skip")
    assert (len(manifest), manifest.names) == (2, ("Edema", "No Finding"))
    path.write_text("report\nClear.\nreport\n")
    assert problems(path)[1].startswith("the row repeats")


def test_rows_of_numbers_and_of_some_names_repeat_no_header(tmp_path):
    (tmp_path / "a.csv").write_text("0,1\n1,0\n0,1\n")
    (tmp_path / "b.csv").write_text("report,finding\nfinding,Edema\nfinding,finding\n")
    assert problems(tmp_path / "a.csv") == problems(tmp_path / "b.csv") == ["", ""]


def test_long_cells_are_whole(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(f'id,report\na,"{"No edema. " * 100_000}"\n')
    assert len(next(iter(read_table(path))).cells["report"]) == 1_000_000


SECRET = b"Mrs Smith has a mass"


def workbook(**parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("c.csv", b"PAR1" + SECRET, "must hold a table as CSV, got a Parquet file."),
        ("c.csv", workbook(a=SECRET), "must hold a table as CSV, got a ZIP archive or an Excel workbook (.xlsx)."),
        ("c.tsv", b"\xd0\xcf\x11\xe0" + SECRET, "got a workbook of old Excel (.xls); save it as .xlsx."),
        ("c.csv", b"%PDF-1.7 " + SECRET, "got a PDF file."),
        ("c.csv", b"\x89PNG\r\n\x1a\n" + SECRET, "got a PNG image."),
        ("c.csv", b"\0" * 128 + b"DICM" + SECRET, "got a DICOM file."),
        ("c.csv", b"\0\1\2\3\4\5\6\7\x08" + SECRET, "got bytes that are no text."),
        (
            "c.csv",
            SECRET.decode().encode("utf-16-le"),
            "got bytes that are no text (UTF-16 needs its byte order mark).",
        ),
        ("c.csv", b'[{"report": "' + SECRET, "got JSON; name it .json, or .jsonl where each line is an object."),
        ("c.csv", b'{"report": "' + SECRET, "got JSON; name it .json"),
        ("c.csv", b"<!DOCTYPE html><td>" + SECRET, "got HTML or XML."),
        ("c.csv.gz", gzip.compress(SECRET * 999, mtime=0)[:-20], "is compressed by gzip and damaged or cut off."),
        ("c.parquet", SECRET, "must be a file of Parquet, got other content."),
        ("c.parquet", b"PAR1" + SECRET, "is no Parquet file that can be read: it is damaged or cut off."),
        ("c.xlsx", SECRET, "must be a file of Excel (.xlsx), got other content."),
        ("c.xlsx", workbook(**{"xl/workbook.xml": SECRET}), "is no Excel workbook that can be read"),
        (
            "c.jsonl",
            b'{"id": "' + SECRET,
            "has no line that is a JSON object; row 1 (line 1): the line is not valid JSON (",
        ),
        ("c.json", b'[{"id": "' + SECRET, "is not valid JSON"),
        ("c.json", b'[{"id": 1, "id": "' + SECRET + b'"}]', "is not valid JSON (one key is given twice)."),
        ("c.csv", b"\xff\xfe" + SECRET + b"x", "has the byte order mark of utf-16 and is damaged."),
        ("c.csv", b"\xef\xbb\xbf \n", "is empty; expected a header and at least one row."),
        ("c.doc", SECRET, "path must end in one of .csv, .tsv, .tab, .jsonl, .ndjson, .json, .parquet, .xlsx (and .gz"),
    ],
)
def test_another_format_is_named_and_not_shown(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        list(read_table(tmp_path / name))
    assert "Smith" not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_key_that_a_json_object_has_twice(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"report": "x"}\n{"report": "x", "report": "y"}\n')
    assert problems(tmp_path / "c.jsonl") == ["", "the line is not valid JSON (one key is given twice)"]


def test_workbooks(tmp_path):
    path = tmp_path / "c.xlsx"
    with pandas.ExcelWriter(path) as writer:
        FRAME.to_excel(writer, sheet_name="one", index=False)
        FRAME.to_excel(writer, sheet_name="two", index=False)
    with pytest.raises(
        ValueError, match=r"^path: c\.xlsx must have one sheet with cells, got 'one', 'two'; save the one to"
    ):
        read_table(path)
    frame = pandas.DataFrame(
        {"id": ["a", "b"], "report": ["=1+1", "Clear."], "day": pandas.to_datetime(["2020-01-02"] * 2)}
    )
    with pandas.ExcelWriter(path) as writer:
        frame.to_excel(writer, sheet_name="one", index=False)
        pandas.DataFrame().to_excel(writer, sheet_name="empty", index=False)
    assert problems(path)[0].startswith("the formula in the column 'report' has no computed value")
    assert problems(path)[1] == ""
    assert next(iter(read_table(path))).cells["day"] == "2020-01-02T00:00:00"


def test_merged_cells_of_a_workbook_are_not_taken_for_blank_ones(tmp_path):
    path = tmp_path / "c.xlsx"
    frame = pandas.DataFrame({"patient": ["p", "p", "q"], "image": ["a", "b", "c"], "report": ["x", "y", "z"]})
    frame.set_index(["patient", "image"]).to_excel(path)  # pandas merges the cells of equal neighbors
    with pytest.raises(
        ValueError, match=r"^path: c\.xlsx must have no merged cells below its header \(.*\), got A2:A3\.$"
    ):
        read_table(path)
    frame.set_index(["patient", "image"]).to_excel(path, merge_cells=False)
    assert [row.cells["patient"] for row in read_table(path)] == ["p", "p", "q"]


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    for suffix, module in ((".parquet", "pyarrow"), (".xlsx", "openpyxl")):
        WRITERS[suffix](FRAME, tmp_path / f"c{suffix}")
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            message = rf'^Reading c\{suffix} needs {module}: pip install "medvl\[tables\]"$'
            with pytest.raises(MissingExtraError, match=message):
                read_table(tmp_path / f"c{suffix}")


def test_standard_input_and_pipes_of_any_format(tmp_path):
    code = "from medvl.data.tables import read_table\nimport sys\nfor _ in 'ab':\n    print(len(list(read_table(sys.argv[1]))))"
    os.mkfifo(tmp_path / "pipe")
    for suffix in (".csv", ".parquet", ".jsonl"):
        WRITERS[suffix](FRAME, tmp_path / f"c{suffix}")
        data = (tmp_path / f"c{suffix}").read_bytes()
        out = subprocess.run([sys.executable, "-c", code, "-"], input=data, capture_output=True, check=True).stdout
        assert out == b"3\n3\n"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        (tmp_path / "pipe").write_bytes(data)
        assert reader.stdout.read() == b"3\n3\n"


def test_joins(tmp_path):
    (tmp_path / "cases.csv").write_text("id,report,split\n7,A.,train\n7.0,B.,train\n8,C.,\n,D.,test\n9,E.,test\n")
    (tmp_path / "labels.csv").write_text("key,Edema,split\n7,1,train\n8,0,val\n9,-1,val\n5,1,test\n")
    table = read_joined_table(tmp_path / "cases.csv", f"{tmp_path / 'labels.csv'}:id=key")
    assert table.columns == ("id", "report", "split", "key", "Edema")
    assert [row.cells["Edema"] for row in table] == ["1", "1", "0", None, "-1"]
    assert [row.cells["split"] for row in table] == ["train", "train", "val", "test", "test"]
    assert [row.problem for row in table][:4] == [""] * 4
    assert [row.problem for row in table][4] == "the column 'split' differs between the table and labels.csv"
    assert table.unmatched == {"labels.csv": 1}


@pytest.mark.parametrize(
    ("labels", "join", "message"),
    [
        (
            "id,y\n7,1\n8,0\n7.0,1\n",
            "id",
            "must have each key of the column 'id' in one row, got 1 in several, the first in the",
        ),
        ("id,y\n1,1\n", "id", "join: no row of cases.csv has a row in labels.csv by the column 'id'."),
        ("key,y\n7,1\n", "id", "join: labels.csv has no column 'id'; its columns are key, y."),
        ("id,y\n7,1\n", "key=id", "join: cases.csv has no column 'key'; its columns are id, report."),
        ("id,y\n7,1,2\n", "id", "join: labels.csv, row 1 (line 2): the row has 3 cells, expected 2"),
        ("id,y\n7,1\n", "", "join must be TABLE:KEY or TABLE:KEY=KEY_OF_TABLE, got"),
    ],
)
def test_joins_that_are_refused(tmp_path, labels, join, message):
    (tmp_path / "cases.csv").write_text("id,report\n7,A.\n7,B.\n")
    (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(ValueError, match=re.escape(message)):
        list(read_joined_table(tmp_path / "cases.csv", f"{tmp_path / 'labels.csv'}:{join}"))


def test_a_column_that_both_tables_have_differs_by_more_than_an_apostrophe(tmp_path):
    (tmp_path / "cases.csv").write_text("id,history,report\n7,- cough,A.\n8,- fever,B.\n")
    (tmp_path / "labels.csv").write_text("id,history\n7,'- cough\n8,'- fevers\n")
    table = read_joined_table(tmp_path / "cases.csv", f"{tmp_path / 'labels.csv'}:id")
    assert [row.problem for row in table] == ["", "the column 'history' differs between the table and labels.csv"]


def test_keys_that_are_no_ids_match_nothing_and_are_counted(tmp_path, caplog):
    (tmp_path / "cases.csv").write_text('id,report\n7,A.\n1,B.\n"1,000",C.\n1.2E+11,D.\n')
    (tmp_path / "labels.csv").write_text('id,y\n7,1\n"1,000",0\n1.2E+11,0\n')
    table = read_joined_table(tmp_path / "cases.csv", f"{tmp_path / 'labels.csv'}:id")
    assert [(row.cells["y"], row.problem) for row in table] == [("1", ""), (None, ""), (None, ""), (None, "")]
    assert table.unmatched == {"labels.csv": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "join: labels.csv has 2 keys that are no ids in the column 'id'; the first: expected an id, got 1,000, which may be 1 "
        "or 1000; save the column as whole numbers."
    ]


def test_texts_of_several_columns_have_the_headers_of_their_sections():
    texts = [
        ("indication", "Pneumonia?"),
        ("Findings_EN", "FINDINGS: Clear."),
        ("Impressions_EN", "Normal."),
        ("note", "X."),
    ]
    assert join_texts(texts) == "INDICATION: Pneumonia?\n\nFINDINGS: Clear.\n\nIMPRESSIONS: Normal.\n\nX."


def test_a_key_given_twice_is_said_where_no_line_can_be_read(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"report": "a b", "report": "c d"}\n')
    with pytest.raises(
        ValueError, match=r"object; row 1 \(line 1\): the line is not valid JSON \(one key is given twice\)\.$"
    ):
        read_table(tmp_path / "c.jsonl")


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.jsonl.gz"])
def test_compressed_files_are_closed(tmp_path, name):
    text = b'{"report": "a b"}\n' if "json" in name else b"report\na b\n"
    (tmp_path / name).write_bytes(gzip.compress(text, mtime=0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        assert [row.cells for row in read_table(tmp_path / name)] == [{"report": "a b"}]
        gc.collect()
    assert not [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]


def test_a_table_may_have_many_columns(tmp_path):
    names = [f"c{number}" for number in range(60_000)]  # compared with each other in pairs, they would take minutes
    (tmp_path / "wide.csv").write_text(",".join(names) + "\n" + ",".join("1" * len(names)) + "\n")
    start = time.process_time()
    assert read_table(tmp_path / "wide.csv").columns[-1] == "c59999"
    assert time.process_time() - start < 10
