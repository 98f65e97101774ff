"""Evaluation of a table without labels: the findings are those that the reports state."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from medvl.data import Manifest
from medvl.text import label_report, load_vocabulary
from medvl.workflows.trained_run import label_studies

BOTH = ["Edema.", "No edema. Effusion."]


def manifest(reports, names=(), **more):
    studies = [
        {"study_id": str(i), "row": i + 1, **({} if report is None else {"report": report}), **more}
        for i, report in enumerate(reports)
    ]
    return Manifest("cases.csv", studies, names)


def test_labels_are_those_of_the_labeler_and_said(caplog):
    with caplog.at_level(logging.INFO):
        labeled = label_studies(manifest([BOTH[0], None, BOTH[1]]))
    assert labeled.names == tuple(load_vocabulary("chexpert14").names)
    np.testing.assert_array_equal(labeled.studies[0]["label"], label_report(BOTH[0]))
    assert "label" not in labeled.studies[1]
    np.testing.assert_array_equal(labeled.studies[2]["label"], label_report(BOTH[1]))
    assert "cases.csv: no column of labels is named" in caplog.text


def test_sections_other_than_findings_and_impression_are_not_labeled():
    text = "HISTORY: Edema.\nFINDINGS: No edema.\nIMPRESSION: Effusion."
    labeled = label_studies(manifest([BOTH[0], text]))
    assert labeled.studies[1]["label"][labeled.names.index("Edema")] == 0


@pytest.mark.parametrize("reports", [
    [], [None, None], ["Edema."], ["Edema.", "Edema."], ["No edema.", "No effusion."], ["", "  "],
    ["A square is seen.", "A circle is seen."], ["Possible edema.", "No edema."],
])  # fmt: skip
def test_reports_with_nothing_to_tell_apart_are_left(reports, caplog):
    given = manifest(reports)
    with caplog.at_level(logging.INFO):
        assert label_studies(given) is given
    assert not caplog.text


def test_labels_of_the_table_are_kept():
    label = np.zeros(1, np.float32)
    for given in (manifest(BOTH, names=("Edema",)), manifest(BOTH, label=label)):
        assert label_studies(given) is given
