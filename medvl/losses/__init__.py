"""Losses on plain tensors, each a thin class over one function of :mod:`medvl.functional`."""

from medvl.losses.combined import CombinedLoss
from medvl.losses.image_text_contrastive import ImageTextContrastiveLoss
from medvl.losses.image_text_label_contrastive import ImageTextLabelContrastiveLoss
from medvl.losses.masked_patch import MaskedPatchLoss
from medvl.losses.patch_sentence_matching import PatchSentenceMatchingLoss
from medvl.losses.semantic_matching import SemanticMatchingLoss
from medvl.losses.semantic_sentence import SemanticSentenceLoss
from medvl.losses.sigmoid_contrastive import SigmoidContrastiveLoss

__all__ = [
    "CombinedLoss",
    "ImageTextContrastiveLoss",
    "ImageTextLabelContrastiveLoss",
    "MaskedPatchLoss",
    "PatchSentenceMatchingLoss",
    "SemanticMatchingLoss",
    "SemanticSentenceLoss",
    "SigmoidContrastiveLoss",
]
