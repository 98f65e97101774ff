"""CheXpert's own layout, made small."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from medvl.data import CheXpert
from medvl.utils.errors import StudyError

NAMES = list(CheXpert.names)
COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *NAMES]


def write(folder, rows, columns=COLUMNS, name="train.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def row(patient, study, view, **cells):
    path = f"CheXpert-v1.0-small/train/patient{patient:05}/study{study}/view1_{view.lower()}.jpg"
    return {"Path": path, "Frontal/Lateral": view, "Sex": "Female", "Age": "68", **cells}


ROWS = [
    row(1, 1, "Frontal", Edema="1.0", Pneumonia="-1.0", Fracture="0.0"),
    row(1, 1, "Lateral", Edema="1.0", Pneumonia="-1.0", Fracture="0.0"),
    row(1, 2, "Frontal", **{"No Finding": "1.0"}),
    row(2, 1, "Lateral"),
]


def test_views_of_a_study_stay_together(tmp_path):
    folder = tmp_path / "renamed"
    folder.mkdir()
    studies = CheXpert(write(folder, ROWS), check_files=False)
    assert [study["study_id"] for study in studies] == [
        "patient00001/study1",
        "patient00001/study2",
        "patient00002/study1",
    ]
    first = studies[0]
    assert first["patient_id"] == "patient00001"
    assert first["views"] == ["frontal", "lateral"]
    assert first["image"][0] == str(folder / "train" / "patient00001" / "study1" / "view1_frontal.jpg")
    assert (first["sex"], first["age"]) == ("Female", 68.0)
    expected = np.full(14, np.nan, dtype=np.float32)
    expected[[NAMES.index("Edema"), NAMES.index("Pneumonia"), NAMES.index("Fracture")]] = 1, -1, 0
    np.testing.assert_array_equal(first["label"], expected)
    assert len(studies[1:]) == 2


def test_labels_go_by_name_whatever_the_order(tmp_path):
    studies = CheXpert(write(tmp_path, ROWS, ["Path", *reversed(NAMES)], "valid.csv"), split="val", check_files=False)
    assert studies[0]["label"][NAMES.index("Edema")] == 1
    assert studies[0]["views"] == ["frontal", "lateral"]


def test_views_are_chosen(tmp_path):
    write(tmp_path, ROWS)
    assert [study["views"] for study in CheXpert(tmp_path, views="frontal", check_files=False)] == [
        ["frontal"],
        ["frontal"],
    ]
    with pytest.raises(
        ValueError, match=r"^views must be 'all', 'frontal', 'lateral' or of frontal, lateral, got \['PA'\]\.$"
    ):
        CheXpert(tmp_path, views=["PA"], check_files=False)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no train\.csv or valid\.csv; CheXpert is read from train\.csv"):
        CheXpert(tmp_path)
    write(tmp_path, ROWS)
    with pytest.raises(
        StudyError, match=r"study 'patient00001/study1', image: there is no file view1_frontal\.jpg in "
    ):
        CheXpert(tmp_path)
    with pytest.raises(ValueError, match=r"train\.csv has no column Edema; use the data set's original table\.$"):
        CheXpert(write(tmp_path, ROWS, [column for column in COLUMNS if column != "Edema"]))
    with pytest.raises(
        StudyError,
        match=r"^study 'patient00001/study1', Edema: expected 1 \(present\), 0 \(absent\), .* or blank .*, got 2$",
    ):
        CheXpert(write(tmp_path, [row(1, 1, "Frontal", Edema="2")]))
    with pytest.raises(StudyError, match=r"^study 'patient00001/study1', Age: expected a number or blank, got a text$"):
        CheXpert(write(tmp_path, [row(1, 1, "Frontal", Age="old")]))
    with pytest.raises(StudyError, match="the path has no patient and study folder"):
        CheXpert(write(tmp_path, [{"Path": "a/b.jpg", "Frontal/Lateral": "Frontal"}]))


def test_a_row_that_was_cut_short_is_an_error(tmp_path):
    write(tmp_path, ROWS)
    table = tmp_path / "train.csv"
    table.write_text(table.read_text().rstrip().rsplit(",", 3)[0] + "\n")
    with pytest.raises(
        StudyError, match=r"^study 'row 4', train\.csv: row 4 \(line 5\): the row has 16 cells, expected 19"
    ):
        CheXpert(tmp_path, check_files=False)
    assert len(CheXpert(tmp_path, check_files=False, on_error="skip")) == 2


def test_paths_of_the_test_set_have_no_folder_of_the_data_set(tmp_path):
    image = tmp_path / "test" / "patient64741" / "study1" / "view1_frontal.jpg"
    image.parent.mkdir(parents=True)
    image.touch()
    write(tmp_path, [{"Path": image.relative_to(tmp_path), "Edema": "1.0"}], ["Path", *NAMES], "test.csv")
    assert CheXpert(tmp_path, "test")[0]["image"] == [str(image)]
