"""Findings and labels: the challenge suite, real reports against their human codes, spans, odd input, linear time."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.data import OpenIReports
from medvl.text import Mention, Span, find_findings, label_report, load_vocabulary, split_sentences

CHALLENGE = Path(__file__).with_name("challenge.csv")
# What the labeler is known to get wrong; anything new in this list is a step back.
KNOWN_WRONG = {
    "Low lung volumes accentuate the cardiac silhouette, which is likely normal.",
    "Pneumonia, if present, is small.",
}
STATES = {"present": 1.0, "absent": 0.0, "uncertain": -1.0}
# MeSH terms of the coders that mean a finding of the vocabulary.
MESH = {
    "Cardiomegaly": {"Cardiomegaly"},
    "Pleural Effusion": {"Pleural Effusion", "Hydropneumothorax", "Hemopneumothorax", "Hemothorax"},
    "Pneumothorax": {"Pneumothorax", "Hydropneumothorax", "Hemopneumothorax"},
    "Atelectasis": {"Pulmonary Atelectasis"},
    "Consolidation": {"Consolidation"},
    "Edema": {"Pulmonary Edema"},
    "Fracture": {"Fractures, Bone"},
    "Support Devices": {
        "Catheters, Indwelling",
        "Implanted Medical Device",
        "Medical Device",
        "Tube, Inserted",
        "Stents",
    },
}


def states(text, vocabulary="chexpert14"):
    names = load_vocabulary(vocabulary).names
    return {n: s for n, s in zip(names, label_report(text, vocabulary).tolist(), strict=True) if s == s}


def challenge():
    with CHALLENGE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            expected = dict(part.split(": ") for part in row["expected"].split("; ") if part)
            yield row["phenomenon"], row["text"].replace("\\n", "\n"), {k: v.split() for k, v in expected.items()}


def is_right(text, expected):
    got = states(text)
    if "No Finding" not in expected:
        got.pop("No Finding", None)
    if got != {name: STATES[words[0]] for name, words in expected.items()}:
        return False
    mentions = find_findings(text)
    return all(
        any(m.finding == name and m.assertion == words[0] and word in (m.side, m.severity) for m in mentions)
        for name, words in expected.items()
        for word in words[1:]
    )


def test_challenge_suite():
    right, total, wrong = defaultdict(int), defaultdict(int), set()
    for phenomenon, text, expected in challenge():
        total[phenomenon] += 1
        if is_right(text, expected):
            right[phenomenon] += 1
        else:
            wrong.add(text)
    assert sum(total.values()) >= 400
    assert len(total) >= 15
    assert min(total.values()) >= 20, total
    assert sum(right.values()) / sum(total.values()) >= 0.97
    assert wrong <= KNOWN_WRONG


def test_agreement_with_human_codes_on_the_second_half(shared_data):
    reports = OpenIReports(shared_data / "openi-reports.tgz")
    half = reports[len(reports) // 2 :]
    names = load_vocabulary("chexpert14").names
    labels = np.array([label_report(study["report"]) for study in half])
    scores = []
    for name, codes in MESH.items():
        truth = np.array([any(term.split("/")[0].strip() in codes for term in study["mesh"]) for study in half])
        found = labels[:, names.index(name)] == 1
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert np.mean(scores) >= 0.88, dict(zip(MESH, scores, strict=True))


def test_mentions_carry_spans_into_the_original_text():
    text = "Large right effusion. A pneumothorax is not seen."
    mentions = find_findings(text)
    assert mentions[0] == Mention("Pleural Effusion", Span(12, 20), "present", "right", "severe", None, Span(0, 21))
    assert text[slice(*mentions[1].span)] == "pneumothorax"
    assert text[slice(*mentions[1].cue)] == "is not seen"
    assert text[slice(*mentions[1].sentence)] == "A pneumothorax is not seen."


def test_spans_hold_in_text_with_invisible_and_odd_characters():
    text = "\ufeffNo pleu\u200bral effu\u00adsion.\r\nModerate \u2018cardiomegaly\u2019, \u0130 \ufb01ne."
    mentions = find_findings(text)
    assert [(m.finding, m.assertion) for m in mentions] == [("Pleural Effusion", "absent"), ("Cardiomegaly", "present")]
    assert text[slice(*mentions[0].span)] == "pleu\u200bral effu\u00adsion"
    assert text[slice(*mentions[1].span)] == "cardiomegaly"


def test_present_beats_uncertain_beats_absent():
    assert states("No edema. Possible edema.") == {"Edema": -1.0}
    assert states("No edema. Possible edema. Edema is present.") == {"Edema": 1.0}
    assert states("History of edema.") == {}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("No acute cardiopulmonary abnormality.", True),
        ("Heart size is normal. Lungs are clear.", True),
        ("Normal heart. Pacemaker in place.", True),
        ("Heart size is normal. Small effusion.", False),
        ("Heart size is normal. Possible pneumonia.", False),
        ("No acute abnormality. Calcified granuloma.", False),
        ("The patient was examined.", False),
        ("", False),
    ],
)
def test_no_finding_is_derived_and_never_guessed(text, normal):
    assert states(text).get("No Finding") == (1.0 if normal else None)


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "....", "XXXX"])
def test_text_without_content_has_no_state(text):
    assert np.isnan(label_report(text)).all()
    assert find_findings(text) == []


@pytest.mark.parametrize("text", [None, float("nan"), b"No effusion.", 3])
@pytest.mark.parametrize("function", [label_report, find_findings])
def test_what_is_not_text_is_named(function, text):
    with pytest.raises(TypeError, match=f"text must be a string, got {type(text).__name__}"):
        function(text)


def test_nan_and_bytes_get_a_hint():
    with pytest.raises(TypeError, match=r"^text must be a string, got float \(NaN: an empty table cell\?\)\.$"):
        label_report(float("nan"))
    with pytest.raises(TypeError, match=r"^text must be a string, got bytes \(decode it first, as in value\.decode"):
        label_report(b"No effusion.")


def test_case_line_ends_and_broken_encoding_change_nothing():
    text = "FINDINGS: There is a small effusion.\nNo pneumothorax.\nIMPRESSION: Possible pneumonia."
    expected = states(text)
    assert expected == {"Pleural Effusion": 1.0, "Pneumothorax": 0.0, "Pneumonia": -1.0}
    assert states(text.upper()) == states(text.lower()) == expected
    assert states(text.replace("\n", "\r\n")) == states(text.replace("\n", "\r")) == expected
    broken = text.encode().replace(b"There", b"Th\xe9re").decode("utf-8", errors="replace")
    assert states(broken) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "no",
                "not",
                "without",
                "possible",
                "or",
                "and",
                ",",
                ";",
                ":",
                "?",
                "/",
                "but",
                "effusion",
                "pneumothorax",
                "heart",
                "lungs",
                "normal",
                "enlarged",
                "clear",
                "is",
                "are",
                "seen",
                "resolved",
                "history",
                "of",
                "change",
                "left",
                "small",
                "versus",
                "cannot",
                "be",
                "excluded",
                "\n",
                ".",
                "XXXX",
                "prior",
                "-",
                "—",
            ]
        ),
        max_size=80,
    )
)
def test_any_order_of_words_gives_states_and_spans(words):
    text = " ".join(words)
    assert set(np.nan_to_num(label_report(text), nan=9).tolist()) <= {1.0, 0.0, -1.0, 9.0}
    sentences = set(split_sentences(text))
    for mention in find_findings(text):
        assert mention.sentence in sentences
        assert mention.sentence.start <= mention.span.start < mention.span.end <= mention.sentence.end


def seconds_per_character(text):
    best = min(_timed(text) for _ in range(3))
    return best / len(text)


def _timed(text):
    begin = time.process_time()
    label_report(text)
    return time.process_time() - begin


@pytest.mark.parametrize(
    "piece",
    [
        "no effusion, pneumothorax, ",
        "no ",
        "effusion or ",
        "effusion and ",
        "is not seen ",
        "heart ",
        "small left ",
        "possible, ",
        "not been clearly definitely ",
        "effusion is not seen ",
    ],
)
def test_hostile_text_takes_linear_time(piece):
    short, long = (piece * (n // len(piece)) for n in (20_000, 400_000))
    label_report(short)
    assert seconds_per_character(long) < 3 * seconds_per_character(short)


def test_chest_ct_is_a_vocabulary_of_the_same_format():
    text = "Ground-glass opacities in both lungs. No pericardial effusion. Mediastinal nodes are not enlarged."
    assert states(text, "chest_ct") == {"Lung Opacity": 1.0, "Pericardial Effusion": 0.0, "Lymphadenopathy": 0.0}
