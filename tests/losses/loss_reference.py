"""Losses as float64 loops, written from their equations and from nothing else."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit(vectors: Tensor) -> list[Tensor]:
    return [v if float(v.detach().norm()) == 0 else v / v.norm() for v in vectors.unbind(0)]


def transpose(table: list[list]) -> list[list]:
    return [list(column) for column in zip(*table, strict=True)]


def normalized(table: list[list[float]]) -> list[list[float]]:
    return [[value / sum(row) if sum(row) else 0.0 for value in row] for row in table]


def softmax(table: list[list[float]]) -> list[list[float]]:
    return normalized([[math.exp(value - max(row)) for value in row] for row in table])


def cross_entropies(logits: list[list[Tensor]], targets: list[list[float]]) -> list[Tensor | None]:
    """-sum_j y_j log softmax_j(l) of every row; None for a row without targets."""
    terms: list[Tensor | None] = []
    for row, target in zip(logits, targets, strict=True):
        lse = torch.logsumexp(torch.stack(row), 0)
        terms.append(sum(y * (lse - logit) for y, logit in zip(target, row, strict=True)) if sum(target) else None)
    return terms


def reduce(rows, columns, row_weights, column_weights, share, reduction):
    """Terms that are None do not count; the weights of those that do have mean 1."""
    parts = []
    for terms, weights, part in ((rows, row_weights, share), (columns, column_weights, 1 - share)):
        kept = [w for term, w in zip(terms, weights, strict=True) if term is not None]
        mean = sum(kept) / len(kept) if kept else 1.0
        zero = torch.zeros((), dtype=torch.float64)
        weighted = [zero if t is None else part * w / mean * t for t, w in zip(terms, weights, strict=True)]
        parts.append((weighted, max(len(kept), 1)))
    if reduction == "none":
        return torch.stack([*parts[0][0], *parts[1][0]])
    if reduction == "sum":
        return sum(sum(terms) for terms, _ in parts)
    return sum(sum(terms) / count for terms, count in parts)


def cosine_logits(image_embeds, text_embeds, scale):
    return [[scale * (v * t).sum() for t in unit(text_embeds)] for v in unit(image_embeds)]


def contrast(logits, positive, weights=None, share=0.5, reduction="mean"):
    """Targets proportional to a table of non-negative numbers; a text weighs what its images do on average."""
    if weights is None:
        weights, text_weights = [1.0] * len(positive), [1.0] * len(positive[0])
    else:
        text_weights = [
            sum(w * p for w, p in zip(weights, column, strict=True)) / max(sum(column), 1)
            for column in transpose(positive)
        ]
    rows = cross_entropies(logits, normalized(positive))
    columns = cross_entropies(transpose(logits), normalized(transpose(positive)))
    return reduce(rows, columns, weights, text_weights, share, reduction)


def same(image_ids, text_ids):
    return [[float(i == j) for j in text_ids] for i in image_ids]


def pooled(embeds, ids):
    """The normalized mean of the unit vectors of every id, and the ids, in ascending order."""
    distinct = sorted(set(ids))
    units = unit(embeds)
    means = [sum(t for t, of in zip(units, ids, strict=True) if of == own) / ids.count(own) for own in distinct]
    return torch.stack(unit(torch.stack(means))), distinct


def image_text_contrastive(
    image_embeds, text_embeds, image_ids, text_ids, weights=None, *, scale, image_weight=0.75, reduction="mean"
):
    logits = cosine_logits(image_embeds, text_embeds, scale)
    return contrast(logits, same(image_ids, text_ids), weights, image_weight, reduction)


def similarity(a: list[float], b: list[float], kind: str) -> float:
    a, b = ([0.0 if math.isnan(x) else x for x in vector] for vector in (a, b))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    if kind == "dot":
        return dot
    if kind == "jaccard":
        either = sum(x > 0 or y > 0 for x, y in zip(a, b, strict=True))
        return sum(x > 0 and y > 0 for x, y in zip(a, b, strict=True)) / either if either else 0.0
    length = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return dot / length if length else 0.0


def semantic_matching(
    image_embeds, text_embeds, image_labels, text_labels, *, scale, temperature=1.0, kind="cosine", reduction="mean"
):
    logits = cosine_logits(image_embeds, text_embeds, scale)
    table = [[similarity(a, b, kind) / temperature for b in text_labels.tolist()] for a in image_labels.tolist()]
    rows = cross_entropies(logits, softmax(table))
    columns = cross_entropies(transpose(logits), softmax(transpose(table)))
    return reduce(rows, columns, [1.0] * len(rows), [1.0] * len(columns), 0.5, reduction)


def agreement(a: list[float], b: list[float], label_agreement: str, temperature: float | None = None) -> float:
    if label_agreement == "exact":
        known = not all(map(math.isnan, a)) and not all(map(math.isnan, b))
        return float(known and all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True)))
    if label_agreement == "overlap":
        return float(any(x > 0 and y > 0 for x, y in zip(a, b, strict=True)))
    if temperature is not None:
        states_something = all(any(x > 0 or x < 0 for x in vector) for vector in (a, b))
        return math.exp((similarity(a, b, "cosine") - 1) / temperature) if states_something else 0.0
    return max(0.0, similarity(a, b, "cosine"))


def matches(image_labels, text_labels, image_ids, text_ids, label_agreement, temperature=None):
    count_images = len(image_ids if image_labels is None else image_labels)
    count_texts = len(text_ids if text_labels is None else text_labels)
    return [
        [
            1.0
            if image_ids is not None and image_ids[i] == text_ids[j]
            else 0.0
            if image_labels is None
            else agreement(image_labels[i].tolist(), text_labels[j].tolist(), label_agreement, temperature)
            for j in range(count_texts)
        ]
        for i in range(count_images)
    ]


def image_text_label_contrastive(
    image_embeds,
    text_embeds,
    image_labels=None,
    text_labels=None,
    image_ids=None,
    text_ids=None,
    *,
    scale,
    label_agreement="exact",
    agreement_temperature=None,
    image_weight=0.5,
    reduction="mean",
):
    positive = matches(image_labels, text_labels, image_ids, text_ids, label_agreement, agreement_temperature)
    return contrast(cosine_logits(image_embeds, text_embeds, scale), positive, None, image_weight, reduction)


def sigmoid_contrastive(
    image_embeds,
    text_embeds,
    image_labels=None,
    text_labels=None,
    image_ids=None,
    text_ids=None,
    *,
    scale,
    bias=-10.0,
    label_agreement="exact",
    reduction="mean",
):
    positive = matches(image_labels, text_labels, image_ids, text_ids, label_agreement)
    logits = cosine_logits(image_embeds, text_embeds, scale)
    terms = torch.stack(
        [
            sum(
                -m * torch.nn.functional.logsigmoid(logit + bias)
                - (1 - m) * torch.nn.functional.logsigmoid(-logit - bias)
                for logit, m in zip(row, ms, strict=True)
            )
            for row, ms in zip(logits, positive, strict=True)
        ]
    )
    return {"mean": terms.sum() / len(terms), "sum": terms.sum(), "none": terms}[reduction]


def sinkhorn(cost: Tensor, epsilon: float, iterations: int = 500) -> Tensor:
    """One plan with uniform marginals, by alternating updates of the logarithms; differentiable through all of them."""
    a = -math.log(cost.shape[0])
    b = -math.log(cost.shape[1])
    f, g = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    for _ in range(iterations):
        f = a - torch.logsumexp(g - cost / epsilon, 1)
        g = b - torch.logsumexp(f[:, None] - cost / epsilon, 0)
    return (f[:, None] + g - cost / epsilon).exp()


def patch_sentence_score(
    patches: Tensor, sentences: Tensor, alignment: str, epsilon: float, temperature: float
) -> Tensor:
    """Score of one image and one text, both without what their masks hide."""
    if len(patches) == 0 or len(sentences) == 0:
        return torch.zeros((), dtype=torch.float64)
    c = torch.stack([torch.stack([(p * s).sum() for s in unit(sentences)]) for p in unit(patches)])
    if alignment == "transport":
        return (sinkhorn(1 - c, epsilon) * c).sum()
    if alignment == "attention":
        return sum((torch.softmax(column / temperature, 0) * column).sum() for column in c.T) / len(c.T)
    return (sum(row.max() for row in c) / len(c) + sum(column.max() for column in c.T) / len(c.T)) / 2


def patch_sentence_matching(
    patch_embeds,
    sentence_embeds,
    patch_mask,
    sentence_mask,
    image_ids,
    text_ids,
    weights=None,
    *,
    scale,
    alignment="transport",
    epsilon=0.05,
    attention_temperature=0.1,
    image_weight=0.5,
    reduction="mean",
):
    images = [p[m] for p, m in zip(patch_embeds, patch_mask, strict=True)]
    texts = [s[m] for s, m in zip(sentence_embeds, sentence_mask, strict=True)]
    logits = [
        [scale * patch_sentence_score(p, s, alignment, epsilon, attention_temperature) for s in texts] for p in images
    ]
    positive = [
        [float(i == j and len(p) > 0 and len(s) > 0) for j, s in zip(text_ids, texts, strict=True)]
        for i, p in zip(image_ids, images, strict=True)
    ]
    return contrast(logits, positive, weights, image_weight, reduction)


def sentence_scores(patches: Tensor, sentences: Tensor, alignment: str, epsilon: float, temperature: float) -> list:
    """Scores of the sentences of one text with one image, both without what their masks hide."""
    if len(patches) == 0 or len(sentences) == 0:
        return [torch.zeros((), dtype=torch.float64)] * len(sentences)
    c = torch.stack([torch.stack([(p * s).sum() for s in unit(sentences)]) for p in unit(patches)])
    if alignment == "transport":
        plan = sinkhorn(1 - c, epsilon)
        return [(plan[:, s] / plan[:, s].sum() * c[:, s]).sum() for s in range(c.shape[1])]
    if alignment == "attention":
        return [(torch.softmax(column / temperature, 0) * column).sum() for column in c.T]
    return [column.max() for column in c.T]


def semantic_sentence(
    patch_embeds,
    sentence_embeds,
    image_labels,
    text_labels,
    patch_mask,
    sentence_mask,
    text_ids=None,
    weights=None,
    *,
    scale,
    target_temperature=0.1,
    kind="cosine",
    alignment="attention",
    epsilon=0.05,
    attention_temperature=0.1,
    present_only=True,
    reduction="mean",
):
    """``text_labels`` by sentence, (M, S, K); ``text_ids``: texts of one id are one text, by ascending id."""
    images = [p[m] for p, m in zip(patch_embeds, patch_mask, strict=True)]
    # By text, its sentences: each the vector, its labels and whether it is one.
    texts = [
        list(zip(*of, strict=True)) for of in zip(sentence_embeds, text_labels.tolist(), sentence_mask, strict=True)
    ]
    if text_ids is not None:
        groups = [
            [s for of, text in zip(text_ids, texts, strict=True) if of == own for s in text if s[2]]
            for own in sorted({of for of, text in zip(text_ids, texts, strict=True) if any(s[2] for s in text)})
        ]
        longest = max(map(len, groups), default=0)
        none = (torch.zeros(sentence_embeds.shape[-1], dtype=torch.float64), [0.0] * text_labels.shape[-1], False)
        texts = [[*group, *[none] * (longest - len(group))] for group in groups]

    def states(labels) -> bool:
        return any(x > 0 if present_only else x > 0 or x < 0 for x in labels)

    rows = [len(p) > 0 and any(x > 0 or x < 0 for x in a) for p, a in zip(images, image_labels.tolist(), strict=True)]
    columns = [bool(kept) and states(labels) for text in texts for _, labels, kept in text]
    logits, table = [], []
    for p, a in zip(images, image_labels.tolist(), strict=True):
        row, similarities = [], []
        for text in texts:
            kept = [vector for vector, _, there in text if there]
            found = iter(
                sentence_scores(p, torch.stack(kept), alignment, epsilon, attention_temperature) if kept else []
            )
            scores = [next(found) if there else None for _, _, there in text]
            for (_, labels, _), score in zip(text, scores, strict=True):
                row.append(score)
                similarities.append(similarity(a, labels, kind) / target_temperature)
        logits.append([scale * score for score, keep in zip(row, columns, strict=True) if keep])
        table.append([value for value, keep in zip(similarities, columns, strict=True) if keep])
    logits = [row for row, keep in zip(logits, rows, strict=True) if keep]
    table = [row for row, keep in zip(table, rows, strict=True) if keep]
    image_terms, text_terms = [None] * len(rows), [None] * len(columns)
    if any(rows) and any(columns):
        found = iter(cross_entropies(logits, softmax(table)))
        image_terms = [next(found) if keep else None for keep in rows]
        found = iter(cross_entropies(transpose(logits), softmax(transpose(table))))
        text_terms = [next(found) if keep else None for keep in columns]
    return reduce(image_terms, text_terms, weights or [1.0] * len(rows), [1.0] * len(columns), 0.5, reduction)


def masked_patch(prediction, image, visible_mask, patch: int, normalize: bool, reduction="mean"):
    """Two-dimensional images."""
    errors = torch.zeros(prediction.shape[:2], dtype=torch.float64)
    hidden = 0
    across = image.shape[3] // patch
    for i in range(len(image)):
        for p in range(prediction.shape[1]):
            if visible_mask[i, p]:
                continue
            row, column = patch * (p // across), patch * (p % across)
            pixels = [
                image[i, c, row + y, column + x]
                for y in range(patch)
                for x in range(patch)
                for c in range(image.shape[1])
            ]
            if normalize:
                mean = sum(pixels) / len(pixels)
                spread = math.sqrt(sum((x - mean) ** 2 for x in pixels) / len(pixels) + 1e-6)
                pixels = [(x - mean) / spread for x in pixels]
            errors[i, p] = sum((a - b) ** 2 for a, b in zip(prediction[i, p], pixels, strict=True)) / len(pixels)
            hidden += 1
    return {"mean": errors.sum() / max(hidden, 1), "sum": errors.sum(), "none": errors}[reduction]
