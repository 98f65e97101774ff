"""The library's metrics as handlers for MONAI's evaluators (``key_val_metric``, ``additional_metrics``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from monai.handlers import IgniteMetricHandler
from monai.utils import CommonKeys
from torch import Tensor

from medvl.functional import GROUNDING_THRESHOLDS, class_similarity, finding_margins
from medvl.metrics import GroundingMetric, RetrievalMetric, ZeroShotMetric
from medvl.text.prompts import check_class_prompts
from medvl.utils.checks import error_message
from medvl.utils.ids import hash_id
from medvl.utils.modes import eval_mode


def prediction_and_batch(output: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The network's output and the batch from a MONAI engine's output (``PrepareBatchImageText`` passes the batch on).

    Raises:
        TypeError: If the engine decollated its output.
    """
    if not isinstance(output, Mapping):
        raise TypeError(
            error_message(
                "the engine's output",
                "be a dictionary of the whole batch",
                f"{type(output).__name__}: give the evaluator decollate=False",
            )
        )
    return output[CommonKeys.PRED], output[CommonKeys.LABEL]


def pair_ids(batch: Mapping[str, Any], num_images: int, num_texts: int, report_key: str) -> dict[str, Tensor | None]:
    """Ids (N,) and (M,) by which images and texts belong together; see :class:`RetrievalMetricHandler`."""
    image_ids, text_ids = batch.get("image_ids"), batch.get("text_ids")
    reports = batch.get(report_key)
    if isinstance(reports, Sequence) and not isinstance(reports, str) and len(reports) == num_images == num_texts:
        words = [" ".join(str(report or "").lower().split()) for report in reports]
        # A blank report belongs to its own study only.
        if all(words) or image_ids is not None:
            own = [0] * num_images if image_ids is None else image_ids.tolist()
            ids = torch.tensor([hash_id(text) if text else own_id for text, own_id in zip(words, own, strict=True)])
            return {"image_ids": ids, "text_ids": ids}
    return {"image_ids": image_ids, "text_ids": text_ids}


class RetrievalMetricHandler(IgniteMetricHandler):
    """:class:`~medvl.metrics.RetrievalMetric` of the network's ``image_embeds`` and ``text_embeds``, once per epoch.

    An image and a text belong together where the report is the same up to case and white space, if the batch has a report
    for every image and text; else where the batch's ``image_ids`` and ``text_ids`` are equal; else the i-th image and text do.

    Args:
        metric: as in :class:`~medvl.metrics.RetrievalMetric`.
        direction: as in :class:`~medvl.metrics.RetrievalMetric`.
        report_key: key of the batch's reports, a list of strings; "" uses the ids only.
        output_transform: maps the engine's output to (network's output, batch).

    Example:
        >>> from ignite.engine import Engine
        >>> evaluator = Engine(lambda engine, batch: {"pred": batch, "label": {}})
        >>> RetrievalMetricHandler("recall_at_1").attach(evaluator, "r1")
        >>> evaluator.run([{"image_embeds": torch.eye(2), "text_embeds": torch.eye(2)}]).metrics["r1"]
        1.0
    """

    def __init__(
        self,
        metric: str = "recall_at_10",
        direction: Literal["image_to_text", "text_to_image", "both"] = "both",
        report_key: str = "report",
        output_transform: Callable[[Any], Any] = prediction_and_batch,
    ) -> None:
        super().__init__(RetrievalMetric(metric, direction), output_transform=output_transform, save_details=False)
        self.report_key = report_key

    def update(self, output: Sequence[Any]) -> None:
        """Collect one batch."""
        prediction, batch = output
        self._is_reduced = False
        images, texts = prediction["image_embeds"], prediction["text_embeds"]
        self.metric_fn(images, texts, **pair_ids(batch, len(images), len(texts), self.report_key))


