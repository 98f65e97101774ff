"""Contrastive loss over image-text pairs, labeled images and labeled texts at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medvl.functional import image_text_label_contrastive_loss
from medvl.functional.targets import check_label_agreement
from medvl.losses.options import ContrastiveOptions


class ImageTextLabelContrastiveLoss(ContrastiveOptions):
    r"""Unified contrastive loss of images, texts and labels (UMCL).

    With m_ij = 1 where ids are equal, else the agreement of labels in [0, 1]::

        y_ij = m_ij / sum_j m_ij,  L_v = mean_i -sum_j y_ij log softmax_j(l_i.)[j],  L_t likewise down the columns,
        L = lambda L_v + (1 - lambda) L_t,

    the means over rows and columns that have a positive. Images with a report, images with labels and texts alone mix
    in one batch. The formula is ours, designed to do what Wang, "Unified Medical Image-Text-Label Contrastive Learning
    With Continuous Prompt", 2023 (arXiv 2307.05920, without published code) describes; with ``label_agreement="exact"`` it is
    the bidirectional supervised contrast of Yang et al., "Unified Contrastive Learning in Image-Text-Label Space",
    CVPR 2022.

    Args:
        temperature: tau, above 0, in place of the network's; None takes 1 / ``logit_scale`` if ``forward`` gets it, else 0.07.
        label_agreement: ``"exact"``: all findings in the same state, where unknown is a state of its own (two studies of
            which nothing is known do not agree); ``"overlap"``: some finding present (above 0) in both; ``"soft"``:
            max(0, cosine), or exp((cosine - 1) / ``agreement_temperature``).
        agreement_temperature: above 0, of ``label_agreement="soft"``; smaller values make sharper targets. Where labels of
            several findings agree in part nearly everywhere, as in reports that state and deny many, max(0, cosine) makes
            targets so flat that little is learned from them. A label vector that is all 0 or unknown agrees with none.
        image_weight: lambda in [0, 1], the share of the image-to-text direction.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the N image terms and then the M text terms, each times its
            share.
        gather: contrast the batches of all processes, as in :class:`ImageTextContrastiveLoss`.
        tile_size: texts in one tile, ``"auto"`` or None, as in :class:`ImageTextContrastiveLoss`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import torch
        >>> loss = ImageTextLabelContrastiveLoss(temperature=1.0)
        >>> labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> round(loss(torch.eye(2), torch.eye(2), labels, labels).item(), 4)
        0.8133
        >>> round(loss(torch.eye(2), torch.eye(2), image_ids=["a", "b"], text_ids=["a", "b"]).item(), 4)
        0.3133
    """

    def __init__(
        self,
        temperature: float | None = None,
        label_agreement: str = "exact",
        image_weight: float = 0.5,
        reduction: str = "mean",
        gather: bool = False,
        tile_size: int | str | None = None,
        agreement_temperature: float | None = None,
    ) -> None:
        check_label_agreement(label_agreement, agreement_temperature)
        super().__init__(
            temperature,
            reduction,
            gather,
            tile_size,
            label_agreement=label_agreement,
            agreement_temperature=agreement_temperature,
            image_weight=image_weight,
        )

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor,
        image_labels: Tensor | None = None,
        text_labels: Tensor | None = None,
        image_ids: Tensor | Sequence[str] | None = None,
        text_ids: Tensor | Sequence[str] | None = None,
        image_label_mask: Tensor | None = None,
        text_label_mask: Tensor | None = None,
        logit_scale: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            image_embeds: (N, D), scaled to unit length here. A zero vector has similarity 0 to every vector.
            text_embeds: (M, D).
            image_labels: (N, K) finding states; NaN marks an unknown finding.
            text_labels: (M, K).
            image_ids: (N,) integers or strings. Without ids and labels, image i and text i are a pair.
            text_ids: (M,).
            image_label_mask: (N, K), False marks an unknown finding.
            text_label_mask: (M, K).
            logit_scale: scalar, 1 / tau (the network's, after its exponential); not used if the loss has a temperature.

        Returns:
            A scalar, or (N + M,) for ``reduction="none"``; all processes' N and M with ``gather``.

        Raises:
            TypeError: If embeddings are not floating point tensors, or ids are neither integers nor strings.
            ValueError: If the shapes are inconsistent, or labels or ids are given for one side only.
        """
        return image_text_label_contrastive_loss(
            image_embeds,
            text_embeds,
            image_labels,
            text_labels,
            image_ids,
            text_ids,
            image_label_mask,
            text_label_mask,
            logit_scale,
            **self.options,
        )
