"""The command's list of leaks and duplicates."""

from __future__ import annotations

import csv

import pytest
from typer.testing import CliRunner

from medvl.cli import app
from medvl.evaluation import audit_leaks

ROWS = [
    "a.png,p1,train,1,0",
    "copy-of-a.png,p2,test,1,0",
    "b.png,p3,train,0,1",
    "./b.png,p3,train,0,1",
    "c.png,p4,val,0,1",
    "d.png,p4.0,val,1,1",
    "e.png,7,train,0,1",
    "f.png,7.0,test,1,1",
]


@pytest.fixture
def table(tmp_path):
    for name in "abcdef":
        (tmp_path / f"{name}.png").write_bytes(name.encode() * 50)
    (tmp_path / "copy-of-a.png").write_bytes(b"a" * 50)
    path = tmp_path / "cases.csv"
    path.write_text("\n".join(["image,patient,split,Edema,Fracture", *ROWS]) + "\n")
    return path


def audit(*arguments):
    result = CliRunner().invoke(app, ["audit", *map(str, arguments), "--batch-size", "2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_lists_leaks_and_duplicates(table, tmp_path):
    said = audit("--data", table, "--output", tmp_path / "out")
    columns = [line.split() for line in said.splitlines()[:3]]
    assert columns[0] == ["Columns", "of", "image", "report", "label", "patient", "study", "split"]
    assert columns[2] == ["cases.csv", "image", "none", "2", "columns", "patient", "none", "split"]
    counts = [line.split() for line in said.split("Leaks and duplicates")[1].splitlines()[2:6]]
    assert [(line[0], *line[-2:]) for line in counts] == [
        ("patients", "patients", "1"),
        ("studies", "patient", "0"),
        ("image", "0", "1"),
        ("image", "1", "0"),
    ]
    assert f"Leaks: {tmp_path / 'out' / 'leaks.csv'}" in said
    with (tmp_path / "out" / "leaks.csv").open(newline="") as file:
        rows = [(row["number"], row["kind"], row["leak"], row["row"], row["split"]) for row in csv.DictReader(file)]
    assert rows == [
        ("1", "content", "yes", "1", "train"),
        ("1", "content", "yes", "2", "test"),
        ("2", "patient", "yes", "7", "train"),
        ("2", "patient", "yes", "8", "test"),
        ("3", "image", "no", "3", "train"),
        ("3", "image", "no", "4", "train"),
    ]


def test_patients_of_two_sources(table, tmp_path):
    other = tmp_path / "texts.csv"
    other.write_text("report,patient,split\nNo edema.,p3,val\nFracture.,p9,train\n")
    audit("--source", f"image-label={table}", "--source", f"text-label={other}", "--output", tmp_path / "out")
    with (tmp_path / "out" / "leaks.csv").open(newline="") as file:
        found = [(row["kind"], row["source"], row["row"]) for row in csv.DictReader(file) if row["patient_id"] == "p3"]
    assert found[:3] == [("patient", "cases", "3"), ("patient", "cases", "4"), ("patient", "texts", "1")]


def test_without_a_shared_item():
    found = audit_leaks([{"study_id": "a", "split": "train"}, {"study_id": "b", "split": "test"}])
    assert found.items == []
    assert set(found.counts.values()) == {(0, 0)}
    assert found.table().startswith("Leaks and duplicates of 2 rows")
