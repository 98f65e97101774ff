"""Semantic integrity: the share of an image's relevant content that masking leaves visible."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medvl.functional import patchify, semantic_integrity
from medvl.utils.checks import check_positive, error_message
from medvl.utils.tensors import as_float, as_plain


class SemanticIntegrity(nn.Module):
    r"""The share of a report's attention that falls on the visible patches of its image (MLIP).

    From the patches of the whole image and the sentences of its report, without gradient::

        a_ip = softmax_p(max_s <patch_p, sentence_s> / tau),    c_i = sum_{p visible} a_ip

    c_i are the ``weights`` of a contrastive loss: an image whose report describes masked patches counts less. The formula is
    ours, after the description of Liu et al., "MLIP: Medical Language-Image Pre-training with Masked Local Representation
    Learning", ISBI 2024 (no published code). :class:`PatchContrastIntegrity` needs no pass over the whole image.

    Args:
        temperature: tau, above 0.

    Raises:
        ValueError: If the temperature is not above 0.

    Example:
        >>> patches, sentences = torch.eye(2)[None], torch.eye(2)[None, :1]
        >>> integrity = SemanticIntegrity(temperature=1.0)
        >>> round(integrity(patches, sentences, torch.tensor([[True, False]])).item(), 4)
        0.7311
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        self.temperature = temperature

    def forward(
        self,
        patch_embeds: torch.Tensor,
        sentence_embeds: torch.Tensor,
        visible_mask: torch.Tensor,
        patch_mask: torch.Tensor | None = None,
        sentence_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Integrity of N masked images.

        Args:
            patch_embeds: (N, P, D), of the whole image.
            sentence_embeds: (N, S, D), of the image's own report.
            visible_mask: (N, P), True for patches that are not masked.
            patch_mask: (N, P), True for patches to keep; for images of unequal size.
            sentence_mask: (N, S), True for sentences to keep. An image whose report has no sentence attends to all patches
                equally.

        Returns:
            (N,) in [0, 1], without gradient.
        """
        return semantic_integrity(
            patch_embeds, sentence_embeds, visible_mask, patch_mask, sentence_mask, self.temperature
        )

    def extra_repr(self) -> str:
        """The options."""
        return f"temperature={self.temperature!r}"


class PatchContrastIntegrity(nn.Module):
    r"""The share of an image's contrast that lies in its visible patches: semantic integrity from pixels alone.

    With sigma_ip the standard deviation of the pixels of patch p::

        c_i = sum_{p visible} sigma_ip / sum_p sigma_ip

    Cheaper than :class:`SemanticIntegrity`, as it needs neither the report nor a pass over the whole image. It depends on
    where the image has structure, not on what the report describes. The formula is ours.

    Args:
        patch_size: size of a patch in pixels, one number or one for each axis.

    Example:
        >>> image = torch.tensor([[[[0.0, 6.0, 0.0, 2.0]]]])
        >>> round(PatchContrastIntegrity((1, 2))(image, torch.tensor([[True, False]])).item(), 4)
        0.75
    """

    def __init__(self, patch_size: int | Sequence[int] = 16) -> None:
        super().__init__()
        self.patch_size = patch_size if isinstance(patch_size, int) else tuple(patch_size)

    def forward(self, image: torch.Tensor, visible_mask: torch.Tensor) -> torch.Tensor:
        """Integrity of N masked images.

        Args:
            image: (N, C, H, W[, D]), the whole images.
            visible_mask: (N, P), True for patches that are not masked.

        Returns:
            (N,) in [0, 1], without gradient; the share of visible patches for a constant image.

        Raises:
            ValueError: If the patch size does not divide the image, or the shape of ``visible_mask`` is not (N, P).
        """
        with torch.no_grad():
            contrast = patchify(as_float(image.detach()), self.patch_size).std(2, correction=0)  # (N, P)
            if visible_mask.shape != contrast.shape:
                expected = f"have shape {tuple(contrast.shape)}"
                raise ValueError(error_message("visible_mask", expected, tuple(visible_mask.shape)))
            contrast = contrast + contrast.sum(1, keepdim=True).eq(0)  # of a constant image every patch counts the same
            visible = as_plain(visible_mask).to(device=contrast.device, dtype=torch.bool)
            return contrast.where(visible, 0.0).sum(1) / contrast.sum(1)

    def extra_repr(self) -> str:
        """The options."""
        return f"patch_size={self.patch_size!r}"
