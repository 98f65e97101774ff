"""Between the call of a loss and its matrix product there is next to nothing to read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import medvl
from medvl.losses import (
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SemanticSentenceLoss,
    SigmoidContrastiveLoss,
)

PACKAGE = str(Path(medvl.__file__).parent)


class Product(TorchDispatchMode):
    """Notes the first matrix product."""

    done = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.done = self.done or func.overloadpacket.__name__ in ("mm", "bmm")
        return func(*args, **(kwargs or {}))


def entered_before_the_product(loss, *arguments):
    """Functions of medvl, with their files, that are entered from ``forward`` to the first matrix product."""
    entered, product = {}, Product()

    def profile(frame, event, _argument):
        if event == "call" and not product.done and frame.f_code.co_filename.startswith(PACKAGE):
            entered[frame.f_code] = frame.f_code.co_filename

    with product:
        sys.setprofile(profile)
        try:
            loss(*arguments)
        finally:
            sys.setprofile(None)
    assert product.done
    return entered


GENERATOR = torch.Generator().manual_seed(0)
EMBEDS, LABELS, PARTS, PART_LABELS = (
    torch.randn(*shape, generator=GENERATOR) for shape in ((4, 8), (4, 3), (4, 5, 8), (4, 5, 3))
)


@pytest.mark.parametrize(
    ("loss", "arguments", "functions", "files"),
    [
        (SemanticMatchingLoss(), (EMBEDS, EMBEDS, LABELS, LABELS), 3, 2),
        (ImageTextContrastiveLoss(), (EMBEDS, EMBEDS), 3, 2),
        (ImageTextLabelContrastiveLoss(), (EMBEDS, EMBEDS, LABELS, LABELS), 3, 2),
        (SigmoidContrastiveLoss(), (EMBEDS, EMBEDS), 3, 3),
        (PatchSentenceMatchingLoss(), (PARTS, PARTS), 6, 3),
        # Which sentences, of which texts, is read before anything is scored.
        (SemanticSentenceLoss(), (PARTS, PARTS, LABELS, PART_LABELS), 22, 9),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
def test_functions_and_files_from_forward_to_the_product(loss, arguments, functions, files):
    entered = entered_before_the_product(loss, *arguments)
    assert len(entered) <= functions
    assert len(set(entered.values())) <= files
