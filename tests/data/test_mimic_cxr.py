"""MIMIC-CXR's published layout, made small."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest

from medvl.data import MIMIC_CXR, load_sources
from medvl.utils.errors import StudyError

NAMES = list(MIMIC_CXR.names)


def write(folder, table, rows, zipped=True):
    path = folder / f"mimic-cxr-2.0.0-{table}.csv{'.gz' if zipped else ''}"
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with gzip.open(path, "wt", newline="") if zipped else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path):
    images = [("d1", "50", "10000032", "train"), ("d2", "50", "10000032", "train"), ("d3", "51", "10000032", "train")]
    images += [("d4", "60", "11000011", "validate"), ("d5", "70", "12000012", "test")]
    split = [dict(zip(("dicom_id", "study_id", "subject_id", "split"), image, strict=True)) for image in images]
    write(tmp_path, "split", split)
    positions = zip(split, ["PA", "LATERAL", "AP", "PA", "PA"], strict=True)
    write(tmp_path, "metadata", [{"dicom_id": r["dicom_id"], "ViewPosition": p} for r, p in positions], zipped=False)
    write(
        tmp_path,
        "chexpert",
        [{"subject_id": "10000032", "study_id": "50", **dict.fromkeys(NAMES, ""), "Edema": "-1.0"}],
    )
    place = tmp_path / "files" / "p10" / "p10000032"
    (place / "s50").mkdir(parents=True)
    (place / "s50.txt").write_bytes(b"FINAL REPORT\n IMPRESSION: No edema \xe9.")
    (place / "s50" / "d1.jpg").touch()
    (place / "s50" / "d2.dcm").touch()
    return tmp_path


def test_a_split(folder):
    studies = MIMIC_CXR(folder, split="train", check_files=False)
    assert [study["study_id"] for study in studies] == ["s50", "s51"]
    first = studies[0]
    place = folder / "files" / "p10" / "p10000032" / "s50"
    assert first["image"] == [str(place / "d1.jpg"), str(place / "d2.dcm")]
    assert first["patient_id"] == "p10000032"
    assert first["views"] == ["PA", "LATERAL"]
    assert first["report"] == "FINAL REPORT\n IMPRESSION: No edema \ufffd."
    assert first["label"][NAMES.index("Edema")] == -1
    assert np.isnan(first["label"]).sum() == 13
    assert {"report", "label"}.isdisjoint(studies[1])
    assert [study["study_id"] for study in MIMIC_CXR(folder, split="val", check_files=False)] == ["s60"]
    assert len(studies[:1]) == 1


def test_all_splits_as_a_source(folder):
    manifest = load_sources(f"image-label=mimic-cxr,check_files=false:{folder}")
    assert [(study["study_id"], study["split"]) for study in manifest.studies] == [("s50", "train")] * 2
    assert manifest.counts == {"rows": 4, "skipped": 0, "image": 4, "report": 1, "label": 1}
    manifest = load_sources(f"image-text=mimic-cxr,check_files=false:{folder}")
    assert manifest.dropped == {}
    assert manifest.summary().endswith("3 studies without a report dropped.")
    splits = [study["split"] for study in MIMIC_CXR(folder, check_files=False)]
    assert splits == ["train", "train", "val", "test"]


def test_views(folder):
    def views(wanted, **options):
        return [study["views"] for study in MIMIC_CXR(folder, "train", wanted, check_files=False, **options)]

    assert views(["PA", "AP"]) == views("frontal") == [["PA"], ["AP"]]
    assert views("lateral") == [["LATERAL"]]
    next(folder.glob("*metadata*")).unlink()
    assert views("all") == [["", ""], [""]]
    with pytest.raises(ValueError, match=r"^views must be 'all', since MIMIC-CXR has no views, got \['PA'\]\.$"):
        views(["PA"])


def test_errors_name_what_is_wrong(folder, tmp_path):
    with pytest.raises(StudyError, match=r"study 's51', image: there is no file d3\.jpg or d3\.dcm in "):
        MIMIC_CXR(folder)
    with pytest.raises(ValueError, match=r"^split must be one of 'train', 'val', 'test', 'all', got 'validate'\.$"):
        MIMIC_CXR(folder, split="validate")
    with pytest.raises(ValueError, match=r"^labeler must be one of 'chexpert', 'negbio', got 'vihan'\.$"):
        MIMIC_CXR(folder, labeler="vihan")
    write(folder, "chexpert", [{"study_id": "50", "Edema": "7"}])
    with pytest.raises(StudyError, match=r"study 's50', Edema: expected 1 .*, got 7$"):
        MIMIC_CXR(folder, check_files=False)
    write(folder, "chexpert", [{"study": "50", "Edema": "1"}])
    with pytest.raises(ValueError, match=r"chexpert\.csv.* has no column study_id; use the data set's original table"):
        MIMIC_CXR(folder)
    with pytest.raises(
        FileNotFoundError,
        match=r"holds no mimic-cxr-\*-split\.csv or cxr-record-list\.csv; MIMIC-CXR is read from files/p10",
    ):
        MIMIC_CXR(folder / "files")
