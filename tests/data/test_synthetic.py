"""The synthetic set: the same on every machine, true to its masks, sides and labels."""

from __future__ import annotations

import hashlib
import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from medvl.data import StudyDataset, StudyLoader, SyntheticChestXRay, read_manifest
from medvl.data.synthetic.findings import DEVICES, Finding, image_states
from medvl.data.synthetic.patients import patient_number

DATASET = SyntheticChestXRay(length=400, size=64, seed=0)
STUDIES = [DATASET.get_metadata(i) for i in range(400)]

GOLDEN_IMAGE = "b1906d0228f062e2df35f6f8d06c36b8b26e2fc64b4abc3b208a123f60b58380"
GOLDEN_REPORT = "08eff21b3840cb92da0379b480de7a44faae5472f86ec99675d87d2a26ff3f2f"

FINGERPRINT = """
import hashlib
from medvl.data import SyntheticChestXRay
study = SyntheticChestXRay(length={length}, size=128, seed=3)[{index}]
pixels = (study["image"] * 255).round().to(dtype=__import__("torch").uint8).numpy().tobytes()
print(hashlib.sha256(pixels + study["mask"].numpy().tobytes() + study["report"].encode()).hexdigest())
"""


def fingerprint(index: int, length: int) -> str:
    code = FINGERPRINT.format(index=index, length=length)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


class TestSameEverywhere:
    def test_checksums(self):
        """A change of these is a change of everybody's data: do it on purpose only."""
        study = SyntheticChestXRay(length=9, size=128, seed=3)[7]
        pixels = (study["image"] * 255).round().to(torch.uint8).numpy().tobytes()
        assert hashlib.sha256(pixels).hexdigest() == GOLDEN_IMAGE
        assert hashlib.sha256(study["report"].encode()).hexdigest() == GOLDEN_REPORT

    def test_other_processes_and_lengths(self):
        assert fingerprint(7, 8) == fingerprint(7, 5000)

    def test_order_does_not_matter(self):
        first = DATASET[5]["image"]
        DATASET[300]
        assert torch.equal(DATASET[5]["image"], first)
        assert torch.equal(DATASET[-395]["image"], first)

    def test_seeds_differ(self):
        assert not torch.equal(SyntheticChestXRay(3, 64, 1)[0]["image"], DATASET[0]["image"])

    @pytest.mark.parametrize("index", [1, 4, 9])
    def test_another_size_shows_the_same_chest(self, index):
        large, small = (SyntheticChestXRay(20, size)[index]["image"] for size in (256, 128))
        shrunk = torch.nn.functional.avg_pool2d(large, 2)
        assert np.corrcoef(shrunk.flatten(), small.flatten())[0, 1] > 0.98

    def test_pickle(self):
        copy = pickle.loads(pickle.dumps(DATASET))
        assert torch.equal(copy[3]["image"], DATASET[3]["image"])

    def test_workers_give_what_the_process_itself_gives(self):
        dataset = SyntheticChestXRay(8, 32, seed=1)
        alone, shared = (list(DataLoader(dataset, batch_size=None, num_workers=workers)) for workers in (0, 2))
        assert len(alone) == len(shared) == 8
        for one, other in zip(alone, shared, strict=True):
            for key in ("image", "mask", "label", "text_label"):
                torch.testing.assert_close(one[key], other[key], rtol=0, atol=0, equal_nan=True)
            for key in ("report", "findings", "study_id", "patient_id", "split"):
                assert one[key] == other[key]


