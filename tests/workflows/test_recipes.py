"""The recipes as MONAI sees them: metadata, properties, and the same run by both roads."""

from __future__ import annotations

import csv
import gc
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from fork_server import run as run_forked
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from safetensors.torch import load_file

from medvl import workflows
from medvl.cli.options import parse_settings
from medvl.handlers import validation_metrics
from medvl.networks import DualEncoder
from medvl.workflows import RecipeWorkflow, config_files, config_text, recipe_names, train
from medvl.workflows.layers import BUNDLES

RECIPES = ("convirt", "medclip", "medvl", "mlip", "umcl")
TEXTS = (
    "The heart is enlarged. No pleural effusion.",
    "Left pleural effusion. No pneumothorax.",
    "Clear lungs. Heart size is normal.",
    "Right apical pneumothorax is present. The lungs are otherwise clear.",
)

# What the bundle specification asks of metadata.json, as https://project-monai.github.io/schema/meta_schema_20240725.json
# has it, in our own words: the schema itself is on the network.
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "format", "dtype")},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
TEXT_FIELDS = (
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "description",
    "authors",
)
SCHEMA = {
    "type": "object",
    "required": [*TEXT_FIELDS, "copyright", "required_packages_version", "network_data_format"],
    "properties": {
        **{
            name: {"type": "string", "minLength": 1}
            for name in (*TEXT_FIELDS, "copyright", "intended_use", "data_type")
        },
        **{name: {"type": "object"} for name in ("required_packages_version", "changelog")},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                side: {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
                for side in ("inputs", "outputs")
            },
        },
    },
}


def write_table(folder: Path, count: int = 24) -> Path:
    """A table of images that differ by finding, with splits."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["image,report,split,Cardiomegaly,Pleural Effusion"]
    for i in range(count):
        pixels = generator.integers(0, 60, (32, 32), dtype=np.uint8)
        pixels[16 * (i % 4 // 2) :, 16 * (i % 2) :][:14, :14] += 150
        Image.fromarray(pixels).save(folder / f"{i}.png")
        split = "test" if i % 6 == 5 else "val" if i % 6 == 4 else "train"
        rows.append(f'{i}.png,"{TEXTS[i % 4]}",{split},{int(i % 4 == 0)},{int(i % 4 == 1)}')
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


def tiny(table: Path, output: Path, **more) -> dict:
    small = {"epochs": 2, "batch_size": 8, "image_size": 32, "embed_dim": 8, "vocab_size": 100, "progress": False}
    return {"data": str(table), "output": str(output), **small, "device": "cpu", **more}


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def innermost(error: BaseException) -> str:
    """What the error that MONAI wrapped says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("bundles") / "data")


@pytest.fixture(scope="module")
def trained(table):
    """An MLIP run by the command's road."""
    return train("mlip", tiny(table, table.parent.parent / "run", keep="best", monitor="auroc"))


def read_layers(recipe) -> dict:
    """What MONAI itself reads from a recipe's files."""
    return ConfigParser.load_config_files([str(path) for path in config_files(recipe)])


