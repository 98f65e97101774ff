"""Similarity of images to classes against a loop over prompts."""

from __future__ import annotations

import pytest
import torch

from medvl.functional import class_embeddings, class_similarity


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


def test_wrong_arguments_are_named():
    prompts, images = torch.eye(3), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"every class needs a prompt; classes \[1\] of 3 have none"):
        class_embeddings(prompts, torch.tensor([0, 0, 2]))
    with pytest.raises(ValueError, match=r"from 0 to 1; received \[0, 1, 2\]"):
        class_embeddings(prompts, torch.arange(3), num_classes=2)
    with pytest.raises(ValueError, match=r"prompt_classes \(P,\), P at least 1; received \(3, 3\) and \(2,\)"):
        class_embeddings(prompts, torch.arange(2))
    with pytest.raises(ValueError, match=r"one width; received \(2, 2\) and \(3, 3\)"):
        class_similarity(images[:, :2], prompts, torch.arange(3))
    with pytest.raises(ValueError, match="ensemble must be 'mean' or 'max'; received 'sum'"):
        class_similarity(images, prompts, torch.arange(3), "sum")
