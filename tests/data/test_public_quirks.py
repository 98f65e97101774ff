"""Public data sets that are not quite as published: saved anew, half loaded, not unpacked."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shutil
from pathlib import Path

import pandas
import public_layouts
import pytest

from medvl.data import read_manifest
from medvl.utils.errors import StudyError


def change(path, edit):
    """Edit the rows of a table, the first of which is the header."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    file = io.StringIO(newline="")
    csv.writer(file).writerows(edit(list(csv.reader(io.StringIO(text)))))
    content = file.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def described(manifest):
    """What a training sees of a manifest, apart from its folder."""

    def plain(key, value):
        return re.sub(r"^.*/made/", "", value) if key == "image" else repr(value)  # of NaN too

    return [{key: plain(key, value) for key, value in study.items()} for study in manifest.studies]


TABLES = {
    "chexpert": (public_layouts.chexpert, "train.csv"),
    "mimic-cxr": (public_layouts.mimic_cxr, "mimic-cxr-2.0.0-split.csv.gz"),
    "mimic-cxr,labeler=chexpert": (public_layouts.mimic_cxr, "mimic-cxr-2.0.0-chexpert.csv.gz"),
    "mimic-cxr,views=PA": (public_layouts.mimic_cxr, "mimic-cxr-2.0.0-metadata.csv.gz"),
    "nih": (public_layouts.nih, "Data_Entry_2017.csv"),
    "rsna": (public_layouts.rsna, "stage_2_train_labels.csv"),
    "siim": (public_layouts.siim, "train-rle.csv"),
    "vindr-cxr": (public_layouts.vindr_cxr, "annotations/annotations_train.csv"),
    "vindr-cxr,votes=1": (public_layouts.vindr_cxr, "annotations/image_labels_train.csv"),
    "ms-cxr": (public_layouts.ms_cxr, "MS_CXR_Local_Alignment_v1.1.0.csv"),
    "openi": (public_layouts.openi_tables, "indiana_projections.csv"),
    "openi,views=frontal": (public_layouts.openi_tables, "indiana_reports.csv"),
    "rocov2": (public_layouts.rocov2, "train_captions.csv"),
    "ct-rate": (public_layouts.ct_rate, "multi_abnormality_labels/train_predicted_labels.csv"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("quirk", ["spaces", "case", "index"])
def test_a_table_that_was_saved_anew_gives_the_same_studies(tmp_path, name, quirk):
    make, table = TABLES[name]
    (tmp_path / "made").mkdir()
    make(tmp_path / "made")
    expected = described(read_manifest(f"{name}:{tmp_path / 'made'}"))
    edits = {
        "spaces": lambda rows: [[f"{cell} " for cell in row] for row in rows],
        "case": lambda rows: [[cell.upper() for cell in rows[0]], *rows[1:]],
        "index": lambda rows: [["", *rows[0]], *([str(number), *row] for number, row in enumerate(rows[1:]))],
    }
    if quirk == "case" and name in ("vindr-cxr,votes=1", "ct-rate"):
        pytest.skip("the names of the findings are those of the table")
    change(tmp_path / "made" / table, edits[quirk])
    assert described(read_manifest(f"{name}:{tmp_path / 'made'}")) == expected


def remove(name):
    return lambda folder: (folder / name).unlink()


def in_rows(table, edit):
    return lambda folder: change(folder / table, lambda rows: [rows[0], *map(edit, rows[1:])])


def in_text(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


def rename_splits(path):
    table = pandas.read_excel(path)
    table["Split"] = "Zyxwquist"
    table.to_excel(path, index=False)


WRONG = {
    "a target that is blank": (
        "rsna", public_layouts.rsna, in_rows("stage_2_train_labels.csv", lambda row: [*row[:-1], ""]),
        r"Target: expected 0 or 1, got an empty cell$",
    ),
    "a split of Merlin that is a name": (
        "merlin", public_layouts.merlin, lambda folder: rename_splits(folder / "reports_final.xlsx"),
        r"Split: expected train, val or test, got a text$",
    ),
    "a split of MS-CXR that is a name": (
        "ms-cxr", public_layouts.ms_cxr, in_text("MS_CXR_Local_Alignment_v1.1.0.csv", ",val", ",Zyxwquist"),
        r"split: expected train, val or test, got a text$",
    ),
    "a split of CheXpert Plus that is a number": (
        "chexpert-plus", public_layouts.chexpert_plus,
        in_rows("df_chexpert_plus_240401.csv", lambda row: [*row[:-1], "77194038"]),
        r"split: expected train or valid, got a number$",
    ),
    "a target that is a name": (
        "rsna", public_layouts.rsna, in_rows("stage_2_train_labels.csv", lambda row: [*row[:-1], "Zyxwquist"]),
        r"Target: expected 0 or 1, got a text$",
    ),
    "a mark that is a name": (
        "vindr-cxr", public_layouts.vindr_cxr,
        in_rows("annotations/image_labels_train.csv", lambda row: [*row[:-1], "Zyxwquist"]),
        r"expected 0 or 1, got a text$",
    ),
    "a box with a side below 0": (
        "rsna", public_layouts.rsna, in_text("stage_2_train_labels.csv", "256,512,256,128", "256,512,-256,128"),
        r"x: expected a box of four numbers with sides of at least 0$",
    ),
    "a box that is NaN": (
        "ms-cxr", public_layouts.ms_cxr, in_text("MS_CXR_Local_Alignment_v1.1.0.csv", ",250,", ",nan,"),
        r"x: expected a box of four numbers with sides of at least 0$",
    ),
    "a mask that is blank": (
        "siim", public_layouts.siim, in_text("train-rle.csv", " 262272 512", ""),
        r"EncodedPixels: expected pairs of numbers or -1$",
    ),
    "a mask of more pixels than the image": (
        "siim", public_layouts.siim, in_text("train-rle.csv", " 262272 512", " 1048570 512"),
        r"EncodedPixels: the runs are longer than an image of 1024 x 1024 pixels$",
    ),
    "one of two lists": (
        "nih", public_layouts.nih, remove("train_val_list.txt"), r"holds no train_val_list\.txt; ChestX-ray14 is read",
    ),
    "a list that is cut off": (
        "nih", public_layouts.nih, lambda folder: (folder / "test_list.txt").write_text("00000004_000.png\n"),
        r"split: the image is in neither of train_val_list\.txt and test_list\.txt$",
    ),
    "a box that is cut off": (
        "nih", public_layouts.nih, in_text("BBox_List_2017.csv", ",256,512,128,64,,,", ",256"),
        r"^BBox_List_2017\.csv, the box of '00000001_000\.png': expected a box of four numbers",
    ),
    "a finding that the test table lacks": (
        "vindr-cxr", public_layouts.vindr_cxr, in_text("annotations/image_labels_test.csv", "Cardiomegaly", "Heart"),
        r"^image_labels_test\.csv has no column Cardiomegaly, unlike the table of the training set\.$",
    ),
    "a finding that the table of validation lacks": (
        "ct-rate", public_layouts.ct_rate,
        in_text("multi_abnormality_labels/valid_predicted_labels.csv", "Cardiomegaly", "Heart"),
        r"^valid_predicted_labels\.csv has no column Cardiomegaly; use the data set's original table\.$",
    ),
    "ids of labels as numbers with a point": (
        "mimic-cxr", public_layouts.mimic_cxr,
        lambda folder: change(
            folder / "mimic-cxr-2.0.0-chexpert.csv.gz",
            lambda rows: [rows[0], *([row[0], f"{row[1]}.0", *row[2:]] for row in rows[1:])],
        ),
        r"^mimic-cxr-2\.0\.0-chexpert\.csv\.gz has no row of any study: its ids, such as '50414267\.0', are not written like",
    ),
    "annotations that are cut off": (
        "chexlocalize", public_layouts.chexlocalize, in_text("CheXlocalize/gt_segmentations_val.json", "}}", ""),
        r"^gt_segmentations_val\.json is damaged or cut off: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(tmp_path, what):
    name, make, edit, sentence = WRONG[what]
    make(tmp_path)
    edit(tmp_path)
    with pytest.raises((StudyError, ValueError, FileNotFoundError), match=sentence):
        read_manifest(f"{name}:{tmp_path}")


def test_the_newer_of_two_versions_of_ms_cxr(tmp_path):
    public_layouts.ms_cxr(tmp_path)
    shutil.copy(tmp_path / "MS_CXR_Local_Alignment_v1.1.0.csv", tmp_path / "MS_CXR_Local_Alignment_v1.0.0.csv")
    change(tmp_path / "MS_CXR_Local_Alignment_v1.0.0.csv", lambda rows: [row[:-1] for row in rows])
    assert {study["split"] for study in read_manifest(f"ms-cxr:{tmp_path}").studies} == {"val", "test"}


def test_boxes_that_are_nan_are_no_finding_of_vindr(tmp_path):
    public_layouts.vindr_cxr(tmp_path)
    in_text("annotations/annotations_train.csv", "8,4,24,20", "nan,nan,nan,nan")(tmp_path)
    assert not any(study["regions"] for study in read_manifest(f"vindr-cxr:{tmp_path}").studies)


def test_the_batches_of_chexpert(tmp_path):
    public_layouts.chexpert(tmp_path)
    expected = [study["study_id"] for study in read_manifest(f"chexpert:{tmp_path}").studies]
    first = tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        shutil.move(tmp_path / name, first / name)
    for number, patient in enumerate(sorted((tmp_path / "train").iterdir())):
        batch = tmp_path / f"CheXpert-v1.0 batch {2 + number % 3} (train {1 + number % 3})"
        batch.mkdir(exist_ok=True)
        shutil.move(patient, batch / patient.name)
    (tmp_path / "train").rmdir()
    assert [study["study_id"] for study in read_manifest(f"chexpert:{tmp_path}").studies] == expected


@pytest.mark.parametrize(("name", "make", "table"), [
    ("nih", public_layouts.nih, "Data_Entry_2017.csv"),
    ("chexpert", public_layouts.chexpert, "train.csv"),
    ("chexpert,check_files=false", public_layouts.chexpert, "train.csv"),
])  # fmt: skip
def test_the_folder_is_not_listed_for_each_image_that_is_missing(tmp_path, monkeypatch, name, make, table):
    make(tmp_path)
    for folder in ("train", "images_001", "images_002"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    listed = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: listed.append(pattern) or glob(path, pattern))

    def lists():
        listed.clear()
        manifest = read_manifest(f"{name}:{tmp_path}", on_error="skip")
        assert manifest.skipped or "check_files" in name
        return len(listed)

    few = lists()
    change(tmp_path / table, lambda rows: [rows[0], *rows[1:] * 10])
    assert lists() == few


class TestArchives:
    def test_of_images(self, tmp_path):
        public_layouts.rocov2(tmp_path)
        shutil.make_archive(str(tmp_path / "train_images"), "zip", tmp_path, "train_images")
        shutil.rmtree(tmp_path / "train_images")
        with pytest.raises(StudyError, match=r"there is no image \S+ in \S+ \(train_images\.zip is not unpacked\)$"):
            read_manifest(f"rocov2:{tmp_path}")

    def test_of_tables(self, tmp_path):
        (tmp_path / "stage_2_train_labels.csv.zip").touch()
        with pytest.raises(
            FileNotFoundError, match=r"holds no \S+ \(stage_2_train_labels\.csv\.zip is not unpacked\); RSNA"
        ):
            read_manifest(f"rsna:{tmp_path}")

    def test_of_all(self, tmp_path):
        (tmp_path / "CheXpert-v1.0-small.zip").touch()
        with pytest.raises(FileNotFoundError, match=r"\.zip holds no train\.csv \S+ valid\.csv, since it is a file"):
            read_manifest(f"chexpert:{tmp_path / 'CheXpert-v1.0-small.zip'}")

    def test_of_reports(self, tmp_path, caplog):
        public_layouts.mimic_cxr(tmp_path)
        for report in tmp_path.rglob("s*.txt"):
            report.unlink()
        (tmp_path / "mimic-cxr-reports.zip").touch()
        read_manifest(f"mimic-cxr:{tmp_path}")
        assert caplog.messages == [f"No study of {tmp_path} has a report (mimic-cxr-reports.zip is not unpacked)."]
