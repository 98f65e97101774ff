"""``preset=paper``: a layer of published settings, which the documentation lists and every recipe can be trained with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from medvl.networks import TextEncoder
from medvl.transforms import train_tokenizer
from medvl.workflows import RecipeWorkflow, config_text, train

PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "paper_settings.md"
ROWS = re.findall(r"^\| (\w+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.M)
RECIPES = ("convirt", "medclip", "umcl", "mlip")


def test_the_page_lists_what_is_resolved():
    assert {row[0] for row in ROWS} == set(RECIPES)
    for recipe in RECIPES:
        paper, default = (yaml.safe_load(config_text(recipe, overrides)) for overrides in ({"preset": "paper"}, {}))
        listed = {row[1]: row[2:] for row in ROWS if row[0] == recipe}
        for setting, (published, ours, usual) in listed.items():
            assert (paper[setting], default[setting]) == (yaml.safe_load(ours), yaml.safe_load(usual)), (
                recipe,
                setting,
            )
            if re.fullmatch(r"[\d.]+", published) and setting != "preset":
                assert paper[setting] == float(published)


def test_overrides_are_above_it():
    parser = RecipeWorkflow("medclip", preset="paper", epochs=3).parser
    assert (parser["epochs"], parser["batch_size"], parser["preset"]) == (3, 100, "base")
    assert parser["augmentation"]["scale"] == [0.8, 1.1]


def test_a_recipe_of_no_paper_is_named():
    with pytest.raises(
        ValueError, match="preset must be small or base, or for convirt, medclip, mlip, umcl also paper"
    ):
        RecipeWorkflow("medvl", preset="paper")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = train_tokenizer(["the heart is enlarged .", "no pleural effusion ."] * 5, vocab_size=300)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 8}
    TextEncoder({"model_type": "bert", "vocab_size": len(tokenizer), **sizes}).model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_of_each_recipe(recipe, text_folder, tmp_path):
    encoder = {"backbone": "resnet10", "width": 0.125, "output_stride": 8, "image_size": 32}
    settings = {
        "preset": "paper", "text_encoder": str(text_folder), "image_encoder": encoder, "image_size": 32,
        "epochs": 1, "batch_size": 16, "synthetic_length": 40, "progress": False, "output": str(tmp_path / "run"),
    }  # fmt: skip
    run = train(recipe, settings)
    assert (run / "model" / "model.safetensors").is_file()
    assert yaml.safe_load((run / "config.yaml").read_text())["embed_dim"] == 512
