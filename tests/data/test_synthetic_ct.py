"""The synthetic chest CT: volumes, masks and reports agree, and are the same everywhere."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
import torch

from medvl.data import SyntheticChestCT
from medvl.data.synthetic.chest_ct import DRAWABLE_CT, compose_ct_report
from medvl.data.synthetic.findings import Finding
from medvl.data.synthetic.random_stream import RandomStream
from medvl.text import label_report, load_vocabulary
from medvl.transforms import LoadStudyImage

SIZE = 32
DATA = SyntheticChestCT(40, SIZE)


@pytest.fixture(scope="module")
def studies():
    return [DATA[index] for index in range(24)]


def drawn(*findings: Finding) -> tuple[np.ndarray, np.ndarray]:
    """Volume and masks of the same chest with these findings."""
    return SyntheticChestCT(1, 48).render(0, list(findings))


def test_form(studies):
    for study in studies:
        assert study["image"].shape == (1, SIZE, SIZE, SIZE)
        assert study["image"].dtype == torch.float32
        assert 0 <= study["image"].min() <= 0.05
        assert 0.8 <= study["image"].max() <= 1
        assert study["mask"].shape == (7, SIZE, SIZE, SIZE)
        assert set(study["mask"].unique().tolist()) <= {0, 1}


def test_masks_labels_and_findings_say_the_same(studies):
    seen = set()
    for study in studies:
        present = {finding["name"] for finding in study["findings"]}
        seen |= present
        for name, mask in zip(DRAWABLE_CT, study["mask"], strict=True):
            assert bool(mask.any()) == (name in present), name
            assert study["label"][DATA.names.index(name)] == float(name in present)
        assert study["label"][DATA.names.index("Fracture")].isnan()
        assert study["label"][DATA.names.index("No Finding")] == float(not present)
    assert seen == set(DRAWABLE_CT)


def test_reports_are_read_as_they_were_written():
    vocabulary = load_vocabulary("chexpert14")
    wrong = []
    for index in range(len(DATA)):
        study = DATA.get_metadata(index)
        assert "radiograph" not in study["report"].lower()
        read = np.asarray(label_report(study["report"], vocabulary), dtype=np.float32)
        stated = np.isin(study["text_label"], (0, 1))
        stated[DATA.names.index("No Finding")] = False  # follows from the others
        wrong += [index] if (read[stated] != study["text_label"][stated]).any() else []
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize("name", ["Pleural Effusion", "Pneumothorax", "Consolidation", "Lung Lesion", "Atelectasis"])
def test_a_side_is_the_patients(name):
    """Indices grow to the patient's right."""
    for side, half in (("right", slice(24, None)), ("left", slice(24))):
        _, masks = drawn(Finding(name, "severe", side, "lower"))
        mask = masks[DRAWABLE_CT.index(name)]
        assert mask[half].sum() > 0.95 * mask.sum() > 0


def test_places_along_the_other_axes():
    effusion = drawn(Finding("Pleural Effusion", "severe", "right"))[1][DRAWABLE_CT.index("Pleural Effusion")]
    pneumothorax = drawn(Finding("Pneumothorax", "severe", "right", "upper"))[1][DRAWABLE_CT.index("Pneumothorax")]
    middle = [np.argwhere(mask)[:, 1].mean() for mask in (effusion, pneumothorax)]
    assert middle[0] < 24 < middle[1], "fluid lies at the back, air at the front"
    heights = [
        np.argwhere(drawn(Finding("Lung Lesion", "severe", "right", zone))[1][DRAWABLE_CT.index("Lung Lesion")])[
            :, 2
        ].mean()
        for zone in ("lower", "mid", "upper")
    ]
    assert heights == sorted(heights)


@pytest.mark.parametrize("name", DRAWABLE_CT)
def test_severity_is_size_and_shows(name):
    empty, _ = drawn()
    sizes = []
    for severity in ("mild", "moderate", "severe"):
        volume, masks = drawn(Finding(name, severity, "" if name == "Cardiomegaly" else "left", "lower"))
        mask = masks[DRAWABLE_CT.index(name)].astype(bool)
        sizes.append(mask.sum())
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    change = np.abs(volume.astype(float) - empty)
    assert change[mask].mean() > 5 * change[~mask].mean(), "what changes is what the mask says"


def test_no_finding_is_hidden_by_what_lies_before_it():
    for index in range(0, 300, 7):
        findings = DATA.get_metadata(index)["findings"]
        _, masks = DATA.render(index, findings)
        assert all(masks[DRAWABLE_CT.index(finding.name)].sum() >= 3 for finding in findings), index


def test_same_study_anywhere():
    study = SyntheticChestCT(8, SIZE)[7]
    assert torch.equal(study["image"], DATA[7]["image"])
    assert study["report"] == DATA[7]["report"]
    assert not torch.equal(study["image"], SyntheticChestCT(8, SIZE, seed=1)[7]["image"])
    voxels, masks = DATA.render(3, DATA.get_metadata(3)["findings"])
    digest = hashlib.sha256(voxels.tobytes() + masks.tobytes()).hexdigest()
    assert digest == "cc3b12dce0e7d94d8bddcb1a19540fc2ae4c5ce8c80409b355e182d427ce4354"


def test_patients_stay_in_one_split():
    splits: dict[str, set[str]] = {}
    for index in range(len(DATA)):
        study = DATA.get_metadata(index)
        splits.setdefault(study["patient_id"], set()).add(study["split"])
    assert all(len(split) == 1 for split in splits.values())


def test_files_read_back(tmp_path):
    table = SyntheticChestCT(2, SIZE).save(tmp_path)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["study_id"] for row in rows] == ["synct0-s000000", "synct0-s000001"]
    image = LoadStudyImage()(tmp_path / rows[1]["image"])
    scaled = ((torch.as_tensor(image).float() + 1000) / 1400).clamp(0, 1)
    torch.testing.assert_close(scaled, DATA[1]["image"])


def test_masks_are_saved_for_the_findings_that_are_present(tmp_path):
    SyntheticChestCT(2, SIZE).save(tmp_path, masks=True)
    for index in range(2):
        study = DATA[index]
        present = {name: mask for name, mask in zip(DRAWABLE_CT, study["mask"], strict=True) if mask.any()}
        folder = tmp_path / "masks" / study["study_id"]
        assert {path.name for path in folder.iterdir()} == {f"{name}.nii.gz" for name in present}
        for name, mask in present.items():
            assert torch.equal(torch.as_tensor(LoadStudyImage()(folder / f"{name}.nii.gz"))[0].to(torch.uint8), mask)


def test_report_of_nothing_is_normal():
    text, states = compose_ct_report([], RandomStream("any"))
    assert states["No Finding"] == 1
    assert text.startswith(("FINDINGS:", "IMPRESSION:"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"length": 0}, ValueError, "length must be at least 1, got 0."),
        ({"size": 16}, ValueError, "size must be between 32 and 256, got 16."),
        ({"seed": 1.5}, TypeError, "seed must be an integer, got 1.5."),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        SyntheticChestCT(**arguments)
