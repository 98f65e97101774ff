"""Masks in the geometry of the prepared images."""

from __future__ import annotations

import nibabel
import numpy as np

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
