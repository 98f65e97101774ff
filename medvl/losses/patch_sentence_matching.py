"""Contrastive loss of the alignment of image patches and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medvl.functional import patch_sentence_matching_loss
from medvl.functional.alignment import ALIGNMENTS
from medvl.losses.options import ContrastiveOptions
from medvl.utils.checks import check_option, check_positive


class PatchSentenceMatchingLoss(ContrastiveOptions):
    r"""Contrastive loss of patch-sentence scores (MLIP).

    For the unit vectors of image i's patches and text j's sentences, with cosines c_ps = <patch_p, sentence_s> and a
    plan T of non-negative entries that sum to 1::

        score(i, j) = sum_ps T_ps c_ps,  l_ij = score(i, j) / tau,

    contrasted by ids as in :class:`ImageTextContrastiveLoss`. ``alignment="transport"``: T is the Sinkhorn plan of cost
    1 - c with uniform marginals over what the masks keep, many patches to many sentences. ``"attention"``: every
    sentence distributes its share over patches by softmax_p(c_ps / tau_a), after Huang et al. (GLoRIA, ICCV 2021).
    ``"max"``: the mean of every patch's best sentence and every sentence's best patch, after Yao et al. (FILIP, ICLR
    2022). The formula is ours, designed to do what Liu et al., "MLIP: Medical Language-Image Pre-training with Masked
    Local Representation Learning", ISBI 2024 (without published code) describes.

    Args:
        temperature: tau, above 0, in place of the network's; None takes 1 / ``logit_scale`` if ``forward`` gets it, else 0.1.
        alignment: ``"transport"``, ``"attention"`` or ``"max"``.
        epsilon: entropic regularization of the transport, above 0, in units of cosine; smaller values give sharper plans
            and take longer.
        attention_temperature: tau_a, above 0.
        image_weight: lambda in [0, 1], the share of the image-to-text direction.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the N image terms and then the M text terms, each times its
            share and its weight.
        gather: contrast the batches of all processes; each scores its own images against all texts.
        tile_size: texts to score at a time, computed again in the backward pass, so that memory is one tile's;
            ``"auto"`` tiles where a float32 tensor of all patch-sentence pairs would exceed 64 MB; None scores all
            at once.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import torch
        >>> patches, sentences = torch.eye(4).reshape(2, 2, 4), torch.eye(4).reshape(2, 2, 4)
        >>> round(PatchSentenceMatchingLoss(temperature=1.0)(patches, sentences).item(), 4)
        0.3133
    """

    def __init__(
        self,
        temperature: float | None = None,
        alignment: str = "transport",
        epsilon: float = 0.05,
        attention_temperature: float = 0.1,
        image_weight: float = 0.5,
        reduction: str = "mean",
        gather: bool = False,
        tile_size: int | str | None = None,
    ) -> None:
        check_option(alignment, "alignment", ALIGNMENTS)
        check_positive(epsilon, "epsilon")
        check_positive(attention_temperature, "attention_temperature")
        super().__init__(
            temperature,
            reduction,
            gather,
            tile_size,
            alignment=alignment,
            epsilon=epsilon,
            attention_temperature=attention_temperature,
            image_weight=image_weight,
        )

    def forward(
        self,
        patch_embeds: Tensor,
        sentence_embeds: Tensor,
        patch_mask: Tensor | None = None,
        sentence_mask: Tensor | None = None,
        image_ids: Tensor | Sequence[str] | None = None,
        text_ids: Tensor | Sequence[str] | None = None,
        weights: Tensor | None = None,
        logit_scale: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            patch_embeds: (N, P, D), scaled to unit length here.
            sentence_embeds: (M, S, D).
            patch_mask: (N, P), True keeps; without it, all are kept.
            sentence_mask: (M, S), True keeps. A text without sentences, or an image without patches, has score 0 and
                no positive.
            image_ids: (N,) integers or strings; without ids, image i and text i are a pair and N must equal M.
            text_ids: (M,).
            weights: (N,), non-negative weights of the images' terms (such as semantic integrity); scaled to mean 1, without
                gradient. A text gets the mean weight of its images.
            logit_scale: scalar, 1 / tau (the network's, after its exponential); not used if the loss has a temperature.

        Returns:
            A scalar, or (N + M,) for ``reduction="none"``; all processes' N and M with ``gather``.

        Raises:
            TypeError: If embeddings are not floating point tensors, or ids are neither integers nor strings.
            ValueError: If the shapes are inconsistent.
        """
        return patch_sentence_matching_loss(
            patch_embeds,
            sentence_embeds,
            patch_mask,
            sentence_mask,
            image_ids,
            text_ids,
            weights,
            logit_scale,
            **self.options,
        )
