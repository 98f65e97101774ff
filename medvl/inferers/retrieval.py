"""Retrieval of texts for images as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from medvl.inferers.texts import TextBank
from medvl.inferers.windows import WindowEncoder, pool_windows


class RetrievalInferer(Inferer):
    """Cosine similarities of images and volumes with a gallery of texts, such as the reports of earlier studies.

    The texts are encoded at the first call, and again only when the network's weights have changed: by the network's
    ``encode_reports`` where it has one, which reads a report as the network was trained to, else by ``encode_text``.

    Args:
        texts: M texts.
        roi_size: sides in pixels of windows that slide over the image, whose embeddings are pooled by their mean; None takes
            the image as a whole.
        overlap: share of a window that lies in the next, in [0, 1).
        sw_batch_size: windows that are encoded at once.

    Raises:
        ValueError: where there is no text, or for an option outside its range.

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
        self.texts = TextBank(texts, methods=("encode_reports", "encode_text"))

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Cosines of a batch with the gallery.

        Args:
            inputs: images (N, C, H, W[, D]).
            network: anything with ``encode_image`` and ``encode_reports`` or ``encode_text``.
            *args: not used; MONAI's evaluators may give some.
            **kwargs: not used.

        Returns:
            (N, M), from -1 to 1, in the order of the texts.
        """
        images = pool_windows(self.encode(inputs, network))
        return images @ self.texts(network).to(images.device).T

    def search(self, inputs: Tensor, network: Any, k: int = 10) -> tuple[Tensor, list[list[str]]]:
        """The k texts nearest to each image: cosines (N, k), best first, and the texts themselves.

        Raises:
            ValueError: where ``k`` is not between 1 and M.
        """
        if not 1 <= k <= len(self.texts.texts):
            raise ValueError(f"k must be between 1 and the {len(self.texts.texts)} texts, got {k}.")
        scores, places = torch.topk(self(inputs, network), k, dim=1)
        return scores, [[self.texts.texts[place] for place in row] for row in places.tolist()]
