"""Label-match retrieval against a loop, and its traps."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

from medvl.evaluation import BootstrapConfig, Embeddings, label_retrieval

NAMES = ["Edema", "Fracture", "Pneumonia"]


def studies(number=240, seed=0, noise=1.0, patients=2):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (number,), generator=generator)
    image = torch.eye(8)[classes] + noise * torch.randn(number, 8, generator=generator)
    labels = torch.eye(3)[classes]
    return Embeddings(image, image, labels=labels, patient_ids=[f"p{i // patients}" for i in range(number)])


def encode(texts):
    return torch.stack([torch.eye(8)[NAMES.index(text.split()[-1])] + 0.02 * len(text) for text in texts])


TEXTS = {name: [f"{word} {name}" for word in ("a", "the", "some")] for name in NAMES}


def naive_precision(query, own, candidates, labels, k):
    scores = [float(torch.nn.functional.cosine_similarity(query, row, dim=0)) for row in candidates]
    order = sorted(range(len(scores)), key=lambda j: (-round(scores[j], 6), labels[j] == own))
    return sum(labels[j] == own for j in order[:k]) / k


def test_precision_equals_a_loop_for_image_and_text_queries():
    embeddings = studies()
    result = label_retrieval(
        embeddings,
        NAMES,
        NAMES,
        class_prompts=TEXTS,
        encode_text=encode,
        per_class=30,
        queries_per_class=4,
        ks=[5, 50],
        bootstrap=BootstrapConfig(n_resamples=50),
    )
    row_of = {study: row for row, study in enumerate(embeddings.study_ids)}
    rows = [row_of[study] for study in result.candidate_ids]
    shown = embeddings.labels.argmax(1)
    candidates, labels = embeddings.image[rows], shown[rows].tolist()
    asked = {
        "image_to_image": [
            (embeddings.image[row_of[q]], int(shown[row_of[q]])) for q in result.queries["image_to_image"].query_ids
        ],
        "text_to_image": [
            (encode([t])[0], NAMES.index(t.split()[-1])) for t in result.queries["text_to_image"].query_ids
        ],
    }
    assert len(asked["image_to_image"]) == 12
    assert len(asked["text_to_image"]) == 9
    for kind, queries in asked.items():
        for column, k in enumerate((5, 50)):
            expected = [naive_precision(query, own, candidates, labels, k) for query, own in queries]
            np.testing.assert_allclose(result.queries[kind].precisions[:, column], expected)
            estimate = result.queries[kind].values[f"precision_at_{k}"]
            assert estimate.value == pytest.approx(np.mean(expected))
            assert estimate.low <= estimate.value <= estimate.high
    assert sorted(labels) == [0] * 30 + [1] * 30 + [2] * 30
    assert result.chance == {"image_to_image": pytest.approx(1 / 3), "text_to_image": pytest.approx(1 / 3)}
    table = result.case_table()
    assert table[table.kind == "text_to_image"]["precision_at_5"].mean() == pytest.approx(
        result.queries["text_to_image"].values["precision_at_5"].value
    )
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["image_to_image"]["precision_at_50"]["value"] > content["image_to_image"]["chance"]
    assert "Text queries, P@5" in result.table()


def test_no_patient_finds_itself():
    embeddings = studies(patients=6)
    result = label_retrieval(
        embeddings, NAMES, NAMES, per_class=20, queries_per_class=3, bootstrap=BootstrapConfig(n_resamples=2)
    )
    patient = dict(zip(embeddings.study_ids, embeddings.patient_ids, strict=True))
    asking = {patient[study] for study in result.queries["image_to_image"].query_ids}
    assert not asking & {patient[study] for study in result.candidate_ids}


def test_an_untrained_model_scores_at_chance_and_a_collapsed_one_below():
    blind = studies(number=1200, noise=1.0)
    blind.image = torch.nn.functional.normalize(torch.randn(1200, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    result = label_retrieval(
        blind, NAMES, NAMES, per_class=200, queries_per_class=40, ks=[50], bootstrap=BootstrapConfig(n_resamples=2)
    )
    assert result.queries["image_to_image"].values["precision_at_50"].value == pytest.approx(1 / 3, abs=0.04)
    flat = Embeddings(torch.ones(1200, 8), torch.ones(1200, 8), labels=blind.labels)
    result = label_retrieval(
        flat, NAMES, NAMES, per_class=200, queries_per_class=10, ks=[50], bootstrap=BootstrapConfig(n_resamples=2)
    )
    assert result.queries["image_to_image"].values["precision_at_50"].value == 0


def test_fewer_candidates_than_k_are_undefined_with_a_warning():
    with pytest.warns(RuntimeWarning, match="Precision at 50 is undefined among 30 candidates"):
        result = label_retrieval(
            studies(), NAMES, NAMES, per_class=10, queries_per_class=2, bootstrap=BootstrapConfig(n_resamples=5)
        )
    values = result.queries["image_to_image"].values
    assert math.isnan(values["precision_at_50"].value)
    assert values["precision_at_10"].value > 0
    json.dumps(result.to_dict(), allow_nan=False)


def test_too_few_studies_are_told():
    with pytest.warns(RuntimeWarning, match=r"\d+ in place of 500 candidates of each class, as there are no more of"):
        label_retrieval(
            studies(),
            NAMES,
            NAMES,
            per_class=500,
            queries_per_class=2,
            ks=[5],
            bootstrap=BootstrapConfig(n_resamples=2),
        )
    with pytest.raises(ValueError, match=r"No candidates are left that show one class alone, of Edema"):
        label_retrieval(studies(patients=240), NAMES, NAMES, ks=[5])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"ks must be depths of at least 1, got \[\]"):
        label_retrieval(studies(), NAMES, NAMES, ks=[])
    with pytest.raises(ValueError, match="encode_text must be a model or a function"):
        label_retrieval(studies(), NAMES, NAMES, class_prompts=TEXTS, per_class=20, queries_per_class=2)
    options = {"encode_text": encode, "per_class": 20, "queries_per_class": 2}
    for wrong in ([], "Edema", {"present": ["Edema"], "absent": ["No edema"]}):
        message = f"class_prompts['Edema'] must be a list of at least one string, got {wrong!r}."
        with pytest.raises(ValueError, match=re.escape(message)):
            label_retrieval(studies(), NAMES, NAMES, class_prompts={**TEXTS, "Edema": wrong}, **options)
