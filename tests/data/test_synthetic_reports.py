"""Synthetic reports: what they state is true of the findings, and what they say is what they state."""

import hashlib
import itertools
from statistics import median
from string import Formatter

import pytest

from medvl.data.label_columns import CHEXPERT_FINDINGS
from medvl.data.synthetic import phrases, remarks
from medvl.data.synthetic.findings import DEVICES, DRAWABLE, SEVERITIES, Finding, sample_findings
from medvl.data.synthetic.random_stream import RandomStream
from medvl.data.synthetic.reports import compose_report, compose_sentences, stated_findings
from medvl.data.synthetic.slots import ADVERBS, MIDDLE_LOBE, SEVERITY

STUDIES = 3000
SIDES = {"right", "left", "right-sided", "left-sided", "bilateral", "bilaterally", "both", "bibasilar"}

# What a reader would recognize each finding by. Written here anew, so that a phrase must satisfy two lists.
KEYS = {
    "Cardiomegaly": ("cardiomegaly", "heart", "cardiac silhouette", "cardiac enlargement"),
    "Pleural Effusion": ("effusion", "pleural fluid"),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("consolidation", "consolidative"),
    "Lung Opacity": ("opacity", "opacities", "opacification"),
    "Lung Lesion": ("nodule", "mass", "lesion"),
    "Atelectasis": ("atelectasis", "atelectatic"),
    "Edema": ("edema",),
    "Fracture": ("fracture", "osseous"),
    "Support Devices": (
        "endotracheal tube",
        "et tube",
        "ett",
        "central venous",
        "central line",
        "picc",
        "pacemaker",
        "aicd",
        "pacing device",
        "chest tube",
        "drain",
        "thoracostomy tube",
        "line or tube",
        "medical device",
        "support device is",
        "support devices",
        "lines or tubes",
    ),
}
OTHERS = ("pneumonia", "mediastin", "pleural thickening", "plaque", "infection", "infiltrate", "airspace disease")


@pytest.fixture(scope="module")
def studies():
    drawn = []
    for index in range(STUDIES):
        findings = sample_findings(RandomStream(5, "findings", index))
        sentences = compose_sentences(findings, RandomStream(5, "report", index))
        text, states = compose_report(findings, RandomStream(5, "report", index))
        drawn.append((findings, sentences, text, states))
    return drawn


def words(text):
    return text.lower().replace(",", " ").replace(".", " ").replace(";", " ").split()


def severities_in(name, phrase):
    """The severities whose words for this finding stand in the phrase, longest words first ("minimally displaced")."""
    table = SEVERITY.get(name, SEVERITY[""])
    pairs = [(word, level) for level, options in table.items() for word in options]
    pairs += [(word, level) for level, options in ADVERBS.items() for word in options]
    left, found = f" {' '.join(words(phrase))} ", set()
    for word, level in sorted(pairs, key=lambda pair: -len(pair[0])):
        if f" {word} " in left:
            left = left.replace(f" {word} ", "  ")
            found.add(level)
    return found


def test_every_present_finding_is_stated_or_hedged_and_absent_ones_seldom_hedged(studies):
    hedged_mild, mild, hedged_absent, absent = 0, 0, 0, 0
    for findings, _, _, states in studies:
        present = {finding.name: finding for finding in findings}
        assert set(states) <= set(CHEXPERT_FINDINGS)
        for name, finding in present.items():
            assert states[name] in (1, -1)
            if states[name] == -1:
                assert finding.severity == "mild"
            if finding.severity == "mild" and name != "Support Devices":
                mild += 1
                hedged_mild += states[name] == -1
        for name in set(states) - set(present) - {"No Finding"}:
            assert states[name] in (0, -1)
            absent += 1
            hedged_absent += states[name] == -1
    assert 0.10 < hedged_mild / mild < 0.20
    assert 0.015 < hedged_absent / absent < 0.045


def test_no_finding_follows_from_the_other_states(studies):
    seen = set()
    for _, _, _, states in studies:
        others = [state for name, state in states.items() if name not in ("No Finding", "Support Devices")]
        assert states["No Finding"] == (0 if any(state in (1, -1) for state in others) else 1)
        seen.add(states["No Finding"])
    assert seen == {0, 1}


