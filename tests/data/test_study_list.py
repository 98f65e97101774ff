"""Studies by column are those of a list of dictionaries, and a long table needs little memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from medvl.data import read_manifest, split_by_patient
from medvl.data.leaks import join_groups
from medvl.data.study_columns import TextColumn
from medvl.data.study_list import StudyList, has_key, select_studies, with_texts

STUDIES = [
    {"study_id": "a", "row": 1, "report": "Größe\n\ud800", "label": np.float32([1, 0, -1, np.nan])},
    {"study_id": "b", "row": 2, "patient_id": "p", "split": "train", "image": "/data/x.png"},
    {"study_id": "b", "row": 2, "patient_id": "p", "split": "train", "image": "/elsewhere/x.png"},
]


@pytest.fixture
def studies():
    out = StudyList(4, {"image": "/data/"})
    for study in STUDIES:
        out.append(study)
    return out


def test_each_study_is_as_it_was(studies):
    assert studies == STUDIES
    assert studies[-1] == STUDIES[-1]
    assert studies[1:] == STUDIES[1:]
    assert list(studies[0]) == ["study_id", "row", "report", "label"]
    with pytest.raises(IndexError):
        studies[3]
    studies[0]["report"] = "changed"
    assert studies[0]["report"] == STUDIES[0]["report"]


@pytest.mark.parametrize("key", ["report", "label", "image", "split", "row", "nothing"])
def test_keys_selections_and_new_texts_are_those_of_a_list(studies, key):
    assert has_key(studies, key).tolist() == has_key(STUDIES, key).tolist()
    kept = [True, False, True]
    chosen = select_studies(studies, kept)
    assert chosen == select_studies(STUDIES, kept)
    assert has_key(chosen, key).tolist() == has_key(list(chosen), key).tolist()
    assert chosen.select([False, True]) == STUDIES[2:]
    assert [study["split"] for study in with_texts(chosen, "split", ["val", "test"])] == ["val", "test"]
    assert studies == STUDIES


def test_many_texts():
    texts = [f"{'x' * (i % 7)}{'é' * (i % 3)}" for i in range(10_000)]
    column = TextColumn("xx")
    column.extend(texts)
    assert len(column) == 10_000
    assert [column[i] for i in range(10_000)] == texts
    assert column.filled.tolist() == [bool(text) for text in texts]


def test_splits_are_those_of_a_list(tmp_path):
    rows = "".join(f"s{i},{'' if i % 5 == 0 else f'p{i // 3}'},Clear.\n" for i in range(300))
    (tmp_path / "cases.csv").write_text("study_id,patient_id,report\n" + rows)
    studies = read_manifest(tmp_path / "cases.csv", image_column=None).studies
    for seed in range(3):
        assert split_by_patient(studies, seed=seed) == split_by_patient(list(studies), seed=seed)


def test_groups_are_joined_by_any_key():
    assert join_groups([]) == []
    assert join_groups([[], [1], []]) == [0, 1, 2]
    generator = np.random.default_rng(0)
    keys = [[("k", int(k)) for k in generator.integers(0, 150, 2)] for _ in range(200)]
    groups = list(range(200))
    for _ in range(200):  # each joined to the first that it shares a key with, until nothing changes
        first = {}
        for group, own in sorted(zip(groups, keys, strict=True)):
            for key in own:
                first.setdefault(key, group)
        groups = [min([group, *(first[key] for key in own)]) for group, own in zip(groups, keys, strict=True)]
    assert join_groups(keys) == groups


CODE = """
import sys
from medvl.data.manifest_reader import read_manifest
before = peak()
manifest = read_manifest(sys.argv[1], image_column=None).assign_splits()
print(len(manifest), (peak() - before) * 1024)
"""


def test_memory_is_near_the_size_of_the_table(tmp_path, peak_code):
    report = (
        "Heart size is normal. The lungs are clear. No pleural effusion or pneumothorax is seen. No acute fracture."
    )
    path = tmp_path / "cases.csv"
    with path.open("w") as file:
        file.write("study_id,patient_id,report,Edema,Fracture\n")
        file.writelines(f"s{i:07d},p{i // 2:07d},{i % 97} {report},1,\n" for i in range(60_000))
    out = subprocess.run(
        [sys.executable, "-c", peak_code + CODE, path], capture_output=True, text=True, check=True
    ).stdout
    number, used = map(int, out.split())
    # As dictionaries, the studies take more than a kilobyte each. SciPy, which splitting loads, takes some 30 MB.
    assert number == 60_000
    assert used < 3 * path.stat().st_size + 45e6
