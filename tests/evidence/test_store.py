"""Results files: one an arm and seed, by what they were made from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial

import pytest

from evidence import store as store_module
from evidence.arms import ARMS
from evidence.scales import SCALES
from evidence.store import ENVIRONMENT, ResultsError, Store, environment, result_key

QUICK, FULL = SCALES["quick"], SCALES["full"]


@pytest.fixture
def write(add_result):
    """Writes a result of the quick form."""
    return partial(add_result, scale="quick")


def test_a_result_is_read_back(tmp_path, write):
    store = Store(tmp_path)
    assert store.read("quick", "convirt", 0) is None
    assert store.seeds("quick", "convirt") == []
    for seed in (10, 2):
        write(store, "convirt", seed, {"probe/1": 0.5 + seed / 100})
    assert store.seeds("quick", "convirt") == [2, 10]
    assert store.figures("quick", "convirt") == {2: {"probe/1": 0.52}, 10: {"probe/1": 0.6}}
    assert [result["arm"] for result in store.results("quick")] == ["convirt", "convirt"]
    assert not list(tmp_path.rglob("*.partial"))


def test_the_same_experiment_is_one_with_the_same_settings(tmp_path, write):
    store, arm = Store(tmp_path), ARMS["convirt"]
    write(store, "convirt", 0, {"probe/1": 0.5, "zero_shot/auroc": float("nan")})
    # A figure that is not defined was still measured.
    assert store.same_experiment(QUICK, arm, 0)["measures"] == ["probe", "zero_shot"]
    assert store.same_experiment(QUICK, arm, 1) is None
    assert store.same_experiment(QUICK, replace(arm, settings={"learning_rate": 0.1}), 0) is None
    assert store.same_experiment(replace(QUICK, epochs=2), arm, 0) is None


def test_key_changes_with_what_is_trained_and_not_with_words():
    arm = ARMS["umcl-all"]
    key = result_key(arm, FULL, 0)
    assert result_key(replace(arm, title="another title"), FULL, 0) == key
    assert result_key(arm, replace(FULL, seeds=(0, 1, 2)), 0) == key
    for changed in (
        result_key(arm, FULL, 1),
        result_key(replace(arm, recipe="medclip"), FULL, 0),
        result_key(replace(arm, sources=arm.sources[:2]), FULL, 0),
        result_key(replace(arm, trained=False), FULL, 0),
        result_key(replace(arm, without=("unified",)), FULL, 0),
        result_key(replace(arm, repeat=2.0), FULL, 0),
        result_key(arm, replace(FULL, studies=200), 0),
    ):
        assert changed != key


def test_key_changes_with_the_recipe_and_not_with_its_comments(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    uncached = store_module._configuration.__wrapped__

    def key(text: str) -> str:
        recipe.write_text(text)
        monkeypatch.setattr(store_module, "config_files", lambda name: [recipe])
        monkeypatch.setattr(store_module, "_configuration", uncached)
        return result_key(ARMS["convirt"], QUICK, 0)

    assert key("tau: 0.1  # one\n") == key("# two\ntau:   0.1\n")
    assert key("tau: 0.1\n") != key("tau: 0.2\n")


def test_a_damaged_file_is_named(tmp_path, write):
    store = Store(tmp_path)
    write(store, "convirt", 0, {"probe/1": 0.5})
    path = store.path("quick", "convirt", 0)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"seed-0.json is damaged; delete it, and it is made again."):
        store.read("quick", "convirt", 0)
    path.write_text(json.dumps({"key": "k"}))
    with pytest.raises(ValueError, match="is damaged"):
        store.read("quick", "convirt", 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"figures": {"probe/1": "0.5"}}, "probe/1 must be a finite number; delete it, and it is made again."),
        ({"figures": {"probe/1": [1]}}, "probe/1 must be a finite number"),
        ({"figures": []}, "figures of another type"),
        ({"seconds": {"training": None}}, "training must be a finite number"),
        ({"seconds": 36}, "seconds of another type"),
        ({"seconds": {"training": 30.0}}, "seconds of the measures missing"),
        ({"measures": "probe"}, "measures of another type"),
        ({"measures": [["probe"]]}, "measures of another type"),
        ({"kept": None}, "kept of another type"),
        ({"kept": ["probe"]}, "kept of another type"),
        ({"kept": [{"measures": ["probe"]}]}, "kept of another type"),
        ({"kept": [{**environment(), "measures": "probe"}]}, "kept of another type"),
        ({"kept": [{**environment(), "measures": ["probe"], "date": 2026}]}, "kept of another type"),
        ({"date": None}, "date of another type"),
        ({"steps": "264"}, "steps of another type"),
    ],
)
def test_a_file_with_other_content_is_named(tmp_path, write, changed, said):
    store = Store(tmp_path)
    path = store.path("quick", "convirt", 0)
    write(store, "convirt", 0, {"probe/1": 0.5})
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ResultsError, match=rf"seed-0.json is damaged: {re.escape(said)}"):
        store.figures("quick", "convirt")


@pytest.mark.parametrize("field", ["arm", "seed", "key", "steps", "seconds", "measures", "figures", *ENVIRONMENT])
def test_a_file_without_a_field_is_named(tmp_path, write, field):
    store = Store(tmp_path)
    write(store, "convirt", 0, {"probe/1": 0.5})
    path = store.path("quick", "convirt", 0)
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != field}))
    with pytest.raises(ResultsError, match=rf"is damaged: {field} missing; delete it"):
        store.read("quick", "convirt", 0)


def test_a_number_that_json_does_not_know_is_no_figure(tmp_path, write):
    store = Store(tmp_path)
    write(store, "convirt", 0, {"probe/1": 0.5})
    path = store.path("quick", "convirt", 0)
    path.write_text(path.read_text().replace("0.5", "NaN"))
    with pytest.raises(ResultsError, match="probe/1 must be a finite number"):
        store.read("quick", "convirt", 0)


@pytest.mark.parametrize(("arm", "seed"), [("medclip", 0), ("convirt", 1)])
def test_a_result_of_another_training_is_named(tmp_path, write, arm, seed):
    store = Store(tmp_path)
    write(store, arm, seed, {"probe/1": 0.5})
    place = store.path("quick", "convirt", 0)
    place.parent.mkdir(exist_ok=True)
    store.path("quick", arm, seed).rename(place)
    with pytest.raises(
        ResultsError, match=f"must hold the result of convirt, seed 0, got {arm}, seed {seed}; delete it"
    ):
        store.read("quick", "convirt", 0)


@pytest.mark.parametrize("name", ["seed-x.json", "seed-0 (copy).json", "seed-01.json", "notes.json"])
def test_a_file_that_is_called_otherwise_is_named(tmp_path, write, name):
    store = Store(tmp_path)
    write(store, "convirt", 0, {"probe/1": 0.5})
    store.path("quick", "convirt", 0).with_name(name).write_text("{}")
    with pytest.raises(ResultsError, match=rf"{re.escape(name)} must be called seed-N.json"):
        store.seeds("quick", "convirt")


def test_environment_names_versions_and_commit():
    found = environment()
    assert set(found["versions"]) == {"torch", "monai", "transformers", "scikit-learn", "numpy"}
    assert found["commit"] is None or len(found["commit"]) in (12, 13)
