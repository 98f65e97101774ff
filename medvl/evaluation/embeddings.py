"""Embeddings of studies: what every protocol starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.utils.modes import eval_mode

THUMBNAIL_SIZE = 192
"""Longest side in pixels of the pictures that :func:`embed_studies` keeps."""


@dataclass
class Embeddings:
    """Image and text embeddings of N studies with what is known of them, one row a study.

    Args:
        image: unit vectors (N, D).
        text: unit vectors (N, D); a row of NaN where the study has no report.
        texts: N reports, "" where there is none. None where reports are not known as text: the rows of ``text`` that
            are not NaN are then taken as reports that differ from each other.
        study_ids: N ids, None for one study a row.
        patient_ids: N ids, None for one patient a study.
        labels: finding states (N, K): 1 present, 0 absent, -1 uncertain, NaN not mentioned; None where there are none.
        thumbnails: small pictures (H, W), uint8, of some rows, for the report.

    Raises:
        ValueError: if a length differs from N, or an image embedding is NaN or infinite.

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
        self.image = unit_vectors("image", self.image)
        text = torch.as_tensor(self.text)
        if text.shape != self.image.shape:
            raise ValueError(
                "text must hold a row for each row of image, NaN where a study has no report; received "
                f"{tuple(text.shape)} and {tuple(self.image.shape)}"
            )
        self.text = F.normalize(text.detach().float().cpu(), dim=1)
        self.study_ids = id_texts(self.study_ids) or id_texts(range(number))
        self.patient_ids = id_texts(self.patient_ids) or list(self.study_ids)
        for name in ("texts", "study_ids", "patient_ids", "labels"):
            value = getattr(self, name)
            if value is not None and len(value) != number:
                raise ValueError(f"{name} must have one entry for each of the {number} images; received {len(value)}")
        if self.labels is not None:
            self.labels = torch.as_tensor(self.labels).detach().float().cpu()
            if self.labels.ndim != 2:
                raise ValueError(f"labels must have shape (N, K); received {tuple(self.labels.shape)}")

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

    def save_npz(self, path: str | Path) -> Path:
        """Write the embeddings with ids and labels as a NumPy archive (no report text); return its path.

        The arrays are ``image_embeds`` (N, D), ``text_embeds`` (N, D), ``study_id`` (N,), ``patient_id`` (N,) and, where
        there are any, ``label`` (N, K).
        """
        arrays = {
            "image_embeds": self.image.numpy(),
            "text_embeds": self.text.numpy(),
            "study_id": np.array(self.study_ids, dtype=str),
            "patient_id": np.array(self.patient_ids, dtype=str),
        }
        if self.labels is not None:
            arrays["label"] = self.labels.numpy()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        return path


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
            module is left in the mode (training or evaluation) that it came in. Where it has ``encode_reports`` (N reports
            to (N, D)), as :class:`~medvl.networks.DualEncoder` does, reports go through that: a model that was trained on
            sentences embeds a report by its sentences.
        batches: dictionaries with ``image`` and, where known, ``report`` (strings; "" or None where there is none),
            ``label`` (N, K), ``study_id`` and ``patient_id``, such as a loader with MONAI's collation gives.
        device: where the images go; None leaves them where they are.
        keep_images: of the first so many studies a small picture is kept for the report.
        progress: called with the number of studies after each batch.

    Returns:
        The embeddings, on the CPU. A report that stands in several rows of a batch is embedded once.

    Raises:
        ValueError: if there is no batch, a key is in some batches only, or an embedding is NaN or infinite.

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
        raise ValueError("batches must hold at least one batch of studies; received none")
    for key, values in columns.items():
        if values and len(values) != seen:
            raise ValueError(f"{key} must be in every batch or in none; received {len(values)} for {seen} images")
    return Embeddings(
        image=torch.cat(images),
        text=torch.cat(texts),
        texts=columns["report"],
        study_ids=columns["study_id"],
        patient_ids=columns["patient_id"],
        labels=torch.stack([torch.as_tensor(row) for row in columns["label"]]) if columns["label"] else None,
        thumbnails=thumbnails,
    )