def as_options(settings: dict) -> list[str]:
    """Settings on the command line of ``monai.bundle``."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


class TestMetadata:
    def test_passes_monais_verification(self, tmp_path):
        schema = tmp_path / "schema.json"  # MONAI downloads it unless it is there
        schema.write_text(json.dumps(SCHEMA))
        path = BUNDLES / "metadata.json"
        monai.bundle.verify_metadata(meta_file=str(path), filepath=str(schema))
        metadata = json.loads(path.read_text())
        assert metadata["version"] == version("medvl")
        without = {name: value for name, value in metadata.items() if name != "task"}
        (tmp_path / "broken.json").write_text(json.dumps(without))
        with pytest.raises(ValueError, match="'task' is a required property"):
            monai.bundle.verify_metadata(meta_file=str(tmp_path / "broken.json"), filepath=str(schema))

    @pytest.mark.parametrize("recipe", RECIPES)
    def test_declared_channels_and_size_are_the_recipes(self, recipe):
        metadata = json.loads((BUNDLES / "metadata.json").read_text())
        form, config = metadata["network_data_format"], read_layers(recipe)
        assert form["outputs"]["pred"]["num_channels"] == config["embed_dim"]
        assert form["inputs"]["image"]["spatial_shape"] == [config["image_size"]] * 2
        assert recipe in metadata["description"]
        lines = (BUNDLES / f"{recipe}.yaml").read_text().splitlines()
        source = next((line for line in lines if "arxiv.org" in line), None)
        if recipe == "medvl":  # no paper's method
            assert source is None
            return
        assert any(source.split("https://")[1].split()[0] in reference for reference in metadata["references"])


@pytest.mark.parametrize("recipe", RECIPES)
class TestFiles:
    def test_properties_of_the_specification(self, recipe):
        self.check_properties(RecipeWorkflow(recipe, workflow_type="train"))

    def test_properties_of_inference(self, recipe):
        self.check_properties(ConfigWorkflow(str(BUNDLES / "inference.yaml"), workflow_type="infer"))

    def check_properties(self, workflow):
        required = {asked["id"] for asked in workflow.properties.values() if asked["required"]}
        assert not [key for key in sorted(required) if key not in workflow.parser]
        workflow.parser.parse()  # writes references as MONAI compares them
        optional = [(key, asked) for key, asked in workflow.properties.items() if not asked["required"]]
        assert not [key for key, asked in optional if not workflow._check_optional_id(key, asked)]

    def test_trackers_find_the_list_of_handlers(self, recipe):
        tracker = {"_target_": "builtins.dict"}
        where = {"id": "train#trainer", "handlers": "train#handlers"}
        settings = {"handlers_id": {"trainer": where}, "configs": {"trainer": tracker, "save_execute_config": False}}
        tracked = RecipeWorkflow(recipe, tracking=settings).parser["train#handlers"]
        assert tracked == [*read_layers(recipe)["train"]["handlers"], tracker]

    def test_every_setting_is_named_for_the_record_of_plain_monai(self, recipe):
        config = read_layers(recipe)
        recorded = config.pop("recorded_config")
        assert recorded.pop("layers") == [recipe]
        assert recorded == {name: f"@{name}" for name in recorded}
        plain = {name for name, value in config.items() if not contains_component(value)}
        assert set(recorded) == plain - {"layers", "imports", "bundle_root", "dataset_dir", "resume"} | {"device"}

    def test_text_of_the_configuration_reads_as_the_layers(self, recipe):
        text = config_text(recipe)
        assert whole(yaml.safe_load(text)) == whole(read_layers(recipe))
        assert "layers" not in yaml.safe_load(text)
        head, _, settings = text.partition("# What to read, where to write.\n")
        assert head.startswith((BUNDLES / f"{recipe}.yaml").read_text().splitlines()[0])
        lines = {line.partition(":")[0]: line for line in settings.partition("\nmanifest:")[0].splitlines()}
        base = (BUNDLES / "base.yaml").read_text().partition("\nmanifest:")[0].splitlines()
        commented = [line.partition(":")[0] for line in base if ":" in line and "  # " in line]
        assert len(commented) > 20
        assert all("# " in lines[name] for name in commented)


def contains_component(value) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(map(contains_component, value.values()))
    if isinstance(value, list):
        return any(map(contains_component, value))
    return isinstance(value, str) and value.startswith(("$", "@"))


def whole(config: dict) -> dict:
    """A merged configuration without the names of its layers."""
    recorded = {name: value for name, value in config["recorded_config"].items() if name != "layers"}
    return {**{name: value for name, value in config.items() if name != "layers"}, "recorded_config": recorded}


class TestLayers:
    def test_recipes_are_those(self):
        assert recipe_names() == sorted(RECIPES)
        with pytest.raises(ValueError, match=r"recipe must be one of convirt, .*, or a YAML file, got 'clip'\.$"):
            config_files("clip")

    @pytest.mark.parametrize(
        ("layers", "reason"),
        [
            ("[convirt, pairde]", r"must be among base, .*, got 'pairde'\.$"),
            ("[[base]]", r"must be a list of names, got list\.$"),
            ("[3]", r"must be a list of names, got int\.$"),
            pytest.param(
                f"[{'convirt' * 50}]", r"must be among base, .*, got 'convirtconvirt", id="longer than a file name"
            ),
        ],
    )
    def test_a_layer_that_is_none_is_named_with_its_file(self, tmp_path, layers, reason):
        path = tmp_path / "own.yaml"
        path.write_text(f"layers: {layers}\n")
        with pytest.raises(ValueError, match=rf"^layers of {path} {reason}"):
            config_files(path)
        path.write_text("layers: [none.yaml]\n")
        with pytest.raises(FileNotFoundError, match=rf"none\.yaml does not exist, which is among layers of {path}\.$"):
            config_files(path)

    def test_a_layer_comes_once_and_before_what_builds_on_it(self, tmp_path):
        (tmp_path / "lab.yaml").write_text("layers: [mlip]\nepochs: 7\n")
        own = tmp_path / "own.yaml"
        own.write_text("layers: [base, lab]\nbatch_size: 3\n")
        assert [path.stem for path in config_files(own)] == ["base", "mixed", "mlip", "lab", "own"]
        assert [path.stem for path in config_files(["convirt", "demo"])] == ["base", "paired", "convirt", "demo"]
        parser = RecipeWorkflow(own, learning_rate=0.5).parser
        assert [parser[name] for name in ("epochs", "batch_size", "learning_rate", "mask_ratio")] == [7, 3, 0.5, 0.15]

    def test_unknown_and_circular_layers_are_errors(self, tmp_path):
        own = tmp_path / "own.yaml"
        own.write_text("layers: [bse]\n")
        with pytest.raises(
            ValueError, match=r"^layers of .*own\.yaml must be among base, .* or files beside the recipe, got 'bse'\.$"
        ):
            config_files(own)
        own.write_text("layers: [own]\n")
        with pytest.raises(ValueError, match=r"own\.yaml is among its own layers\.$"):
            config_files(own)
        with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist\.$"):
            config_files(tmp_path / "none.yaml")


class TestConfigText:
    def test_overrides_keep_comments_and_are_read_as_given(self, tmp_path):
        overrides = {
            "epochs": 3,
            "learning_rate": 1e-05,
            "weight_decay": None,
            "columns": {"label_column": ["a: b", "c"]},
            "output": "yes",
            "text_encoder": "@preset",
            "augmentation#crop": [0.9, 1.0],
            "optimizer#betas": [0.9, 0.95],
            "train#handlers#0#interval": 2,
        }
        text = config_text("mlip", overrides)
        want = RecipeWorkflow("mlip", **overrides).whole_config()
        (tmp_path / "my.yaml").write_text(text)
        assert RecipeWorkflow(tmp_path / "my.yaml").whole_config() == want
        lines = text.splitlines()
        assert (
            'columns: {label_column: ["a: b", c]} # names of columns, as the arguments of medvl.data.read_manifest'
            in lines
        )
        assert "learning_rate: 1.0e-05" in lines
        assert "image_size: 128                 # a multiple of the sides of the patches" in lines, (
            "the recipe's comment"
        )
        assert "max_grad_norm: 1.0              # gradients are clipped to this norm" in lines, (
            "that of the layer below"
        )
        assert "  _target_: medvl.networks.mlip" in lines[lines.index("network_def:") + 1]

    def test_unknown_keys_are_errors(self):
        with pytest.raises(ValueError, match=r"^convirt has no setting 'epoch', did you mean 'epochs'\? medvl"):
            config_text("convirt", {"epoch": 3})

    def test_a_layer_of_ones_own_is_merged_with_its_comments(self, tmp_path):
        (tmp_path / "own.yaml").write_text(
            "# Our variant.\n# Two lines.\nlayers: [convirt]\n\nepochs: 7     # few\nour_setting: 1    # ours\n\n"
            "# Why not.\n+optimizer:\n  betas: [0.9, 0.95]   # as others\n\ntrain#trainer#amp: false\n"
        )
        text = config_text(tmp_path / "own.yaml")
        assert text.startswith("# Our variant.\n# Two lines.\n#\n# The whole configuration")
        assert "\nepochs: 7     # few\nour_setting: 1    # ours\nbatch_size: 32 " in text
        assert "# Why not.\noptimizer:\n  _target_: torch.optim.Adam " in text
        assert "  betas: [0.9, 0.95]   # as others\n" in text
        config = yaml.safe_load(text)
        assert config["train"]["trainer"]["amp"] is False
        assert whole(config) == whole(read_layers(tmp_path / "own.yaml"))


class TestRoads:
    """By each road the same weights as the command's, and a record of what ran."""

    def run_monai(self, *options, cwd, run=run_forked):
        command = [sys.executable, "-m", "monai.bundle", "run", *map(str, options)]
        run(command, check=True, capture_output=True, cwd=cwd)

    def test_plain_monai_in_layers_from_any_directory(self, trained, table, tmp_path):
        options = tiny(table, tmp_path / "run", keep="best", monitor="auroc")
        files = [str(path) for path in config_files("mlip")]
        self.run_monai("--config_file", files, *as_options(options), cwd=tmp_path, run=subprocess.run)
        assert same_weights(trained, tmp_path / "run")
        # It can record the settings alone, and a layer to build on; together they are the configuration that ran.
        recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert recorded["layers"] == ["mlip"]
        assert recorded.items() >= {name: value for name, value in options.items() if name != "progress"}.items()
        again = RecipeWorkflow(tmp_path / "run" / "config.yaml", resume=False, output=str(trained)).whole_config()
        first = yaml.safe_load((trained / "config.yaml").read_text())
        assert json.loads(json.dumps(again)) == first
        assert train(tmp_path / "run" / "config.yaml", {"resume": True}) == tmp_path / "run"
        run = workflows.TrainedRun(tmp_path / "run")
        assert len(run.studies(split="test")) == 4

    def test_monai_with_our_workflow_records_all(self, trained, table, tmp_path):
        options = tiny(table, tmp_path / "run", keep="best", monitor="auroc")
        name = ["--workflow_name", "medvl.workflows.RecipeWorkflow"]
        self.run_monai(*name, "--config_file", "mlip", *as_options(options), cwd=tmp_path)
        assert same_weights(trained, tmp_path / "run")
        first, second = (yaml.safe_load((run / "config.yaml").read_text()) for run in (trained, tmp_path / "run"))
        assert {**first, "output": second["output"]} == second

    @pytest.mark.parametrize("command", ["medvl train", "monai.bundle run"])
    def test_the_printed_configuration(self, trained, table, tmp_path, medvl, command):
        options = tiny(table, tmp_path / "run", keep="best", monitor="auroc")
        pairs = [text for name, value in options.items() for text in ("--set", f"{name}={json.dumps(value)}")]
        code, printed, err = medvl("config", "mlip", *pairs)
        assert code == 0, err
        assert err.split() == ["Merged", "from", "the", "files", *map(str, config_files("mlip"))]
        (tmp_path / "my.yaml").write_text(printed)
        if command == "medvl train":
            code, _, err = medvl("train", tmp_path / "my.yaml")
            assert code == 0, err
        else:
            self.run_monai("--config_file", tmp_path / "my.yaml", cwd=tmp_path)
        assert same_weights(trained, tmp_path / "run")

    def test_a_run_of_one_road_is_resumed_by_the_other(self, trained, table, tmp_path, killed_at):
        settings = tiny(table, tmp_path / "run", keep="best", monitor="auroc")
        with killed_at(3):
            monai.bundle.run(config_file=[str(path) for path in config_files("mlip")], **settings)
        with pytest.raises(RuntimeError) as caught:
            train("mlip", {**settings, "resume": True, "seed": 1})
        assert innermost(caught.value).startswith(f"seed is 1 but was 0 in the run at {tmp_path}")
        assert same_weights(trained, train("mlip", {**settings, "resume": True}))


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_drawing_the_synthetic_set_is_long_work_with_a_bar(recipe, shown, tmp_path, capsys):
    workflow = RecipeWorkflow(recipe)
    workflow.parser.update({"output": str(tmp_path), "synthetic_length": 20, "image_size": 32, "progress": shown})
    assert len(workflow.parser.get_parsed_content("manifest")) == 20
    assert ("draw images: 100%" in capsys.readouterr().err) == shown


