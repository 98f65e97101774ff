"""Results files: one an arm and seed, by what they were made from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evidence import store as store_module
from evidence.arms import ARMS
from evidence.scales import SCALES
from evidence.store import Store, environment, result_key

QUICK = SCALES["quick"]


def write(store: Store, arm: str, seed: int, figures: dict[str, float], **more: object) -> None:
    key = result_key(ARMS[arm], QUICK, seed)
    measures = sorted({name.partition("/")[0] for name in figures})
    store.write("quick", arm, seed, {"arm": arm, "key": key, "measures": measures, "figures": figures, **more})


def test_a_result_is_read_back(tmp_path):
    store = Store(tmp_path)
    assert store.read("quick", "convirt", 0) is None
    assert store.seeds("quick", "convirt") == []
    for seed in (10, 2):
        write(store, "convirt", seed, {"probe/1": 0.5 + seed / 100})
    assert store.seeds("quick", "convirt") == [2, 10]
    assert store.figures("quick", "convirt") == {2: {"probe/1": 0.52}, 10: {"probe/1": 0.6}}
    assert [result["arm"] for result in store.results("quick")] == ["convirt", "convirt"]
    assert not list(tmp_path.rglob("*.partial"))


def test_done_means_this_experiment_with_all_measures(tmp_path):
    store, arm = Store(tmp_path), ARMS["convirt"]
    write(store, "convirt", 0, {"probe/1": 0.5, "zero_shot/auroc": float("nan")})
    assert store.is_done(QUICK, arm, 0, {"probe"})
    assert store.is_done(QUICK, arm, 0, {"probe", "zero_shot"})  # a figure that is not defined was still measured
    assert not store.is_done(QUICK, arm, 0, {"probe", "grounding"})
    assert not store.is_done(QUICK, arm, 1, {"probe"})
    assert not store.is_done(QUICK, replace(arm, settings={"learning_rate": 0.1}), 0, {"probe"})
    assert not store.is_done(replace(QUICK, epochs=2), arm, 0, {"probe"})


def test_key_changes_with_what_is_trained_and_not_with_words():
    arm = ARMS["umcl-all"]
    key = result_key(arm, QUICK, 0)
    assert result_key(replace(arm, title="another title"), QUICK, 0) == key
    assert result_key(arm, replace(QUICK, seeds=(0, 1, 2)), 0) == key
    for changed in (
        result_key(arm, QUICK, 1),
        result_key(replace(arm, recipe="medclip"), QUICK, 0),
        result_key(replace(arm, sources=arm.sources[:2]), QUICK, 0),
        result_key(replace(arm, trained=False), QUICK, 0),
        result_key(replace(arm, without=("unified",)), QUICK, 0),
        result_key(replace(arm, repeat=2.0), QUICK, 0),
        result_key(arm, replace(QUICK, studies=200), 0),
    ):
        assert changed != key


def test_key_changes_with_the_recipe_and_not_with_its_comments(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"

    def key(text: str) -> str:
        recipe.write_text(text)
        monkeypatch.setattr(store_module, "config_files", lambda name: [recipe])
        return result_key(ARMS["convirt"], QUICK, 0)

    assert key("tau: 0.1  # one\n") == key("# two\ntau:   0.1\n")
    assert key("tau: 0.1\n") != key("tau: 0.2\n")


def test_a_damaged_file_is_named(tmp_path):
    store = Store(tmp_path)
    write(store, "convirt", 0, {"probe/1": 0.5})
    path = store.path("quick", "convirt", 0)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"seed-0.json is damaged; delete it, and it is made again."):
        store.read("quick", "convirt", 0)
    path.write_text(json.dumps({"key": "k"}))
    with pytest.raises(ValueError, match="is damaged"):
        store.read("quick", "convirt", 0)


def test_environment_names_versions_and_commit():
    found = environment()
    assert set(found["versions"]) == {"torch", "monai", "transformers", "scikit-learn", "numpy"}
    assert found["commit"] is None or len(found["commit"]) in (12, 13)
