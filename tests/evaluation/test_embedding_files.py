"""Embeddings as files: the same content in every format, read by NumPy and pandas."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from medvl.evaluation import Embeddings
from medvl.utils.extras import MissingExtraError

FINDINGS = ("Edema", "=Fracture")


@pytest.fixture
def embeddings():
    text = torch.randn(3, 4)
    text[1] = torch.nan
    labels = torch.tensor([[1.0, 0.0], [-1.0, torch.nan], [0.0, 1.0]])
    return Embeddings(
        torch.randn(3, 4),
        text,
        texts=["secret", "", "b"],
        study_ids=["007", "b", "c"],
        patient_ids=["p,1", "p", "q"],
        labels=labels,
    )


SPLITS = ["train", "", "test"]


def test_npz(embeddings, tmp_path):
    path = embeddings.save(tmp_path / "out" / "e.npz", FINDINGS, SPLITS)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    np.testing.assert_array_equal(arrays.pop("image_embeds"), embeddings.image.numpy())
    np.testing.assert_array_equal(arrays.pop("text_embeds"), embeddings.text.numpy())
    np.testing.assert_array_equal(arrays.pop("label"), embeddings.labels.numpy())
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "study_id": ["007", "b", "c"],
        "patient_id": ["p,1", "p", "q"],
        "split": SPLITS,
        "findings": list(FINDINGS),
    }


def test_csv(embeddings, tmp_path):
    path = embeddings.save(tmp_path / "e.CSV", FINDINGS, SPLITS)
    vectors = [f"{side}_embeds_{number}" for side in ("image", "text") for number in range(4)]
    table = pd.read_csv(path, dtype={"study_id": str, **dict.fromkeys(vectors, np.float32)}, keep_default_na=True)
    assert list(table) == ["study_id", "patient_id", "split", "Edema", "'=Fracture", *vectors]
    assert table["study_id"].tolist() == ["007", "b", "c"]
    assert table["patient_id"].tolist() == ["p,1", "p", "q"]
    assert table["split"].fillna("").tolist() == SPLITS
    np.testing.assert_array_equal(table[["Edema", "'=Fracture"]].to_numpy(), embeddings.labels.numpy())
    np.testing.assert_array_equal(table[vectors[:4]].to_numpy(), embeddings.image.numpy())
    np.testing.assert_array_equal(table[vectors[4:]].to_numpy(), embeddings.text.numpy())


def test_parquet(embeddings, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(embeddings.save(tmp_path / "e.parquet", FINDINGS, SPLITS)).to_pydict()
    assert list(table) == ["study_id", "patient_id", "split", *FINDINGS, "image_embeds", "text_embeds"]
    assert (table["study_id"], table["split"]) == (["007", "b", "c"], SPLITS)
    assert (table["Edema"], table["=Fracture"]) == ([1.0, -1.0, 0.0], [0.0, None, 1.0])
    np.testing.assert_array_equal(np.float32(table["image_embeds"]), embeddings.image.numpy())
    assert table["text_embeds"][1] is None
    np.testing.assert_array_equal(np.float32(table["text_embeds"][2]), embeddings.text.numpy()[2])


def test_without_labels_and_splits(embeddings, tmp_path):
    embeddings.labels = None
    with np.load(embeddings.save(tmp_path / "e.npz", FINDINGS)) as archive:
        assert set(archive) == {"image_embeds", "text_embeds", "study_id", "patient_id", "split"}
        assert archive["split"].tolist() == ["", "", ""]


def test_a_finding_without_a_name_has_a_number(embeddings, tmp_path):
    assert "split,label_0,label_1,image" in embeddings.save(tmp_path / "e.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("name", "findings", "splits", "message"),
    [
        ("e.txt", FINDINGS, None, r"the file of embeddings must end in \.npz, \.csv, \.parquet, got e\.txt\."),
        ("e", FINDINGS, None, r"the file of embeddings must end in \.npz, \.csv, \.parquet, got e\."),
        ("e.npz", FINDINGS[:1], None, r"findings must have 2 entries, got 1\."),
        ("e.npz", FINDINGS, ["test"], r"splits must have 3 entries, got 1\."),
        ("e.csv", ("split", "a"), None, r"findings must differ from the names of the other columns, got \['split'\]\."),
    ],
)
def test_errors(embeddings, tmp_path, name, findings, splits, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        embeddings.save(tmp_path / name, findings, splits)
    assert not list(tmp_path.iterdir())


def test_parquet_without_its_extra(embeddings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'^Writing e\.parquet needs pyarrow: pip install "medvl\[tables\]"$'):
        embeddings.save(tmp_path / "e.parquet")