class TestTrueToItself:
    @pytest.mark.parametrize("size", [32, 64, 128, 257])
    def test_masks_are_there_for_what_is_present_and_only_for_that(self, size):
        dataset = SyntheticChestXRay(40, size)
        for study in itertools.islice(dataset, 40):
            assert study["image"].shape == (1, size, size)
            assert 0 <= study["image"].min() < study["image"].max() <= 1
            present = {finding["name"] for finding in study["findings"]}
            drawn = {name for name, mask in zip(dataset.drawable, study["mask"], strict=True) if mask.any()}
            assert drawn == present

    def test_mask_is_on_the_side_that_is_said(self):
        """The patient's right is on the left of the picture."""
        checked = 0
        for index, study in enumerate(STUDIES[:150]):
            masks = DATASET[index]["mask"].numpy()
            for finding in study["findings"]:
                if finding.side not in ("right", "left") or finding.name == "Support Devices":
                    continue
                columns = np.nonzero(masks[DATASET.drawable.index(finding.name)])[1]
                assert (columns.mean() < 32) == (finding.side == "right"), (index, finding)
                checked += 1
        assert checked > 60

    def test_zones_are_at_their_heights(self):
        heights: dict[str, list[float]] = {"upper": [], "mid": [], "lower": []}
        for index, study in enumerate(STUDIES[:250]):
            for finding in study["findings"]:
                if finding.name in ("Lung Lesion", "Consolidation"):
                    mask = DATASET[index]["mask"][DATASET.drawable.index(finding.name)].numpy()
                    heights[finding.location].append(np.nonzero(mask)[0].mean())
        assert max(heights["upper"]) < np.mean(heights["mid"]) < min(heights["lower"])

    @pytest.mark.parametrize("name", SyntheticChestXRay.drawable)
    def test_a_finding_changes_the_picture_where_its_mask_is(self, name):
        dataset = SyntheticChestXRay(10, 128)
        side = {"Cardiomegaly": "", "Edema": "bilateral"}.get(name, "left")
        location = {"Support Devices": "chest tube", "Pneumothorax": "upper", "Atelectasis": "lower"}.get(name, "mid")
        without, _ = dataset.render(2, [])
        picture, masks = dataset.render(2, [Finding(name, "severe", side, location)])
        change = np.abs(picture.astype(float) - without)
        mask = masks[dataset.drawable.index(name)].astype(bool)
        assert change[mask].mean() > 3 * change[~mask].mean()

    def test_lungs_are_dark_on_both_sides_and_keep_clear_of_the_heart(self):
        data = SyntheticChestXRay(length=30, size=64)
        healthy = [i for i in range(30) if not data.get_metadata(i)["findings"]]
        assert len(healthy) > 3
        for index in healthy:
            image, lungs = data[index]["image"][0].numpy(), data.lungs(index)
            assert lungs.dtype == np.uint8
            assert 0.1 < lungs.mean() < 0.5
            assert min(lungs[:, :28].sum(), lungs[:, 36:].sum()) > 200
            assert image[lungs == 1].mean() < image[20:44, 31:33].mean() - 0.1  # the mediastinum
        large = SyntheticChestXRay(length=3, size=128).lungs(2)
        small = large.reshape(64, 2, 64, 2).mean(axis=(1, 3)) > 0.5
        assert (small == data.lungs(2)).mean() > 0.95
        np.testing.assert_array_equal(data.lungs(-1), data.lungs(29))
        with pytest.raises(IndexError):
            data.lungs(30)

    def test_a_finding_changes_the_shape_of_the_lungs(self):
        data = SyntheticChestXRay(length=400, size=64)
        hearts = {True: [], False: []}
        for index in range(400):
            names = {finding.name for finding in data.get_metadata(index)["findings"]}
            hearts["Cardiomegaly" in names].append(int(data.lungs(index).sum()))
        assert np.mean(hearts[True]) < 0.95 * np.mean(hearts[False])

    def test_fluid_and_air_are_inside_the_lungs(self):
        data = SyntheticChestXRay(length=200, size=64)
        for name in ("Pneumothorax", "Consolidation", "Pleural Effusion"):
            shares = []
            for index in range(200):
                mask = data[index]["mask"][data.drawable.index(name)].numpy().astype(bool)
                if mask.any():
                    shares.append(data.lungs(np.int64(index))[mask].mean())
            assert np.mean(shares) > (0.65 if name == "Pleural Effusion" else 0.9)  # fluid lies behind the heart too

    def test_text_never_says_more_than_the_image_shows(self):
        for study in STUDIES:
            image, text = study["label"], study["text_label"]
            drawable = ~np.isnan(image)
            assert (image[drawable & (text == 1)] == 1).all()
            assert (image[drawable & (text == 0)][1:] == 0).all()
            assert np.isnan(text[[1, 7, 11]]).all()

    def test_no_finding_is_derived(self):
        assert image_states([])["No Finding"] == 1
        assert image_states([Finding("Support Devices", "moderate", "", "endotracheal tube")])["No Finding"] == 1
        assert image_states([Finding("Edema", "mild", "bilateral")])["No Finding"] == 0

    def test_every_finding_severity_and_device_occurs(self):
        findings = [finding for study in STUDIES for finding in study["findings"]]
        assert {finding.name for finding in findings} == set(DATASET.drawable)
        assert {finding.severity for finding in findings} == {"mild", "moderate", "severe"}
        assert {f.location for f in findings if f.name == "Support Devices"} == set(DEVICES)
        assert 0.15 < np.mean([not study["findings"] for study in STUDIES]) < 0.35


