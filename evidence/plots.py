"""The plots of the page.

Colors are Okabe and Ito's, which the color-blind tell apart, and each verdict has a marker of its own.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from evidence.arms import ARMS
from evidence.claim import FIGURES, Comparison, by_seed
from evidence.claims import all_claims
from evidence.statistics import NOT_REPRODUCED, REPRODUCED, UNDECIDED, t_interval
from evidence.store import Store
from medvl.utils.io import atomic_write

STYLES = {REPRODUCED: ("#0072B2", "o"), NOT_REPRODUCED: ("#D55E00", "X"), UNDECIDED: ("#767676", "s")}
RECIPES = ("untrained", "untrained-mlip", "supervised", "convirt", "medclip", "umcl", "mlip", "medvl")
PANELS = (
    "zero_shot/auroc",
    "probe/1",
    "retrieval/image_to_text_r10",
    "grounding/cnr",
    "grounding/pointing",
)


def plot_comparisons(store: Store, scale: str, path: Path) -> Path:
    """Every comparison of every claim with its interval, one line each."""
    shown: dict[Comparison, tuple[float, float, float, str]] = {}
    for claim in all_claims():
        for comparison in claim.comparisons:
            interval, verdict = comparison.result(store, scale)
            if verdict in STYLES:
                shown[comparison] = (interval.mean, interval.low, interval.high, verdict)
    figure = Figure(figsize=(10, 1.2 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, (mean, low, high, verdict) in enumerate(shown.values()):
        color, marker = STYLES[verdict]
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot([mean], [place], color=color, marker=marker, markersize=7, linestyle="none")
    for verdict, (color, marker) in STYLES.items():
        axes.plot([], [], color=color, marker=marker, linewidth=2, label=verdict)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [comparison.title for comparison in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("difference, mean over seeds and 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return _save(figure, path)


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
