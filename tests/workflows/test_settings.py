"""Which settings there are: listed with their comments, and named where a name is near one."""

from __future__ import annotations

import pytest
import yaml

from medvl.workflows import config_files, config_text, recipe_names, settings_text
from medvl.workflows.layers import check_overrides, near_keys


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
