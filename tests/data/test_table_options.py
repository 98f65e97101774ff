"""Options by which any table is read: where its images are, several columns of reports, other tables."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from medvl.data import load_sources, load_studies, read_manifest
from medvl.utils.errors import StudyError


@pytest.fixture
def folder(tmp_path):
    for name in ("images/train/a.png", "images/train/b.png", "images/valid/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    return tmp_path


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def images(manifest, folder):
    return [study["image"].removeprefix(f"{folder}/images/") for study in manifest.studies if "image" in study]


def test_root_and_suffix(folder, monkeypatch):
    table = write(
        folder / "tables" / "cases.csv", "image,report", "train/a,Clear.", "train/b.png,Clear.", "valid/c.PNG,X."
    )
    with pytest.raises(StudyError, match=r"image: row 1 \(line 2\): the file train/a does not exist"):
        read_manifest(table)
    (folder / "images" / "valid" / "c.PNG").write_bytes(b"")
    manifest = read_manifest(table, image_root=folder / "images", image_suffix=".png")
    assert images(manifest, folder) == ["train/a.png", "train/b.png", "valid/c.PNG"]
    monkeypatch.chdir(folder)
    assert images(read_manifest(table, image_root="images", image_suffix=".png"), folder)[0] == "train/a.png"


def test_template(folder):
    table = write(
        folder / "cases.csv",
        "split,VolumeName,report",
        "train,a,Clear.",
        "valid,c,Clear.",
        "train,,Text only.",
        "train,x,X.",
    )
    options = {"image_root": folder / "images", "image_suffix": ".png"}
    manifest = read_manifest(table, image_template="{split}/{VolumeName}", on_error="skip", **options)
    assert images(manifest, folder) == ["train/a.png", "valid/c.png"]
    assert [study["split"] for study in manifest.studies] == ["train", "val", "train"]
    assert [study["study_id"] for study in manifest.studies] == ["train/a", "valid/c", "row 3"]
    assert "image_template: row 4 (line 5): the file train/x.png does not exist" in str(manifest.skipped[0])


def test_template_with_formats(folder):
    write(folder / "images" / "p10" / "p10007" / "003.png")
    table = write(folder / "cases.csv", "patient,number,report", "10007.0,3,Clear.")
    manifest = read_manifest(table, image_template="images/p{patient:.2}/p{patient}/{number:0>3}.png")
    assert images(manifest, folder) == ["p10/p10007/003.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image_template": "a.png"},
            "image_template must be a path with columns in braces, as {split}/{VolumeName}, got 'a.png'.",
        ),
        ({"image_template": "{}"}, "image_template must be a path with columns in braces"),
        ({"image_template": "{id!r}"}, "image_template must be a path with columns in braces"),
        ({"image_template": "{id"}, "image_template must be a path with columns in braces"),
        ({"image_template": "{id:>999999999}"}, "image_template must fill up to fewer than 10000 characters"),
        ({"image_template": "{id:.99999}"}, "image_template must fill up to fewer than 10000 characters"),
        ({"image_template": "{idd}"}, "image_template: cases.csv has no column 'idd' (did you mean 'id'?)"),
        (
            {"image_template": "{id}", "image_column": "id"},
            "image_template must be given without image_column, got 'id'.",
        ),
        ({"image_template": "{id:d}", "report_column": "id"}, "expected a text for the format 'd' of image_template"),
        ({"join": "labels.csv"}, "join must be TABLE:KEY or TABLE:KEY=KEY_OF_TABLE, got 'labels.csv'."),
        (
            {"report_column": ["id", "text"]},
            "report_column: cases.csv has no column 'text'; its columns are id, image.",
        ),
    ],
)
def test_options_that_are_refused(folder, options, message):
    table = write(folder / "cases.csv", "id,image", "a,images/train/a.png")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_manifest(table, **{"report_column": None, **options})


def test_several_report_columns_and_a_joined_table(folder):
    table = write(
        folder / "reports.csv", "id,Findings,Impression", "7,Clear.,Normal.", "8.0,,Edema.", "9,Mass.,", "7,X.,", "10,,"
    )
    labels = write(folder / "labels.csv", "VolumeName,Edema,Fracture", "7,0,1", "8,1,", "11,1,1")
    manifest = read_manifest(
        table,
        image_column=None,
        report_column=["Findings", "Impression"],
        label_column=["Edema", "Fracture"],
        join=f"{labels}:id=VolumeName",
        on_error="skip",
    )
    assert [study["report"] for study in manifest.studies] == [
        "FINDINGS: Clear.\n\nIMPRESSION: Normal.",
        "IMPRESSION: Edema.",
        "FINDINGS: Mass.",
        "FINDINGS: X.",
    ]
    assert [study["label"].tolist()[0] if "label" in study else None for study in manifest.studies] == [0, 1, None, 0]
    assert "Findings + Impression: row 5 (line 6): there is neither an image nor a report" in str(manifest.skipped[0])
    assert manifest.unmatched == {"labels.csv": 2}
    assert manifest.columns == {
        "image": "", "report": "Findings + Impression", "label": "2 columns", "patient": "", "study": "", "split": ""
    }  # fmt: skip
    assert manifest.summary().endswith(" 2 rows have no row in labels.csv.")
    assert manifest.drop_missing("label").summary().count("no row in labels.csv") == 1


@pytest.mark.parametrize(
    ("header", "row", "options", "expected"),
    [
        ("image,report", "a.png,x", {}, "image report - - - -"),
        ("image,report,PatientID,Split,study", "a.png,x,7,test,9", {}, "image report - PatientID study Split"),
        ("image,report,Patient,Study,subset", "a.png,x,7,9,test", {}, "image report - - - -"),
        ("image,Edema,Pneumonia,subject_id", "a.png,1,,7", {}, "image - 2_columns subject_id - -"),
        ("image,dx", "a.png,Edema", {"label_column": " dx", "report_column": None}, "image - dx - - -"),
        ("image,dx", "a.png,Edema", {"label_column": ["dx"], "report_column": None}, "image - dx - - -"),
        ("name,text", "a,x", {"image_template": "{name}.png", "report_column": "text"}, "{name}.png text - - - -"),
        ("image,report", "train_2_a_1.png,x", {}, "image report - file_names - -"),
        ("image,report,patient", "train_2_a_1.png,x,7", {}, "image report - patient - -"),
        ("image,report,patient", "train_2_a_1.png,x,", {}, "image report - patient_+_file_names - -"),
        ("image,report,patient", "a.png,x,", {}, "image report - patient - -"),
    ],
)
def test_the_manifest_says_which_columns_were_read(folder, header, row, options, expected):
    for name in ("a.png", "train_2_a_1.png"):
        (folder / name).touch()
    manifest = read_manifest(write(folder / "cases.csv", header, row), **options)
    assert list(manifest.columns) == ["image", "report", "label", "patient", "study", "split"]
    assert [name.replace(" ", "_") or "-" for name in manifest.columns.values()] == expected.split()


def test_image_folders_with_metadata(folder):
    one = folder / "images" / "train"
    rows = [{"file_name": "a.png", "text": "Clear."}, {"file_name": "b.png", "text": "Edema."}]
    write(one / "metadata.jsonl", *map(json.dumps, rows))
    manifest = read_manifest(one)
    assert images(manifest, folder) == ["train/a.png", "train/b.png"]
    assert [study["report"] for study in manifest.studies] == ["Clear.", "Edema."]
    write(folder / "images" / "valid" / "metadata.csv", "file_name,text", "c.png,Clear.")
    both = read_manifest(folder / "images")
    assert images(both, folder) == ["train/a.png", "train/b.png", "valid/c.png"]
    assert [study["split"] for study in both.studies] == ["train", "train", "val"]
    assert len(load_studies(folder / "images", folder)) == 3
    assert len(load_sources(data=folder / "images")) == 3
    (folder / "tables").mkdir()
    with pytest.raises(
        ValueError, match=r"^path: the folder .* holds no metadata\.jsonl, \.csv or \.parquet, and nor do its"
    ):
        read_manifest(folder / "tables")


def test_image_folders_with_several_tables(folder, monkeypatch):
    row = json.dumps({"file_name": "a.png", "text": "Clear."})
    images_folder = folder / "images"
    write(
        images_folder / "train" / "metadata.jsonl",
        row,
        json.dumps({"file_name": str(images_folder / "train" / "b.png")}),
    )
    assert images(read_manifest(images_folder), folder) == ["train/a.png", "train/b.png"]
    monkeypatch.setenv("HOME", str(folder))
    assert len(read_manifest("~/images").studies) == 2
    write(images_folder / "valid" / "metadata.jsonl", row.replace("a.png", "c.png"), '{"file_name"')
    with pytest.raises(StudyError, match=r"in valid/metadata\.jsonl, .*not valid JSON"):
        read_manifest(images_folder)
    write(images_folder / "metadata.jsonl", row)
    with pytest.raises(
        ValueError, match=r"holds metadata\.jsonl, and so does its subfolder train; name the table to read"
    ):
        read_manifest(images_folder)
    write(images_folder / "train" / "metadata.csv", "file_name,text", "a.png,Clear.")
    with pytest.raises(ValueError, match=r"train holds metadata\.jsonl and metadata\.csv; name the one to read\.$"):
        read_manifest(images_folder / "train")
    write(folder / "pointer.jsonl", "version https://git-lfs.github.com/spec/v1", "oid sha256:0")
    with pytest.raises(ValueError, match=r"got a pointer of Git LFS, which git lfs pull replaces by the file\.$"):
        read_manifest(folder / "pointer.jsonl")


def test_each_source_takes_the_options_that_it_can(folder):
    images_table = write(folder / "x.csv", "name,Edema,Fracture", "train/a,1,0", "valid/c,0,1")
    texts = write(folder / "y.csv", "id,findings,impression", "7,Edema.,", "8,,No edema.")
    labels = write(folder / "z.csv", "id,Edema,Fracture", "7,1,", "8,0,")
    columns = {
        "image_template": "{name}",
        "image_root": str(folder / "images"),
        "image_suffix": ".png",
        "report_column": ["findings", "impression"],
        "join": [f"{labels}:id"],
    }
    manifest = load_sources([f"image-label={images_table}", f"text-label={texts}"], columns=columns)
    assert images(manifest, folder) == ["train/a.png", "valid/c.png"]
    labeled = {study["study_id"]: study for study in manifest.studies if study["kind"] == "text-label"}
    assert len(labeled) == 2
    assert all("text_label" in study for study in labeled.values())
    with pytest.raises(ValueError, match=r"^image_template: there is no column \['naming'\] in x\.csv, y\.csv\.$"):
        load_sources(
            [f"image-label={images_table}", f"text-label={texts}"],
            columns={**columns, "image_template": "{naming}", "image_column": "name"},
        )


def test_a_root_of_images_is_a_folder(folder):
    table = write(folder / "cases.csv", "image,report", "train/a.png,Clear.")
    with pytest.raises(FileNotFoundError, match=r"^image_root must be a folder that exists, got '.*none'\.$"):
        read_manifest(table, image_root=folder / "none")
