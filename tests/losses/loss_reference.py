"""Losses as float64 loops, written from their equations and from nothing else."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(vectors: Tensor) -> list[Tensor]:
    return [v if float(v.norm()) == 0 else v / v.norm() for v in vectors.unbind(0)]


def cross_entropies(logits: list[list[Tensor]], targets: list[list[float]]) -> list[Tensor | None]:
    """-sum_j y_j log softmax_j(l) of every row whose targets sum to 1; None for a row without targets."""
    terms: list[Tensor | None] = []
    for row, target in zip(logits, targets, strict=True):
        if sum(target) == 0:
            terms.append(None)
            continue
        lse = torch.logsumexp(torch.stack(row), 0)
        terms.append(sum(y * (lse - logit) for y, logit in zip(target, row, strict=True)))
    return terms


def transpose(table: list[list]) -> list[list]:
    return [list(column) for column in zip(*table, strict=True)]


def normalised(table: list[list[float]]) -> list[list[float]]:
    return [[value / sum(row) if sum(row) else 0.0 for value in row] for row in table]


def weighted_mean(terms: list[Tensor | None], weights: list[float]) -> Tensor:
    kept = [(term, weight) for term, weight in zip(terms, weights, strict=True) if term is not None]
    if not kept:
        return torch.zeros((), dtype=torch.float64)
    mean = sum(weight for _, weight in kept) / len(kept)
    return sum(term * weight / mean for term, weight in kept) / len(kept)


def image_text_contrastive(image_embeds, text_embeds, image_ids, text_ids, weights=None, scale=10.0, image_weight=0.75):
    images, texts = unit(image_embeds), unit(text_embeds)
    logits = [[scale * (v * t).sum() for t in texts] for v in images]
    positive = [[float(i == j) for j in text_ids] for i in image_ids]
    weights = [1.0] * len(images) if weights is None else weights
    text_weights = [
        sum(w * p for w, p in zip(weights, column, strict=True)) / max(sum(column), 1) for column in transpose(positive)
    ]
    rows = cross_entropies(logits, normalised(positive))
    columns = cross_entropies(transpose(logits), normalised(transpose(positive)))
    return image_weight * weighted_mean(rows, weights) + (1 - image_weight) * weighted_mean(columns, text_weights)
