"""The plots of the page.

Colors are Okabe and Ito's, which the color-blind tell apart, and each verdict has a marker of its own.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from evidence.arms import ARMS
from evidence.claim import FIGURES, Comparison, by_seed
from evidence.claims import all_claims
from evidence.statistics import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Interval, t_interval
from evidence.store import Store
from medvl.utils.io import atomic_write

STYLES = {REPRODUCED: ("#0072B2", "o"), NOT_REPRODUCED: ("#D55E00", "X"), UNDECIDED: ("#767676", "s")}
RATIOS = {"grounding/cnr"}
"""Figures that are no fractions between 0 and 1."""

RECIPES = ("untrained", "untrained-mlip", "supervised", "convirt", "medclip", "umcl", "mlip", "medvl")
PANELS = (
    "zero_shot/auroc",
    "probe/1",
    "retrieval/image_to_text_r10",
    "grounding/cnr",
    "grounding/pointing",
)


def plot_comparisons(store: Store, scale: str, path: Path, group: str) -> Path:
    """Every comparison of a group of claims with its interval, one line each; ratios, as CNR, have an axis of their own."""
    shown = decided(store, scale, group)
    ratios = [comparison.figure in RATIOS for comparison, _, _ in shown]
    kinds = [kind for kind in (False, True) if kind in ratios]
    figure = Figure(figsize=(10, 1.3 + 0.3 * len(shown)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        for place, (_, interval, verdict) in enumerate(shown):
            if ratios[place] == kind:
                color, marker = STYLES[verdict]
                panel.plot([interval.low, interval.high], [place, place], color=color, linewidth=2)
                panel.plot([interval.mean], [place], color=color, marker=marker, markersize=7, linestyle="none")
        panel.axvline(0, color="black", linewidth=0.8)
        panel.grid(axis="y", color="#eeeeee")
        panel.set_xlabel("difference of CNR" if kind else "difference")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(shown)), [comparison.title for comparison, _, _ in shown], fontsize=9)
    panels[0].set_ylim(len(shown) - 0.5, -0.5)
    for verdict in dict.fromkeys(verdict for _, _, verdict in shown):
        color, marker = STYLES[verdict]
        panels[-1].plot([], [], color=color, marker=marker, linewidth=2, label=verdict)
    figure.legend(loc="outside lower center", ncols=len(STYLES), frameon=False)
    return _save(figure, path)


def decided(store: Store, scale: str, group: str) -> list[tuple[Comparison, Interval, str]]:
    """The comparisons of a group that have results, each once, with their intervals and verdicts."""
    claims = [claim for claim in all_claims() if claim.group == group]
    comparisons = dict.fromkeys(comparison for claim in claims for comparison in claim.comparisons)
    results = ((comparison, *comparison.result(store, scale)) for comparison in comparisons)
    return [result for result in results if result[2] in STYLES]


def plot_recipes(store: Store, scale: str, path: Path) -> Path:
    """The recipes and the baselines in five measures."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for panel, name in zip(axes, PANELS, strict=True):
        for place, arm in enumerate(RECIPES):
            interval = t_interval(list(by_seed(store, scale, arm, name).values()))
            color = "#767676" if arm.startswith(("untrained", "supervised")) else "#0072B2"
            panel.plot([interval.low, interval.high], [place, place], color=color, linewidth=2)
            panel.plot([interval.mean], [place], color=color, marker="o", markersize=6, linestyle="none")
        panel.set_title(FIGURES[name], fontsize=10)
        panel.grid(axis="x", color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(RECIPES)), [ARMS[arm].title for arm in RECIPES])
    axes[0].set_ylim(len(RECIPES) - 0.5, -0.5)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
    return path
