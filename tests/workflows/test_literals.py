"""What a user types is a text, whatever it begins with; only ``--set`` takes expressions."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from fork_server import run as run_forked
from monai.bundle import ConfigParser
from PIL import Image

from medvl import workflows
from medvl.cli.options import parse_settings
from medvl.workflows import RecipeWorkflow, TrainedRun, config_text, literal
from medvl.workflows.literals import literal_text

HOSTILE = (
    "$__import__('pathlib').Path('PWNED').touch()", "$1/0", "$import os", "@epochs", "@seed#1", "%seed", "%/etc/passwd::x",
    "#1.csv", "a#b/@x", "$'quoted'", "it's $5", 'a"b#c', "back\\slash#", "line\n#two", "µ#ü", "a::b", "@", "$", "%",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_configuration_gives_the_text_itself(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"epochs": 3, "seed": 0, "x": literal({"plain": text, "list": [text, 1, None]}), "same": "@x#plain"}
    parser = ConfigParser(yaml.safe_load(yaml.safe_dump(content)))  # through a file, as a run folder keeps it
    assert parser.get_parsed_content("x") == {"plain": text, "list": [text, 1, None]}
    assert parser.get_parsed_content("same") == text
    assert literal_text(content["x"]) == {"plain": text, "list": [text, 1, None]}
    assert not list(tmp_path.iterdir())


def test_texts_without_special_characters_and_other_values_stay():
    assert literal({"a": "cases.csv", "b": 1.5, "c": [None, True]}) == {"a": "cases.csv", "b": 1.5, "c": [None, True]}
    assert literal_text("$'cuda' if torch.cuda.is_available() else 'cpu'").startswith("$'cuda' if")


@pytest.mark.parametrize("value", ["[1, 2", "{a: b", "`x", "a: b: c", "!!python/name:os.system"])
def test_a_setting_that_is_no_yaml_is_one_sentence(value):
    with pytest.raises(ValueError, match=r"^--set x must be a value in YAML, got '.*' \(.+ in line 1, column \d\)\.$"):
        parse_settings([f"x={value}"])


def test_settings_take_expressions_and_keep_other_texts():
    settings = parse_settings(
        ["epochs=$1+1", "seed=@epochs", "text_encoder=/models/a#1", "x={keys: '@a#b', name: 'c#1'}"]
    )
    parser = ConfigParser(settings | {"a": {"b": 5}})
    assert [parser.get_parsed_content(key) for key in ("epochs", "seed", "text_encoder")] == [2, 2, "/models/a#1"]
    assert parser.get_parsed_content("x") == {"keys": 5, "name": "c#1"}
    text = config_text("convirt", parse_settings(["output=runs/#1"]))
    assert ConfigParser(yaml.safe_load(text)).get_parsed_content("output") == "runs/#1"


@pytest.mark.parametrize("name", ["--data", "--output", "--source", *(f"--{n}-column" for n in
    ("image", "report", "label", "split", "patient", "study"))])  # fmt: skip
@pytest.mark.parametrize("text", ["$PWNED", "@epochs", "%seed", "run#1"])
def test_every_option_of_the_command_is_a_text(medvl, monkeypatch, tmp_path, name, text):
    given = {}
    monkeypatch.setattr(workflows, "train", lambda recipe, overrides: given.update(overrides) or tmp_path)
    monkeypatch.setattr(workflows, "read_skipped", lambda run: [])
    text = f"image-label={text}" if name == "--source" else text
    data = [] if name == "--data" else ["--data", "synthetic"]
    code, _, err = medvl("train", "medclip", *data, name, text)
    assert code == 0, err
    parser = RecipeWorkflow("medclip").parser
    parser.update(given)
    key = {"data": "data", "output": "output", "source": "sources"}.get(name[2:], "columns")
    value = parser.get_parsed_content(key)
    assert {"sources": [text], "columns": {name[2:].replace("-", "_"): text}}.get(key, text) == value


def test_a_run_with_such_names_trains_evaluates_resumes_and_is_a_bundle(medvl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["image,$report,@patient"]
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{('Clear lungs.', 'Large effusion.')[i % 2]},p{i}")
    Path("$cases#1.csv").write_text("\n".join(rows) + "\n")
    train = ["train", "convirt", "--data", "$cases#1.csv", "--output", "@run#1", "--report-column", "$report"]
    train += ["--patient-column", "@patient", "--epochs", 1, "--batch-size", 4, "--image-size", 32]
    train += ["--set", "embed_dim=8", "--set", "vocab_size=100", "--set", "progress=false"]
    code, out, err = medvl(*train)
    assert code == 0, err
    assert "Next: medvl evaluate @run#1" in out
    assert Path("@run#1/model").is_dir()
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".png"} == {"$cases#1.csv", "@run#1"}
    run = TrainedRun("@run#1")
    assert (run.config["data"], run.config["output"]) == (str(tmp_path / "$cases#1.csv"), "@run#1")
    assert run.config["columns"] == {"report_column": "$report", "patient_column": "@patient"}
    assert len(run.studies(split="all")) == 16
    assert len(run.environment["tables_sha256"]) == 1
    code, _, err = medvl(*train, "--resume")
    assert code == 0, err
    shutil.rmtree("@run#1/model")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "@run#1/config.yaml", "--resume", "True"]
    run_forked(command, check=True, capture_output=True)
    assert Path("@run#1/model").is_dir()
