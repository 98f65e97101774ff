"""Same inputs, same numbers as the implementations that exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from medvl.functional import sinkhorn
from medvl.losses import (
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    SemanticMatchingLoss,
    SigmoidContrastiveLoss,
)


@pytest.fixture
def embeds():
    generator = torch.Generator().manual_seed(3)
    return [F.normalize(torch.randn(6, 8, generator=generator)).requires_grad_() for _ in range(2)]


@pytest.fixture(scope="session")
def open_clip_loss():
    """open_clip's loss module alone: the package itself imports torchvision."""
    found = importlib.util.find_spec("open_clip")
    if found is None:
        pytest.skip("open_clip is not installed")
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(found.origin).with_name("loss.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def equal(ours, theirs, embeds):
    """Value and gradients; embeddings are unit vectors, whose gradients agree across the sphere."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    grads = [torch.autograd.grad(value, embeds) for value in (ours, theirs)]
    for x, mine, other in zip(embeds, *grads, strict=True):
        along = (other * x).sum(1, keepdim=True) * x
        torch.testing.assert_close(mine, other - along, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("tile_size", [None, 4])
class TestOpenClip:
    def test_clip_loss_written_out(self, embeds, scale, tile_size):
        logits = scale * embeds[0] @ embeds[1].T
        ground_truth = torch.arange(6)
        theirs = (F.cross_entropy(logits, ground_truth) + F.cross_entropy(logits.T, ground_truth)) / 2
        ours = ImageTextContrastiveLoss(image_weight=0.5, tile_size=tile_size)
        equal(ours(*embeds, logit_scale=torch.tensor(scale)), theirs, embeds)

    def test_clip_loss(self, embeds, scale, tile_size, open_clip_loss):
        ours = ImageTextContrastiveLoss(image_weight=0.5, tile_size=tile_size)
        theirs = open_clip_loss.ClipLoss()(*embeds, torch.tensor(scale))
        equal(ours(*embeds, logit_scale=torch.tensor(scale)), theirs, embeds)

    def test_siglip_loss_written_out(self, embeds, scale, tile_size):
        signs = 2 * torch.eye(6) - 1
        theirs = -F.logsigmoid(signs * (scale * embeds[0] @ embeds[1].T - 10.0)).sum() / 6
        ours = SigmoidContrastiveLoss(tile_size=tile_size)
        equal(ours(*embeds, logit_scale=torch.tensor(scale), logit_bias=torch.tensor(-10.0)), theirs, embeds)

    def test_siglip_loss(self, embeds, scale, tile_size, open_clip_loss):
        theirs = open_clip_loss.SigLipLoss()(*embeds, torch.tensor(scale), torch.tensor(-10.0))
        equal(SigmoidContrastiveLoss(1 / scale, tile_size=tile_size)(*embeds), theirs, embeds)


@pytest.mark.parametrize("tile_size", [None, 4])
def test_medclip_released_form(embeds, tile_size):
    """Soft cross entropy of logits / temperature against the softmax of the labels' dot products, both ways."""
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.randint(-1, 2, (6, 14), generator=generator).float() for _ in range(2))
    logits = embeds[0] @ embeds[1].T / 0.07
    label_sim = a @ b.T
    images = -(label_sim.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    texts = -(label_sim.T.softmax(1) * logits.T.log_softmax(1)).sum(1).mean()
    ours = SemanticMatchingLoss(0.07, similarity="dot", tile_size=tile_size)(*embeds, a, b)
    equal(ours, (images + texts) / 2, embeds)


@pytest.mark.parametrize("tile_size", [None, 4])
def test_unicl_for_single_labels(embeds, tile_size):
    """Supervised contrast over image-text pairs: every text of an image's class is its positive, and the reverse."""
    classes = torch.tensor([0, 1, 0, 2, 2, 0])
    logits = embeds[0] @ embeds[1].T / 0.07
    positive = (classes[:, None] == classes).float()
    images = -((positive * logits.log_softmax(1)).sum(1) / positive.sum(1)).mean()
    texts = -((positive * logits.log_softmax(0)).sum(0) / positive.sum(0)).mean()
    labels = F.one_hot(classes)
    ours = ImageTextLabelContrastiveLoss(0.07, tile_size=tile_size)(*embeds, labels, labels)
    equal(ours, (images + texts) / 2, embeds)


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01])
def test_pot_sinkhorn(epsilon):
    ot = pytest.importorskip("ot")
    cost = torch.rand(3, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plans = sinkhorn(cost, epsilon, tolerance=1e-10)
    for plan, matrix in zip(plans, cost, strict=True):
        theirs = ot.sinkhorn(
            torch.full((9,), 1 / 9).double().numpy(),
            torch.full((4,), 1 / 4).double().numpy(),
            matrix.numpy(),
            epsilon,
            method="sinkhorn_log",
            stopThr=1e-9,
            numItermax=2000,
        )
        torch.testing.assert_close(plan, torch.from_numpy(theirs), rtol=1e-5, atol=1e-8)
