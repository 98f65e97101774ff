"""Heat maps of a report's own sentences over its image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medvl.evaluation.heat_maps import phrase_maps
from medvl.evaluation.thumbnails import thumbnail
from medvl.text import find_findings, load_vocabulary, split_sentences

SENTENCES = 3
"""Sentences shown of one report."""


@dataclass(frozen=True)
class SentenceMaps:
    """The sentences of one report with their heat maps.

    Args:
        picture: the image (H, W), uint8.
        sentences: S of them.
        maps: cosines on the model's grid (S, h, w).
        study_id: of the study.
    """

    picture: np.ndarray
    sentences: list[str]
    maps: np.ndarray
    study_id: str


def sentence_maps(
    model: Any,
    image: Tensor,
    report: str,
    *,
    study_id: str = "",
    vocabulary: str = "chexpert14",
    limit: int = SENTENCES,
    exclude: Collection[str] = (),
) -> SentenceMaps | None:
    """Heat maps of the sentences that state that a finding is present.

    Args:
        model: as for :func:`medvl.evaluation.grounding`.
        image: (C, H, W).
        report: its report.
        study_id: of the study.
        vocabulary: of the findings.
        limit: largest number of sentences, the first ones.
        exclude: sentences to leave out, such as those that are shown already.

    Returns:
        The maps; None where no sentence that is not excluded states a finding.

    Example:
        >>> class Model:
        ...     def encode_patches(self, image):
        ...         return torch.ones(len(image), 4, 2), (2, 2)
        ...     def encode_text(self, texts):
        ...         return torch.ones(len(texts), 2)
        >>> shown = sentence_maps(Model(), torch.zeros(1, 8, 8), "No effusion. There is pulmonary edema. Normal chest.")
        >>> shown.sentences, shown.maps.shape
        (['There is pulmonary edema.'], (1, 2, 2))
    """
    words = load_vocabulary(vocabulary)
    sentences = []
    for start, end in split_sentences(report):
        sentence = " ".join(report[start:end].split())
        mentions = find_findings(sentence, words)
        # "No acute disease" states "No Finding", which has no location.
        if any(mention.assertion == "present" and mention.finding != "No Finding" for mention in mentions):
            sentences.append(sentence)
    sentences = [sentence for sentence in dict.fromkeys(sentences) if sentence not in exclude][:limit]
    if not sentences:
        return None
    pixels = torch.as_tensor(image).as_subclass(Tensor)
    maps = phrase_maps(model, pixels[None], sentences)[0].float().cpu().numpy()
    return SentenceMaps(thumbnail(pixels), sentences, maps, study_id)
