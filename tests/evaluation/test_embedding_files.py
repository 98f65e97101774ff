"""Embeddings as files: the same content in every format, read by NumPy and pandas."""

from __future__ import annotations

import json
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

from medvl.evaluation import Embeddings, load_embeddings
from medvl.evaluation.embedding_files import embedding_arrays, write_embeddings
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
SUFFIX = r"the file of embeddings must end in \.npz, \.csv, \.parquet or have no suffix \(a folder\)"


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
        ("e.txt", FINDINGS, None, rf"{SUFFIX}, got e\.txt\."),
        ("e.1", FINDINGS, None, rf"{SUFFIX}, got e\.1\."),
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


@pytest.mark.parametrize("name", ["e", "e.npz", "e.parquet"])
@pytest.mark.parametrize("labeled", [True, False])
def test_what_was_written_is_read(embeddings, tmp_path, name, labeled):
    pytest.importorskip("pyarrow")
    if not labeled:
        embeddings.labels = None
    arrays = load_embeddings(embeddings.save(tmp_path / name, FINDINGS, SPLITS))
    expected = embedding_arrays(embeddings, SPLITS)
    expected = {**expected, "findings": np.array(FINDINGS)} if labeled else expected
    assert set(arrays) == set(expected) - (set() if labeled else {"label"})
    for key, value in arrays.items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_a_folder_is_mapped_into_memory_and_checked(embeddings, tmp_path):
    folder = embeddings.save(tmp_path / "e", FINDINGS, SPLITS)
    assert isinstance(load_embeddings(folder)["image_embeds"], np.memmap)
    assert json.loads((folder / "index.json").read_text())["studies"] == 3
    embeddings.labels = None
    embeddings.save(folder)  # over the other one, whose labels go
    assert sorted(path.stem for path in folder.iterdir()) == [
        "image_embeds", "index", "patient_id", "split", "study_id", "text_embeds"
    ]  # fmt: skip
    (folder / "split.npy").write_bytes((folder / "split.npy").read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"e cannot be read as embeddings: split\.npy does not have the \d+ bytes that were written\.$"
    ):
        load_embeddings(folder)
    (folder / "index.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"holds no index\.json: it is not a folder that medvl embed has finished\.$"
    ):
        load_embeddings(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must be a new folder, or one of embeddings, got one with notes\.txt\.$"):
        embeddings.save(folder)


@pytest.mark.parametrize("name", ["e", "e.npz", "e.csv"])
def test_blocks_of_rows_give_the_same_bytes(embeddings, tmp_path, name):
    arrays = embedding_arrays(embeddings, SPLITS)
    whole = write_embeddings(tmp_path / "whole" / name, FINDINGS, lambda key: [arrays[key]])
    parts = write_embeddings(tmp_path / "parts" / name, FINDINGS, lambda key: [arrays[key][:2], arrays[key][2:]])
    for one, other in zip(*(sorted([path, *path.rglob("*")]) for path in (whole, parts)), strict=True):
        assert one.is_dir() or one.read_bytes() == other.read_bytes()


def test_files_that_are_not_of_embeddings(embeddings, tmp_path):
    np.savez(tmp_path / "other.npz", study_id=np.array(["a"]))
    whole = embeddings.save(tmp_path / "e.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    arrays = dict(np.load(tmp_path / "e.npz"))
    np.savez(tmp_path / "short.npz", **{**arrays, "split": arrays["split"][:2]})
    np.savez(tmp_path / "numbers.npz", **{**arrays, "study_id": np.arange(3)})
    embeddings.save(tmp_path / "e.csv")
    for name, message in {
        "none": r"none does not exist\.$",
        "other.npz": r"other\.npz cannot be read as embeddings: it has no image_embeds\.$",
        "cut.npz": r"cut\.npz cannot be read as embeddings: it is damaged or cut off\.$",
        "short.npz": r"short\.npz cannot be read as embeddings: split is of the type <U1 and the shape \(2,\)\.$",
        "numbers.npz": r"numbers\.npz cannot be read as embeddings: study_id is of the type int64 and the shape \(3,\)\.$",
        "e.csv": r"^the file of embeddings must be a folder, \.npz or \.parquet file of medvl embed, got e\.csv\.$",
    }.items():
        with pytest.raises((OSError, ValueError), match=message):
            load_embeddings(tmp_path / name)


def test_sizes_are_limited(embeddings, tmp_path, monkeypatch):
    embeddings.save(tmp_path / "e.npz")
    monkeypatch.setenv("MEDVL_MAX_UNPACKED_BYTES", "170")
    with pytest.raises(ValueError, match=r"image_embeds must have at most 170 bytes unpacked"):
        load_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize("name", ["e", "e.npz", "e.parquet"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, name):
    if name == "e.parquet":
        pytest.importorskip("pyarrow")
    rows, width = 1000, 64

    def read(key):
        shape = {"image_embeds": (rows, width), "text_embeds": (rows, width), "label": (rows, 2)}.get(key)
        for part in range(80):
            yield np.array([f"{part}-{row}" for row in range(rows)]) if shape is None else np.zeros(shape, np.float32)

    tracemalloc.start()
    try:
        write_embeddings(tmp_path / name, ("a", "b"), read)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6, "80 parts of 0.5 MB are 41 MB"
    assert load_embeddings(tmp_path / name)["image_embeds"].shape == (80_000, 64)


def test_an_encrypted_archive_and_vectors_without_a_number_are_named(tmp_path, embeddings):
    path = tmp_path / "e.npz"
    content = bytearray(embeddings.save(path, FINDINGS, SPLITS).read_bytes())
    for start, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        found = -1
        while (found := content.find(start, found + 1)) >= 0:
            content[found + place] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"e\.npz cannot be read as embeddings: it is encrypted"):
        load_embeddings(path)
    none = np.zeros((2, 0), dtype=np.float32)
    ids = {name: np.array(["a", "b"]) for name in ("study_id", "patient_id", "split")}
    np.savez(path, image_embeds=none, text_embeds=none, **ids)
    with pytest.raises(ValueError, match=r"image_embeds is of the type float32 and the shape \(2, 0\)"):
        load_embeddings(path)