def test_a_report_states_one_thing_of_a_finding(studies):
    for _, sentences, _, states in studies:
        for mention in itertools.chain.from_iterable(sentence.mentions for sentence in sentences):
            assert states[mention.name] == mention.state
        assert stated_findings(sentences) == states


def test_sides_and_severities_are_those_of_the_finding(studies):
    sided = 0
    for findings, sentences, _, _ in studies:
        present = {finding.name: finding for finding in findings}
        for mention in itertools.chain.from_iterable(sentence.mentions for sentence in sentences):
            finding, said = present.get(mention.name), set(words(mention.phrase)) & SIDES
            if mention.state == 0:
                # "The lungs are clear bilaterally" and "Both lungs" speak of either side.
                assert not {word.removesuffix("-sided") for word in said} & {"right", "left"}
            elif finding is None:
                assert not {"right", "left"} <= {word.removesuffix("-sided") for word in said}
            else:
                kinds = {word.removesuffix("-sided") if "-sided" in word else word for word in said}
                kinds = {word if word in ("right", "left") else "bilateral" for word in kinds}
                assert kinds <= {finding.side}, (finding, mention)
                sided += bool(kinds)
                if mention.name != "Support Devices":
                    assert severities_in(mention.name, mention.phrase) == {finding.severity}, (finding, mention)
    assert sided > STUDIES


def test_places_are_those_of_the_finding(studies):
    for findings, sentences, _, _ in studies:
        present = {finding.name: finding for finding in findings}
        for mention in itertools.chain.from_iterable(sentence.mentions for sentence in sentences):
            finding = present.get(mention.name)
            if finding is None or finding.name == "Support Devices":
                continue
            phrase = mention.phrase.lower()
            if MIDDLE_LOBE in phrase:
                assert (finding.side, finding.location) == ("right", "mid")
            for zone, said in (("upper", ("upper",)), ("mid", ("mid lung", "middle")), ("lower", ("lower", "basilar"))):
                if any(word in phrase for word in said):
                    assert finding.location == zone, (finding, mention)


def test_a_phrase_has_the_words_of_its_finding_and_of_no_other(studies):
    for _, sentences, _, _ in studies:
        for sentence in sentences:
            named = {mention.name for mention in sentence.mentions}
            text = sentence.text.lower()
            for name in DRAWABLE:
                said = [key for key in KEYS[name] if f" {key}" in f" {text}"]
                if name in named and not (
                    text.rstrip(".").startswith(("the lungs are clear", "lungs are clear", "both lungs"))
                ):
                    assert said, (name, text)
                if name not in named and not (name == "Cardiomegaly" and "over the heart" in text):
                    assert not said, (name, text)
            assert not any(word in text for word in OTHERS), text


def test_lungs_are_clear_only_where_nothing_of_the_lung_is_stated(studies):
    clear = 0
    for _, sentences, text, states in studies:
        if "ungs are clear" in " ".join(text.split()):
            clear += 1
            assert states["Consolidation"] == states["Lung Opacity"] == 0
            assert all(states.get(name, 0) == 0 for name in ("Lung Lesion", "Atelectasis", "Edema"))
        for sentence in sentences:
            for mention in sentence.mentions:
                if mention.name == "Lung Opacity" and mention.state == 0:
                    assert all(
                        states.get(name, 0) == 0 for name in ("Consolidation", "Lung Lesion", "Atelectasis", "Edema")
                    )
    assert clear > STUDIES / 20


def test_a_study_is_called_normal_only_where_nothing_is_stated(studies):
    called = 0
    for _, sentences, _, states in studies:
        if any(sentence.text in remarks.NORMAL_IMPRESSIONS for sentence in sentences):
            called += 1
            assert states["No Finding"] == 1
        if any(sentence.text in remarks.INCIDENTAL for sentence in sentences):
            assert states["No Finding"] == 0
    assert called > STUDIES / 10


def test_sentences_are_well_formed_and_stand_in_the_text(studies):
    for _, sentences, text, _ in studies:
        flat = " ".join(text.split())
        for sentence in sentences:
            assert sentence.text[0].isupper()
            assert sentence.text.endswith(".")
            assert not any(bad in sentence.text for bad in ("{", "}", "  ", "..", " .", " ,"))
            assert not any(f" a {vowel}" in sentence.text.lower() for vowel in "aeio")
            assert sentence.text in flat


