"""Several views of a study as one image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PooledViews(nn.Module):
    """A dual encoder that gives each study one image embedding: the mean of its views', a unit vector again.

    With I_n the views of study n and v_i their embeddings, ``image_embeds[n]`` is the unit vector along the mean of v_i over
    I_n. :func:`medvl.data.collate_studies` gives ``view_index`` for a :class:`~medvl.data.UnifiedDataset` with
    ``views="pool"``.

    Args:
        network: a :class:`DualEncoder`, whose parameters these are; embed and save with it as before.

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
        """The network's output, with the views of each study pooled.

        Args:
            image: (I, C, H, W[, D]), all views of the batch.
            *args: of the network.
            view_index: (I,), the study of each view, from 0 to N - 1; None where each image is a study.
            **kwargs: of the network.

        Raises:
            ValueError: where ``view_index`` is not of the images' number.
        """
        output = dict(self.network(image, *args, **kwargs))
        if view_index is None or "image_embeds" not in output:
            return output
        embeds = output["image_embeds"]
        if view_index.shape != embeds.shape[:1]:
            raise ValueError(
                f"view_index must have shape {tuple(embeds.shape[:1])}, one for each image, "
                f"got {tuple(view_index.shape)}."
            )
        studies = int(view_index.max()) + 1 if len(view_index) else 0
        # the mean points where the sum does
        summed = torch.zeros(studies, embeds.shape[1], dtype=embeds.dtype, device=embeds.device)
        return {**output, "image_embeds": F.normalize(summed.index_add(0, view_index, embeds), dim=-1)}
