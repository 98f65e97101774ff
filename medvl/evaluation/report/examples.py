"""Examples in the report: test images with their nearest reports, reports with their nearest images, and failures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.report.plots import picture

GALLERY_REPORTS = 3
EXCERPT = 260
"""Characters shown of a report, before it is cut."""

FAILURES = 8
MIN_ERROR = 0.1
"""Fraction of the other class that a case must be on the wrong side of to be shown as a failure."""

REPORT_QUERIES, NEAREST_IMAGES = 3, 4

Pictures = Mapping[int, np.ndarray] | None


class ReportTexts:
    """The texts of reports as the page shows them: each once, then by a reference to where it stands.

    Args:
        embeddings: of the studies.
        show_text: False shows no text, but whose report it is.
    """

    def __init__(self, embeddings: Embeddings, show_text: bool) -> None:
        self.embeddings = embeddings
        texts = embeddings.texts if show_text else None
        self.texts = None if texts is None else [unwrap_lines(text.strip()) for text in texts]
        self._shown: dict[str, tuple[str, str]] = {}

    def is_shown(self, row: int) -> bool:
        """Whether the text of a row's report stands on the page already."""
        return self.texts is not None and self.texts[row] in self._shown

    def show(self, row: int) -> dict[str, str]:
        """``excerpt`` and ``rest`` of a row's report with their ``anchor``; or ``above``, whose report it is at that anchor."""
        study = self.embeddings.study_ids[row]
        if self.texts is None:
            return {"excerpt": f"Report of study {study}", "rest": "", "above": "", "anchor": ""}
        text = self.texts[row]
        if text in self._shown:
            above, anchor = self._shown[text]
            return {"excerpt": "", "rest": "", "above": above, "anchor": anchor}
        anchor = f"report-{len(self._shown) + 1}"
        self._shown[text] = study, anchor
        cut = len(text) if len(text) <= EXCERPT * 1.2 else word_end(text, EXCERPT)
        return {"excerpt": text[:cut], "rest": text[cut:], "above": "", "anchor": anchor}


def gallery_cases(
    result: Any,
    embeddings: Embeddings | None,
    pictures: Pictures,
    names: Sequence[str],
    reports: ReportTexts | None,
    number: int,
) -> list[dict[str, Any]]:
    """Test images from the best to the worst ranked, each with its own and its nearest reports."""
    if result is None or embeddings is None or reports is None:
        return []
    pictures = embeddings.thumbnails if pictures is None else pictures
    direction = result.image_to_text
    shown = np.flatnonzero([int(row) in pictures for row in direction.query_rows])
    by_rank = shown[np.argsort(direction.ranks[shown], kind="stable")]
    places = sorted({round(place) for place in np.linspace(0, len(by_rank) - 1, number)}) if len(by_rank) else []

    cases = []
    for query in by_rank[places]:
        row = int(direction.query_rows[query])
        similarity = (embeddings.text[direction.candidate_rows] @ embeddings.image[row]).numpy()
        nearest = np.argsort(-similarity, kind="stable")[:GALLERY_REPORTS]
        cases.append(
            {
                "study": embeddings.study_ids[row],
                "picture": picture(pictures[row]),
                "findings": _present(embeddings, row, names),
                "rank": int(direction.ranks[query]),
                "candidates": len(direction.candidate_rows),
                "own": reports.show(row),
                "nearest": [
                    {
                        **reports.show(int(direction.candidate_rows[place])),
                        "right": bool(direction.candidate_groups[place] == direction.query_groups[query]),
                        "similarity": f"{similarity[place]:.2f}",
                    }
                    for place in nearest
                ],
            }
        )
    return cases


def failure_cases(
    result: Any,
    embeddings: Embeddings | None,
    pictures: Pictures,
    number: int = FAILURES,
) -> list[dict[str, Any]]:
    """The images on which zero-shot classification errs most: alternately false negatives and false positives.

    The error of a case is the fraction of the cases of the other class that it is on the wrong side of, which is comparable
    between findings. Every image is shown once.
    """
    if result is None or embeddings is None:
        return []
    pictures = embeddings.thumbnails if pictures is None else pictures
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
        free = (
            error for error in ranked[kind] if error[1] in pictures and error[1] not in used and error[0] > MIN_ERROR
        )
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