def test_reports_vary_in_words_length_and_layout(studies):
    sentences = {sentence.text for _, written, _, _ in studies for sentence in written}
    texts = [text for _, _, text, _ in studies]
    assert len(sentences) > 4000
    assert 5 <= median(len(written) for _, written, _, _ in studies) <= 9
    assert len(set(texts)) < len(texts)  # short normal reports recur
    assert len(set(texts)) > 0.9 * len(texts)
    for sign in ("FINDINGS:", "Findings:", "FINDINGS\n", "IMPRESSION:", "COMPARISON", "1. ", "\n\n"):
        assert any(sign in text for text in texts), sign
    assert any("FINDINGS" not in text.upper() for text in texts)
    assert any("IMPRESSION" not in text.upper() for text in texts)
    assert any(
        text.upper().index("IMPRESSION") < text.upper().find("FINDINGS")
        for text in texts
        if "IMPRESSION" in text.upper()
    )
    wrapped = [text for text in texts if len(text) > 300 and max(map(len, text.split("\n"))) <= 80]
    assert 0.1 < len(wrapped) / sum(len(text) > 300 for text in texts) < 0.6


def test_each_finding_has_forms_enough():
    for name in DRAWABLE[:-1]:
        assert len(set(phrases.PRESENT[name])) >= 10
        assert len(set(phrases.UNCERTAIN[name])) >= 4
    for kind in DEVICES:
        assert len(set(phrases.DEVICE_FORMS[kind])) >= 10
    for name in DRAWABLE:
        assert len(set(phrases.ABSENT[name])) >= 5
    assert set(phrases.PRESENT) == set(phrases.UNCERTAIN) == set(phrases.BRIEF) == set(DRAWABLE[:-1])
    for form in (*itertools.chain(*phrases.ABSENT.values()), *phrases.LUNGS_CLEAR):
        assert {field for _, field, _, _ in Formatter().parse(form) if field} <= {"seen"}


def test_remarks_speak_of_no_finding():
    said = (
        remarks.NEUTRAL,
        remarks.INCIDENTAL,
        remarks.ADVICE,
        remarks.EXAMS,
        remarks.INDICATIONS,
        remarks.COMPARISONS,
    )
    for remark in itertools.chain(*said, remarks.TECHNIQUES):
        text = f" {remark.lower()}"
        assert not any(f" {key}" in text for keys in KEYS.values() for key in keys), remark
        assert not any(word in text for word in (*OTHERS, "lungs", "rib", "right", "left")), remark


@pytest.mark.parametrize("name", DRAWABLE[:-1])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_each_finding_alone_is_stated_in_every_severity_and_section(name, severity):
    side = {"Cardiomegaly": "", "Edema": "bilateral"}.get(name, "left")
    location = {
        "Cardiomegaly": "",
        "Edema": "",
        "Pleural Effusion": "",
        "Pneumothorax": "upper",
        "Atelectasis": "lower",
    }
    finding = Finding(name, severity, side, location.get(name, "mid"))
    for index in range(60):
        text, states = compose_report([finding], RandomStream(6, name, severity, index))
        assert states[name] in (1, -1)
        hedged = any(state == -1 for other, state in states.items() if other != name)  # on a side made up
        assert hedged or "right" not in text.lower().replace("-", " ").split()
        assert any(key in " ".join(text.lower().split()) for key in KEYS[name])


def test_the_same_draws_give_the_same_report():
    findings = [
        Finding("Cardiomegaly", "moderate"),
        Finding("Pleural Effusion", "mild", "bilateral"),
        Finding("Consolidation", "severe", "right", "mid"),
        Finding("Support Devices", "moderate", "left", "pacemaker"),
    ]
    texts = [compose_report(findings, RandomStream(0, "golden", index))[0] for index in range(20)]
    assert texts == [compose_report(findings, RandomStream(0, "golden", index))[0] for index in range(20)]
    assert len(set(texts)) == 20
    assert hashlib.sha256("\f".join(texts).encode()).hexdigest()[:16] == "af80bd92c06cc73c"
