"""The front page's table of methods, made from the files in evidence/results whenever the documentation is built."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from evidence.claim import by_seed
from evidence.claims import all_claims
from evidence.page import NONE, RESULTS
from evidence.statistics import NO_RESULTS, NOT_REPRODUCED, REPRODUCED, UNDECIDED, Interval, t_interval
from evidence.store import Store

DOCS = Path(__file__).parent
METHODS = {
    "convirt": "images with reports: each image against a sentence of its own report",
    "medclip": "images and texts that are not paired: matched by the similarity of their labels",
    "umcl": "images, texts and labels in any mixture: one contrastive loss, and learned prompts",
    "mlip": "images with reports: patches against sentences, on masked images",
    "medvl": "all of these: sentences against images and patches by meaning, images against their reports",
}
UNTRAINED = "untrained"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, UNDECIDED, NO_RESULTS)
MIN_SEEDS = 3  # the interval of two seeds is wider than the scale
FIGURES = {
    "zero_shot/auroc": "zero-shot AUROC",
    "retrieval/image_to_text_r10": "finds its report, R@10",
    "grounding/pointing": "points at the finding",
}


def methods_table(store: Store | None = None, scale: str = "full") -> str:
    """Each method with what it learns from, its figures, and how many of its paper's claims were reproduced, in Markdown."""
    store = store or Store(RESULTS)
    head = ["method", "learns from", *FIGURES.values(), "its paper's claims"]
    rows = [
        [_link(name), text, *_figures(store, scale, name), _claims(store, scale, name)]
        for name, text in METHODS.items()
    ]
    rows.append(["untrained", "nothing, for comparison", *_figures(store, scale, UNTRAINED), NONE])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{_origin(store, scale)}"


def _link(name: str) -> str:
    page = next(page for page in (f"methods/{name}.md", f"recipes/{name}.md") if (DOCS / page).is_file())
    return f"[{name}]({page})"


def _figures(store: Store, scale: str, arm: str) -> list[str]:
    return [_mean(t_interval([*by_seed(store, scale, arm, figure).values()])) for figure in FIGURES]


def _mean(interval: Interval) -> str:
    """A mean, with half of its interval where that is of :data:`MIN_SEEDS` or more."""
    if not interval.number:
        return NONE
    if interval.number < MIN_SEEDS:
        return f"{interval.mean:.2f}"
    return f"{interval.mean:.2f} ± {interval.high - interval.mean:.2f}"


def _claims(store: Store, scale: str, paper: str) -> str:
    """How many of a paper's claims have which verdict, as "1 reproduced, 3 undecided"."""
    counts = Counter(claim.verdict(store, scale) for claim in all_claims() if claim.group == paper)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or NONE


def _origin(store: Store, scale: str) -> str:
    """What the figures are of."""
    counts = sorted({len(store.seeds(scale, arm)) for arm in METHODS})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    intervals = f", with 95 % intervals from {MIN_SEEDS} seeds on" if counts[-1] >= MIN_SEEDS else ""
    return (
        "Small networks from random weights on the [synthetic X-rays](synthetic.md), with the same images and number of "
        f"steps: means over {seeds} seeds{intervals}. The papers' networks are larger. [Evidence](evidence.md) has every "
        "claim, how it was tested, and all intervals."
    )
