"""Which settings there are: listed with their comments, and named where a name is near one."""

from __future__ import annotations

import pytest
import torch
import yaml

from medvl.workflows import config_files, config_text, recipe_names, settings_text
from medvl.workflows.layers import check_overrides, near_keys
from medvl.workflows.setting_values import CHECKS, check_setting_values


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load(config_text("medclip"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "learning_rate"), ("LR", "learning_rate"), ("learning-rate", "learning_rate"),
        ("learningRate", "learning_rate"), ("rate_learning", "learning_rate"), ("lerning_rate", "learning_rate"),
        ("epoch", "epochs"), ("bs", "batch_size"), ("batchsize", "batch_size"), ("batch", "batch_size"),
        ("wd", "weight_decay"), ("warmup", "warmup_fraction"), ("workers", "num_workers"), ("amp", "train#trainer#amp"),
        ("rank", "lora_rank"), ("temperature", "target_temperature"), ("vocab", "vocab_size"), ("dims", "spatial_dims"),
        ("fused", "optimizer#fused"),
    ],
)  # fmt: skip
def test_a_near_name_is_named_first(config, typed, meant):
    assert near_keys(typed, config)[0] == meant
    with pytest.raises(ValueError, match=f"^medclip has no setting '{typed}', did you mean '{meant}'") as caught:
        check_overrides(config, {typed: 1}, "medclip")
    assert str(caught.value).endswith("? medvl train medclip --settings lists them all.")


def test_a_name_near_none_says_where_all_are(config):
    with pytest.raises(
        ValueError, match=r"^medclip has no setting 'xyzzy'\. medvl train medclip --settings lists them all\.$"
    ):
        check_overrides(config, {"xyzzy": 1}, "medclip")


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_setting_is_listed_with_its_comment(medvl, recipe):
    code, out, err = medvl("train", recipe, "--settings")
    assert code == 0, err
    assert out == settings_text(recipe)
    config = yaml.safe_load(config_text(recipe))
    listed = yaml.safe_load(out)
    assert listed == {key: config[key] for key in listed}
    assert set(listed) == set(config["recorded_config"])
    whole = config_text(recipe).splitlines()
    assert all(line in whole for line in out.splitlines()), "as medvl config shows them"
    assert "# passes" not in out
    assert "keep: last                      # last | best: the epoch whose weights go to model/" in out
    assert out.startswith(config_files(recipe)[-1].read_text().splitlines()[0])
    assert "_target_" not in out


def test_settings_are_listed_as_set_and_nothing_is_written(medvl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = medvl("train", "convirt", "--settings", "--set", "epochs=3")
    assert code == 0, err
    assert yaml.safe_load(out)["epochs"] == 3
    (tmp_path / "own.yaml").write_text("layers: [convirt]\nours: 1    # of ours\n")
    code, out, err = medvl("train", "own.yaml", "--settings")
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"own.yaml"}
    code, _, err = medvl("train", "convirt", "--settings", "--set", "lr=3")
    assert code == 2
    assert "did you mean 'learning_rate' or 'lr_multipliers'" in err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs=0", "epochs must be at least 1, got 0."),
        ("epochs=-1", "epochs must be at least 1, got -1."),
        ("batch_size=1", "batch_size must be at least 2, since one study has none to be contrasted with, got 1."),
        ("batch_size=$2 - 1", "batch_size must be at least 2, since one study has none to be contrasted with, got 1."),
        ("val_interval=0", "val_interval must be at least 1, got 0."),
        ("max_grad_norm=-1", "max_grad_norm must be above 0, got -1."),
        ("embed_dim=0", "embed_dim must be at least 1, got 0."),
        ("learning_rate=-0.1", "learning_rate must be at least 0, got -0.1."),
        ("cached_chunk=0", "cached_chunk must be at least 1, got 0."),
        ("device=gpu", "device must be the name of a device, as cpu or cuda, got 'gpu'."),
        (
            "sections=[impression]",
            "sections must be a component (a dictionary with _target_); its arguments are set as sections#keys, "
            "sections#sections, sections#fallback, got ['impression'].",
        ),
        ("sections.sections=[impression]", "did you mean 'sections#sections'?"),
        ("columns={patient: x}", "each key of columns must be one of 'image_column', 'report_column',"),
    ],
)
def test_a_value_that_cannot_be_is_named_before_anything_is_written(medvl, tmp_path, setting, said):
    table = tmp_path / "cases.csv"
    table.write_text("report\nNo edema.\nEdema.\n")
    code, _, err = medvl("train", "convirt", "--data", table, "--output", tmp_path / "run", "--set", setting)
    assert code == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_checked_setting_is_one_of_a_recipe_and_the_defaults_pass(recipe):
    config = yaml.safe_load(config_text(recipe))
    settings = {name: value for name, value in config.items() if not str(value).startswith(("$", "@"))}
    check_setting_values(settings)
    for name in set(CHECKS) & set(settings):
        if settings[name] is not None:
            with pytest.raises((TypeError, ValueError), match=rf"^{name} must "):
                check_setting_values({name: -1})


def test_one_study_for_each_of_several_processes_is_a_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_setting_values({"batch_size": 1})
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0\.$"):
        check_setting_values({"batch_size": 0})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(
        ValueError, match=r"^device must be a device that torch finds here \(no CUDA device\), got 'cuda:1'"
    ):
        check_setting_values({"device": "cuda:1"})
