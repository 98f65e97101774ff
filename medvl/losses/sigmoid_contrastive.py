"""Sigmoid contrastive loss: a binary classification of every image-text pair."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medvl.functional import sigmoid_contrastive_loss
from medvl.functional.targets import LABEL_AGREEMENTS
from medvl.losses.options import ContrastiveOptions
from medvl.utils.checks import check_option


class SigmoidContrastiveLoss(ContrastiveOptions):
    r"""Sigmoid loss of images and texts (SigLIP), with positives by id or label.

    With logits x_ij = <v_i, t_j> / tau + b and m_ij as in :class:`ImageTextLabelContrastiveLoss`::

        L = 1/N sum_ij log(1 + exp(x_ij)) - m_ij x_ij,

    which for m in {0, 1} is -1/N sum_ij log sigmoid(+-x_ij). Zhai et al., "Sigmoid Loss for Language Image
    Pre-Training", ICCV 2023.

    Args:
        temperature: tau, above 0, in place of the network's; None takes 1 / ``logit_scale`` if ``forward`` gets it, else 0.1.
        bias: b, in place of the network's; None takes ``logit_bias`` if ``forward`` gets it, else -10, where SigLIP starts,
            so that the many negatives do not dominate the first steps.
        label_agreement: ``"exact"``, ``"overlap"`` or ``"soft"``; see :class:`ImageTextLabelContrastiveLoss`.
        reduction: ``"mean"`` over images, ``"sum"``, or ``"none"`` for the N image terms.
        gather: contrast the batches of all processes, as in :class:`ImageTextContrastiveLoss`.
        tile_size: texts in one tile, ``"auto"`` or None, as in :class:`ImageTextContrastiveLoss`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import torch
        >>> loss = SigmoidContrastiveLoss(temperature=1.0, bias=0.0)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)
        1.0064
    """

    def __init__(
        self,
        temperature: float | None = None,
        bias: float | None = None,
        label_agreement: str = "exact",
        reduction: str = "mean",
        gather: bool = False,
        tile_size: int | str | None = None,
    ) -> None:
        check_option(label_agreement, "label_agreement", LABEL_AGREEMENTS)
        super().__init__(temperature, reduction, gather, tile_size, bias=bias, label_agreement=label_agreement)

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor,
        image_ids: Tensor | Sequence[str] | None = None,
        text_ids: Tensor | Sequence[str] | None = None,
        image_labels: Tensor | None = None,
        text_labels: Tensor | None = None,
        image_label_mask: Tensor | None = None,
        text_label_mask: Tensor | None = None,
        logit_scale: Tensor | None = None,
        logit_bias: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            image_embeds: (N, D), scaled to unit length here. A zero vector has similarity 0 to every vector.
            text_embeds: (M, D).
            image_ids: (N,) integers or strings. Without ids and labels, image i and text i are a pair.
            text_ids: (M,).
            image_labels: (N, K) finding states; NaN marks an unknown finding.
            text_labels: (M, K).
            image_label_mask: (N, K), False marks an unknown finding.
            text_label_mask: (M, K).
            logit_scale: scalar, 1 / tau (the network's, after its exponential); not used if the loss has a temperature.
            logit_bias: scalar, b; not used if the loss has a bias.

        Returns:
            A scalar, or (N,) for ``reduction="none"``; all processes' N with ``gather``.

        Raises:
            TypeError: If embeddings are not floating point tensors, or ids are neither integers nor strings.
            ValueError: If the shapes are inconsistent, or labels or ids are given for one side only.
        """
        return sigmoid_contrastive_loss(
            image_embeds,
            text_embeds,
            image_ids,
            text_ids,
            image_labels,
            text_labels,
            image_label_mask,
            text_label_mask,
            logit_scale,
            logit_bias,
            **self.options,
        )
