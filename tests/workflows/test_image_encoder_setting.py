"""``--set image_encoder``: a network's name, published weights or a folder, as a setting of every recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from source_models import ResNet, randomized
from transformers import Dinov2Config, Dinov2Model

from medvl.networks import DualEncoder
from medvl.workflows import RecipeWorkflow, train
from medvl.workflows.locations import absolute_locations

TINY = {
    "data": "synthetic",
    "synthetic_length": 32,
    "batch_size": 8,
    "image_size": 32,
    "embed_dim": 8,
    "progress": False,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    torch.manual_seed(0)
    (tmp_path / "place" / "models").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "place")
    torch.save(randomized(ResNet((1, 1, 1, 1), basic=True, width=4)).state_dict(), "models/resnet10.pth")
    return tmp_path


def test_a_relative_file_is_found_again_from_another_folder(here, monkeypatch, killed_at, medvl):
    settings = {**TINY, "image_encoder": "models/resnet10.pth", "epochs": 2}
    whole = train("convirt", {**settings, "output": str(here / "whole")})
    with killed_at(4):  # of three steps an epoch
        train("convirt", {**settings, "output": str(here / "run")})
    recorded = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert recorded["image_encoder"] == str(here / "place" / "models" / "resnet10.pth")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    code, _, err = medvl("train", str(here / "run" / "config.yaml"), "--resume")
    assert code == 0, err
    models = [DualEncoder.from_pretrained(folder / "model") for folder in (whole, here / "run")]
    assert models[0].image_encoder.to_config()["backbone"] == "resnet10"
    states = [model.state_dict() for model in models]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_folder_and_a_name(here):
    config = Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    dino = Dinov2Model(config)
    dino.save_pretrained("models/dinov2")
    for recipe, setting in (("medclip", "models/dinov2"), ("umcl", {"backbone": "resnet10", "width": 0.125})):
        parser = RecipeWorkflow(recipe, **TINY, image_encoder=setting, output=str(here / recipe)).parser
        network = parser.get_parsed_content("network_def")
        if recipe == "umcl":
            assert network.image_encoder.out_features == 64
            continue
        own = network.image_encoder.backbone.model.state_dict()
        name = "encoder.layer.0.norm1.weight" if "encoder.layer.0.norm1.weight" in own else "layers.0.norm1.weight"
        assert torch.equal(own[name], dino.state_dict()[name])


def test_without_it_the_presets_network_is_as_before(here):
    for recipe in ("convirt", "mlip"):
        networks = []
        for setting in ({}, {"network_def#image_encoder": None}):
            torch.manual_seed(1)
            workflow = RecipeWorkflow(recipe, **TINY, **setting, output=str(here / f"{recipe}{len(networks)}"))
            networks.append(workflow.parser.get_parsed_content("network_def").state_dict())
        assert networks[0].keys() == networks[1].keys()
        assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_what_is_recorded(here):
    file, folder = str(here / "place" / "models" / "resnet10.pth"), str(here / "place" / "models")
    Path("resnet50").mkdir()
    Path("cls").mkdir()
    config = {
        "image_encoder": {"backbone": "resnet50", "weights": "models/resnet10.pth"},
        "text_encoder": "models",
        "network_def": {"image_encoder": "@image_encoder", "text_encoder": {"model": "models", "pooling": "cls"}},
    }
    assert absolute_locations(config) == {
        "image_encoder": {"backbone": "resnet50", "weights": file},
        "text_encoder": folder,
        "network_def": {"image_encoder": "@image_encoder", "text_encoder": {"model": folder, "pooling": "cls"}},
    }
    names = {"image_encoder": "microsoft/rad-dino", "text_encoder": "emilyalsentzer/Bio_ClinicalBERT"}
    assert absolute_locations(names) == names
    assert absolute_locations({"image_encoder": "resnet50"}) == {"image_encoder": "resnet50"}
