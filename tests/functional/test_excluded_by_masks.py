"""What a mask excludes may hold anything: value and gradient are those that any other content would give."""

from __future__ import annotations

import math

import pytest
import torch

from medvl.functional import masked_mean, patch_sentence_plan, segment_mean, semantic_integrity, sinkhorn
from medvl.losses import (
    ImageTextLabelContrastiveLoss,
    MaskedPatchLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SemanticSentenceLoss,
    SigmoidContrastiveLoss,
)
from medvl.networks import PatchSentenceAligner
from medvl.networks.encoders.pooling import POOLINGS

N, M, P, S, D, K = 3, 4, 5, 3, 6, 4
GENERATOR = torch.Generator().manual_seed(4)
PATCHES, SENTENCES, OWN = (torch.randn(*shape, D, generator=GENERATOR) for shape in ((N, P), (M, S), (N, S)))
EMBEDS = torch.randn(N, D, generator=GENERATOR), torch.randn(M, D, generator=GENERATOR)
LABELS = (
    torch.randint(-1, 2, (N, K), generator=GENERATOR).float(),
    torch.randint(-1, 2, (M, K), generator=GENERATOR).float(),
)
SENTENCE_STATES = torch.randint(-1, 2, (M, S, K), generator=torch.Generator().manual_seed(5)).float()
PATCH_MASK = torch.rand(N, P, generator=GENERATOR) < 0.6
SENTENCE_MASK = torch.tensor([[True, False, True], [False, True, False], [True, True, True], [False, False, False]])
LABEL_MASKS = torch.rand(N, K, generator=GENERATOR) < 0.6, torch.rand(M, K, generator=GENERATOR) < 0.6
TOKENS, TOKEN_MASK = torch.randn(M, 5, D, generator=GENERATOR), torch.tensor([[1, 1, 1, 0, 0]] * M).bool()
IDS = {"image_ids": ["a", "b", "c"], "text_ids": ["c", "a", "b", "b"]}


def with_labels(loss):
    return lambda a, b, p, q: loss(*EMBEDS, image_labels=a, text_labels=b, image_label_mask=p, text_label_mask=q)


def aligned(alignment, key):
    return lambda p, s, q, t: PatchSentenceAligner(alignment)(p, s, (1, P), q, t)[key]


# By name: a function, its tensors, and for each the mask of what counts (None: everything).
PAIR_MASK = PATCH_MASK.unsqueeze(2) & SENTENCE_MASK[:N].unsqueeze(1)  # (N, P, S)
CASES = {
    **{
        f"patch-sentence loss {alignment} {tile_size}": (
            lambda p, s, q, t, loss=PatchSentenceMatchingLoss(alignment=alignment, tile_size=tile_size): loss(
                p, s, q, t, **IDS
            ),
            (PATCHES, SENTENCES),
            (PATCH_MASK, SENTENCE_MASK),
        )
        for alignment in ("transport", "attention", "max")
        for tile_size in (None, 2)
    },
    **{
        f"sentences {alignment} {tuple(labels.shape)}": (
            lambda p, s, q, t, loss=SemanticSentenceLoss(alignment=alignment), labels=labels: loss(
                p, s, LABELS[0], labels, q, t
            ),
            (PATCHES, SENTENCES),
            (PATCH_MASK, SENTENCE_MASK),
        )
        for alignment in ("transport", "attention", "max")
        for labels in (LABELS[1], SENTENCE_STATES)
    },
    **{
        f"aligner {alignment} {key}": (aligned(alignment, key), (PATCHES, OWN), (PATCH_MASK, SENTENCE_MASK[:N]))
        for alignment in ("transport", "attention", "max")
        for key in ("scores", "sentence_scores", "maps")
    },
    "semantic integrity": (
        lambda p, s, q, t: semantic_integrity(p, s, PATCH_MASK.flip(0), q, t),
        (PATCHES, OWN),
        (PATCH_MASK, SENTENCE_MASK[:N]),
    ),
    "transport": (
        lambda c, _: sinkhorn(c, 0.3, PATCH_MASK, SENTENCE_MASK[:N]) * torch.arange(S),
        (torch.rand(N, P, S, generator=GENERATOR),),
        (PAIR_MASK,),
    ),
    **{
        f"plan {alignment}": (
            lambda c, _, alignment=alignment: patch_sentence_plan(c, PATCH_MASK, SENTENCE_MASK[:N], alignment)
            * torch.arange(S),
            (torch.rand(N, P, S, generator=GENERATOR),),
            (PAIR_MASK,),
        )
        for alignment in ("transport", "attention", "max")
    },
    "masked patches": (
        lambda x, y, *_: MaskedPatchLoss(1)(x, y.reshape(N, 1, 1, P), PATCH_MASK),
        (torch.randn(N, P, 1, generator=GENERATOR), torch.randn(N, P, 1, generator=GENERATOR)),
        (~PATCH_MASK, ~PATCH_MASK),
    ),
    "masked mean": (masked_mean, (TOKENS,), (TOKEN_MASK,)),
    "segments": (lambda x, m: segment_mean(x, torch.zeros(M, 5).long().where(m, -1), 2)[0], (TOKENS,), (TOKEN_MASK,)),
    **{
        f"pooling {name}": (lambda x, m, pool=pool: pool((x, x, x, x), m), (TOKENS,), (TOKEN_MASK,))
        for name, pool in POOLINGS.items()
    },
    **{
        f"labels {type(loss).__name__}": (with_labels(loss), LABELS, LABEL_MASKS)
        for loss in (SemanticMatchingLoss(), ImageTextLabelContrastiveLoss(), SigmoidContrastiveLoss())
    },
}  # fmt: skip


def value_and_gradients(name, content):
    function, tensors, masks = CASES[name]
    filled = []
    for tensor, mask in zip(tensors, masks, strict=True):
        hidden = ~mask.reshape(*mask.shape, *[1] * (tensor.ndim - mask.ndim))
        filled.append(tensor.masked_fill(hidden, content).requires_grad_())
    value = function(*filled, *masks)
    gradients = [None] * len(filled)
    if value.requires_grad:
        weights = torch.arange(value.numel(), dtype=value.dtype).reshape(value.shape).sin()
        gradients = torch.autograd.grad((value * weights).sum(), filled, allow_unused=True)
    return value.detach(), gradients


@pytest.mark.parametrize("content", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_what_a_mask_excludes_counts_neither_in_the_value_nor_in_the_gradient(name, content):
    expected, expected_gradients = value_and_gradients(name, 0.25)
    value, gradients = value_and_gradients(name, content)
    assert expected.isfinite().all()
    assert torch.equal(value, expected)
    for gradient, like, mask in zip(gradients, expected_gradients, CASES[name][2], strict=True):
        assert (gradient is None) == (like is None)
        if gradient is not None:
            assert torch.equal(gradient, like)
            assert gradient[~mask].abs().sum() == 0
