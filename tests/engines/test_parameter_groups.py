"""Rates by part and by depth, on the encoders that people use."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medvl.engines import parameter_groups
from medvl.networks import ImageEncoder, convirt, mlip


def rates_by_name(network, *arguments):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, *arguments)
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def test_no_option_is_one_group_of_all_parameters_in_order():
    network = convirt("small", image_size=32, embed_dim=8)
    (group,) = parameter_groups(network, 0.1)
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in wanted]
    assert group["lr"] == 0.1


def test_every_trainable_parameter_is_in_one_group():
    network = mlip("small", image_size=32, embed_dim=8)
    network.text_encoder.freeze()
    groups = parameter_groups(network, 0.1, {"image_encoder": 0.1}, 0.9)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    torch.optim.AdamW(groups, lr=0.1).step()


def test_depth_of_a_transformer_and_of_a_resnet():
    vit = ImageEncoder("vit_tiny", image_size=32, patch_size=16, num_layers=4)
    rates = rates_by_name(mlip("small", image_encoder=vit, embed_dim=8), 1.0, {}, 0.5)
    blocks = {name: rate for name, rate in rates.items() if name.startswith("image_encoder")}
    assert rates["image_projection.0.weight"] == 1
    numbered = {i: {rate for name, rate in blocks.items() if f"blocks.{i}." in name} for i in range(4)}
    assert numbered == {0: {0.125}, 1: {0.25}, 2: {0.5}, 3: {1.0}}
    assert {rate for name, rate in blocks.items() if "patch_embedding" in name} == {0.0625}
    rates = rates_by_name(convirt("small", image_size=32, embed_dim=8), 1.0, {}, 0.5)
    assert next(rate for name, rate in rates.items() if name.endswith("backbone.conv1.weight")) == 0.0625
    assert {rate for name, rate in rates.items() if ".layer4." in name} == {1.0}
    assert {rate for name, rate in rates.items() if ".layer1." in name} == {0.125}
    assert {rate for name, rate in rates.items() if "word_embeddings" in name} == {0.5}, "one layer lies above them"


def test_the_longest_prefix_counts():
    network = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(1, 1), "c": nn.Linear(1, 1)}), "ab": nn.Linear(1, 1)})
    rates = rates_by_name(network, 1.0, {"a": 0.5, "a.b": 0.25})
    assert {name: rate for name, rate in rates.items() if "weight" in name} == {
        "a.b.weight": 0.25,
        "a.c.weight": 0.5,
        "ab.weight": 1.0,
    }


def test_errors():
    network = nn.ModuleDict({"encoder": nn.Linear(1, 1)})
    with pytest.raises(
        ValueError, match="lr_multipliers must name parts of the network, such as encoder, got 'encoders'"
    ):
        parameter_groups(network, 1.0, {"encoders": 1.0})
    with pytest.raises(ValueError, match="learning_rate must be at least 0, got -1"):
        parameter_groups(network, -1.0)
    with pytest.raises(ValueError, match=r"^lr_multipliers\['encoder'\] must be at least 0, got -1"):
        parameter_groups(network, 1.0, {"encoder": -1.0})
    with pytest.raises(ValueError, match=r"layer_decay must be in \(0, 1\], got 0"):
        parameter_groups(network, 1.0, layer_decay=0)
    with pytest.raises(ValueError, match="no parameter to train: all of them are frozen"):
        parameter_groups(network.requires_grad_(False), 1.0)
