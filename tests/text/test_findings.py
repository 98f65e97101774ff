"""Findings and labels: the challenge suite, real reports against their human codes, spans, odd input, linear time."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_time import takes_linear_time

import medvl.text
from medvl.data import OpenIReports
from medvl.text import (
    Mention,
    Span,
    explain_findings,
    find_findings,
    label_report,
    label_sentences,
    load_vocabulary,
    skipped_sentences,
    split_sentences,
)
from medvl.text.label_table import LabelSummary, label_cells
from medvl.text.phrase_notation import expand_phrase

CHALLENGE = Path(__file__).with_name("challenge.csv")
# What the labeler is known to get wrong; anything new in this list is a step back.
KNOWN_WRONG = {
    "Low lung volumes accentuate the cardiac silhouette, which is likely normal.",
    "Pneumonia, if present, is small.",
}
NAMES = list(load_vocabulary("chexpert14").names)
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


def scores(found, truth):
    """Precision, recall and F1."""
    right = (found & truth).sum()
    return right / max(found.sum(), 1), right / truth.sum(), 2 * right / (found.sum() + truth.sum())


def coded(studies, codes):
    return np.array([any(term.split("/")[0].strip() in codes for term in study["mesh"]) for study in studies])


def agreement(studies, labels):
    """Rows of finding, coded reports, precision, recall and F1; their mean F1; and the row of No Finding."""
    rows = []
    for name, codes in MESH.items():
        truth = coded(studies, codes)
        rows.append([name, int(truth.sum()), *scores(labels[:, NAMES.index(name)] == 1, truth)])
    normal = np.array([study["mesh"] == ["normal"] for study in studies])
    last = ["No Finding against *normal*", int(normal.sum()), *scores(labels[:, 0] == 1, normal)]
    return rows, float(np.mean([row[-1] for row in rows])), last


def disagreements(studies, labels):
    """How many reports disagree with their codes, by finding, code and state."""
    kinds = Counter()
    words = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
    for name, codes in MESH.items():
        for state, truth in zip(labels[:, NAMES.index(name)].tolist(), coded(studies, codes).tolist(), strict=True):
            if truth != (state == 1):
                kinds[name, "coded" if truth else "not coded", words.get(state, "not mentioned")] += 1
    return kinds


def test_agreement_with_human_codes_is_that_of_the_documentation(shared_data):
    """The page is updated from ``python tests/benchmarks/bench_text.py``, with and without ``--disagreements``."""
    page = (Path(__file__).parents[2] / "docs" / "report_language.md").read_text(encoding="utf-8")
    studies = list(OpenIReports(shared_data / "openi-reports.tgz"))
    labels = np.array([label_report(study["report"]) for study in studies])
    half = len(studies) // 2
    rows, mean, last = agreement(studies[half:], labels[half:])
    assert mean >= 0.886, rows
    for name, count, *values in [*rows, last]:
        assert f"| {name} | {count} | {' | '.join(f'{value:.3f}' for value in values)} |" in page, name
    assert f"| mean | | | | {mean:.3f} |" in page
    assert f"The mean on the first half is {agreement(studies[:half], labels[:half])[1]:.3f} " in page
    kinds = disagreements(studies[:half], labels[:half])
    found = re.findall(r"^\| (\d+) \| ([\w ]+) \| ((?:not )?coded) \| ([\w ]+) \|", page, re.MULTILINE)
    assert {tuple(kind): int(count) for count, *kind in found} == kinds


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


@settings(max_examples=3 * settings.default.max_examples)
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
        "heart is enlarged is possible ",
        "effusion; ",
        "effusion: no, ",
        "EFFUSION:\n- none\n",
        "no effusion on the right, small on the left, ",
    ],
)
def test_hostile_text_takes_linear_time(piece):
    assert takes_linear_time(label_report, piece, 10_000, 200_000)


def test_chest_ct_is_a_vocabulary_of_the_same_format():
    text = "Ground-glass opacities in both lungs. No pericardial effusion. Mediastinal nodes are not enlarged."
    assert states(text, "chest_ct") == {"Lung Opacity": 1.0, "Pericardial Effusion": 0.0, "Lymphadenopathy": 0.0}


def test_a_sentence_is_labeled_in_its_report():
    report = "INDICATION: Pneumonia.\nFINDINGS: No evidence of:\n- effusion\n- edema"
    sentences, states = label_sentences(report)
    found = {
        s: {n: x for n, x in zip(NAMES, row, strict=True) if x == x} for s, row in zip(sentences, states, strict=True)
    }
    assert found["Pneumonia."] == {}
    assert found["- effusion"] == {"No Finding": 1.0, "Pleural Effusion": 0.0}
    assert found["- edema"] == {"No Finding": 1.0, "Edema": 0.0}
    again, same = label_sentences(sentences)
    assert again == sentences
    assert np.array_equal(same, states, equal_nan=True)
    assert label_sentences("")[1].shape == (0, len(NAMES))
    assert label_sentences(["", "No edema."])[1][:, NAMES.index("Edema")].tolist()[1] == 0


def combined(states):
    """The states of a report from those of its sentences: present before uncertain before absent."""
    found = {}
    for name, state in states:
        found[name] = max(found.get(name, 0.0), state, key=[0.0, -1.0, 1.0].index)
    return found


@pytest.mark.parametrize(
    ("text", "vocabulary", "expected"),
    [
        ("FINDINGS:\nHEART:\nEnlarged.\nPNEUMOTHORAX:\nNone.", "chexpert14", {"Cardiomegaly": 1, "Pneumothorax": 0}),
        ("1. Heart:\n\nEnlarged\n2. Effusion:\n\nno", "chexpert14", {"Cardiomegaly": 1, "Pleural Effusion": 0}),
        ("Lungs and pleura:\nPneumothorax:\nEffusion:\n- None", "chexpert14", {"Pleural Effusion": 0}),
        ("Heart:\nEnlarged\nPneumothorax:", "chexpert14", {"Cardiomegaly": 1}),
        ("Effusion:\n- left\n- right", "chexpert14", {"Pleural Effusion": 1}),
        ("Absent:\nEffusion\nEdema\nPresent:\nNodule", "chexpert14", {"Pleural Effusion": 0, "Edema": 0, "Lung Lesion": 1}),
        ("No evidence of:\n- Edema\nHeart: large", "chexpert14", {"Edema": 0, "Cardiomegaly": 1}),
        ("HERZ:\nVergr\u00f6\u00dfert.\nErguss:\nKeiner.", "chexpert14_de", {"Cardiomegaly": 1, "Pleural Effusion": 0}),
    ],
)  # fmt: skip
def test_all_functions_read_a_heading_with_the_line_below(text, vocabulary, expected):
    vocabulary = load_vocabulary(vocabulary)
    spans = split_sentences(text, vocabulary.conventions)

    def without_derived(row):
        named = zip(vocabulary.names, row, strict=True)
        return [(name, state) for name, state in named if state == state and name not in vocabulary.derived]

    assert dict(without_derived(label_report(text, vocabulary).tolist())) == expected
    sentences, rows = label_sentences(text, vocabulary)
    assert sentences == [text[a:b] for a, b in spans]
    assert combined(pair for row in rows.tolist() for pair in without_derived(row)) == expected
    mentions = find_findings(text, vocabulary)
    assert combined((m.finding, STATES[m.assertion]) for m in mentions) == expected
    explained = explain_findings(text, vocabulary)
    assert {s.span for s in explained} <= set(spans) >= {m.sentence for m in mentions}
    assert combined((f.finding, STATES[f.assertion]) for s in explained for f in s.findings) == expected
    cells = list(label_cells(text, vocabulary, "sentence", True, LabelSummary()))
    assert [text[cell[1] : cell[2]] for cell in cells] == sentences
    names = vocabulary.names
    stated = [(name, float(cell[4 + index])) for cell in cells for index, name in enumerate(names) if cell[4 + index]]
    assert combined((name, state) for name, state in stated if name not in vocabulary.derived) == expected
    for cell, row in zip(cells, rows.tolist(), strict=True):  # the row that has a state says how it was read
        assert not without_derived(row) or cell[-1].startswith('"' + " ".join(cell[3].split()) + '"')


def test_sentences_must_be_strings():
    with pytest.raises(TypeError, match=r"^each sentence of report must be a string, got int\.$"):
        label_sentences(["No edema.", 3])


def test_skipped_sentences_can_be_asked_for():
    text = "HISTORY: Known effusion. FINDINGS: No edema. Kein Erguss.\u200b"
    assert [(text[a:b], reason) for (a, b), reason in skipped_sentences(text)] == [
        ("Known effusion.", "section"),
        ("Kein Erguss.", "language"),
    ]
    assert skipped_sentences("No edema.") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COMPARISON: None. The heart is enlarged.", {"Cardiomegaly": 1.0}),
        ("INDICATION: Cough. Known effusion. Possible edema. Small effusion.", {"Pleural Effusion": 1.0}),
        ("INDICATION: Cough. Small effusion. FINDINGS: No edema.", {"Edema": 0.0, "No Finding": 1.0}),
        ("INDICATON: pneumonia.\nFINDNGS: No edema.", {"Edema": 0.0, "No Finding": 1.0}),
    ],
)
def test_a_skipped_section_ends_where_findings_begin(text, expected):
    assert states(text) == expected


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Effusion (-)", 0.0),
        ("Effusion (+)", 1.0),
        ("Effusion [-]", 0.0),
        ("Effusion = no", 0.0),
        ("Effusion: 0", 0.0),
        ("Effusion: N", 0.0),
        ("Effusion -> none", 0.0),
        ("Effusion: N.", 0.0),
        ("Effusion: 0. Edema: 1.", 0.0),
        ("Effusion? N", 0.0),
        ("Effusion? Y.", 1.0),
        ("Effusion (no)", 0.0),
        ("Effusion (Yes), edema (no)", 1.0),
        ("[ ] Effusion", 0.0),
        ("[x] Effusion", 1.0),
        ("No edema<br/>Effusion", 1.0),
        ("*No edema* Effusion", 1.0),
        ("Effusion&nbsp;absent", 0.0),
        ("Effusion: 0.5 cm", 1.0),
    ],
)
def test_marks_of_templates_and_markup(text, state):
    assert states(text)["Pleural Effusion"] == state


FORMS = {
    1.0: ("There is {}.", "{} is present.", "Stable {}.", "Interval development of {}.", "Again seen is {}."),
    0.0: ("No {}.", "No evidence of {}.", "{} is not seen.", "There is no {} or fluid level.", "Negative for {}."),
    -1.0: ("Possible {}.", "{} cannot be excluded.", "There may be {}.", "{} is possible.", "Suspicious for {}."),
}


def test_each_finding_in_each_state_from_templates():
    data = yaml.safe_load((Path(medvl.text.__file__).parent / "vocabularies" / "chexpert14.yaml").read_text())
    accuracy = {}
    for name, entry in data["findings"].items():
        terms = [" ".join(expand_phrase(phrase)[0]) for phrase in entry.get("terms", ())]
        for state, forms in FORMS.items():
            right = [states(form.format(term)).get(name) == state for term in terms for form in forms]
            if right:
                accuracy[name, state] = np.mean(right)
    assert len(accuracy) == 39
    assert np.mean(list(accuracy.values())) >= 0.97, accuracy