class TestMlip:
    def test_terms_and_metrics_are_logged_apart(self, trained):
        lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            whole = line["global"] + line["local"] + 0.5 * line["reconstruction"]
            assert line["loss"] == pytest.approx(whole, rel=1e-5)
            assert {"val_loss", "val_auroc", "logit_scale", "lr"} <= set(line)
        assert lines[0]["logit_scale"] != lines[1]["logit_scale"], "the temperature is learned"

    def test_the_best_epoch_is_saved_and_named(self, trained):
        lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
        weights = json.loads((trained / "model" / "weights.json").read_text())
        best = max(lines, key=lambda line: (line["val_auroc"], -line["epoch"]))
        assert weights == {"epoch": best["epoch"], "chosen_by": "auroc", "value": best["val_auroc"]}
        states = torch.load(trained / "checkpoints" / f"best-{best['epoch']:04d}.pt", weights_only=True)
        saved = DualEncoder.from_pretrained(trained / "model").state_dict()
        assert all(torch.equal(saved[name], states[name]) for name in states)

    def test_half_the_patches_are_hidden_and_weights_are_integrity(self, table, tmp_path):
        workflow = RecipeWorkflow("mlip")
        workflow.parser.update(tiny(table, tmp_path / "run", mask_ratio=0.75))
        batch = next(iter(workflow.parser.get_parsed_content("train#dataloader")))
        assert batch["visible_indices"].shape == (8, 4), "a quarter of sixteen patches"
        prepare = workflow.parser.get_parsed_content("prepare_batch")
        image, targets, _, tokens = prepare(batch)
        assert set(tokens) == {
            "input_ids",
            "attention_mask",
            "sentence_ids",
            "visible_indices",
            "image_ids",
            "text_ids",
        }
        output = workflow.parser.get_parsed_content("network")(image, **tokens)
        assert output["semantic_integrity"].shape == (8,)
        assert ((output["semantic_integrity"] > 0) & (output["semantic_integrity"] < 1)).all()
        loss = workflow.parser.get_parsed_content("loss")
        assert torch.isfinite(loss(output, targets))
        assert set(loss.terms) == {"global", "local", "reconstruction"}
        before = dict(loss.terms)
        changed = output | {"semantic_integrity": output["semantic_integrity"] * torch.arange(1, 9)}
        loss(changed | {"visible_mask": ~output["visible_mask"]}, targets)
        assert not any(torch.equal(before[name], loss.terms[name]) for name in before), "each is wired to its term"

    def test_killed_and_resumed_ends_with_the_same_weights(self, trained, table, tmp_path, killed_at):
        settings = tiny(table, tmp_path / "run", keep="best", monitor="auroc", resume=True)
        with killed_at(3):  # of two steps an epoch
            train("mlip", settings)
        assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch*")] == ["epoch-0001.pt"]
        assert same_weights(trained, train("mlip", settings))

    def test_another_patch_size_reaches_mask_and_loss(self, table, tmp_path):
        encoder = {"_target_": "medvl.networks.ImageEncoder", "backbone": "vit_tiny", "patch_size": 8, "num_layers": 1}
        overrides = {"network_def#image_encoder": {**encoder, "image_size": 32}, "epochs": 1}
        run = train("mlip", {**tiny(table, tmp_path / "run"), **overrides})
        assert DualEncoder.from_pretrained(run / "model").image_encoder.patch_size == (8, 8)


