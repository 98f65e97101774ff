"""How a sentence was read, as text and as data; the page of the documentation on it is run."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest

from medvl.text import explain_findings, find_findings
from medvl.text.assertion import REASONS

PAGE = Path(__file__).parents[2] / "docs" / "explain_labels.md"


def test_the_examples_of_the_documentation():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    assert failed == 0
    assert attempted >= 15


def test_scopes_and_findings_name_their_rules_and_words():
    sentence = explain_findings("Possible  edema but no effusion.")[0]
    edema, effusion = sentence.findings
    assert (edema.finding, edema.assertion, edema.cue, edema.rule) == ("Edema", "uncertain", "Possible", "scope")
    assert (effusion.finding, effusion.assertion, effusion.cue) == ("Pleural Effusion", "absent", "no")
    possible, no = sentence.scopes
    assert (possible.assertion, possible.covers, possible.ended_by) == ("uncertain", "Possible  edema", "but")
    assert (possible.rule, possible.reason) == ("clause_ends", "The clause ends.")
    assert (no.covers, no.ended_by, no.rule) == ("no effusion", None, None)


def test_skipped_and_misunderstood_sentences_and_corrected_words_are_named():
    text = "HISTORY: Edema. FINDINGS: Small effusoin. Kein Pneumothorax. Zzz was here."
    history, effusion, foreign, unknown = explain_findings(text)
    assert (history.skipped, foreign.skipped, effusion.skipped) == ("section", "language", None)
    assert effusion.corrected == (("effusoin", "effusion"),)
    assert (unknown.unknown, unknown.understood) == (("zzz", "here"), False)
    assert text[slice(*foreign.span)] == foreign.text == "Kein Pneumothorax."
    assert "skipped, since it is mostly in another language" in str(foreign)
    assert "not understood" in str(unknown)
    assert "not understood" not in str(effusion)


def test_an_item_of_a_list_is_explained_in_its_list():
    items = explain_findings("No evidence of:\n- edema\n- rib fracture")[1:]
    assert [(item.findings[0].assertion, item.findings[0].cue) for item in items] == [("absent", None)] * 2


def test_what_counts_only_where_it_is_denied_says_so():
    found = explain_findings("Bony abnormality.")[0].findings[0]
    assert found.kind == "only_absent"
    assert found.reason.endswith("It counts only where it is denied.")
    assert find_findings("Bony abnormality.") == []


def test_explanations_are_plain_data():
    for sentence in explain_findings("Prior effusion is unchanged. Edema or pneumonia. Heart is enlarged."):
        data = sentence.to_dict()
        assert json.loads(json.dumps(data))["text"] == sentence.text


def test_every_rule_has_a_reason_in_one_sentence():
    assert all(reason.strip() and "\n" not in reason for reason in REASONS.values())


def test_what_is_not_text_is_named():
    with pytest.raises(TypeError, match=r"^text must be a string, got int\.$"):
        explain_findings(3)


@pytest.mark.parametrize("text", ["", "XXXX", "....", "No ﬁbrosis, <b>no</b> eﬀusion.", "* [x] Edema"])
def test_odd_text(text):
    assert all(text[slice(*sentence.span)] == sentence.text for sentence in explain_findings(text))
