"""Ids as hashes and strings."""

from __future__ import annotations

import re

import pytest
import torch

from medvl.utils.ids import batch_ids, hash_id, id_strings


def test_hashes_are_the_same_in_every_process_and_fit_int64():
    assert hash_id("study-1") == 2395529724176179553
    assert hash_id("") == 8238016292129134938
    hashes = [hash_id(f"s{number}") for number in range(2000)]
    assert len(set(hashes)) == 2000
    assert all(0 <= value < 2**63 for value in hashes)
    assert max(hashes) >= 2**62


def test_any_string_has_a_hash():
    assert hash_id("\ud800") != hash_id("ü")


def test_id_strings():
    assert id_strings(torch.tensor([7, 12])) == ["7", "12"]
    assert id_strings(["a", 3]) == ["a", "3"]


def test_ids_of_a_batch():
    assert batch_ids({}, count=2, start=4) == (["4", "5"], ["4", "5"])
    assert batch_ids({"study_id": ["a", "b"]}, count=2, start=0) == (["a", "b"], ["a", "b"])
    assert batch_ids({"study_id": ["a"], "patient_id": [torch.tensor(3)]}, count=1, start=0) == (["a"], ["3"])
    message = "patient_id must have one entry for each of the 2 images, got 1."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        batch_ids({"study_id": ["a", "b"], "patient_id": ["p"]}, count=2, start=0)