class TestEvaluateAndInference:
    def test_scores_are_the_models(self, trained, tmp_path):
        output, names = tmp_path / "scores.csv", ["Pleural Effusion", "Cardiomegaly"]
        monai.bundle.run(
            config_file=str(BUNDLES / "inference.yaml"),
            trained=str(trained),
            output=str(output),
            findings=names,
            device="cpu",
        )
        header, *rows = csv.reader(output.open())
        assert header == ["study_id", *names]
        run = workflows.TrainedRun(trained)
        (batch,) = run.loader(run.studies())
        assert [row[0] for row in rows] == batch["study_id"]
        prompts = run.class_prompts(names)
        with torch.no_grad():
            images = run.model.encode_image(batch["image"])
            for column, name in enumerate(names, 1):
                sides = [run.model.encode_text(prompts[name][side]).mean(0) for side in ("present", "absent")]
                logits = torch.stack([images @ torch.nn.functional.normalize(side, dim=0) for side in sides], 1)
                wanted = (logits * run.model.logit_scale()).softmax(1)[:, 0]
                assert [float(row[column]) for row in rows] == pytest.approx(wanted.tolist(), abs=1e-5)

    def test_evaluation_is_written(self, trained, tmp_path, capsys):
        monai.bundle.run(
            config_file=str(BUNDLES / "evaluate.yaml"),
            trained=str(trained),
            output=str(tmp_path),
            protocols=["zero-shot", "retrieval"],
            untrained=False,
            progress=False,
            device="cpu",
        )
        assert "Retrieval" in capsys.readouterr().out
        assert {"zero_shot", "retrieval"} <= set(json.loads((tmp_path / "evaluation.json").read_text()))
        assert (tmp_path / "report.html").is_file()