def id_texts(ids: Iterable[Any]) -> list[str]:
    """Ids as texts; whole numbers that a loader made a tensor of read as numbers.

    Example:
        >>> id_texts(torch.tensor([7, 12])), id_texts(["a", 3])
        (['7', '12'], ['a', '3'])
    """
    return [str(i.item() if isinstance(i, Tensor) else i) for i in ids]


def batch_ids(batch: Mapping[str, Any], number: int, start: int) -> tuple[list[str], list[str]]:
    """Study and patient ids of a batch's cases; without them a case is known by its place, and is its own patient.

    Args:
        batch: may have ``study_id`` and ``patient_id``.
        number: of cases in it.
        start: cases before it.

    Raises:
        ValueError: if there are ids, and not one for each case.
    """
    given = {key: id_texts(ids) for key in ("study_id", "patient_id") if (ids := batch.get(key)) is not None}
    for key, ids in given.items():
        if len(ids) != number:
            raise ValueError(f"{key} must have one entry for each of the {number} images; received {len(ids)}")
    studies = given.get("study_id", id_texts(range(start, start + number)))
    return studies, given.get("patient_id", studies)


def text_encoder(model: Any, prompts: bool = False) -> Callable[[Sequence[str]], Tensor]:
    """``model.encode_text``, or ``model`` itself where it is a plain callable.

    Args:
        model: either.
        prompts: whether prompts are to be encoded: by ``model.encode_class_prompts`` where it has one.

    Raises:
        TypeError: if it is neither.
    """
    encode = getattr(model, "encode_text", model)
    encode = getattr(model, "encode_class_prompts", encode) if prompts else encode
    if not callable(encode):
        raise TypeError(f"encode_text must be a model with encode_text or a callable; received {type(model).__name__}")
    return encode


def unit_vectors(name: str, embeds: Any) -> Tensor:
    """Embeddings (N, D) as unit vectors, float32 on the CPU.

    Raises:
        ValueError: if they are no matrix, or hold NaN or infinite values.
    """
    embeds = torch.as_tensor(embeds).detach().float().cpu()
    if embeds.ndim != 2:
        raise ValueError(f"{name} embeddings must have shape (rows, D); received {tuple(embeds.shape)}")
    wrong = ~embeds.isfinite().all(dim=1)
    if bool(wrong.any()):
        raise ValueError(f"{name} embeddings hold NaN or infinite values in {int(wrong.sum())} of {len(embeds)} rows")
    return F.normalize(embeds, dim=1)


def thumbnail(image: Tensor) -> np.ndarray:
    """A small picture (H, W), uint8, of an image (C, H, W), or of a volume (C, X, Y, Z) in RAS order.

    A volume shows its middle axial slice as radiologists see it: the patient's right on the left, the front at the top.
    The darkest and the brightest percent of the pixels are cut off, so that one bright marker does not turn all else black.
    """
    plane = image.detach().float().cpu()
    if plane.ndim == 4:
        plane = plane[..., plane.shape[-1] // 2].flip(1, 2).transpose(1, 2)
    plane = plane.mean(dim=0)
    shrink = THUMBNAIL_SIZE / max(plane.shape)
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in plane.shape]
        plane = F.interpolate(plane[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    low, high = np.percentile(plane.numpy(), [1, 99])
    return (np.clip((plane.numpy() - low) / max(high - low, 1e-12), 0, 1) * 255).round().astype(np.uint8)


def _embed_reports(model: Any, reports: list[str], width: int) -> Tensor:
    """Embeddings (N, D) of a batch's reports, NaN where there is none."""
    rows = torch.full((len(reports), width), torch.nan)
    distinct = list(dict.fromkeys(report for report in reports if report.strip()))
    if distinct:
        place = {report: number for number, report in enumerate(distinct)}
        method = "encode_reports" if hasattr(model, "encode_reports") else "encode_text"
        embeds = unit_vectors("text", getattr(model, method)(distinct))
        if embeds.shape != (len(distinct), width):
            raise ValueError(
                f"{method} must give {(len(distinct), width)} for {len(distinct)} texts; received {tuple(embeds.shape)}"
            )
        for row, report in enumerate(reports):
            if report.strip():
                rows[row] = embeds[place[report]]
    return rows
