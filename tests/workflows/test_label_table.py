"""Labeling a table: CheXpert's columns, sentences, explanations, constant memory, whole or nothing."""

from __future__ import annotations

import csv
import json
import re
import resource
import subprocess
import sys

import pytest

from medvl.text import load_vocabulary
from medvl.utils.errors import DiskFullError, StudyError
from medvl.workflows import label_table

NAMES = list(load_vocabulary("chexpert14").names)
REPORTS = ["Small left effusion. No edema.", "", 'Possible pneumonia,\n"really".']


def write(path, reports=REPORTS, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "text", "age"])
        writer.writerows([f"r{i}", text, 50 + i] for i, text in enumerate(reports))
    return path


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_of_reports(tmp_path):
    done = []
    summary = label_table(
        write(tmp_path / "in.csv"), "text", tmp_path / "new" / "out.csv", progress=lambda *args: done.append(args)
    )
    rows = read(tmp_path / "new" / "out.csv")
    assert list(rows[0]) == ["id", "age", *NAMES]
    assert (rows[0]["Pleural Effusion"], rows[0]["Edema"], rows[0]["Fracture"]) == ("1", "0", "")
    assert {rows[1][name] for name in NAMES} == {""}
    assert rows[2]["Pneumonia"] == "-1"
    assert [row["id"] for row in rows] == ["r0", "r1", "r2"]
    assert (summary.rows, summary.empty, summary.written) == (3, 1, 3)
    assert summary.states["Pneumonia"] == {"uncertain": 1}
    assert done == [(3, ((tmp_path / "in.csv").stat().st_size,) * 2 + ("B",))]


def test_rows_of_sentences_and_explanations(tmp_path):
    path = write(tmp_path / "in.tsv", delimiter="\t")
    summary = label_table(path, "text", tmp_path / "out.csv", text_unit="sentence", explain=True)
    rows = read(tmp_path / "out.csv")
    assert [row["sentence"] for row in rows] == ["Small left effusion.", "No edema.", 'Possible pneumonia,\n"really".']
    assert [(row["id"], row["sentence_number"], row["sentence_start"], row["sentence_end"]) for row in rows[:2]] == [
        ("r0", "0", "0", "20"),
        ("r0", "1", "21", "30"),
    ]
    assert (rows[1]["Edema"], rows[1]["Edema mention"], rows[1]["Edema cue"]) == ("0", "edema", "No")
    assert rows[1]["Edema sentence"] == "No edema."
    assert rows[0]["Pleural Effusion cue"] == ""
    assert rows[1]["explanation"].startswith('"No edema."\n  phrases: No (negation) | edema (term: Edema)')
    assert (summary.rows, summary.written) == (3, 3)


def test_another_vocabulary(tmp_path):
    label_table(write(tmp_path / "in.csv", ["No lymphadenopathy."]), "text", tmp_path / "out.csv", "chest_ct")
    assert read(tmp_path / "out.csv")[0]["Lymphadenopathy"] == "0"


def test_cells_that_a_spreadsheet_would_run_get_an_apostrophe_unless_raw(tmp_path):
    path = tmp_path / "in.csv"
    report = "- No edema. =HYPERLINK(1). Possible pneumonia."
    path.write_text(f'=1+1,text\n"@SUM(1)","{report}"\n')
    for raw, mark in ((False, "'"), (True, "")):
        label_table(path, "text", tmp_path / "out.csv", text_unit="sentence", explain=True, raw_cells=raw)
        rows = read(tmp_path / "out.csv")
        assert next(iter(rows[0])) == f"{mark}=1+1"
        assert [row[f"{mark}=1+1"] for row in rows] == [f"{mark}@SUM(1)"] * len(rows)
        assert rows[0]["sentence"].startswith(f"{mark}- No edema.")
        assert "-1" in {row["Pneumonia"] for row in rows}  # a number is none