class TestConveniences:
    def test_lora_trains_only_its_adapters_and_saves_a_model_without_them(self, table, tmp_path):
        pytest.importorskip("peft")
        settings = tiny(table, tmp_path / "run", lora_rank=2, lr_multipliers={"image_encoder": 0.0}, epochs=1)
        train("convirt", settings)
        saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
        assert not [name for name in saved if "lora" in name]
        states = torch.load(tmp_path / "run" / "checkpoints" / "epoch-0001.pt", weights_only=True)
        adapters = [name for name in states["network"] if "lora_B" in name]
        assert adapters
        assert all(states["network"][name].any() for name in adapters), "zero before the first step"
        query = next(name for name in states["network"] if name.endswith("query.base_layer.weight"))
        merged = saved[query.replace("base_model.model.", "").replace("base_layer.", "")]
        assert not torch.equal(merged, states["network"][query])

    def test_frozen_layers_stay(self, table, tmp_path):
        workflow = RecipeWorkflow("convirt")
        workflow.parser.update(tiny(table, tmp_path / "run", frozen_text_layers="all"))
        network = workflow.parser.get_parsed_content("network")
        trainable = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
        assert trainable == {"image_encoder", "image_projection", "text_projection"}
        groups = workflow.parser.get_parsed_content("optimizer").param_groups
        assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in network.parameters())
        with pytest.raises(ValueError, match="lora_rank must be at least 0, and 0 where frozen_text_layers is given"):
            workflows.prepare_network(network, frozen_text_layers="all", lora_rank=1)

    def test_tensorboard_holds_every_term(self, table, tmp_path):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        train("mlip", tiny(table, tmp_path / "run", tensorboard=True, epochs=1))
        events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        events.Reload()
        terms = {f"train/{name}" for name in ("loss", "global", "local", "reconstruction", "logit_scale")}
        assert set(events.Tags()["scalars"]) == terms | {"learning_rate/0", "val/loss"}

    def test_a_stopped_run_resumes_to_nothing_and_says_what_it_saved(self, table, tmp_path):
        # Among four candidates the right one is always within ten: no epoch is better than the first.
        settings = tiny(table, tmp_path / "run", epochs=6, patience=1, keep="best", monitor="recall_at_10")
        train("convirt", settings)
        lines = (tmp_path / "run" / "metrics.jsonl").read_text()
        assert len(lines.splitlines()) == 2
        assert json.loads((tmp_path / "run" / "model" / "weights.json").read_text())["epoch"] == 1
        shutil.rmtree(tmp_path / "run" / "model")  # as if it was killed before the model was saved
        train("convirt", {**settings, "resume": True})
        assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines
        assert json.loads((tmp_path / "run" / "model" / "weights.json").read_text())["epoch"] == 1

    def test_a_run_that_breaks_names_the_studies_and_keeps_the_last_good_epoch(self, table, tmp_path):
        breaks = {"_target_": "torch.optim.lr_scheduler.LambdaLR", "optimizer": "@optimizer"}
        breaks["lr_lambda"] = "$lambda step: 0.0 if step < 2 else 1e30"  # two steps an epoch
        with pytest.raises(RuntimeError) as caught:
            train("mlip", tiny(table, tmp_path / "run", scheduler=breaks, epochs=3))
        message = innermost(caught.value)
        assert re.search(r"is (nan|inf) in epoch 2, iteration 4, on the studies \d+\.png, \d+\.png", message)
        (good,) = (tmp_path / "run" / "checkpoints").glob("epoch*")
        assert good.name == "epoch-0001.pt"
        states = torch.load(good, weights_only=True)["network"]
        assert all(torch.isfinite(value).all() for value in states.values())
        assert not (tmp_path / "run" / "model").exists()

    def test_validation_every_other_epoch(self, table, tmp_path):
        train("convirt", tiny(table, tmp_path / "run", val_interval=2, keep="best"))
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert ["val_loss" in line for line in lines] == [False, True]
        assert json.loads((tmp_path / "run" / "model" / "weights.json").read_text())["epoch"] == 2

    def test_the_best_epoch_without_a_validation_split_is_an_error(self, table, tmp_path):
        bare = table.with_name("no_val.csv")
        bare.write_text(table.read_text().replace(",val,", ",train,"))
        with pytest.raises(RuntimeError) as caught:
            train("convirt", tiny(bare, tmp_path / "run", keep="best"))
        assert "the validation split has no study" in innermost(caught.value)

    def test_zero_shot_monitor_without_labels_is_an_error(self, table, tmp_path):
        rows = [row[:3] for row in csv.reader(table.open())]
        bare = table.with_name("bare.csv")
        with bare.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        with pytest.raises(RuntimeError) as caught:
            train("convirt", tiny(bare, tmp_path / "run", monitor="auroc", keep="best"))
        assert "monitor='auroc' needs studies with labels, got none" in innermost(caught.value)


