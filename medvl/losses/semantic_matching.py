"""Contrastive loss of unpaired images and texts with soft targets from the similarity of their labels."""

from __future__ import annotations

from torch import Tensor

from medvl.functional import semantic_matching_loss
from medvl.functional.similarity import SIMILARITIES, Similarity
from medvl.losses.options import ContrastiveOptions
from medvl.utils.checks import check_option, check_positive


class SemanticMatchingLoss(ContrastiveOptions):
    r"""Semantic matching loss of images and texts by their labels (MedCLIP).

    With label vectors a_i and b_j, their similarity s_ij, unit vectors v_i and t_j and logits l_ij = <v_i, t_j> / tau::

        y_ij = softmax_j(s_i. / tau_y)[j],  L_v = -1/N sum_ij y_ij log softmax_j(l_i.)[j],
        L_t likewise over columns with its own softmax of s, and L = (L_v + L_t) / 2.

    Any image is contrasted with any text: no pairs are needed, and two studies with the same diagnosis are not negatives.
    Wang et al., "MedCLIP: Contrastive Learning from Unpaired Medical Images and Text", EMNLP 2022.

    Args:
        temperature: tau, above 0, in place of the network's; None takes 1 / ``logit_scale`` if ``forward`` gets it, else 0.07.
        target_temperature: tau_y, above 0; smaller values make sharper targets.
        similarity: ``"cosine"`` (the paper's), ``"dot"`` (the released code's), ``"jaccard"``, or a callable from
            distinct label vectors (U, K) and (V, K) to (U, V). A zero label vector has similarity 0 to every vector.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the N image terms and then the M text terms, each halved.
        gather: contrast the batches of all processes, as in :class:`ImageTextContrastiveLoss`.
        tile_size: texts in one tile, ``"auto"`` or None, as in :class:`ImageTextContrastiveLoss`.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> round(SemanticMatchingLoss(temperature=1.0)(torch.eye(2), torch.eye(2), labels, labels).item(), 4)
        0.4325
    """

    def __init__(
        self,
        temperature: float | None = None,
        target_temperature: float = 1.0,
        similarity: Similarity = "cosine",
        reduction: str = "mean",
        gather: bool = False,
        tile_size: int | str | None = None,
    ) -> None:
        check_positive(target_temperature, "target_temperature")
        if not callable(similarity):
            check_option(similarity, "similarity", SIMILARITIES)
        super().__init__(
            temperature,
            reduction,
            gather,
            tile_size,
            target_temperature=target_temperature,
            similarity=similarity,
        )

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor,
        image_labels: Tensor,
        text_labels: Tensor,
        image_label_mask: Tensor | None = None,
        text_label_mask: Tensor | None = None,
        logit_scale: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            image_embeds: (N, D), scaled to unit length here. A zero vector has similarity 0 to every vector.
            text_embeds: (M, D).
            image_labels: (N, K) numbers; NaN marks an unknown finding and counts as 0.
            text_labels: (M, K).
            image_label_mask: (N, K), False marks an unknown finding.
            text_label_mask: (M, K).
            logit_scale: scalar, 1 / tau (the network's, after its exponential); not used if the loss has a temperature.

        Returns:
            A scalar, or (N + M,) for ``reduction="none"``; all processes' N and M with ``gather``.

        Raises:
            TypeError: If embeddings are not floating point tensors.
            ValueError: If the shapes are inconsistent.
        """
        return semantic_matching_loss(
            image_embeds,
            text_embeds,
            image_labels,
            text_labels,
            image_label_mask,
            text_label_mask,
            logit_scale,
            **self.options,
        )
