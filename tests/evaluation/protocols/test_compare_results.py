"""Results of every protocol can be compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medvl.evaluation import (
    BootstrapConfig,
    Embeddings,
    compare,
    label_retrieval,
    linear_probe,
    retrieval,
    zero_shot,
    zero_shot_single_label,
)

NAMES = ["Edema", "Fracture"]
PROMPTS = {name: {"present": [name], "absent": [f"no {name}"]} for name in NAMES}


def encode(texts):
    return torch.stack(
        [(-1 if text.startswith("no") else 1) * torch.eye(6)[NAMES.index(text.split()[-1])] for text in texts]
    )


def embeddings(first, noise, number=160):
    generator = torch.Generator().manual_seed(first)
    labels = (torch.rand(number, 2, generator=generator) < 0.4).float()
    text = (2 * labels - 1) @ torch.eye(6)[:2] + 0.5 * torch.randn(number, 6, generator=generator)
    image = text + noise * torch.randn(number, 6, generator=generator)
    labels[torch.rand(number, 2, generator=generator) < 0.1] = torch.nan
    return Embeddings(image, text, labels=labels, patient_ids=[f"p{first + i}" for i in range(number)])


PROTOCOLS = {
    "zero_shot": (
        lambda given: zero_shot(given, PROMPTS, encode, NAMES, bootstrap=BootstrapConfig(n_resamples=5)),
        "auroc",
    ),
    "single_label": (
        lambda given: zero_shot_single_label(
            given, {n: [n] for n in NAMES}, encode, NAMES, per_class=20, bootstrap=BootstrapConfig(n_resamples=5)
        ),
        "accuracy",
    ),
    "retrieval": (
        lambda given: retrieval(given, bootstrap=BootstrapConfig(n_resamples=5), shuffles=0),
        "image_to_text/mean_rank",
    ),
    "label_retrieval": (
        lambda given: label_retrieval(
            given, NAMES, NAMES, ks=[5], per_class=15, queries_per_class=4, bootstrap=BootstrapConfig(n_resamples=5)
        ),
        "image_to_image/precision_at_5",
    ),
    "linear_probe": (
        lambda given: linear_probe(
            embeddings(1000, 1.0),
            embeddings(2000, 1.0),
            given,
            NAMES,
            fractions=[0.5],
            bootstrap=BootstrapConfig(n_resamples=5),
        ).fractions[0.5],
        "auroc",
    ),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_of_every_protocol_can_be_compared(protocol):
    run, name = PROTOCOLS[protocol]
    good, poor = run(embeddings(0, 0.3)), run(embeddings(0, 3.0))
    found = compare(good, poor, bootstrap=BootstrapConfig(n_resamples=200))
    sign = -1 if name.endswith("rank") else 1
    assert sign * found.differences[name].difference.value > 0
    assert found.differences[name].p_value < 0.05
    assert found.differences[name].first == float(
        good.statistics(np.ones((1, len(good.study_ids)), np.float32))[name][0]
    )
    assert len(good.case_table())
    json.dumps(found.to_dict(), allow_nan=False)