def test_a_training_leaves_no_network_in_memory(table, tmp_path):
    def networks():
        gc.collect()
        return {id(found): found for found in gc.get_objects() if type(found) is DualEncoder}

    before = networks()  # of other tests
    train("convirt", tiny(table, tmp_path / "run", epochs=1))
    assert not networks().keys() - before.keys()


def test_an_unknown_monitor_is_named():
    with pytest.raises(ValueError, match=r"monitor must be 'loss', .* or 'mean_rank', got 'rcall'"):
        validation_metrics(torch.nn.MSELoss(), "rcall")


def test_numbers_on_the_command_line_are_numbers():
    given = [
        "learning_rate=1e-4",
        "lr_multipliers={text_encoder: 0.1}",
        "text_encoder=null",
        "output=runs/1",
        "resume=true",
    ]
    assert parse_settings(given) == {
        "learning_rate": 0.0001,
        "lr_multipliers": {"text_encoder": 0.1},
        "text_encoder": None,
        "output": "runs/1",
        "resume": True,
    }


def test_the_configuration_that_ran_is_written(trained):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["monitor"] == "auroc"
    assert config["loss"]["losses"]["local"][0]["_target_"] == "medvl.losses.SemanticSentenceLoss"
    assert not {"_meta_", "layers"} & set(config)