class TestPatients:
    def test_splits_never_cut_a_patient(self):
        dataset = SyntheticChestXRay(3000, 64)
        patients: dict[str, set[str]] = {}
        counts: dict[str, int] = {}
        for index in range(3000):
            study = dataset.get_metadata(index)
            patients.setdefault(study["patient_id"], set()).add(study["split"])
            counts[study["patient_id"]] = counts.get(study["patient_id"], 0) + 1
        assert all(len(splits) == 1 for splits in patients.values())
        assert set(counts.values()) == {1, 2, 3}
        shares = [
            sum(splits == {name} for splits in patients.values()) / len(patients) for name in ("train", "val", "test")
        ]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.04)

    def test_patient_of_study_is_in_order(self):
        numbers = [patient_number(0, i) for i in range(60)]
        assert numbers == sorted(numbers)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"length": 0}, ValueError, "length must be at least 1, got 0."),
            ({"size": 31}, ValueError, "size must be between 32 and 1024, got 31."),
            ({"size": 1025}, ValueError, "size must be between 32 and 1024, got 1025."),
            ({"seed": -1}, ValueError, "seed must be at least 0, got -1."),
            ({"size": 64.0}, TypeError, r"size must be an integer, got 64\.0."),
            ({"length": True}, TypeError, "length must be an integer, got True."),
        ],
    )
    def test_errors(self, arguments, error, message):
        with pytest.raises(error, match=message):
            SyntheticChestXRay(**arguments)

    def test_index_error_ends_iteration(self):
        assert len(list(SyntheticChestXRay(3, 32))) == 3
        with pytest.raises(IndexError):
            SyntheticChestXRay(3, 32)[3]


class TestWrite:
    def test_round_trip(self, tmp_path):
        dataset = SyntheticChestXRay(12, 48, seed=2)
        seen = []
        table = dataset.save(tmp_path / "a", masks=True, progress=lambda items: (seen.append(i) or i for i in items))
        assert seen == list(range(12))
        manifest = read_manifest(table)
        assert manifest.names == dataset.names
        loader = StudyLoader(StudyDataset(manifest.studies), batch_size=12)
        (batch,) = list(loader)
        for i, study in enumerate(dataset):
            for key in ("report", "study_id", "patient_id", "split"):
                assert batch[key][i] == study[key]
            torch.testing.assert_close(batch["label"][i], study["label"], equal_nan=True)
            pixels = np.asarray(Image.open(batch["image"][i]))
            assert np.array_equal(pixels, (study["image"][0] * 255).round())
            for name, mask in zip(dataset.drawable, study["mask"], strict=True):
                path = tmp_path / "a" / "masks" / study["study_id"] / f"{name}.png"
                assert path.exists() == bool(mask.any())
                if path.exists():
                    assert np.array_equal(np.asarray(Image.open(path)) > 0, mask.bool())
        assert math.isnan(batch["label"][0][1])

    def test_bytes_are_the_same_each_time(self, tmp_path):
        for name in ("a", "b"):
            SyntheticChestXRay(3, 32).save(tmp_path / name)
        files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
        assert len(files) == 5  # with the checksum of the table
        assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
