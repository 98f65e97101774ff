"""Prompts: enough of them, of their class and state, listed the same each time, sampled from the whole product."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import yaml

from medvl.text import PromptTemplates, label_report, load_prompt_templates, load_vocabulary, make_class_prompts

TEMPLATES = load_prompt_templates("chexpert14")
NAMES = load_vocabulary("chexpert14").names
STATE = {"present": 1.0, "absent": 0.0, "uncertain": -1.0}


def test_prompts_cover_the_vocabulary():
    assert TEMPLATES.names == NAMES


@pytest.mark.parametrize("name", [*NAMES, "COVID-19", "any other class"])
def test_lists_are_long_enough_distinct_and_fixed(name):
    assert len(set(TEMPLATES.present(name))) >= 10
    assert len(set(TEMPLATES.absent(name))) >= 5
    assert len(set(TEMPLATES.uncertain(name))) >= 4
    assert TEMPLATES.present(name) == TEMPLATES.present(name.upper()) or name not in NAMES
    assert len(TEMPLATES.present(name, limit=3)) == 3


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("state", ["present", "absent", "uncertain"])
def test_the_labeler_reads_prompts_as_they_are_meant(name, state):
    column, rng = NAMES.index(name), random.Random(0)
    sampled = [TEMPLATES.sample(name, state, rng) for _ in range(60)]
    for prompt in [*getattr(TEMPLATES, state)(name), *sampled]:
        assert label_report(prompt)[column] == STATE[state], prompt


def test_no_finding_has_its_own_and_its_absence_names_no_disease():
    for prompt in TEMPLATES.present("No Finding"):
        assert label_report(prompt)[0] == 1, prompt
    for prompt in TEMPLATES.absent("No Finding"):
        assert not np.isin(label_report(prompt), [1, 0]).any(), prompt
        assert not {"no", "not", "without"} & set(prompt.lower().split())


@pytest.mark.parametrize("rng", [random.Random(1), np.random.RandomState(1), np.random.default_rng(1)])
def test_sampling_takes_any_source_of_randomness(rng):
    drawn = {TEMPLATES.sample("Edema", 1, rng) for _ in range(200)}
    assert len(drawn) > 60


def test_sampling_draws_every_sentence(tmp_path):
    path = tmp_path / "mine.yaml"
    generic = {"present": ["{Phrase}."], "absent": ["No {phrase}."], "uncertain": ["Maybe {phrase}."]}
    findings = {
        "Edema": {"severity": ["", "mild"], "subtype": ["edema"], "present_extra": ["Wet lungs."]},
        "Other": None,
    }
    path.write_text(yaml.safe_dump({"version": 1, "generic": generic, "findings": findings}))
    templates, rng = load_prompt_templates(path), random.Random(0)
    assert {templates.sample("edema", "present", rng) for _ in range(100)} == {"Edema.", "Mild edema.", "Wet lungs."}
    assert templates.absent("Edema") == ["No edema."]
    assert templates.uncertain("Other") == ["Maybe other."]
    time = path.stat().st_mtime_ns
    path.write_text(yaml.safe_dump({"version": 1, "generic": generic, "findings": {"Edema": None, "Third": None}}))
    os.utime(path, ns=(time, time))  # as by a coarse clock
    assert load_prompt_templates(path).names == ("Edema", "Third")
    path.write_text("version: [1")
    with pytest.raises(ValueError, match=r"^mine\.yaml is not valid YAML: "):
        load_prompt_templates(path)


@pytest.mark.parametrize("name", ["pleural_effusion", " Pleural  Effusion ", "PLEURAL EFFUSION"])
def test_names_are_found_in_other_spellings(name):
    assert TEMPLATES.absent(name) == TEMPLATES.absent("Pleural Effusion")
    assert TEMPLATES.present("Hiatal_Hernia")[0] == "Hiatal hernia."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, r"mine\.yaml: version must be 1, got 3\.$"),
        (
            {"generic": {"present": ["none"]}},
            r"generic\.present: a template must contain \{phrase\} or \{Phrase\}, got 'none'\.$",
        ),
        (
            {"findings": {"A": {"color": ["red"]}}},
            r"findings\.A must have no other keys than \[.*\], got \['color'\]\.$",
        ),
        ({"findings": {}}, r"findings must map class names to entries\.$"),
        ({"findings": {"A": ["mild"]}}, r"findings\.A must map a class name to lists\.$"),
        ({"findings": {1: None}}, r"findings\.1 must map a class name to lists\.$"),
        (
            {"findings": {"A": {"severity": []}}},
            r"findings\.A\.severity must be a non-empty list of strings, got \[\]\.$",
        ),
        (
            {"findings": {"A": {"severity": [1]}}},
            r"findings\.A\.severity must be a non-empty list of strings, got \[1\]\.$",
        ),
        (
            {"findings": {"A": {"severity": "mild"}}},
            r"findings\.A\.severity must be a non-empty list of strings, got 'mild'\.$",
        ),
    ],
)
def test_errors_name_the_entry(tmp_path, change, message):
    texts = {state: ["{phrase}"] for state in STATE}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "generic": texts, "findings": {"A": None}, **change}))
    with pytest.raises(ValueError, match=message):
        load_prompt_templates(path)


def test_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match=r"^state must be one of present, absent, uncertain or 1, 0, -1, got 'maybe'\.$"
    ):
        TEMPLATES.sample("Edema", "maybe", random.Random(0))
    with pytest.raises(ValueError, match=r"^name must be a non-empty class name, got ' _ '\.$"):
        TEMPLATES.present(" _ ")
    with pytest.raises(ValueError, match=r"^limit must be at least 1, got 0\.$"):
        TEMPLATES.present("Edema", limit=0)
    with pytest.raises(
        FileNotFoundError,
        match=r"^prompt templates must be a file or one of the built-in \['chexpert14'\], got 'nothing'\.$",
    ):
        load_prompt_templates("nothing")


def test_class_prompts_list_both_states_of_each_class():
    class_prompts = make_class_prompts(iter(["Edema", "COVID-19"]))
    assert class_prompts == {
        name: {"present": TEMPLATES.present(name), "absent": TEMPLATES.absent(name)} for name in ("Edema", "COVID-19")
    }
    assert make_class_prompts([]) == {}


def test_class_prompts_from_templates_of_ones_own():
    generic = {"present": ["{Phrase}."], "absent": ["No {phrase}."], "uncertain": ["Maybe {phrase}."]}
    templates = PromptTemplates({"version": 1, "generic": generic, "findings": {"Edema": None}})
    assert make_class_prompts(["Edema"], templates) == {"Edema": {"present": ["Edema."], "absent": ["No edema."]}}


def test_templates_show_their_size():
    assert repr(TEMPLATES) == "PromptTemplates(names=14, version=1)"
    assert load_prompt_templates(TEMPLATES) is TEMPLATES


@pytest.mark.parametrize("data", [[], "text", {"version": 1, "generic": {}}, {"generic": {}, "findings": {}}])
def test_what_has_other_keys_is_no_prompt_file(data):
    with pytest.raises(ValueError, match=r"^prompts must be a mapping with version, generic and findings\.$"):
        PromptTemplates(data)


def test_a_count_is_that_of_the_combinations():
    generic = {state: ["{phrase}", "{Phrase}."] for state in STATE}
    entry = {"severity": ["", "mild"], "subtype": ["a", "b", "c"], "location": ["here"], "present_extra": ["x", "y"]}
    templates = PromptTemplates({"version": 1, "generic": generic, "findings": {"A": entry}})
    assert templates.count("A") == 2 * 2 * 3 + 2
    assert templates.count("A", "absent") == 2 * 3
    assert templates.absent("A") == ["a", "B.", "c", "A.", "b", "C."]
