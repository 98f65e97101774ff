"""Contrastive loss between images and texts whose positives are the pairs with equal ids."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medvl.functional import image_text_contrastive_loss
from medvl.losses.options import ContrastiveOptions


class ImageTextContrastiveLoss(ContrastiveOptions):
    r"""Bidirectional contrastive loss of images and texts (ConVIRT).

    With unit vectors v_i and t_j, logits l_ij = <v_i, t_j> / tau and positives P(i) = {j: text_id_j = image_id_i}::

        L_v = mean_i -1/|P(i)| sum_{j in P(i)} log softmax_j(l_i.)[j],  L_t likewise down the columns,
        L = lambda L_v + (1 - lambda) L_t.

    Several views of one study and several texts of one image are all positives. An image or text without a positive does
    not count. Zhang et al., "Contrastive Learning of Medical Visual Representations from Paired Images
    and Text", MLHC 2022; with lambda 0.5 and one-to-one pairs this is CLIP's loss.

    Args:
        temperature: tau, above 0, in place of the network's; None takes 1 / ``logit_scale`` if ``forward`` gets it, else 0.1.
        image_weight: lambda in [0, 1], the share of the image-to-text direction.
        pool_texts: whether the texts of one id, such as the sentences of a report, are one text: the normalized mean of their
            unit vectors. Sentences that many reports have are then no false negatives of each other. The M text terms are
            those of the distinct ids.
        paired_only: whether images and texts whose id is not on the other side are left out, where without it they are
            negatives of the others; such as prompts that are true of many images
            (:class:`~medvl.data.UnifiedDataset` with ``paired_prompts=False``). N and M are then those that are left.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the N image terms and then the M text terms, each times its
            share and its weight.
        gather: contrast the batches of all processes, which may be of unequal size; every process gets the same loss,
            and ``DistributedDataParallel`` then the gradients of one process with the whole batch.
        tile_size: texts in one tile of the N x M logits, so that memory is linear in N; ``"auto"`` uses tiles where
            they are faster; None stores the whole matrix.

    Raises:
        ValueError: If an option is out of its range.

    Example:
        >>> import torch
        >>> loss = ImageTextContrastiveLoss(temperature=1.0)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)
        0.3133
        >>> round(loss(torch.eye(2), torch.eye(2), image_ids=["a", "a"], text_ids=["a", "a"]).item(), 4)
        0.8133
    """

    def __init__(
        self,
        temperature: float | None = None,
        image_weight: float = 0.75,
        reduction: str = "mean",
        gather: bool = False,
        tile_size: int | str | None = None,
        pool_texts: bool = False,
        paired_only: bool = False,
    ) -> None:
        super().__init__(
            temperature,
            reduction,
            gather,
            tile_size,
            image_weight=image_weight,
            pool_texts=pool_texts,
            paired_only=paired_only,
        )

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor,
        image_ids: Tensor | Sequence[str] | None = None,
        text_ids: Tensor | Sequence[str] | None = None,
        weights: Tensor | None = None,
        logit_scale: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            image_embeds: (N, D), scaled to unit length here. A zero vector has similarity 0 to every vector.
            text_embeds: (M, D).
            image_ids: (N,) integers or strings; without ids, image i and text i are a pair and N must equal M.
            text_ids: (M,).
            weights: (N,), non-negative weights of the images' terms; scaled to mean 1, without gradient. A text gets the
                mean weight of its images.
            logit_scale: scalar, 1 / tau (the network's, after its exponential); not used if the loss has a temperature.

        Returns:
            A scalar, or (N + M,) for ``reduction="none"``; all processes' N and M with ``gather``.

        Raises:
            TypeError: If embeddings are not floating point tensors, or ids are neither integers nor strings.
            ValueError: If the shapes are inconsistent.
        """
        return image_text_contrastive_loss(
            image_embeds, text_embeds, image_ids, text_ids, weights, logit_scale, **self.options
        )