def test_bytes_that_are_no_utf8_and_long_cells(tmp_path):
    path = write(tmp_path / "in.csv", ["No edema. " * 30_000])
    path.write_bytes(path.read_bytes() + b"r1,Fi\xe8vre. No fracture.,4\r\nr2,,\r\n")
    summary = label_table(path, "text", tmp_path / "out.csv")
    assert [row["Fracture"] for row in read(tmp_path / "out.csv")] == ["", "0", ""]
    assert summary.empty == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("r1,No edema, no effusion,4", "the row has 4 cells, expected 3 as in the header"),
        ("r1,No edema", "the row has 2 cells, expected 3 as in the header"),
        ('r1,"No edema.,4\nr2,Effusion.,5\nr3,Fracture.",6', "a line that looks like a row; is a quote missing?"),
    ],
)
def test_a_row_that_is_not_whole_is_an_error_or_counted(tmp_path, row, reason):
    path = tmp_path / "in.csv"
    path.write_text(f"id,text,age\nr0,Edema.,1\n{row}\nr4,Pneumonia.,9\n")
    with pytest.raises(StudyError, match=f"^study 'row 2', text: row 2 .*{re.escape(reason)}"):
        label_table(path, "text", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    summary = label_table(path, "text", tmp_path / "out.csv", on_error="skip")
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["r0", "r4"]
    assert (summary.rows, summary.skipped_rows, summary.written) == (3, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"report_column": "report"},
            ValueError,
            r"^report_column: in\.csv has no column 'report'; its columns are id, text, age\.$",
        ),
        ({"on_error": "warn"}, ValueError, r"^on_error must be one of 'raise', 'skip', got 'warn'\.$"),
        ({"num_workers": -1}, ValueError, r"^num_workers must be at least 0, got -1\.$"),
        (
            {"output": "out.txt"},
            ValueError,
            r"^output must end in one of \.csv, \.tsv, \.csv\.gz, \.tsv\.gz, \.parquet, \.xlsx, or be a pipe, or - for "
            r"standard output, got 'out\.txt'\.$",
        ),
        ({"output": "-", "resume": True}, ValueError, r"^output must be a file where a run is resumed, got -\.$"),
        ({"text_unit": "word"}, ValueError, r"^text_unit must be one of 'report', 'sentence', got 'word'\.$"),
        ({"path": "none.csv"}, FileNotFoundError, r"^path: there is no file none\.csv\.$"),
        ({"output": "in.csv"}, ValueError, r"^output must differ from the files that are read, got in\.csv\.$"),
        (
            {"vocabulary": "none"},
            FileNotFoundError,
            r"^vocabulary must be a file or one of the built-in \['chest_ct', 'chexpert14', 'chexpert14_de'\], got 'none'\.$",
        ),
    ],
)
def test_wrong_arguments_are_named_and_leave_nothing(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.csv")
    before = (tmp_path / "in.csv").read_bytes()
    with pytest.raises(error, match=message):
        label_table(**{"path": "in.csv", "report_column": "text", "output": "out.csv", **arguments})
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert (tmp_path / "in.csv").read_bytes() == before


def test_a_table_that_has_the_columns_already(tmp_path):
    (tmp_path / "in.csv").write_text("text,Edema\nNo edema.,1\n")
    with pytest.raises(
        ValueError, match=r"^path must be a table without the columns that the output adds, got \['Edema'\]\.$"
    ):
        label_table(tmp_path / "in.csv", "text", tmp_path / "out.csv")


def test_an_interrupted_run_leaves_the_old_output(tmp_path):
    def stop(*done):
        raise KeyboardInterrupt

    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        label_table(write(tmp_path / "in.csv"), "text", tmp_path / "out.csv", progress=stop)
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_memory_does_not_grow_with_the_table(tmp_path):
    code = (
        "import sys, tracemalloc\nfrom medvl.workflows import label_table\nlabel_table(sys.argv[1], 'text', sys.argv[3])\n"
        "tracemalloc.start()\npeaks = []\nfor path in sys.argv[1:3]:\n    tracemalloc.reset_peak()\n"
        "    label_table(path, 'text', sys.argv[3])\n    peaks.append(tracemalloc.get_traced_memory()[1])\nprint(*peaks)"
    )
    small = write(tmp_path / "small.csv", REPORTS * 200)
    large = write(tmp_path / "large.csv", REPORTS * 2000)
    out = subprocess.run(
        [sys.executable, "-c", code, small, large, tmp_path / "out.csv"], capture_output=True, text=True, check=True
    )
    first, second = map(int, out.stdout.split())
    assert second < first + 200_000, (first, second)


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv.gz", "labels.parquet", "labels.xlsx"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_full_disk_is_named_and_leaves_the_old_output(tmp_path, monkeypatch, name, resume):
    """The limit of a file's size is that which a quota sets; the error of a full disk is made in the same place."""
    (tmp_path / "in.csv").write_text("id,report\n" + "".join(f"{i},Edema. {i} mm.\n" for i in range(3000)))
    output = tmp_path / "out" / name
    output.parent.mkdir()
    output.write_text("old")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python would keep cut files of what is imported now
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with pytest.raises(DiskFullError, match=rf"larger than this user .* permits.*{name}"):
            label_table(tmp_path / "in.csv", "report", output, resume=resume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert output.read_text() == "old"
    names = {path.name for path in output.parent.iterdir()}
    assert names <= {name, *([f"{name}.partial", f"{name}.progress.partial"] if resume else [])}
    label_table(tmp_path / "in.csv", "report", output, resume=resume)
    assert [path.name for path in output.parent.iterdir()] == [name]


def test_what_the_format_cannot_hold_leaves_no_file(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "a\x01", "report": "Edema."}))
    with pytest.raises(ValueError, match="control character"):
        label_table(tmp_path / "in.jsonl", "report", tmp_path / "labels.xlsx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_closed_standard_output_is_named(tmp_path, monkeypatch):
    (tmp_path / "cases.csv").write_text("text\nNo effusion.\n")
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(ValueError, match=r"^output must be a file where standard output is closed, got '-'\.$"):
        label_table(tmp_path / "cases.csv", "text", "-")
