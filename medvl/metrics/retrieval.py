"""Retrieval as a metric."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from medvl.functional import mean_rank, median_rank, recall_at_k, retrieval_ranks
from medvl.metrics.gathered import GatheredMetric
from medvl.utils.checks import check_option, error_message
from medvl.utils.distributed import get_rank
from medvl.utils.tensors import as_ids


class RetrievalMetric(GatheredMetric):
    """Recall at k, median or mean rank over all images and texts of an epoch, on all processes.

    Batches are only collected; :meth:`aggregate` ranks each query among everything that was added
    (:func:`medvl.functional.retrieval_ranks`: ties are ranked pessimistically, several correct candidates are allowed). An
    image and a text belong together if their ids are equal; without ids, text i of a batch belongs to its image i. Give
    identical reports the same id, or each counts as a miss of the other.

    A distributed sampler must not repeat cases to fill its last batch (``even_divisible=False``).

    Args:
        metric: ``"recall_at_K"`` for any K, ``"median_rank"`` or ``"mean_rank"`` (lower is better for the ranks: give the
            evaluator a ``metric_cmp_fn`` that says so).
        direction: ``"image_to_text"``, ``"text_to_image"`` or ``"both"``, the mean of the two.

    Raises:
        ValueError: If the metric or the direction is unknown.

    Example:
        >>> metric = RetrievalMetric("recall_at_1")
        >>> images, texts = torch.eye(3), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> _ = metric(images[:2], texts[:2])
        >>> _ = metric(images[2:], texts[2:])
        >>> metric.aggregate()
        tensor(0.3333, dtype=torch.float64)
        >>> metric.reset()
        >>> _ = metric(images, texts, image_ids=torch.tensor([5, 5, 7]), text_ids=torch.tensor([5, 5, 7]))
        >>> metric.aggregate()
        tensor(1., dtype=torch.float64)
    """

    def __init__(
        self,
        metric: str = "recall_at_10",
        direction: Literal["image_to_text", "text_to_image", "both"] = "both",
    ) -> None:
        super().__init__()
        depth = re.fullmatch(r"recall_at_([1-9]\d*)", metric)
        if depth is None and metric not in ("median_rank", "mean_rank"):
            expected = "be 'recall_at_K', 'median_rank' or 'mean_rank'"
            raise ValueError(error_message("metric", expected, repr(metric)))
        check_option(direction, "direction", ("image_to_text", "text_to_image", "both"))
        self.metric, self.direction = metric, direction
        self.k = int(depth[1]) if depth else None

    def reset(self) -> None:
        """Discard everything that was added."""
        super().reset()
        self._seen = 0
        self._with_ids: bool | None = None

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        """A list of images and a list of texts, as a decollating engine passes them."""
        return self._compute_tensor(torch.stack(list(y_pred)), None if y is None else torch.stack(list(y)), **kwargs)

    def _compute_tensor(
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        image_ids: Tensor | Sequence[str] | None = None,
        text_ids: Tensor | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Collect images (N, D) and texts (M, D) with their ids (N,) and (M,), integers or strings."""
        if y is None or y_pred.ndim != 2 or y.ndim != 2 or y_pred.shape[1] != y.shape[1]:
            received = f"{tuple(y_pred.shape)} and {None if y is None else tuple(y.shape)}"
            raise ValueError(error_message("y_pred and y", "have shapes (N, D) and (M, D)", received))
        if (image_ids is None) != (text_ids is None):
            missing = "image_ids" if image_ids is None else "text_ids"
            raise ValueError(error_message("image_ids and text_ids", "be given together", f"no {missing}"))
        if self._with_ids is not None and self._with_ids != (image_ids is not None):
            expected = "be given with every batch or with none"
            raise ValueError(error_message("image_ids and text_ids", expected, "both kinds of batches"))
        self._with_ids = image_ids is not None
        if image_ids is None or text_ids is None:
            if len(y_pred) != len(y):
                expected = "have the same number of rows if there are no ids"
                raise ValueError(error_message("y_pred and y", expected, f"{len(y_pred)} and {len(y)}"))
            # Numbers that no other batch and no other process uses.
            image_ids = text_ids = torch.arange(len(y)) + self._seen + (get_rank() << 40)
            self._seen += len(y)
        # A MetaTensor would stay in the ranking, slowly; half precision would make ties.
        return [
            y_pred.as_subclass(Tensor).float(),
            y.as_subclass(Tensor).float(),
            as_ids(image_ids, "image_ids", len(y_pred), y_pred.device),
            as_ids(text_ids, "text_ids", len(y), y.device),
        ]

    def aggregate(self) -> Tensor:
        """The value of the metric (), float64; NaN if no query has a correct candidate.

        Raises:
            ValueError: If no batch was added, or an embedding is NaN or infinite.
        """
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError(error_message("RetrievalMetric", "hold at least one batch", "none"))
        images, texts, image_ids, text_ids = buffers
        ranks = []
        if self.direction != "text_to_image":
            ranks.append(retrieval_ranks(images, texts, image_ids, text_ids))
        if self.direction != "image_to_text":
            ranks.append(retrieval_ranks(texts, images, text_ids, image_ids))
        return torch.stack([self._summary(direction) for direction in ranks]).mean()

    def _summary(self, ranks: Tensor) -> Tensor:
        if self.k is not None:
            return recall_at_k(ranks, self.k)
        return median_rank(ranks) if self.metric == "median_rank" else mean_rank(ranks)
