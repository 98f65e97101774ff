"""Damaged files of every kind: one sentence that names the file, or a result."""

from __future__ import annotations

import random

import pytest
import silent
from damage import DAMAGES, damage
from fuzz import fault, run

from medvl.utils.errors import StudyError

SILENT_COUNT = 40
"""Of ``python tests/fuzz/silent.py --count 1000``."""

COUNT = 120
"""A run of 2,000 takes minutes: ``python tests/fuzz/fuzz.py --count 2000``."""


def test_damaged_files_end_in_one_sentence():
    ended = list(run(COUNT, seed=1))
    assert [line for line in ended if line[3]] == []
    assert len(ended) == COUNT
    assert {outcome for _, _, outcome, _ in ended} == {"read", "refused"}


def test_damage_of_what_medvl_wrote_is_never_silent():
    ended = list(silent.run(SILENT_COUNT, seed=1))
    assert [line for line in ended if line[3]] == []
    assert len(ended) == SILENT_COUNT
    assert {outcome for _, _, outcome, _ in ended} >= {"refused", "same"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_seeded(kind):
    data = b"key: value 12\n" * 50
    assert kind(data, random.Random(3)) == kind(data, random.Random(3))
    assert any(kind(data, random.Random(seed)) != data for seed in range(5))
    assert damage(data, "a") == damage(data, "a")


def test_what_is_no_answer_is_found(tmp_path):
    path = tmp_path / "a.yaml"
    assert fault(ValueError(f"{path} is damaged."), path) == ""
    assert fault(StudyError("s1", "image", "it is gone"), path) == ""
    assert fault(FileNotFoundError(2, "No such file", str(path)), path) == ""
    assert fault(ValueError("it is damaged."), path) == "does not name the file"
    assert fault(KeyError("data"), path) == "of a kind that is no answer"
    assert fault(ValueError(f"{path}: 'NoneType' object is not iterable"), path) == "an inner error"
    assert fault(ValueError(f"{path}\nis damaged"), path) == "several lines"
