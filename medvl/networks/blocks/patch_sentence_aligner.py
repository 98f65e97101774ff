"""Maps over an image of the patches that correspond to each sentence."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from medvl.functional import l2_normalize, patch_sentence_plan
from medvl.functional.alignment import ALIGNMENTS
from medvl.utils.checks import check_option, check_positive, error_message
from medvl.utils.tensors import as_mask, as_matrix, check_same_size, hide_masked

UPSAMPLING = {1: "linear", 2: "bilinear", 3: "trilinear"}


class PatchSentenceAligner(nn.Module):
    r"""Aligns the patches of image i with the sentences of text i, as maps over the image.

    With cosine similarities c_ps and the plan T of :func:`medvl.functional.patch_sentence_plan` (transport, attention or max;
    see :class:`medvl.losses.PatchSentenceMatchingLoss`)::

        scores_i = sum_ps T_ps c_ps,    maps_s[p] = T_ps (1 + c_ps) / sum_q T_qs (1 + c_qs)

    A map is non-negative, larger for more relevant patches, and sums to 1 over the patches. The factor 1 + c orders patches
    when the plan alone does not: with a single sentence, every patch has the same mass. The module has no parameters. The
    formula is ours.

    Args:
        alignment: "transport", "attention" or "max".
        epsilon: entropic regularization of the transport, above 0, in units of cosine similarity.
        attention_temperature: temperature of the attention's softmax, above 0.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]]])
        >>> aligner = PatchSentenceAligner("attention", attention_temperature=1.0)
        >>> output = aligner(patches, torch.tensor([[[1.0, 0.0]]]), grid=(2, 2))
        >>> [[round(value, 4) for value in row] for row in output["maps"][0, 0].tolist()]
        [[0.7311, 0.1345], [0.1345, 0.0]]
    """

    def __init__(self, alignment: str = "transport", epsilon: float = 0.05, attention_temperature: float = 0.1) -> None:
        super().__init__()
        check_option(alignment, "alignment", ALIGNMENTS)
        check_positive(epsilon, "epsilon")
        check_positive(attention_temperature, "attention_temperature")
        self.options: dict[str, Any] = {
            "alignment": alignment,
            "epsilon": epsilon,
            "attention_temperature": attention_temperature,
        }

    def forward(
        self,
        patch_embeds: torch.Tensor,
        sentence_embeds: torch.Tensor,
        grid: Sequence[int],
        patch_mask: torch.Tensor | None = None,
        sentence_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Align N images with their N texts (or one image with N texts, or N images with one text).

        Args:
            patch_embeds: (N, P, D) in row-major order of the grid, scaled to unit length here.
            sentence_embeds: (N, S, D), scaled to unit length here.
            grid: (h, w[, d]), whose product is P.
            patch_mask: (N, P), True for patches to keep.
            sentence_mask: (N, S), True for sentences to keep. What a mask excludes may hold any value, NaN too.

        Returns:
            ``scores`` (N,) in [-1, 1], ``sentence_scores`` (N, S), the mean cosine similarity of each sentence under
            its map, and ``maps`` (N, S, h, w[, d]). Masked elements are 0.

        Raises:
            ValueError: If shapes are inconsistent, or the numbers of images and texts differ and neither is 1.
        """
        patches = as_matrix(patch_embeds, "patch_embeds", "N, P, D")
        sentences = as_matrix(sentence_embeds, "sentence_embeds", "N, S, D")
        grid = tuple(int(n) for n in grid)
        if prod(grid) != patches.shape[1]:
            raise ValueError(error_message("grid", f"have {patches.shape[1]} cells, one for each patch", grid))
        check_same_size(patches, sentences, 2, ("patch_embeds", "sentence_embeds"), "width D")
        if patches.shape[0] != sentences.shape[0] and 1 not in (patches.shape[0], sentences.shape[0]):
            received = f"{patches.shape[0]} and {sentences.shape[0]}"
            expected = "have the same number of rows, or one of them a single row"
            raise ValueError(error_message("patch_embeds and sentence_embeds", expected, received))
        patches = hide_masked(patches, patch_mask, "patch_mask")
        sentences = hide_masked(sentences, sentence_mask, "sentence_mask")
        keep_patches = as_mask(patch_mask, "patch_mask", patches)
        keep_sentences = as_mask(sentence_mask, "sentence_mask", sentences)
        dtype = torch.promote_types(patches.dtype, sentences.dtype)
        with torch.autocast(patches.device.type, enabled=False):
            cosine = l2_normalize(patches.to(dtype)) @ l2_normalize(sentences.to(dtype)).mT  # (N, P, S)
            count = len(cosine)
            keep_patches = keep_patches.expand(count, -1)
            keep_sentences = keep_sentences.expand(count, -1)
            plan = patch_sentence_plan(cosine, keep_patches, keep_sentences, **self.options)
            # Rounding may yield a cosine slightly below -1.
            relevance = plan * (1 + cosine).clamp_min(0)
            maps = relevance / relevance.sum(1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
        return {
            "scores": (plan * cosine).sum((1, 2)),
            "sentence_scores": (maps * cosine).sum(1),
            "maps": maps.mT.reshape(count, -1, *grid),
        }

    @staticmethod
    def heatmaps(maps: torch.Tensor, size: Sequence[int], normalize: bool = True) -> torch.Tensor:
        """Interpolate maps (N, S, h, w[, d]) to the size of the image, (N, S, H, W[, D]).

        Args:
            maps: (N, S, h, w[, d]), as :meth:`forward` returns them.
            size: (H, W[, D]) in pixels.
            normalize: scale each map from its minimum and maximum to [0, 1]; a constant map becomes 0.

        Raises:
            ValueError: If ``size`` and the grid have different numbers of axes.

        Example:
            >>> PatchSentenceAligner.heatmaps(torch.tensor([[[[0.0, 0.5]]]]), (1, 4)).tolist()
            [[[[0.0, 0.25, 0.75, 1.0]]]]
        """
        size = tuple(int(n) for n in size)
        if maps.ndim - 2 != len(size) or len(size) not in UPSAMPLING:
            expected = f"have one value for each axis of the grid {tuple(maps.shape[2:])}"
            raise ValueError(error_message("size", expected, size))
        resized = nn.functional.interpolate(maps.float(), size=size, mode=UPSAMPLING[len(size)], align_corners=False)
        if not normalize:
            return resized
        axes = tuple(range(2, resized.ndim))
        low, high = resized.amin(axes, keepdim=True), resized.amax(axes, keepdim=True)
        return (resized - low) / (high - low).clamp_min(torch.finfo(resized.dtype).tiny)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
