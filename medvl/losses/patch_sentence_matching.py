"""Contrastive loss of how well an image's patches and a text's sentences match."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medvl.functional import patch_sentence_matching_loss
from medvl.functional.alignment import ALIGNMENTS
from medvl.losses.options import ContrastiveOptions
from medvl.utils.checks import check_option, check_positive


class PatchSentenceMatchingLoss(ContrastiveOptions):
    r"""Contrast of patch-sentence matching scores (MLIP).

    For the unit vectors of image i's patches and text j's sentences, with cosines c_ps = <patch_p, sentence_s> and a
    plan T of non-negative entries that sum to 1,

        score(i, j) = sum_ps T_ps c_ps,  l_ij = score(i, j) / tau,

    contrasted by ids as in :class:`ImageTextContrastiveLoss`. ``alignment="transport"``: T is the Sinkhorn plan of cost
    1 - c with uniform marginals over what the masks keep, many patches to many sentences.  ``"attention"``: every
    sentence spreads its share over patches by softmax_p(c_ps / tau_a), after Huang et al. (GLoRIA, ICCV 2021).
    ``"max"``: the mean of every patch's best sentence and every sentence's best patch, after Yao et al. (FILIP, ICLR
    2022). The formula is ours, made to do what Liu et al., "MLIP: Medical Language-Image Pre-training with Masked
    Local Representation Learning", ISBI 2024 (without published code) describes.

    Args:
        temperature: tau, above 0; used where ``forward`` gets no ``logit_scale``.
        alignment: ``"transport"``, ``"attention"`` or ``"max"``.
        epsilon: of the transport, above 0, in units of cosine; smaller is closer to a matching and slower.
        attention_temperature: tau_a, above 0.
        image_weight: lambda in [0, 1], the share of the image-to-text direction.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the N image terms and then the M text terms, each times its
            share and its weight.
        gather: contrast the batches of all processes; each scores its own images against all texts.
        tile_size: texts to score at a time, computed again in the backward pass, so that memory is one tile's;
            ``"auto"`` tiles where a float32 tensor of all patch-sentence pairs would outgrow 64 MB; None scores all
            at once.

    Raises:
        ValueError: for an option outside its range.

    Example:
        >>> import torch
        >>> patches, sentences = torch.eye(4).reshape(2, 2, 4), torch.eye(4).reshape(2, 2, 4)
        >>> round(PatchSentenceMatchingLoss(temperature=1.0)(patches, sentences).item(), 4)
        0.3133
    """

    def __init__(
        self,
        temperature: float = 0.1,
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
            patch_mask: (N, P), True keeps; all of them without it.
            sentence_mask: (M, S), True keeps. A text without sentences, or an image without patches, has score 0 and
                is nobody's positive.
            image_ids: (N,) integers or texts; without ids, image i and text i are a pair and N must equal M.
            text_ids: (M,).
            weights: (N,), not negative, how much each image's terms count (such as semantic integrity); scaled to
                mean 1, without gradient. A text counts as its images do on average.
            logit_scale: one number, 1 / tau (the network's, after its exponential).

        Returns:
            A number, or (N + M,) for ``reduction="none"``; all processes' N and M with ``gather``.

        Raises:
            TypeError: for embeddings that are not floating point, or ids that are neither integers nor texts.
            ValueError: for shapes that do not fit each other.
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
