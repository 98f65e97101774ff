"""Sections: headers in the forms that reports use."""

from __future__ import annotations

import pytest
from linear_time import takes_linear_time

from medvl.text import extract_sections


def contents(text):
    return {name: text[start:end] for name, (start, end) in extract_sections(text).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FINDINGS: A.\nIMPRESSION: B.", {"findings": "A.", "impression": "B."}),
        ("Findings: A. Conclusion: B.", {"findings": "A.", "impression": "B."}),
        ("FINDINGS\nA.\n\nOPINION\nB.", {"findings": "A.", "impression": "B."}),
        ("Reason for exam: cough\nClinical history: none", {"indication": "cough", "history": "none"}),
        ("lungs clear IMPRESSION: normal", {"impression": "normal"}),
        ("IMPRESSION - normal", {"impression": "normal"}),
        ("FINDINGS AND IMPRESSION: A.", {"findings": "A."}),
        ("FINDINGS: LUNGS: Clear.\nHEART: Normal.", {"findings": "LUNGS: Clear.\nHEART: Normal."}),
        ("IMPRESSION: A.\nADDENDUM: x\nIMPRESSION: B.", {"impression": "A.", "addendum": "x", "impression 2": "B."}),
        ("FINDINGS:\nIMPRESSION: B.", {"findings": "", "impression": "B."}),
        ("Findings - A. Impression - B.", {"findings": "A.", "impression": "B."}),
        ("FINDINGS \u2013 A\nIMPRESSION \u2014 B", {"findings": "A", "impression": "B"}),
        ("FINDINGS & IMPRESSION: A.", {"findings": "A."}),
        ("IMPRESSION/CONCLUSION: B.", {"impression": "B."}),
        ("IMPRESSION AND PLAN: B.", {"impression": "B."}),
        ("FINDINGS (CT CHEST): A.\nFINAL DIAGNOSIS: B.", {"findings": "A.", "impression": "B."}),
        ("Radiologist's impression: B.", {"impression": "B."}),
        ("findings\nclear\nimpression\nnormal", {"findings": "clear", "impression": "normal"}),
        ("HX: c\nCOMP: d\nIMP: b", {"history": "c", "comparison": "d", "impression": "b"}),
        ("PRIOR STUDY: d. DISCUSSION: a.", {"comparison": "d.", "findings": "a."}),
        ("COMPARISON/CORRELATION: d\nFINDINGS: a", {"comparison": "d", "findings": "a"}),
        ("**FINDINGS:** A.\n**IMPRESSION:** B.", {"findings": "A.", "impression": "B."}),
        ("## Findings\nA.\n## Impression\nB.", {"findings": "A.", "impression": "B."}),
        ("[FINDINGS] A. [IMPRESSION] B.", {"findings": "A.", "impression": "B."}),
        ("1. FINDINGS: a\n2. IMPRESSION: b", {"findings": "a", "impression": "b"}),
        ("Indication: cough Findings: a Impression: b", {"indication": "cough", "findings": "a", "impression": "b"}),
        ("INDICATION: pain after\nfindings: a", {"indication": "pain after", "findings": "a"}),
        ("\ufeffFINDINGS\uff1a a\r\nIMPRESSION\uff1a b", {"findings": "a", "impression": "b"}),
        ("FINDINGS: a, compare with comparison: b.", {"findings": "a, compare with comparison: b."}),
        ("These findings: a. The impression was normal.", {}),
        ("The impression is of a normal chest.", {}),
        ("", {}),
    ],
)
def test_sections(text, expected):
    assert contents(text) == expected


def test_what_is_not_text_is_named():
    with pytest.raises(TypeError, match="text must be a string, got NoneType"):
        extract_sections(None)


def test_a_header_is_found_at_once_in_a_long_sentence():
    assert extract_sections("no findings: " * 20_000) == {}
    assert takes_linear_time(extract_sections, "no findings: ", 13_000, 260_000)


def test_a_line_that_breaks_behind_clinical_is_no_header():
    text = "FINDINGS: No fracture. Clinical\ncorrelation is recommended."
    assert list(extract_sections(text)) == ["findings"]
    assert list(extract_sections("Clinical: cough. Findings: clear.")) == ["indication", "findings"]