def clearest_cases(
    result: Any,
    embeddings: Embeddings | None,
    pictures: Pictures,
    number: int = FAILURES,
) -> list[dict[str, Any]]:
    """Of every finding the image with it that scores highest, by its lead over the images without it; each image once.

    The lead is the distance to the highest score of a case without the finding, in standard deviations of these cases' scores.
    Findings in which no case leads are left out.
    """
    if result is None or embeddings is None:
        return []
    pictures = embeddings.thumbnails if pictures is None else pictures
    found: list[tuple[float, int, int]] = []
    used: set[int] = set()
    for column in range(result.targets.shape[1]):
        present, absent = (np.flatnonzero(result.targets[:, column] == state) for state in (1, 0))
        scores = result.margins[:, column]
        kept = [row for row in present.tolist() if row in pictures and row not in used]
        if not kept or len(absent) < 2 or scores[absent].std() == 0:
            continue
        best = max(kept, key=lambda row: scores[row])
        lead = float((scores[best] - scores[absent].max()) / scores[absent].std())
        if lead > 0:
            used.add(best)
            found.append((lead, best, column))
    names = list(result.findings)
    return [
        {
            "name": names[column],
            "study": embeddings.study_ids[row],
            "picture": picture(pictures[row]),
            "probability": f"{result.probabilities[row, column]:.2f}",
        }
        for _, row, column in sorted(found, key=lambda case: -case[0])[:number]
    ]


def report_queries(
    result: Any,
    embeddings: Embeddings | None,
    pictures: Pictures,
    reports: ReportTexts | None,
    number: int = REPORT_QUERIES,
) -> list[dict[str, Any]]:
    """Reports from the best to the worst ranked that are not on the page yet, with the images nearest to them."""
    if result is None or embeddings is None or reports is None or embeddings.texts is None:
        return []
    pictures = embeddings.thumbnails if pictures is None else pictures
    direction = result.text_to_image
    kept = np.flatnonzero([int(row) in pictures for row in direction.candidate_rows])
    if len(kept) < NEAREST_IMAGES:
        return []
    order = np.argsort(direction.ranks, kind="stable")
    order = order[[not reports.is_shown(int(direction.query_rows[query])) for query in order]]
    if not len(order):
        return []
    cases = []
    for query in order[sorted({round(place) for place in np.linspace(0, len(order) - 1, number)})]:
        row = int(direction.query_rows[query])
        similarity = (embeddings.image[direction.candidate_rows] @ embeddings.text[row]).numpy()
        nearest = np.argsort(-similarity, kind="stable")[:NEAREST_IMAGES]
        # An image whose picture was not kept would leave a gap in the row.
        if not all(int(direction.candidate_rows[place]) in pictures for place in nearest):
            continue
        if reports.is_shown(row):
            continue
        cases.append(
            {
                "report": reports.show(row),
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


def unwrap_lines(text: str) -> str:
    """A report without the line breaks inside its sentences; those after a sentence, a heading or before a list stay.

    Example:
        >>> unwrap_lines("FINDINGS:\\nThe heart is\\nnot enlarged.\\n1. No effusion.")
        'FINDINGS:\\nThe heart is not enlarged.\\n1. No effusion.'
    """
    return re.sub(r"(?<![.:;?!\s])[ \t]*\n(?=[^\s\d*•-])", " ", text)


def word_end(text: str, length: int) -> int:
    """Where to cut a text to at most ``length`` characters: after a whole word, unless a word is longer than that.

    Example:
        >>> word_end("No effusion.", 5), word_end("Pneumothorax.", 5)
        (2, 5)
    """
    cut = text.rfind(" ", 0, length)
    return cut if cut > 0 else length


def _present(embeddings: Embeddings, row: int, names: Sequence[str]) -> list[str]:
    if embeddings.labels is None or len(names) != embeddings.labels.shape[1]:
        return []
    return [name for name, state in zip(names, embeddings.labels[row].tolist(), strict=True) if state == 1]
