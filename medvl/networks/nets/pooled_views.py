"""Pooling of the views of a study."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvl.utils.checks import error_message


class PooledViews(nn.Module):
    """A dual encoder with one image embedding for each study: the mean of the embeddings of its views, as a unit vector.

    With I_n the views of study n and v_i their embeddings, ``image_embeds[n]`` is the mean of v_i over I_n, scaled to unit
    length. :func:`medvl.data.collate_studies` returns ``view_index`` for a :class:`~medvl.data.UnifiedDataset` with
    ``views="pool"``.

    Args:
        network: a :class:`DualEncoder`; encode and save with it.

    Example:
        >>> class Pixels(nn.Module):
        ...     def forward(self, image):
        ...         return {"image_embeds": image}
        >>> views = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> PooledViews(Pixels())(views, view_index=torch.tensor([0, 0, 1]))["image_embeds"]
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image: Tensor | None = None, *args: Any, view_index: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """The output of the network, with the views of each study pooled.

        Args:
            image: (I, C, H, W[, D]), all views of the batch.
            *args: other arguments of the network.
            view_index: (I,), the study of each view, from 0 to N - 1; None if each image is a study.
            **kwargs: other arguments of the network.

        Returns:
            The output of the network, with ``image_embeds`` (N, D), a row for each study.

        Raises:
            ValueError: If ``view_index`` does not have one value for each image.
        """
        output = dict(self.network(image, *args, **kwargs))
        if view_index is None or "image_embeds" not in output:
            return output
        embeds = output["image_embeds"]
        if view_index.shape != embeds.shape[:1]:
            expected = f"have shape {tuple(embeds.shape[:1])}, one value for each image"
            raise ValueError(error_message("view_index", expected, tuple(view_index.shape)))
        studies = int(view_index.max()) + 1 if len(view_index) else 0
        # the sum has the direction of the mean
        summed = torch.zeros(studies, embeds.shape[1], dtype=embeds.dtype, device=embeds.device)
        return {**output, "image_embeds": F.normalize(summed.index_add(0, view_index, embeds), dim=-1)}
