"""Retrieval of texts for images as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from medvl.inferers.text_cache import TextEmbeddingCache
from medvl.inferers.windows import WindowEncoder, pool_windows
from medvl.utils.checks import error_message


class RetrievalInferer(Inferer):
    """Cosine similarities of images or volumes with a gallery of texts, such as the reports of earlier studies.

    The texts are encoded at the first call, and again only when the network's weights have changed: by the network's
    ``encode_reports`` if it has one, which encodes a report as the network was trained to, else by ``encode_text``.

    Args:
        texts: M texts.
        roi_size: sides in pixels of windows that slide over the image, whose embeddings are pooled by their mean; None
            encodes the whole image.
        overlap: share of a window that overlaps with the next, in [0, 1).
        sw_batch_size: number of windows in a batch.

    Raises:
        ValueError: If there is no text, or an option is out of range.

    Example:
        >>> class Network:
        ...     def encode_image(self, image):
        ...         return image.flatten(1)
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[0.0, 1.0] if text.startswith("No") else [1.0, 0.0] for text in texts])
        >>> inferer = RetrievalInferer(["Edema.", "No edema."])
        >>> image = torch.tensor([[[[3.0, 4.0]]]])
        >>> inferer(image, Network())
        tensor([[0.6000, 0.8000]])
        >>> inferer.search(image, Network(), k=1)
        (tensor([[0.8000]]), [['No edema.']])
    """

    def __init__(
        self,
        texts: Sequence[str],
        roi_size: int | Sequence[int] | None = None,
        overlap: float = 0.25,
        sw_batch_size: int = 4,
    ) -> None:
        self.encode = WindowEncoder(roi_size, overlap, sw_batch_size)
        self.text_embeds = TextEmbeddingCache(texts, methods=("encode_reports", "encode_text"))

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Cosine similarities of a batch with the gallery.

        Args:
            inputs: images (N, C, H, W[, D]).
            network: any object with ``encode_image`` and ``encode_reports`` or ``encode_text``.
            *args: not used; MONAI's evaluators may pass some.
            **kwargs: not used.

        Returns:
            (N, M), from -1 to 1, in the order of the texts.
        """
        images = pool_windows(self.encode(inputs, network))
        return images @ self.text_embeds(network).to(images.device).T

    def search(self, inputs: Tensor, network: Any, k: int = 10) -> tuple[Tensor, list[list[str]]]:
        """The k texts most similar to each image: cosine similarities (N, k) in descending order, and the texts.

        Raises:
            ValueError: If ``k`` is not between 1 and M.
        """
        texts = self.text_embeds.texts
        if not 1 <= k <= len(texts):
            raise ValueError(error_message("k", f"be between 1 and {len(texts)}, the number of texts", k))
        scores, indices = torch.topk(self(inputs, network), k, dim=1)
        return scores, [[texts[index] for index in row] for row in indices.tolist()]
