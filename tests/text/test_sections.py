"""Sections: headers in the forms that reports use."""

from __future__ import annotations

import pytest

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
        ("The impression is of a normal chest.", {}),
        ("", {}),
    ],
)
def test_sections(text, expected):
    assert contents(text) == expected


def test_what_is_not_text_is_named():
    with pytest.raises(TypeError, match="text must be a str, got NoneType"):
        extract_sections(None)
