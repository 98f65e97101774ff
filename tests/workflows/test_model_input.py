"""What a model is fed is part of its folder: a recipe edited in any way is evaluated on what it was validated on."""

from __future__ import annotations

import csv
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.transforms import Compose, Lambdad
from PIL import Image

from medvl.networks import DualEncoder
from medvl.transforms import image_preprocessing
from medvl.transforms.description import describe_transform, is_allowed, make_transforms
from medvl.workflows import RecipeWorkflow, TrainedRun, train
from medvl.workflows.model_input import PREPROCESSING, ModelInput, hash_model_inputs

SENTENCES = (
    "The heart is enlarged with a left pleural effusion and mild edema of both lungs today.",
    "Left pleural effusion is large.",
    "No pneumothorax.",
    "No edema, and the lungs are clear.",
)
TINY = {
    "epochs": 1,
    "batch_size": 4,
    "image_size": 32,
    "embed_dim": 8,
    "vocab_size": 120,
    "progress": False,
    "device": "cpu",
}
PIXELS = {
    "_target_": "Compose",
    "transforms": [
        {"_target_": "medvl.transforms.LoadStudyImaged", "keys": "image", "spatial_dims": "@spatial_dims"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 20, "a_max": 200.0, "b_min": 0, "b_max": 1},
        {"_target_": "Resized", "keys": ["image"], "spatial_size": ["@image_size", "@image_size"], "mode": "area"},
        {
            "_target_": "monai.transforms.NormalizeIntensityd",
            "keys": "image",
            "nonzero": True,
            "dtype": "$torch.float32",
        },
    ],
}
SECTIONS = {
    "_target_": "medvl.transforms.ExtractSectionsd", "keys": "report", "sections": ["impression"], "fallback": "last_paragraph"
}  # fmt: skip
EDITS = {
    "convirt": {"image_preprocessing": PIXELS, "sections": SECTIONS, "max_length": 9},
    "mlip": {"image_preprocessing": PIXELS, "manifest#sections": ["impression"], "max_length": 9},
    "umcl": {"image_preprocessing": PIXELS, "manifest#sections": ["impression"], "max_length": 18},
    "medclip": {"image_preprocessing": PIXELS, "manifest#sections": ["impression"], "max_length": 9},
    "medvl": {"image_preprocessing": PIXELS, "manifest#sections": ["impression"], "max_length": 9},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """24 studies of odd shapes with findings and impressions."""
    folder = tmp_path_factory.mktemp("table")
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "report", "patient_id", "split"))
        for i in range(24):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 28 + i), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            first, second, third = (SENTENCES[(i + k) % 4] for k in range(3))
            report = f"FINDINGS: {first} {second}\n\nIMPRESSION: {third} {first}" if i % 3 else f"{first}\n\n{second}"
            writer.writerow((f"{i}.png", report, f"p{i}", ("train", "train", "val", "test")[i % 4]))
    return folder / "cases.csv"


def trained(table, folder, recipe, edits=None) -> Path:
    """A run of a recipe copied and edited."""
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump({"layers": [recipe], **(edits or {})}))
    return train(file, {**TINY, "data": str(table), "output": str(folder / "run")})


def hashes(run: TrainedRun) -> dict:
    return hash_model_inputs(run.loader(run.studies(split="val")).dataset, run.model)


@pytest.fixture(scope="module")
def edited(table, tmp_path_factory):
    """Runs of the edited recipes, made when they are asked for."""
    made: dict[str, Path] = {}

    def run(recipe):
        if recipe not in made:
            made[recipe] = trained(table, tmp_path_factory.mktemp(recipe), recipe, EDITS[recipe])
        return made[recipe]

    return run


@pytest.mark.parametrize("recipe", EDITS)
def test_an_edited_recipe_is_evaluated_on_what_it_was_validated_on(edited, recipe):
    run = TrainedRun(edited(recipe))
    recorded = run.environment["validation_inputs"]
    assert recorded["count"] == 6
    assert hashes(run) == recorded
    assert run.input_difference is None
    # The defaults are other pixels, other sections other texts: this test would notice.
    default = TrainedRun(edited(recipe), image_preprocessing=image_preprocessing(32), report_preprocessing=Compose([]))
    assert hashes(default)["pixels"] != recorded["pixels"]
    assert hashes(default)["texts"] != recorded["texts"]
    assert default.input_difference.startswith("The pixels and texts of the validation studies are not those")
    run.model.text_processor.max_length = None
    assert hashes(run)["texts"] != recorded["texts"]


