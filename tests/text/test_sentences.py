"""Sentences: nothing lost, boundaries where a reader puts them, in linear time."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_time import takes_linear_time

from medvl.data import OpenIReports
from medvl.text import Span, split_sentences

MARKS = Path(__file__).with_name("marked_sentences.csv")


def sentences(text):
    return [text[start:end] for start, end in split_sentences(text)]


def assert_nothing_lost(text):
    done = 0
    for start, end in split_sentences(text):
        assert done <= start < end
        assert not text[done:start].strip()
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        done = end
    assert not text[done:].strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Effusion of 1.5 cm. Stable.", ["Effusion of 1.5 cm.", "Stable."]),
        ("Mass of 3. 2 cm is seen.", ["Mass of 3. 2 cm is seen."]),
        ("Seen by Dr. XXXX. Stable.", ["Seen by Dr. XXXX.", "Stable."]),
        ("Dr. J. Smith was told. Stable.", ["Dr. J. Smith was told.", "Stable."]),
        ("Called at 10:15 a.m. on Monday. Stable.", ["Called at 10:15 a.m. on Monday.", "Stable."]),
        ("Called at 10 a.m. The heart is normal.", ["Called at 10 a.m.", "The heart is normal."]),
        ("Called at ___ p.m. ___ by phone.", ["Called at ___ p.m. ___ by phone."]),
        ("Atelectasis vs. pneumonia. Stable.", ["Atelectasis vs. pneumonia.", "Stable."]),
        ("Hepatitis C. Chest pain.", ["Hepatitis C.", "Chest pain."]),
        ("Seen with Karl P. today. Stable.", ["Seen with Karl P. today.", "Stable."]),
        ("Seen by Karl P. Miller. Stable.", ["Seen by Karl P. Miller.", "Stable."]),
        ("Seen by Karl P. The heart is normal.", ["Seen by Karl P.", "The heart is normal."]),
        ("Seen by Dr. J. P. Miller. Stable.", ["Seen by Dr. J. P. Miller.", "Stable."]),
        ("The report is by Karl P.", ["The report is by Karl P."]),
        ("1. Small effusion. 2. No edema.", ["1. Small effusion.", "2. No edema."]),
        ("1. Small effusion 2. No edema", ["1. Small effusion", "2. No edema"]),
        ("(1) Small effusion (2) No edema", ["(1) Small effusion", "(2) No edema"]),
        ("1. Foo.2. Bar.", ["1. Foo.", "2. Bar."]),
        ("Compared to day 2. No effusion.", ["Compared to day 2.", "No effusion."]),
        ("Lungs clear.Heart normal.", ["Lungs clear.", "Heart normal."]),
        ("LUNGS CLEAR.NO EFFUSION.", ["LUNGS CLEAR.", "NO EFFUSION."]),
        ("lungs are clear. no effusion.", ["lungs are clear.", "no effusion."]),
        ("No effusion.. Stable. .", ["No effusion..", "Stable. ."]),
        ("?pneumonia. ? effusion", ["?pneumonia.", "? effusion"]),
        ("Pneumonia? Effusion?", ["Pneumonia?", "Effusion?"]),
        ("Edema: no\nEffusion: yes", ["Edema: no", "Effusion: yes"]),
        ("Edema = no\nEffusion = yes", ["Edema = no", "Effusion = yes"]),
        ("There is no\nEffusion", ["There is no\nEffusion"]),
        ("Seen on this exam. Stable.", ["Seen on this exam.", "Stable."]),
        ("On exam. 2 the lungs are clear.", ["On exam. 2 the lungs are clear."]),
        ("Approx. 2 cm. Stable.", ["Approx. 2 cm.", "Stable."]),
        ("No. 5 rib is intact. Fracture? No. Stable.", ["No. 5 rib is intact.", "Fracture?", "No.", "Stable."]),
        ("FINDINGS: Clear lungs. IMPRESSION: Normal.", ["FINDINGS:", "Clear lungs.", "IMPRESSION:", "Normal."]),
        ("Lungs clear IMPRESSION: Normal", ["Lungs clear", "IMPRESSION:", "Normal"]),
        ("Findings\nClear lungs", ["Findings", "Clear lungs"]),
        ("FINDINGS:\nHEART:\nLarge. Stable.", ["FINDINGS:", "HEART:\nLarge.", "Stable."]),
        ("HEART:\n\n  Large\nLUNGS:\nClear", ["HEART:\n\n  Large", "LUNGS:\nClear"]),
        ("HEART:\n\n\nLarge", ["HEART:", "Large"]),
        ("1. Heart:\r\nLarge\r\n2. Lungs:\r\nClear", ["1. Heart:\r\nLarge", "2. Lungs:\r\nClear"]),
        ("Stable. HEART:\nLarge.", ["Stable.", "HEART:\nLarge."]),
        ("LUNGS AND PLEURA:\nLUNGS: Clear\nHEART:", ["LUNGS AND PLEURA:", "LUNGS: Clear", "HEART:"]),
        ("HEART:\nIMPRESSION\nNormal", ["HEART:", "IMPRESSION", "Normal"]),
        ("Pneumothorax:\n- None\nEdema:\n- None", ["Pneumothorax:\n- None", "Edema:\n- None"]),
        ("Edema:\n- None\n- Stable", ["Edema:", "- None", "- Stable"]),
        ("Edema:\n1. None", ["Edema:", "1. None"]),
        ("Edema:\nno\nEffusion:\nyes", ["Edema:\nno", "Effusion:\nyes"]),
        (f"{'A' * 39}:\nLarge", [f"{'A' * 39}:\nLarge"]),
        (f"{'A' * 40}:\nLarge", [f"{'A' * 40}:", "Large"]),
        ("No effusion\nNo edema\r\nStable", ["No effusion", "No edema", "Stable"]),
        ("- no effusion\n- no edema", ["- no effusion", "- no edema"]),
        (
            "The heart is enlarged and there is a small\nleft pleural effusion. Stable.",
            ["The heart is enlarged and there is a small\nleft pleural effusion.", "Stable."],
        ),
        (
            "THE HEART IS MILDLY ENLARGED AND THERE IS A SMALL EFFUSION IN THE\nRIGHT HEMITHORAX. STABLE.",
            ["THE HEART IS MILDLY ENLARGED AND THERE IS A SMALL EFFUSION IN THE\nRIGHT HEMITHORAX.", "STABLE."],
        ),
        ("Film of [**2101. 3. Smith**] shows edema. Stable.", ["Film of [**2101. 3. Smith**] shows edema.", "Stable."]),
        (". . Stable.", [". . Stable."]),
        ("...", ["..."]),
        ("", []),
        (" \n\t\u00a0", []),
        ("Nodule of 5 mm. in the apex. Stable.", ["Nodule of 5 mm. in the apex.", "Stable."]),
        ("Exam of Jan. 5, 2010. Stable.", ["Exam of Jan. 5, 2010.", "Stable."]),
        ("In the L. lung base. R. lung clear.", ["In the L. lung base.", "R. lung clear."]),
        ("Findings - No edema. Impression - Clear.", ["Findings -", "No edema.", "Impression -", "Clear."]),
        ("**FINDINGS:** No edema.", ["**FINDINGS:**", "No edema."]),
        ("[FINDINGS] No [gross] edema - none.", ["[FINDINGS]", "No [gross] edema - none."]),
    ],
)
def test_boundaries(text, expected):
    assert sentences(text) == expected
    assert_nothing_lost(text)


LONG = "The heart is normal in size and the lungs are both clear"


@pytest.mark.parametrize("before", ["", "IMPRESSION:\n", "1. Stable chest.\n"])
@pytest.mark.parametrize("end", [".\n", ". \n", ".\r\n", "!\n\n", ".\n  ", ":\n", "\n\n"])
def test_a_line_begins_behind_the_end_of_the_one_before(before, end):
    # Where a sentence ended the line, the room left in the next one was counted from the start of the line before.
    assert sentences(f"{before}{LONG}{end}No effusion\nBones normal")[-2:] == ["No effusion", "Bones normal"]


def test_returns_spans():
    assert split_sentences(" No effusion. ") == [Span(1, 13)]


@pytest.mark.parametrize("text", [None, float("nan"), b"No effusion.", 3, ["No effusion."]])
def test_what_is_not_text_is_named(text):
    with pytest.raises(TypeError, match=f"text must be a string, got {type(text).__name__}"):
        split_sentences(text)


HOSTILE = st.text(
    alphabet=st.sampled_from(list("aA.1) \n\r\t:;?!_-*[]()'\"XDr,\u200b\u2028\x1c\u00a0\u0130\ud83d")), max_size=300
)


@settings(max_examples=5 * settings.default.max_examples)
@given(HOSTILE | st.text(max_size=300))
def test_nothing_is_lost_in_random_text(text):
    assert_nothing_lost(text)


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.lists(
        st.sampled_from(
            [
                "No effusion",
                "1.",
                "2)",
                "Dr.",
                "FINDINGS:",
                "impression",
                "a.m.",
                "XXXX",
                "[**x.",
                "**]",
                ".",
                "?",
                "\n",
                "\n\n",
            ]
        ),
        max_size=60,
    )
)
def test_nothing_is_lost_in_pieces_of_reports(pieces):
    assert_nothing_lost(" ".join(pieces))


@pytest.mark.parametrize(
    "piece",
    [
        ".",
        ". ",
        "1. ",
        "\n",
        "a\r",
        "[**",
        ":",
        "FINDINGS ",
        "(((",
        "Dr. ",
        "A. ",
        "a.Bb",
        " ",
        "? ",
        "no ",
        "X\n",
        "1) a ",
    ],
)
def test_a_million_hostile_characters(piece):
    assert takes_linear_time(assert_nothing_lost, piece, 20_000, 1_000_000)


def test_nothing_is_lost_in_open_i(shared_data):
    reports = OpenIReports(shared_data / "openi-reports.tgz")
    assert len(reports) == 3955
    for study in reports:
        assert_nothing_lost(study["report"])


def test_nothing_is_lost_in_the_texts_of_cases(shared_data):
    for text in case_texts(shared_data):
        assert_nothing_lost(text)


def case_texts(shared_data):
    with (shared_data / "cxr-cases" / "cases.csv").open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)]


def marked_texts(shared_data):
    """(text, offsets where a reader ends a sentence) of the texts that were marked by hand."""
    sections = {int(s["study_id"][3:]): s["sections"] for s in OpenIReports(shared_data / "openi-reports.tgz")}
    cases = case_texts(shared_data)
    with MARKS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            number = int(row["number"])
            text = cases[number] if row["source"] == "cxr" else sections[number][row["section"]]
            assert hashlib.sha256(text.encode()).hexdigest()[:16] == row["sha256"], row
            yield text, {int(end) for end in row["ends"].split()}


def test_marked_sentences(shared_data):
    right = found = marked = 0
    for text, ends in marked_texts(shared_data):
        mine = {end for _, end in split_sentences(text)}
        right += len(mine & ends)
        found += len(mine)
        marked += len(ends)
    assert marked >= 200
    f1 = 2 * right / (found + marked)
    assert f1 >= 0.985, f1
