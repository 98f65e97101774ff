"""The data that all arms share: drawn once, parts by patient, masks beside the images."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from evidence.arms import ARMS
from evidence.data import PARTS, REAL, EvidenceData, LungCases, TestData, has_real
from evidence.scales import SCALES
from medvl.data import SyntheticChestXRay
from medvl.transforms import image_preprocessing

SCALE = replace(SCALES["quick"], studies=60)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = EvidenceData(SCALE, tmp_path_factory.mktemp("data"))
    data.prepare()
    return data


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_parts_are_of_training_patients_and_share_none(data):
    patients = {row["patient_id"] for row in rows(data.table) if row["split"] == "train"}
    parts = {part: {row["patient_id"] for row in rows(data.folder / f"{part}-image-label.csv")} for part in PARTS}
    thirds = [parts[f"third-{number}"] for number in (1, 2, 3)]
    assert set.union(*thirds) == patients
    assert sum(map(len, thirds)) == len(patients)
    assert parts["first-20"] | parts["last-80"] == patients
    assert not parts["first-20"] & parts["last-80"]
    assert len(parts["first-20"]) == round(0.2 * len(patients))


def test_a_part_has_the_columns_of_its_kind(data):
    words = {"study_id", "patient_id", "split", "report"}
    assert set(rows(data.folder / "last-80-text-label.csv")[0]) == words
    assert set(rows(data.folder / "last-80-image-text.csv")[0]) == words | {"image"}
    assert "Edema" in rows(data.folder / "last-80-image-label.csv")[0]


def test_the_set_is_drawn_once(data):
    before = data.table.stat().st_mtime_ns
    data.prepare()
    assert data.table.stat().st_mtime_ns == before


def test_an_interrupted_drawing_is_drawn_again(data):
    (data.folder / "parts.json").unlink()
    data.table.write_text("half")
    data.prepare()
    assert len(rows(data.table)) == SCALE.studies


def test_sources_are_tables_of_their_kind(data):
    assert data.settings(ARMS["medclip"]) == {"data": str(data.table)}
    assert data.settings(ARMS["convirt-20"]) == {"data": str(data.folder / "first-20-image-text.csv")}
    assert data.settings(ARMS["medclip-unpaired-20"]) == {
        "sources": [
            f"image-label={data.folder}/first-20-image-label.csv",
            f"text-label={data.folder}/last-80-text-label.csv",
        ]
    }


def test_masks_are_those_of_the_study(data):
    test = TestData(data.manifest(ARMS["convirt"]), image_preprocessing(32), 32, data.folder / "masks")
    batch = next(iter(test.mask_loader(test.studies("test"))))
    drawn = SyntheticChestXRay(SCALE.studies, 32, 0)
    assert batch["mask"].shape == (len(batch["image"]), 10, 32, 32)
    assert batch["mask"].any()
    for study_id, mask in zip(batch["study_id"], batch["mask"], strict=True):
        expected = drawn[int(study_id.rpartition("-s")[2])]["mask"]
        assert torch.equal(mask, expected.bool())


def test_a_model_without_text_gets_no_report(data):
    manifest = data.manifest(ARMS["convirt"])
    for prepare, expected in ((Compose([lambda study: {**study, "report": "prepared"}]), "prepared"), (None, "")):
        test = TestData(manifest, image_preprocessing(32), 32, data.folder / "masks", prepare)
        assert set(next(iter(test.loader(test.studies("test"))))["report"]) == {expected}


def test_lungs_are_those_of_the_study(data):
    drawn = SyntheticChestXRay(SCALE.studies, SCALE.image_size, 0)
    for study in data.manifest(ARMS["masks-lungs"]).studies:
        index = int(study["study_id"].rpartition("-s")[2])
        saved = np.asarray(Image.open(study["image"]))
        assert np.array_equal(saved, (drawn[index]["image"][0] * 255).round().numpy())
        assert np.array_equal(data.lungs(study)[0], drawn.lungs(index))


@pytest.mark.skipif(not REAL["lungs"].exists(), reason="the real chest X-rays are not here")
def test_lung_masks_lie_where_the_image_preprocessing_places_them():
    cases, _ = LungCases(image_preprocessing(64), 64).split()
    shapes = set()
    for row, study in enumerate(cases.studies[:24]):
        path = REAL["lungs"].parent / study["lung_mask"]
        placed = image_preprocessing(64)({"image": str(path)})["image"] >= 0.5
        found = cases[row]["mask"]
        assert (placed == found).float().mean() > 0.99
        shapes.add(Image.open(path).size)
    assert len(shapes) > 5
    assert any(width > height for width, height in shapes)
    assert any(width < height for width, height in shapes)


@pytest.mark.skipif(not REAL["lungs"].exists(), reason="the real chest X-rays are not here")
def test_the_lung_cases_are_those_that_the_page_counts_and_each_has_a_mask():
    train, test = LungCases(image_preprocessing(64), 64).split()
    assert len(train) + len(test) == 137
    assert {study["view"] for study in (*train.studies, *test.studies)} == {"PA", "AP", "AP Supine"}
    assert all(case["mask"].any() for part in (train, test) for case in part)


@pytest.mark.skipif(not REAL["lungs"].exists(), reason="the real chest X-rays are not here")
def test_lung_cases_are_split_by_patient_with_masks_over_their_images():
    train, test = LungCases(image_preprocessing(32), 32).split()
    assert not {study["patient_id"] for study in train.studies} & {study["patient_id"] for study in test.studies}
    item = test[0]
    assert item["mask"].shape == item["image"].shape == (1, 32, 32)
    assert 0.05 < item["mask"].float().mean() < 0.6
    again, _ = LungCases(Compose([]), 32).split()
    assert [study["study_id"] for study in again.studies] == [study["study_id"] for study in train.studies]


def test_arms_on_real_data_need_it(monkeypatch, tmp_path):
    monkeypatch.setitem(REAL, "openi", tmp_path / "missing.tgz")
    assert not has_real(ARMS["real-medclip"])
    assert has_real(ARMS["convirt"])
