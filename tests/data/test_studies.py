"""The studies of a run, the synthetic data set among them, and the texts of a tokenizer."""

from __future__ import annotations

import pytest

from medvl.data import load_studies, table_path, text_corpus
from medvl.data.study_list import StudyList


def test_the_synthetic_data_set_is_saved_and_read(tmp_path):
    seen = []
    manifest = load_studies(
        "synthetic",
        tmp_path,
        seed=3,
        synthetic_length=12,
        synthetic_size=32,
        columns={"image_column": "image", "label_column": None},
        progress=lambda items: (seen.append(i) or i for i in items),
    )
    assert seen == list(range(12))
    assert manifest.name == "cases.csv"
    assert [study["study_id"] for study in manifest.studies] == [f"syn3-s{i:06d}" for i in range(12)]
    assert table_path("synthetic", tmp_path) == tmp_path / "data" / "cases.csv"
    assert table_path("cases.csv", tmp_path).name == "cases.csv"


def test_three_dimensions_are_ct(tmp_path):
    manifest = load_studies("synthetic", tmp_path, synthetic_length=10, synthetic_size=32, spatial_dims=3)
    assert manifest.studies[0]["image"].endswith("images/synct0-s000000.nii.gz")
    with pytest.raises(ValueError, match=r"^spatial_dims must be one of 2, 3, got 4\.$"):
        load_studies("synthetic", tmp_path, spatial_dims=4)


def test_required_keys_are_counted_after_the_split(tmp_path):
    table = tmp_path / "cases.csv"
    rows = "".join(f",Text {i}.,{'Edema' if i % 2 else ''}\n" for i in range(20))
    table.write_text("image,report,finding\n" + rows)
    every = load_studies(table, tmp_path, required_keys=["report"], columns={"label_column": "finding"})
    labeled = load_studies(table, tmp_path, required_keys=["report", "label"], columns={"label_column": "finding"})
    assert (len(every), len(labeled), labeled.dropped) == (20, 10, {"label": 10})
    split_of = {study["study_id"]: study["split"] for study in every.studies}
    assert all(split_of[study["study_id"]] == study["split"] for study in labeled.studies)


def test_a_corpus_has_each_text_and_prompt_once():
    texts = [{"sentences": ["Edema.", "Stable."]}, {"text": "Edema."}, {"report": " "}, {"label": [1.0]}]
    studies = [{"study_id": str(i), "patient_id": f"p{i}", **text} for i, text in enumerate(texts)]
    assert list(text_corpus(studies).texts) == ["Edema.", "Stable."]
    assert text_corpus(studies, ["COVID-19"], limit=1).texts[2:] == ["COVID-19.", "No COVID-19.", "Possible COVID-19."]


def test_a_corpus_has_the_patients_of_each_text():
    rows = [("1", "p", "Edema."), ("2", "p", "Edema."), ("3", None, "Edema."), ("4", None, "Stable.")]
    studies = [{"study_id": s, "text": text, **({"patient_id": p} if p else {})} for s, p, text in rows]
    first, second = {("patient", "p"), ("study", "3")}, {("study", "4")}
    assert list(map(list, text_corpus(studies))) == [["Edema.", "Stable."], [first, second]]
    each = text_corpus(studies, unique=False)
    assert list(each.texts) == ["Edema."] * 3 + ["Stable."]
    assert list(each.patients) == [{("patient", "p")}, {("patient", "p")}, {("study", "3")}, {("study", "4")}]
    assert list(text_corpus(studies, unique=False, of_patients=False).patients) == [set()] * 4
    assert [len(patients) for patients in text_corpus(studies, max_patients=1).patients] == [1, 1]
    held = StudyList()
    for row, study in enumerate(studies):
        ids = {key: study[key] for key in ("study_id", "patient_id") if key in study}
        held.append({**ids, "row": row, "report": study["text"]})
    for unique in (True, False):
        expected = text_corpus(studies, ["COVID-19"], unique=unique)
        assert list(map(list, text_corpus(held, ["COVID-19"], unique=unique))) == list(map(list, expected))
    written = text_corpus([*studies, {"study_id": "5", "text": "No COVID-19."}], ["COVID-19"], limit=1)
    assert dict(zip(*written, strict=True))["No COVID-19."] == set()
