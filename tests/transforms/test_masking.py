"""The random choice of visible patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from medvl.data import collate_studies
from medvl.transforms import RandMaskPatches, RandMaskPatchesd
from medvl.utils.errors import StudyError


@pytest.mark.parametrize(
    ("shape", "patch_size", "ratio", "kept"),
    [((1, 8, 12), 4, 0.5, 3), ((1, 8, 12), (2, 4), 0.75, 3), ((2, 4, 4, 8), 4, 0.9, 1), ((1, 6, 6), 2, 0.0, 9)],
)
def test_the_asked_share_stays_and_indices_and_mask_agree(shape, patch_size, ratio, kept):
    for image in (torch.zeros(shape), np.zeros(shape)):
        chosen = RandMaskPatches(patch_size, ratio).set_random_state(seed=3)(image)
        assert len(chosen["visible_indices"]) == kept
        assert chosen["visible_mask"].nonzero().flatten().tolist() == chosen["visible_indices"].tolist()


def test_every_patch_is_hidden_as_often_as_any_other_and_seeds_repeat():
    mask, image = RandMaskPatches(4, 0.5), torch.zeros(1, 8, 16)
    mask.set_random_state(seed=0)
    first = [mask(image)["visible_indices"].tolist() for _ in range(400)]
    counts = np.bincount(np.concatenate(first), minlength=8) / 400
    assert abs(counts - 0.5).max() < 0.1
    mask.set_random_state(seed=0)
    assert [mask(image)["visible_indices"].tolist() for _ in range(5)] == first[:5]


def test_the_dictionary_form_follows_the_chains_seed_and_collates():
    chain = Compose([RandMaskPatchesd(patch_size=4, ratio=0.5)])
    chain.set_random_state(seed=7)
    study = {"image": torch.zeros(1, 8, 8), "study_id": "a"}
    batch = collate_studies([chain(study), chain({**study, "study_id": "b"})])
    assert batch["visible_indices"].shape == (2, 2)
    assert torch.equal(torch.zeros(2, 4).scatter(1, batch["visible_indices"], 1).bool(), batch["visible_mask"])
    assert "visible_indices" not in study
    chain.set_random_state(seed=7)
    assert torch.equal(chain(study)["visible_indices"], batch["visible_indices"][0])
    assert RandMaskPatchesd(allow_missing_keys=True)({"study_id": "c"}) == {"study_id": "c"}


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^ratio must be at least 0 and below 1, got 1\.$"):
        RandMaskPatches(ratio=1)
    with pytest.raises(ValueError, match=r"^patch_size must be at least 1, got 0\.$"):
        RandMaskPatches(patch_size=0)
    with pytest.raises(StudyError, match=r"^study 's1', image: patch_size must divide .* the image \(8, 9\), got 4\.$"):
        RandMaskPatchesd(patch_size=4)({"image": torch.zeros(1, 8, 9), "study_id": "s1"})
