"""Losses on plain tensors, each a thin class over one function of :mod:`medvl.functional`."""

from medvl.losses.combined import CombinedLoss
from medvl.losses.image_text_contrastive import ImageTextContrastiveLoss

__all__ = [
    "CombinedLoss",
    "ImageTextContrastiveLoss",
]