def test_all_of_it_is_on_the_models_card_and_in_its_folder(edited):
    folder = edited("convirt") / "model"
    card = (folder / "README.md").read_text()
    assert "`NormalizeIntensityd(dtype=torch.float32, nonzero=True)`" in card
    assert r"`ExtractSectionsd(sections=['impression'], fallback='last_paragraph', separator='\n')`" in card
    assert "- Texts: each sentence is a text of its own, cut after 9 tokens." in card
    steps = json.loads((folder / PREPROCESSING).read_text())["image"]
    assert [step["_target_"].rpartition(".")[2] for step in steps] == [
        "LoadStudyImaged", "ScaleIntensityRanged", "Resized", "NormalizeIntensityd"
    ]  # fmt: skip
    assert DualEncoder.from_pretrained(folder).max_length == 9


def test_what_lies_past_the_cut_of_the_training_is_not_read(edited):
    model = DualEncoder.from_pretrained(edited("convirt") / "model")
    long = SENTENCES[0] + " " + SENTENCES[1]
    assert model.tokenize(long)["input_ids"].shape == (1, 9)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_text([long]), model.encode_text([long + " No pneumothorax."]))


@pytest.mark.parametrize(
    ("recipe", "edits", "encoding"),
    [
        ("convirt", {}, "sentences"),
        ("convirt", {"text_transform#transforms": ["@sections", "@tokens"], "tokens#keys": "report"}, "whole"),
        ("medclip", {}, "sentences"),
        ("medclip", {"manifest#text_unit": "report"}, "whole"),
        ("umcl", {"manifest#text_unit": "sentence"}, "sentences"),
        ("mlip", {}, "sentences"),
        ("mlip", {"manifest#text_unit": "report"}, "whole"),
    ],
)
def test_reports_are_encoded_by_the_unit_of_the_training(table, tmp_path, recipe, edits, encoding):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"layers": [recipe], **edits}))
    workflow = RecipeWorkflow(tmp_path / "own.yaml", **{**TINY, "data": str(table), "output": str(tmp_path / "run")})
    parser = workflow.parser
    found = ModelInput.of(parser.get_parsed_content("validate#dataset"), parser.get_parsed_content("manifest"))
    network = parser.get_parsed_content("network")
    found.apply(network)
    assert network.text_processor.report_encoding == encoding


def test_a_step_that_cannot_be_saved_is_said_before_the_training_and_never_replaced(table, tmp_path, caplog):
    steps = [*PIXELS["transforms"], "$monai.transforms.Lambdad('image', lambda x: x * 2)"]
    with caplog.at_level(logging.WARNING):
        run = trained(table, tmp_path, "convirt", {"image_preprocessing": {**PIXELS, "transforms": steps}})
    sentence = (
        "The preprocessing of each image is not part of the model's folder, because of its step Lambdad: what made the Lambdad "
        "is not known."
    )
    said = [record.getMessage() for record in caplog.records if sentence in record.getMessage()]
    assert said == [f"{sentence} medvl evaluate and embed will not be able to prepare studies for it."]
    assert sentence in (run / "model" / "README.md").read_text()
    loaded = TrainedRun(run)
    with pytest.raises(ValueError, match="because of its step Lambdad"):
        loaded.loader(loaded.studies(split="val"))
    own = Compose([make_transforms(made(PIXELS["transforms"])), Lambdad("image", lambda x: x * 2)])
    assert hashes(TrainedRun(run, image_preprocessing=own)) == loaded.environment["validation_inputs"]


