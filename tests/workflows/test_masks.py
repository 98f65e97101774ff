"""Masks in the geometry of the prepared images."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medvl.transforms import image_preprocessing
from medvl.workflows.masks import MASK, REGIONS, LoadMasks


def test_the_mask_of_a_volume_of_thick_slices_lies_on_its_image(tmp_path):
    affine = np.diag([1, 1, 3, 1])
    lobe = np.zeros((12, 12, 4), dtype=np.uint8)
    lobe[2:6, 3:9, 1:3] = 1
    nibabel.Nifti1Image(lobe, affine).to_filename(tmp_path / "image.nii")
    nibabel.Nifti1Image(lobe, np.eye(4)).to_filename(
        tmp_path / "mask.nii"
    )  # drawn by a program that dropped the spacing
    load, *rest = image_preprocessing(12, spatial_dims=3).transforms
    study = load({"image": tmp_path / "image.nii", REGIONS: [str(tmp_path / "mask.nii"), None]})
    study = LoadMasks(12, spatial_dims=3)(study)
    for step in rest:
        study = step(study)
    assert study[MASK].shape == (2, 12, 12, 12)
    assert study[MASK][0].sum() == lobe.sum() * 3
    assert (study[MASK][0] == (study["image"][0] >= 0.5)).all()
    assert not study[MASK][1].any()


def test_masks_and_boxes_follow_pixels_that_are_not_square(tmp_path):
    pixels = np.zeros((20, 20), dtype=np.uint8)
    pixels[5:10, 4:8] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset = pydicom.Dataset()
    dataset.file_meta, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = meta, 20, 20, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PhotometricInterpretation, dataset.PixelSpacing = "MONOCHROME2", [2, 1]
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    load, *rest = image_preprocessing(40).transforms
    box = [{"bbox": [4, 5, 4, 5]}]
    study = load({"image": tmp_path / "image.dcm", REGIONS: [str(tmp_path / "mask.png"), box]})
    study = LoadMasks(40)(study)
    for step in rest:
        study = step(study)
    expected = np.zeros((40, 40), dtype=bool)
    expected[10:20, 14:18] = True  # 20 columns in the middle of 40
    assert ((study["image"][0] >= 0.5).numpy() == expected).all()
    for mask in study[MASK]:
        assert (mask.numpy() == expected).all()


def mask_of(path, values):
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(path)
    return LoadMasks(8, spatial_dims=3)({"image": torch.zeros(1, 8, 8, 8), REGIONS: [str(path)]})[MASK][0]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_a_label_map_is_no_mask(tmp_path, kind):
    labels = np.zeros((8, 8, 8), kind)
    labels[1:3], labels[3:5], labels[5:7] = 1, 2, 3
    with pytest.raises(ValueError, match=r"^a\.nii must hold one region; write .*, got the labels \[0, 1, 2, 3\]\.$"):
        mask_of(tmp_path / "a.nii", labels)


@pytest.mark.parametrize("peak", [1, 2, 255])
def test_one_label_and_soft_edges_are_a_mask(tmp_path, peak):
    inside = np.zeros((8, 8, 8), np.float32)
    inside[2:6] = peak
    soft = inside.copy()
    soft[1], soft[6], soft[5] = 0.3 * peak, 0.4 * peak, 0.9 * peak
    for values in (inside, inside.astype(np.uint8), soft, *([soft.astype(np.uint8)] if peak == 255 else [])):
        assert (mask_of(tmp_path / "a.nii", values).numpy() == (inside > 0)).all()