class ZeroShotMetricHandler(IgniteMetricHandler):
    """:class:`~medvl.metrics.ZeroShotMetric` of images against class prompts, while the text encoder is trained.

    The prompts are embedded once per epoch, with the first batch. A finding's score is the cosine of the image with its
    present minus its absent prompts (:func:`medvl.functional.class_similarity`).

    Args:
        class_prompts: for each finding, ``{"present": [...], "absent": [...]}``, at least one prompt each.
        names: the K findings in the order of the columns of the batch's ``label``; those without prompts do not count.
        encode_text: maps M strings to (M, D), or an object with such a method ``encode_class_prompts`` or
            ``encode_text``, as the network.
        metric: as in :class:`~medvl.metrics.ZeroShotMetric`.
        uncertain: as in :class:`~medvl.metrics.ZeroShotMetric`.
        ensemble: how the prompts of one side are combined, ``"mean"`` or ``"max"``.
        output_transform: maps the engine's output to (network's output, batch).

    Raises:
        ValueError: If a finding with prompts is not among the names, or lacks present or absent prompts.

    Example:
        >>> from ignite.engine import Engine
        >>> encode = lambda texts: torch.tensor([[-1.0, 0.0] if text.startswith("no") else [1.0, 0.0] for text in texts])
        >>> handler = ZeroShotMetricHandler({"Edema": {"present": ["edema"], "absent": ["no edema"]}}, ["Edema"], encode)
        >>> evaluator = Engine(lambda engine, batch: {"pred": batch, "label": batch})
        >>> handler.attach(evaluator, "auroc")
        >>> batch = {"image_embeds": torch.tensor([[0.8, 0.6], [0.6, 0.8]]), "label": torch.tensor([[1.0], [0.0]])}
        >>> evaluator.run([batch]).metrics["auroc"]
        1.0
    """

    def __init__(
        self,
        class_prompts: Mapping[str, Mapping[str, Sequence[str]]],
        names: Sequence[str],
        encode_text: Any,
        metric: Literal["auroc", "auprc"] = "auroc",
        uncertain: Literal["exclude", "present", "absent"] = "exclude",
        ensemble: Literal["mean", "max"] = "mean",
        output_transform: Callable[[Any], Any] = prediction_and_batch,
    ) -> None:
        check_class_prompts(class_prompts, names)
        sides = [prompts[side] for prompts in class_prompts.values() for side in ("present", "absent")]
        self.texts = [text for texts in sides for text in texts]
        self.classes = torch.tensor([column for column, texts in enumerate(sides) for _ in texts])
        self.columns = [list(names).index(name) for name in class_prompts]
        self.num_names, self.encode_text, self.ensemble = len(names), encode_text, ensemble
        self._prompt_embeds: Tensor | None = None
        super().__init__(
            ZeroShotMetric(metric, uncertain=uncertain), output_transform=output_transform, save_details=False
        )

    def reset(self) -> None:
        """Forget the collected cases and the prompts' embeddings."""
        super().reset()
        self._prompt_embeds = None

    def update(self, output: Sequence[Any]) -> None:
        """Score one batch and collect it."""
        prediction, batch = output
        self._is_reduced = False
        images, labels = prediction["image_embeds"], batch[CommonKeys.LABEL]
        if labels.ndim != 2 or labels.shape[1] != self.num_names:
            expected = f"have shape (N, {self.num_names}), a column for each name"
            raise ValueError(error_message("label", expected, tuple(labels.shape)))
        if self._prompt_embeds is None:
            self._prompt_embeds = self._embed_prompts().to(images.device)
        classes = self.classes.to(images.device)
        similarity = class_similarity(images.detach().as_subclass(Tensor), self._prompt_embeds, classes, self.ensemble)
        self.metric_fn(finding_margins(similarity), labels[:, self.columns])

    def _embed_prompts(self) -> Tensor:
        encode = getattr(self.encode_text, "encode_text", self.encode_text)
        encode = getattr(self.encode_text, "encode_class_prompts", encode)
        # MONAI's evaluator puts a network back into training mode after each forward pass.
        with eval_mode(self.encode_text), torch.no_grad():
            return encode(self.texts).detach()


class GroundingMetricHandler(IgniteMetricHandler):
    """:class:`~medvl.metrics.GroundingMetric` of heat maps and regions, once per epoch.

    Args:
        metric: as in :class:`~medvl.metrics.GroundingMetric`.
        thresholds: of the mean IoU.
        output_transform: maps the engine's output to (heat maps, regions), both (N, C, H, W[, D]) or lists of (C, ...).
        save_details: whether the value of every map goes to ``engine.state.metric_details``.
    """

    def __init__(
        self,
        metric: Literal["mean_iou", "pointing_game", "contrast_to_noise_ratio"] = "mean_iou",
        thresholds: Sequence[float] = GROUNDING_THRESHOLDS,
        output_transform: Callable[[Any], Any] = lambda output: output,
        save_details: bool = True,
    ) -> None:
        super().__init__(
            GroundingMetric(metric, thresholds), output_transform=output_transform, save_details=save_details
        )
