"""What the report shows in pictures: heat maps, outlines, calibration and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.protocols.grounding import TITLES as MEASURES
from medvl.evaluation.protocols.grounding import GroundingResult
from medvl.evaluation.protocols.retrieval import RetrievalResult
from medvl.evaluation.protocols.segmentation import SegmentationResult
from medvl.evaluation.protocols.zero_shot import ZeroShotResult
from medvl.evaluation.report.overlays import overlay
from medvl.evaluation.report.plots import calibration_plot, picture
from medvl.evaluation.report.sentence_maps import SentenceMaps

FAILURES = 8
WRONG = 0.1
"""Share of the other class that a case must be on the wrong side of to be shown as a failure."""
REPORT_QUERIES, NEAREST_IMAGES = 3, 4
QUERY_TEXT = 320
"""Characters shown of a report that asks."""


def grounding_cases(result: GroundingResult | None) -> list[dict[str, Any]]:
    """Heat maps of the examples with the true region outlined."""
    cases = []
    for example in result.examples if result is not None else ():
        values = [f"{MEASURES[name]} {value:.2f}" for name, value in example.values.items() if name != "pointing"]
        values.append("points inside" if example.values["pointing"] == 1 else "points outside")
        cases.append(
            {
                "name": example.name,
                "study": example.study_id,
                "picture": overlay(example.picture, example.heat, truth=example.truth),
                "about": ", ".join(values),
                "hit": example.values["pointing"] == 1,
                "range": _range(example.heat),
            }
        )
    return cases


def sentence_cases(shown: Sequence[SentenceMaps], show_text: bool) -> list[dict[str, Any]]:
    """Images, each bare and with the heat map of every sentence shown."""
    return [
        {
            "study": case.study_id,
            "picture": overlay(case.picture),
            "sentences": [
                {
                    "text": sentence if show_text else f"sentence {place}",
                    "picture": overlay(case.picture, heat),
                    "range": _range(heat),
                }
                for place, (sentence, heat) in enumerate(zip(case.sentences, case.maps, strict=True), start=1)
            ],
        }
        for case in shown
    ]


def segmentation_cases(result: SegmentationResult | None) -> list[dict[str, Any]]:
    """Test cases from the worst to the best with the true and the predicted region outlined."""
    return [
        {
            "name": example.name,
            "study": example.study_id,
            "picture": overlay(example.picture, truth=example.truth, predicted=example.predicted),
            "dice": f"{example.dice:.2f}",
        }
        for example in (result.examples if result is not None else ())
    ]


def calibration_plots(result: ZeroShotResult | None) -> list[tuple[str, str, str]]:
    """Name, expected calibration error and plot of every finding that has cases of both classes."""
    if result is None:
        return []
    return [
        (name, f"{finding.ece.value:.3f}", calibration_plot(name, result.reliability(name)))
        for name, finding in result.findings.items()
        if not math.isnan(finding.auroc.value)
    ]


def failure_cases(
    result: ZeroShotResult | None,
    embeddings: Embeddings | None,
    images: Mapping[int, np.ndarray] | None,
    number: int = FAILURES,
) -> list[dict[str, Any]]:
    """The images on which zero-shot classification errs most: by turns a finding missed and one seen where there is none.

    How far a case errs is the share of the cases of the other class that it is on the wrong side of, so that findings whose
    scores lie on other scales compare. Every image is shown once.
    """
    if result is None or embeddings is None:
        return []
    pictures = embeddings.thumbnails if images is None else images
    found: dict[str, list[tuple[float, int, int]]] = {"missed": [], "seen": []}
    for column in range(result.targets.shape[1]):
        present, absent = (np.flatnonzero(result.targets[:, column] == state) for state in (1, 0))
        if not len(present) or not len(absent):
            continue
        scores = result.margins[:, column]
        found["missed"] += [(float((scores[absent] > scores[i]).mean()), i, column) for i in present.tolist()]
        found["seen"] += [(float((scores[present] < scores[i]).mean()), i, column) for i in absent.tolist()]
    ranked = {kind: sorted(errors, key=lambda error: (-error[0], error[1])) for kind, errors in found.items()}
    names = list(result.findings)
    cases: list[dict[str, Any]] = []
    used: set[int] = set()
    shown: set[tuple[str, int]] = set()
    for turn in range(2 * number):
        kind = ("missed", "seen")[turn % 2]
        free = (error for error in ranked[kind] if error[1] in pictures and error[1] not in used and error[0] > WRONG)
        worst = next((error for error in free if (kind, error[2]) not in shown), None)
        if worst is None or len(cases) == number:
            continue
        share, row, column = worst
        used.add(row)
        shown.add((kind, column))
        cases.append(
            {
                "missed": kind == "missed",
                "name": names[column],
                "study": embeddings.study_ids[row],
                "picture": picture(pictures[row]),
                "share": f"{100 * share:.0f} %",
                "probability": f"{result.probabilities[row, column]:.2f}",
            }
        )
    return cases


def report_queries(
    result: RetrievalResult | None,
    embeddings: Embeddings | None,
    images: Mapping[int, np.ndarray] | None,
    show_text: bool,
    number: int = REPORT_QUERIES,
) -> list[dict[str, Any]]:
    """Reports from the best to the worst ranked with the images nearest to them."""
    if result is None or embeddings is None or embeddings.texts is None:
        return []
    direction = result.text_to_image
    pictures = embeddings.thumbnails if images is None else images
    kept = np.flatnonzero([int(row) in pictures for row in direction.candidate_rows])
    if len(kept) < NEAREST_IMAGES:
        return []
    order = np.argsort(direction.ranks, kind="stable")
    cases = []
    for query in order[sorted({round(place) for place in np.linspace(0, len(order) - 1, number)})]:
        row = int(direction.query_rows[query])
        similarity = (embeddings.image[direction.candidate_rows] @ embeddings.text[row]).numpy()
        nearest = np.argsort(-similarity, kind="stable")[:NEAREST_IMAGES]
        # An image whose picture was not kept would leave a gap in the row.
        if not all(int(direction.candidate_rows[place]) in pictures for place in nearest):
            continue
        text = embeddings.texts[row].strip() if show_text else f"Report of study {embeddings.study_ids[row]}"
        cases.append(
            {
                "text": text if len(text) <= QUERY_TEXT else text[: word_end(text, QUERY_TEXT)] + " …",
                "study": embeddings.study_ids[row],
                "rank": int(direction.ranks[query]),
                "candidates": len(direction.candidate_rows),
                "hits": [
                    {
                        "picture": picture(pictures[int(direction.candidate_rows[place])]),
                        "study": embeddings.study_ids[int(direction.candidate_rows[place])],
                        "right": bool(direction.candidate_groups[place] == direction.query_groups[query]),
                        "similarity": f"{similarity[place]:.2f}",
                    }
                    for place in nearest
                ],
            }
        )
    return cases


def word_end(text: str, length: int) -> int:
    """Where to cut a text to at most ``length`` characters: behind its last whole word, or in a word longer than that.

    Example:
        >>> word_end("No effusion.", 5), word_end("Pneumothorax.", 5)
        (2, 5)
    """
    cut = text.rfind(" ", 0, length)
    return cut if cut > 0 else length


def _range(heat: np.ndarray) -> str:
    return f"cosine {heat.min():.2f} to {heat.max():.2f}"
