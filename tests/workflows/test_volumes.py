"""Every recipe learns from volumes, and what evaluates it knows."""

from __future__ import annotations

import pytest
import torch

from medvl import workflows
from medvl.data import SyntheticChestCT

TINY = {
    "image_size": 32,
    "synthetic_length": 48,
    "epochs": 1,
    "batch_size": 8,
    "embed_dim": 16,
    "vocab_size": 300,
    "device": "cpu",
    "progress": False,
}


@pytest.mark.parametrize("recipe", workflows.recipe_names())
def test_trains_and_evaluates(recipe, tmp_path):
    folder = workflows.train(recipe, {**TINY, "spatial_dims": 3, "output": str(tmp_path)})
    run = workflows.TrainedRun(folder, device="cpu")
    assert run.model.spatial_dims == 3
    studies = run.studies(split="test")
    assert all(study["image"].endswith(".nii.gz") for study in studies.studies)
    loader = run.loader(studies)
    assert next(iter(loader))["image"].shape[1:] == (1, 32, 32, 32)
    evaluation = workflows.evaluate_run(
        run, studies, loader, tmp_path, protocols=["zero-shot", "grounding"], progress=False
    )
    figures = evaluation.to_dict()
    assert set(figures["grounding"]["findings"]) <= set(SyntheticChestCT.drawable)
    assert set(figures["zero_shot"]["findings"]) <= {"No Finding", *SyntheticChestCT.drawable}


def test_augmentation_moves_volumes(tmp_path):
    """Two epochs see two views of a volume."""
    workflow = workflows.RecipeWorkflow("convirt")
    workflow.parser.update({**TINY, "spatial_dims": 3, "output": str(tmp_path)})
    dataset = workflow.parser.get_parsed_content("train#dataset")
    views = []
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        views.append(dataset[0]["image"])
    assert views[0].shape == views[1].shape == (1, 32, 32, 32)
    assert not torch.equal(*views)


def test_a_volume_in_a_recipe_for_images_names_the_setting(medvl, tmp_path):
    table = SyntheticChestCT(length=40, size=32).save(tmp_path / "ct")
    options = ("--image-size", 32, "--epochs", 1, "--set", "vocab_size=300", "--output", tmp_path / "run")
    code, _, error = medvl("train", "convirt", "--data", table, *options)
    assert code == 2
    assert "must have 2 spatial dimensions (spatial_dims), got 3" in error