def made(configs):
    """The descriptions of these configurations with their settings filled in."""
    text = json.dumps(configs).replace('"@spatial_dims"', "2").replace('"@image_size"', "32")
    text = text.replace('"$torch.float32"', '{"_dtype_": "torch.float32"}').replace('"Scale', '"monai.transforms.Scale')
    return json.loads(text.replace('"Resized', '"monai.transforms.Resized'))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's own, with a transform and a backbone, on the path."""
    (tmp_path / "own_parts.py").write_text(
        "import torch\nfrom monai.transforms import MapTransform\n"
        "class Invertd(MapTransform):\n"
        "    def __call__(self, data):\n        return {**data, **{key: 1 - data[key] for key in self.key_iterator(data)}}\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self, width):\n"
        "        super().__init__(torch.nn.Conv2d(1, width, 8, 8), torch.nn.BatchNorm2d(width), torch.nn.ReLU())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_parts"
    sys.modules.pop("own_parts", None)


def test_code_of_another_package_is_run_only_if_it_is_trusted(table, tmp_path, package):
    steps = [*PIXELS["transforms"], {"_target_": f"{package}.Invertd", "keys": "image"}]
    run = trained(table, tmp_path, "convirt", {"image_preprocessing": {**PIXELS, "transforms": steps}})
    sys.modules.pop(package)
    loaded = TrainedRun(run)
    with pytest.raises(
        ValueError, match=rf"^own_parts.Invertd is code of the package {package}, which is run only if you"
    ):
        loaded.image_preprocessing()
    assert package not in sys.modules
    trusting = TrainedRun(run, trusted_packages=[package])
    assert hashes(trusting) == loaded.environment["validation_inputs"]


EVIL = [
    ("os.system", {"command": "touch hacked"}),
    ("builtins.exec", {"object": "1"}),
    ("own_parts.Invertd", {"keys": "image"}),
    ("monai.transforms.Lambdad", {"keys": "image", "func": "$1"}),
    ("monai.transforms.SaveImaged", {"keys": "image", "output_dir": "/tmp"}),
    ("monai.transforms.LoadImaged", {"keys": "image", "reader": "own_parts.Invertd"}),
    ("monai.transforms.RandFlipd", {"keys": "image"}),
    ("monai.bundle.run", {}),
    ("torch.load", {"f": "weights.pt", "weights_only": False}),
    ("torch.hub.load", {"repo_or_dir": "a/b", "model": "c"}),
    ("medvl.workflows.train", {"recipe": "convirt"}),
    ("medvl.transforms.TokenizeTextd", {"tokenizer": "folder"}),
    ("medvl.transforms.description.make", {}),
    ("monai.transforms.", {}),
    ("monai.transforms.NoSuchTransform", {}),
    (
        "monai.transforms.ScaleIntensityd",
        {"keys": "image", "factor": {"_target_": "os.system", "command": "touch hacked"}},
    ),
    ("monai.transforms.ScaleIntensityd", {"no_such_argument": 1}),
]


@pytest.mark.parametrize(("target", "arguments"), EVIL)
def test_a_models_folder_runs_no_code_of_its_own(package, target, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):  # noqa: PT011  # each has its own sentence, tested with the others above
        make_transforms([{"_target_": target, **arguments}])
    assert package not in sys.modules
    assert not Path("hacked").exists()


def test_what_is_made_is_as_it_was():
    steps = image_preprocessing(24, hu_range=(-1350, 150)).transforms
    again = make_transforms(json.loads(json.dumps([describe_transform(step) for step in steps])))
    image = np.random.default_rng(0).integers(0, 4000, (50, 33)).astype(np.float32)
    assert torch.equal(again({"image": image})["image"], Compose(steps)({"image": image})["image"])
    assert [describe_transform(step) for step in again.transforms] == [describe_transform(step) for step in steps]
    assert not is_allowed(Lambdad)


def test_an_older_run_says_what_is_missing(edited, tmp_path):
    run = TrainedRun(edited("convirt"))
    with pytest.raises(ValueError, match=f"holds no {PREPROCESSING}, which says what the model is fed"):
        run.input.load(tmp_path)


NET = {
    "_target_": "medvl.networks.ImageEncoder",
    "backbone": {"_target_": "own_parts.Net", "width": 6},
    "out_features": 6,
    "image_size": "@image_size",
}


def test_a_recipe_with_a_backbone_of_ones_own_is_saved_and_loaded(table, tmp_path, package, caplog):
    with caplog.at_level(logging.WARNING):
        run = trained(table, tmp_path, "convirt", {"network_def#image_encoder": NET})
    assert any(f"--trust-package {package}" in record.getMessage() for record in caplog.records)
    sys.modules.pop(package)
    with pytest.raises(
        ValueError, match=r"own_parts.Net is code of the package own_parts, which is run only if you trust"
    ):
        TrainedRun(run)
    assert package not in sys.modules
    loaded = TrainedRun(run, trusted_packages=[package])
    assert hashes(loaded) == loaded.environment["validation_inputs"]
    assert loaded.reinitialized_model().image_encoder.out_features == 6


def test_a_network_that_cannot_be_saved_is_refused_before_the_training(table, tmp_path, package):
    backbone = {**NET, "backbone": "$__import__('own_parts').Net(6)"}
    with pytest.raises(RuntimeError) as raised:
        trained(table, tmp_path, "convirt", {"network_def#image_encoder": backbone})
    assert str(raised.value.__cause__).startswith(
        "The trained network could not be saved and loaded: backbone must be a name, a Hugging Face model, or a module stated"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()
