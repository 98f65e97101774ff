"""Similarity of images to classes against a loop over prompts."""

from __future__ import annotations

import re

import pytest
import torch

from medvl.functional import class_embeddings, class_similarity, finding_margins
from medvl.functional.zero_shot import DEFAULT_LOGIT_SCALE, get_logit_scale


def naive(image, prompts, ensemble):
    units = [p / p.norm() for p in prompts]
    if ensemble == "mean":
        mean = sum(units) / len(units)
        units = [mean / mean.norm()]
    return max(float(image @ u / image.norm()) for u in units)


@pytest.mark.parametrize("ensemble", ["mean", "max"])
def test_similarity_equals_a_loop(ensemble):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    prompts = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    classes = torch.tensor([2, 0, 0, 1, 2, 2, 1, 0, 0])
    found = class_similarity(images, prompts, classes, ensemble)
    for n in range(7):
        for c in range(3):
            assert found[n, c].item() == pytest.approx(naive(images[n], prompts[classes == c], ensemble), abs=1e-12)
    # An image's scores are its own, whatever else is in the batch; and negative ones stay so.
    torch.testing.assert_close(class_similarity(images[2:3] * 9, prompts, classes, ensemble), found[2:3])
    assert (found < 0).any()


@pytest.mark.parametrize("ensemble", ["mean", "max"])
def test_a_zero_vector_is_similar_to_nothing(ensemble):
    images = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    found = class_similarity(images, torch.eye(2), torch.tensor([1, 0]), ensemble)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.8, 0.6]]))
    found.sum().backward()
    assert images.grad.abs().max() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_embeddings(torch.eye(3), torch.tensor([0, 0, 2])),
         "prompt_classes must hold every class, got none for classes [1] of 3."),
        (lambda: class_embeddings(torch.eye(3), torch.tensor([0, 1, 1]), num_classes=3),
         "prompt_classes must hold every class, got none for classes [2] of 3."),
        (lambda: class_embeddings(torch.eye(3), torch.arange(3), num_classes=2),
         "prompt_classes must be from 0 to 1, got [0, 1, 2]."),
        (lambda: class_embeddings(torch.eye(3), torch.arange(3) - 1), "prompt_classes must be from 0 to 1, got [-1, 0, 1]."),
        (lambda: class_embeddings(torch.eye(3), torch.arange(2)),
         "prompt_embeds and prompt_classes must have shapes (P, D) and (P,) with P at least 1, got (3, 3) and (2,)."),
        (lambda: class_embeddings(torch.ones(0, 3), torch.arange(0)),
         "prompt_embeds and prompt_classes must have shapes (P, D) and (P,) with P at least 1, got (0, 3) and (0,)."),
        (lambda: class_embeddings(torch.ones(3), torch.arange(3)),
         "prompt_embeds and prompt_classes must have shapes (P, D) and (P,) with P at least 1, got (3,) and (3,)."),
        (lambda: class_similarity(torch.ones(2, 2), torch.eye(3), torch.arange(3)),
         "image_embeds and prompt_embeds must have shapes (N, D) and (P, D), got (2, 2) and (3, 3)."),
        (lambda: class_similarity(torch.ones(3), torch.eye(3), torch.arange(3)),
         "image_embeds and prompt_embeds must have shapes (N, D) and (P, D), got (3,) and (3, 3)."),
        (lambda: class_similarity(torch.ones(2, 3), torch.eye(3), torch.arange(3), "sum"),
         "ensemble must be one of 'mean', 'max', got 'sum'."),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_margins_are_present_minus_absent():
    similarity = torch.tensor([[0.75, 0.5, 0.25, 0.5, 1.0, -1.0], [0.0, 1.0, 0.5, 0.5, 0.0, 0.25]])
    assert finding_margins(similarity).tolist() == [[0.25, -0.25, 2.0], [-1.0, 0.0, -0.25]]
    assert finding_margins(similarity.numpy()).tolist() == finding_margins(similarity).tolist()


@pytest.mark.parametrize("ensemble", ["mean", "max"])
@pytest.mark.parametrize(
    ("image", "prompt", "expected"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float64),
        (torch.bfloat16, torch.float16, torch.float32),
    ],
)
def test_similarity_of_mixed_dtypes(ensemble, image, prompt, expected):
    images, prompts = torch.tensor([[3.0, 4.0]]).to(image), torch.tensor([[2.0, 0.0], [0.0, 0.5]]).to(prompt)
    found = class_similarity(images, prompts, torch.tensor([1, 0]), ensemble)
    assert found.dtype == expected
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6]], dtype=expected))
    assert class_embeddings(prompts, torch.tensor([1, 0])).dtype == torch.promote_types(prompt, torch.float32)


def test_logit_scale_of_a_network():
    class Wrapped(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    class Scaled(torch.nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.logit_scale = scale

    class Scale(torch.nn.Module):
        def forward(self):
            return torch.tensor(5.0, requires_grad=True)

    assert get_logit_scale(torch.nn.Linear(1, 1)) == DEFAULT_LOGIT_SCALE == 1 / 0.07
    assert get_logit_scale(Scaled(4)) == 4.0
    assert get_logit_scale(Scaled(Scale())) == 5.0
    assert get_logit_scale(Wrapped(Scaled(torch.tensor(3.0)))) == 3.0


@pytest.mark.parametrize("ensemble", ["mean", "max"])
@pytest.mark.parametrize("number", [1, 3])
def test_class_similarity_checks_the_number_of_classes(ensemble, number):
    images, prompts, classes = torch.ones(1, 2), torch.eye(2), torch.tensor([0, 1])
    assert class_similarity(images, prompts, classes, num_classes=2, ensemble=ensemble).shape == (1, 2)
    with pytest.raises(ValueError, match=r"^prompt_classes must "):
        class_similarity(images, prompts, classes, num_classes=number, ensemble=ensemble)
