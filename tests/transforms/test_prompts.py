"""Prompt transforms: text from labels, and learnable tokens beside class names."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from monai.bundle import ConfigParser

from medvl.text import label_report, load_prompt_templates, load_vocabulary
from medvl.transforms import (
    AddPromptTokens,
    AddPromptTokensd,
    LabelsToPrompt,
    LabelsToPromptd,
    TokenizeText,
    train_tokenizer,
)
from medvl.utils.errors import StudyError

NAMES = load_vocabulary("chexpert14").names
NAN = math.nan


def label(**states):
    values = {name.replace(" ", "_"): NAN for name in NAMES} | states
    return torch.tensor([values[name.replace(" ", "_")] for name in NAMES])


def test_prompts_say_what_the_label_says():
    write = LabelsToPrompt(NAMES, max_findings=9).set_random_state(seed=0)
    states = label(Edema=1.0, Pneumonia=-1.0, Fracture=0.0)
    for _ in range(50):
        said = label_report(write(states))
        assert said[NAMES.index("Edema")] == 1
        assert said[NAMES.index("Pneumonia")] == -1
        assert math.isnan(said[NAMES.index("Fracture")])


def test_who_speaks_first():
    write = LabelsToPrompt(["No Finding", "Edema", "Fracture"], mode="all")
    templates = load_prompt_templates("chexpert14")
    assert write([1, NAN, 0]) == templates.present("No Finding")
    assert write([0, 1, 0]) == templates.present("Edema")
    assert write([NAN, -1, 1]) == templates.uncertain("Edema") + templates.present("Fracture")
    assert write([NAN, 0, 0]) == templates.absent("Edema") + templates.absent("Fracture")


def test_nothing_known_is_not_called_normal():
    with pytest.raises(
        ValueError,
        match=r"^label must have a state to write, got NaN \(not mentioned\) for every finding but No Finding\.$",
    ):
        LabelsToPrompt(["No Finding", "Edema"])([NAN, NAN])
    with pytest.raises(
        ValueError,
        match=r"^label must have a state to write, got NaN \(not mentioned\) for every finding but No Finding\.$",
    ):
        LabelsToPrompt(["No Finding", "Edema"])([0, NAN])
    with pytest.raises(StudyError, match="study 's2', label: label must have a state"):
        LabelsToPromptd(names=["Edema"])({"study_id": "s2", "label": [NAN]})


def test_wrong_labels_are_named():
    with pytest.raises(ValueError, match=r"^label must have shape \(2,\), got \(3,\)\.$"):
        LabelsToPrompt(["A", "B"])([1, 0, 1])
    with pytest.raises(ValueError, match=r"^label must have shape \(1,\), got \(1, 1\)\.$"):
        LabelsToPrompt(["A"])([[1]])
    with pytest.raises(ValueError, match=r"^label must hold 1, 0, -1 or NaN, got 2 for B\.$"):
        LabelsToPrompt(["A", "B"])([1, 2])
    with pytest.raises(ValueError, match=r"^names must be a sequence of finding names, got 'Edema'\.$"):
        LabelsToPrompt("Edema")
    with pytest.raises(ValueError, match=r"^names must be a sequence of finding names, got \(\)\.$"):
        LabelsToPrompt(())
    with pytest.raises(ValueError, match=r"^mode must be one of 'random', 'all', got 'any'\.$"):
        LabelsToPrompt(["Edema"], mode="any")
    with pytest.raises(ValueError, match=r"^max_findings must be at least 1, got 0\.$"):
        LabelsToPrompt(["Edema"], max_findings=0)


def test_seeds_and_dictionary_form():
    transform = LabelsToPromptd(names=NAMES)
    study = {"label": label(Edema=1.0, Fracture=1.0)}
    runs = []
    for _ in range(2):
        transform.set_random_state(seed=4)
        runs.append([transform(study)["text"] for _ in range(8)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 4
    assert "text" not in study
    assert transform({**study, "text": "mine"})["text"] == "mine"
    assert LabelsToPromptd(names=NAMES, overwrite=True)({**study, "text": "mine"})["text"] != "mine"
    assert pickle.loads(pickle.dumps(transform))(study)["text"]
    config = {"t": {"_target_": "medvl.transforms.LabelsToPromptd", "names": ["Edema"], "mode": "all"}}
    assert len(ConfigParser(config).get_parsed_content("t")({"label": [1.0]})["text"]) == 16


TOKENIZER = train_tokenizer(["small left effusion no edema"], min_patients=1)
TOKENS = TokenizeText(TOKENIZER)("small left effusion")  # [CLS] small left effusion [SEP]


@pytest.mark.parametrize(("position", "places"), [("front", [1, 2, 3]), ("middle", [1, 2, 6]), ("end", [4, 5, 6])])
def test_prompt_tokens_stand_in_their_place(position, places):
    out = AddPromptTokens(3, vocab_size=1000, position=position)(TOKENS)
    assert (out["input_ids"] >= 1000).nonzero().flatten().tolist() == places
    assert out["input_ids"][places].tolist() == [1000, 1001, 1002]
    assert out["input_ids"][out["input_ids"] < 1000].tolist() == TOKENS["input_ids"].tolist()
    assert out["attention_mask"].tolist() == [1] * 8
    assert out["sentence_ids"].tolist() == [-1, 0, 0, 0, 0, 0, 0, -1]


def test_each_class_may_have_its_own_tokens():
    add = AddPromptTokens(2, vocab_size=10, per_class=True)
    assert add(TOKENS, 0)["input_ids"][1:3].tolist() == [10, 11]
    assert add(TOKENS, 4)["input_ids"][1:3].tolist() == [18, 19]
    out = AddPromptTokensd(num_tokens=2, vocab_size=10, per_class=True)({**TOKENS, "class_index": 4})
    assert out["input_ids"][1:3].tolist() == [18, 19]


def test_length_is_kept_at_the_cost_of_the_text():
    padded = TokenizeText(TOKENIZER, max_length=8, padding=True)("small left effusion")
    out = AddPromptTokens(2, vocab_size=1000, max_length=8)(padded)
    assert out["attention_mask"].tolist() == [1, 1, 1, 1, 1, 1, 1, 0]
    cut = AddPromptTokens(4, vocab_size=1000, max_length=8)(padded)
    assert cut["input_ids"].tolist() == [2, 1000, 1001, 1002, 1003, *TOKENS["input_ids"][1:3].tolist(), 3]
    with pytest.raises(
        ValueError, match=r"^max_length must leave room for a token of the text beside 4 prompt tokens, got 6\.$"
    ):
        AddPromptTokens(4, vocab_size=1000, max_length=6)(TOKENS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tokens": 0}, "num_tokens must be at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"position": "back"}, r"^position must be one of 'front', 'middle', 'end', got 'back'\.$"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        AddPromptTokens(**{"num_tokens": 2, "vocab_size": 10, **arguments})


def test_a_negative_class_is_refused():
    with pytest.raises(ValueError, match=r"^class_index must be at least 0, got -1\.$"):
        AddPromptTokens(2, vocab_size=10, per_class=True)(TOKENS, -1)


def test_names_are_distinct():
    with pytest.raises(ValueError, match=r"^names must be distinct, got \['Edema', 'Edema'\]\.$"):
        LabelsToPrompt(["Edema", "Edema"])


@pytest.mark.parametrize(
    ("study", "missing"), [({"input_ids": [2, 5, 3]}, "attention_mask"), (dict(TOKENS), "class_index")]
)
def test_a_key_missing_beside_the_tokens_is_named(study, missing):
    add = AddPromptTokensd(num_tokens=1, vocab_size=9, per_class=True)
    with pytest.raises(StudyError, match=f"study 's1', {missing}: the key is missing; it must stand beside input_ids."):
        add({**study, "study_id": "s1"})
