"""Image and text embeddings of studies, which the protocols evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.evaluation.embedding_files import save_embeddings
from medvl.evaluation.thumbnails import thumbnail
from medvl.utils.checks import error_message
from medvl.utils.ids import id_strings
from medvl.utils.modes import eval_mode


@dataclass
class Embeddings:
    """Image and text embeddings of N studies with their reports, ids and labels, one row a study.

    Args:
        image: unit vectors (N, D).
        text: unit vectors (N, D); a row of NaN where the study has no report.
        texts: N reports, "" where there is none. None where the text is unknown: rows of ``text`` without NaN then count as
            reports that differ from each other.
        study_ids: N ids, None for one study a row.
        patient_ids: N ids, None for one patient a study.
        labels: finding states (N, K): 1 present, 0 absent, -1 uncertain, NaN not mentioned; None where there are none.
        thumbnails: small pictures (H, W), uint8, of some rows, for the report.

    Raises:
        ValueError: If a length is not N, or an image embedding is not finite.

    Example:
        >>> embeddings = Embeddings(torch.eye(3), torch.eye(3), texts=["a", "b", ""])
        >>> len(embeddings), embeddings.has_text.tolist(), embeddings.patient_ids
        (3, [True, True, False], ['0', '1', '2'])
    """

    image: Tensor
    text: Tensor
    texts: list[str] | None = None
    study_ids: list[str] = field(default_factory=list)
    patient_ids: list[str] = field(default_factory=list)
    labels: Tensor | None = None
    thumbnails: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = len(self.image)
        self.image = normalized_embeddings("image", self.image)
        text = torch.as_tensor(self.text)
        if text.shape != self.image.shape:
            expected = f"have the shape {tuple(self.image.shape)} of image, with NaN where a study has no report"
            raise ValueError(error_message("text", expected, tuple(text.shape)))
        self.text = F.normalize(text.detach().float().cpu(), dim=1)
        self.study_ids = id_strings(self.study_ids) or id_strings(range(number))
        self.patient_ids = id_strings(self.patient_ids) or list(self.study_ids)
        for name in ("texts", "study_ids", "patient_ids", "labels"):
            value = getattr(self, name)
            if value is not None and len(value) != number:
                raise ValueError(error_message(name, f"have one entry for each of the {number} images", len(value)))
        if self.labels is not None:
            self.labels = torch.as_tensor(self.labels).detach().float().cpu()
            if self.labels.ndim != 2:
                raise ValueError(error_message("labels", "have shape (N, K)", tuple(self.labels.shape)))

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, chosen: Sequence[int]) -> Embeddings:
        """The embeddings of some rows, in the order given.

        Example:
            >>> Embeddings(torch.eye(3), torch.eye(3), study_ids=["a", "b", "c"]).rows([2, 0]).study_ids
            ['c', 'a']
        """
        chosen = list(chosen)
        return Embeddings(
            self.image[chosen],
            self.text[chosen],
            None if self.texts is None else [self.texts[row] for row in chosen],
            [self.study_ids[row] for row in chosen],
            [self.patient_ids[row] for row in chosen],
            None if self.labels is None else self.labels[chosen],
            {new: self.thumbnails[old] for new, old in enumerate(chosen) if old in self.thumbnails},
        )

    @property
    def has_text(self) -> Tensor:
        """Which rows have a report, boolean (N,)."""
        given = ~self.text.isnan().any(dim=1)
        if self.texts is not None:
            given &= torch.tensor([bool(text.strip()) for text in self.texts], dtype=torch.bool)
        return given

    def save(self, path: str | Path, findings: Sequence[str] = (), splits: Sequence[str] | None = None) -> Path:
        """Write the embeddings with ids, splits and labels, without report text (:func:`~medvl.evaluation.save_embeddings`)."""
        return save_embeddings(self, path, findings, splits)


def embed_studies(
    model: Any,
    batches: Iterable[Mapping[str, Any]],
    *,
    device: torch.device | str | None = None,
    keep_images: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Embeddings:
    """Embed the images and reports of studies, batch by batch, without gradients and in evaluation mode.

    Args:
        model: anything with ``encode_image`` ((N, C, H, W[, D]) to (N, D)) and ``encode_text`` (N strings to (N, D)). A
            module is left in its mode, training or evaluation. Where it has ``encode_reports`` (N reports
            to (N, D)), as :class:`~medvl.networks.DualEncoder` does, reports go through that: a model that was trained on
            sentences embeds a report by its sentences.
        batches: dictionaries with ``image`` and, where known, ``report`` (strings; "" or None where there is none),
            ``label`` (N, K), ``study_id`` and ``patient_id``, such as a loader with MONAI's collation gives.
        device: where the images go; None leaves them where they are.
        keep_images: number of studies, the first ones, of which a small picture is kept for the report.
        progress: called with the number of studies after each batch.

    Returns:
        The embeddings, on the CPU. A report that several rows of a batch have is embedded once.

    Raises:
        ValueError: If there is no batch, a key is in some batches only, or an embedding is not finite.

    Example:
        >>> class Model:
        ...     def encode_image(self, images):
        ...         return images.flatten(1)
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[float(len(text)), 1.0] for text in texts])
        >>> batch = {"image": torch.tensor([[[[3.0, 4.0]]], [[[1.0, 0.0]]]]), "report": ["Clear.", ""]}
        >>> embeddings = embed_studies(Model(), [batch])
        >>> embeddings.image
        tensor([[0.6000, 0.8000],
                [1.0000, 0.0000]])
        >>> embeddings.has_text
        tensor([ True, False])
    """
    columns: dict[str, list[Any]] = {key: [] for key in ("report", "label", "study_id", "patient_id")}
    images: list[Tensor] = []
    texts: list[Tensor] = []
    thumbnails: dict[int, np.ndarray] = {}
    seen = 0
    with eval_mode(model), torch.inference_mode():
        for batch in batches:
            # A MetaTensor would follow the embeddings through all that comes, slowly.
            pixels = torch.as_tensor(batch["image"]).as_subclass(Tensor)
            for row in range(max(0, min(len(pixels), keep_images - seen))):
                thumbnails[seen + row] = thumbnail(pixels[row])
            images.append(model.encode_image(pixels if device is None else pixels.to(device)).float().cpu())
            seen += len(pixels)
            reports = [str(report or "") for report in batch.get("report", [""] * len(pixels))]
            texts.append(_embed_reports(model, reports, images[-1].shape[1]))
            columns["report"].extend(reports)
            for key in ("label", "study_id", "patient_id"):
                columns[key].extend(batch.get(key, []))
            if progress is not None:
                progress(len(pixels))
    if not images:
        raise ValueError(error_message("batches", "hold at least one batch of studies", "none"))
    for key, values in columns.items():
        if values and len(values) != seen:
            raise ValueError(error_message(key, "be in every batch or in none", f"{len(values)} for {seen} images"))
    return Embeddings(
        image=torch.cat(images),
        text=torch.cat(texts),
        texts=columns["report"],
        study_ids=columns["study_id"],
        patient_ids=columns["patient_id"],
        labels=torch.stack([torch.as_tensor(row) for row in columns["label"]]) if columns["label"] else None,
        thumbnails=thumbnails,
    )


def text_encoder(model: Any, as_class_prompts: bool = False) -> Callable[[Sequence[str]], Tensor]:
    """``model.encode_text``, or ``model`` itself where it is a plain callable.

    Args:
        model: either.
        as_class_prompts: whether the texts are class prompts, which ``model.encode_class_prompts`` encodes where it exists.

    Raises:
        TypeError: If it is neither.
    """
    encode = getattr(model, "encode_text", model)
    encode = getattr(model, "encode_class_prompts", encode) if as_class_prompts else encode
    if not callable(encode):
        raise TypeError(error_message("encode_text", "be a model with encode_text or a callable", type(model).__name__))
    return encode


def normalized_embeddings(name: str, embeds: Any) -> Tensor:
    """Embeddings (N, D) scaled to length one, float32 on the CPU.

    Args:
        name: of the embeddings, for messages.
        embeds: a matrix.

    Raises:
        ValueError: If they are not a matrix, or not finite.
    """
    embeds = torch.as_tensor(embeds).detach().float().cpu()
    if embeds.ndim != 2:
        raise ValueError(error_message(f"{name} embeddings", "have shape (N, D)", tuple(embeds.shape)))
    wrong = int((~embeds.isfinite().all(dim=1)).sum())
    if wrong:
        raise ValueError(
            error_message(f"{name} embeddings", "be finite", f"{wrong} of {len(embeds)} rows that are not")
        )
    return F.normalize(embeds, dim=1)


def _embed_reports(model: Any, reports: list[str], width: int) -> Tensor:
    """Embeddings (N, D) of a batch's reports, NaN where there is none."""
    rows = torch.full((len(reports), width), torch.nan)
    distinct = list(dict.fromkeys(report for report in reports if report.strip()))
    if distinct:
        place = {report: number for number, report in enumerate(distinct)}
        method = "encode_reports" if hasattr(model, "encode_reports") else "encode_text"
        embeds = normalized_embeddings("text", getattr(model, method)(distinct))
        if embeds.shape != (len(distinct), width):
            expected = f"give shape {(len(distinct), width)} for {len(distinct)} texts"
            raise ValueError(error_message(method, expected, tuple(embeds.shape)))
        for row, report in enumerate(reports):
            if report.strip():
                rows[row] = embeds[place[report]]
    return rows
