"""A table without a header: no error repeats its first row."""

from __future__ import annotations

import pytest

from medvl.data import read_manifest
from medvl.data.tables.header import is_header

ROWS = [
    ["a.png", "Smith, John", "No effusion."], ["SMITH", "JOHN", "M"], ["p17", "48213759", "Edema"], ["1", "2", "3"],
    ["Mary Vexley", "No Finding", "train"], ["/data/1.dcm", "Impression: normal.", ""], ["Report of Mary.", "x", "y"],
    ["12345", "Doe", "1950-01-01"], ["Jane", "Jane", "x"], ["Patient Vexley", "b", "c"],
]  # fmt: skip
HEADERS = [
    ["image", "x"], ["PatientID", "y"], ["patient_id", "q"], ["img_path", "z"], ["report text", "t"], ["StudyUID", "u"],
    ["Path", "Sex"], ["FINDINGS", "q"], ["image1", "image2"],
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_row_of_data_is_never_repeated(tmp_path, row, suffix):
    path = tmp_path / f"cases{suffix}"
    cells = (",", "\t")[suffix == ".tsv"].join(f'"{cell}"' for cell in row)
    path.write_text(f"{cells}\n{cells}\n")
    with pytest.raises(ValueError, match=rf"cases\{suffix} ") as caught:
        read_manifest(path)
    text = str(caught.value).replace("cases", "").replace("image", "").replace("report", "")
    assert [cell for cell in row if len(cell) > 2 and cell in text] == []


@pytest.mark.parametrize("row", HEADERS)
def test_headers_are_recognized(row):
    assert is_header(row)
