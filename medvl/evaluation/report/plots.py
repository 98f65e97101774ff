"""The report's plots as inline SVG, and its pictures as data URLs.

Plots are drawn in colors that stand for variables of the page's style sheet, so that one file serves light and dark screens.
matplotlib is imported when the first plot is drawn.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from medvl.evaluation.statistics.calibration import ReliabilityCurve
from medvl.evaluation.statistics.curves import roc_curve
from medvl.evaluation.thumbnails import check_picture

COLORS = {"#010101": "--ink", "#020202": "--muted", "#030303": "--line", "#040404": "--first", "#050505": "--second"}
INK, MUTED, LINE, FIRST, SECOND = COLORS

MATRIX_LINE = 0.055
"""Height of a line of text in the similarity matrix, as a fraction of the matrix."""


def loss_curve(history: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss by epoch.

    Args:
        history: lines of ``metrics.jsonl``: ``epoch``, ``loss`` and, where known, ``val_loss``.

    Returns:
        The plot as SVG; "" where no line has a loss.
    """
    series = []
    for key, name, color, style in (
        ("loss", "training", FIRST, "-"),
        ("val_loss", "validation", SECOND, "--"),
    ):
        points = [(line["epoch"], line[key]) for line in history if _finite(line.get(key)) and "epoch" in line]
        if points:
            epochs, values = zip(*points, strict=True)
            series.append((name, epochs, values, color, style))
    if not series:
        return ""
    words = "; ".join(
        f"{name} loss from {values[0]:.3g} at epoch {epochs[0]} to {values[-1]:.3g} at epoch {epochs[-1]}"
        for name, epochs, values, _, _ in series
    )
    with _figure(460, 280, f"Loss by epoch: {words}.") as (figure, out):
        axes = figure.add_subplot()
        _bare(axes)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        for name, epochs, values, color, style in series:
            marker = "o" if len(epochs) < 25 else None
            axes.plot(epochs, values, style, color=color, linewidth=2, marker=marker, markersize=4, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(series) > 1:
            axes.legend(frameon=False, labelcolor=INK)
    return out[0]


def roc_plot(
    name: str,
    scores: np.ndarray,
    targets: np.ndarray,
    auroc: float,
    untrained: tuple[np.ndarray, np.ndarray] | None = None,
    point: tuple[float, float] | None = None,
) -> str:
    """One finding's ROC curve, an untrained model's dashed beside it, over the diagonal of chance.

    Args:
        name: the finding.
        scores: (N,).
        targets: (N,), 1, 0 or NaN (not counted), with both classes.
        auroc: for the description.
        untrained: scores and targets of the untrained model.
        point: sensitivity and specificity at a threshold, which is marked.

    Returns:
        The plot as SVG.
    """
    words = f"ROC curve of {name}, area {auroc:.3f}"
    words += "." if point is None else f"; sensitivity {point[0]:.2f} and specificity {point[1]:.2f} at the mark."
    with _figure(200, 190, words) as (figure, out):
        axes = figure.add_subplot()
        _bare(axes)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        for values, truth, style in (
            *([(*untrained, {"color": SECOND, "linestyle": (0, (3, 2)), "linewidth": 1.4})] if untrained else []),
            (scores, targets, {"color": FIRST, "linewidth": 2.2}),
        ):
            known = ~np.isnan(truth)
            axes.plot(*roc_curve(values[known], truth[known] == 1), **style)
        if point is not None:
            axes.plot([1 - point[1]], [point[0]], "o", markersize=7, color=FIRST, clip_on=False)
        _label_unit_square(axes, "1 - specificity", "sensitivity", margin=0.02)
    return out[0]


def calibration_plot(name: str, curve: ReliabilityCurve) -> str:
    """One finding's reliability curve over the diagonal of perfect calibration.

    Args:
        name: the finding.
        curve: its bins; a marker's area grows with the cases in it.

    Returns:
        The plot as SVG.
    """
    kept = curve.counts > 0
    with _figure(200, 190, f"Calibration of {name}, expected calibration error {curve.error:.3f}.") as (figure, out):
        axes = figure.add_subplot()
        _bare(axes)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        predicted, observed, counts = curve.predicted[kept], curve.observed[kept], curve.counts[kept]
        axes.plot(predicted, observed, color=FIRST, linewidth=1.4)
        axes.scatter(predicted, observed, s=12 + 90 * counts / counts.max(), color=FIRST, linewidths=0)
        _label_unit_square(axes, "predicted probability", "fraction present", margin=0.04)
    return out[0]


def similarity_matrix(similarity: np.ndarray, groups: Sequence[str]) -> str:
    """Cosine of each image (rows) and each report (columns), both in the same order, with a color bar.

    Args:
        similarity: (N, N); the diagonal holds the pairs.
        groups: name of each study's group; studies of a group stand together.

    Returns:
        The plot as SVG.
    """
    pairs = float(np.diag(similarity).mean())
    others = float(similarity[~np.eye(len(similarity), dtype=bool)].mean()) if len(similarity) > 1 else math.nan
    title = (
        f"Similarity of {len(similarity)} images and their reports: mean cosine {pairs:.2f} for pairs (the diagonal) and "
        f"{others:.2f} for all others."
    )
    starts = [row for row in range(len(groups)) if row == 0 or groups[row] != groups[row - 1]]
    with _figure(460, 346, title) as (figure, out):
        # Browsers draw text a little wider than matplotlib measures it.
        figure.get_layout_engine().set(rect=(0.03, 0, 0.97, 1))
        axes = figure.add_subplot()
        low, high = np.quantile(similarity, [0.01, 0.995])
        shown = axes.imshow(similarity, cmap="cividis", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        ends = [*starts[1:], len(groups)]
        for start in starts[1:]:
            axes.axhline(start - 0.5, color="white", linewidth=0.9)
            axes.axvline(start - 0.5, color="white", linewidth=0.9)
        middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
        places = _apart(middles, len(groups) * MATRIX_LINE)
        for place, middle, start in zip(places, middles, starts, strict=True):
            axes.annotate(
                groups[start],
                (-0.5, middle),
                (-0.5 - 0.03 * len(groups), place),
                ha="right",
                va="center",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
            )
        axes.set_yticks([])
        axes.set_xticks([])
        axes.set_xlabel("reports, in the order of their images")
        axes.tick_params(length=0, colors=INK)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(shown, ax=axes, orientation="horizontal", fraction=0.05, pad=0.02, aspect=36)
        bar.set_label("cosine similarity", color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, length=3)
    return out[0]


def picture(pixels: np.ndarray) -> str:
    """A gray picture (H, W), uint8, as the data URL of a PNG.

    Raises:
        ValueError: If it is not a matrix of uint8.
    """
    from PIL import Image

    check_picture(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def _figure(width: int, height: int, title: str) -> Iterator[tuple[Any, list[str]]]:
    """A figure of ``width`` x ``height`` pixels; on leaving, its SVG stands in the list."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
    out: list[str] = []
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        figure.patch.set_alpha(0)
        yield figure, out
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    out.append(_inline(buffer.getvalue(), width, height, title))


def _apart(places: Sequence[float], distance: float) -> list[float]:
    """The positions, in order, moved as little as possible to be at least ``distance`` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + distance) if moved else place)
    # Positions that were moved past the last one are moved back from the end.
    limit = places[-1]
    for number in range(len(moved) - 1, -1, -1):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - distance
    return moved


def _label_unit_square(axes: Any, x: str, y: str, margin: float) -> None:
    """Axes from 0 to 1 in both directions, with their titles."""
    limits = (-margin, 1 + margin)
    axes.set(xlim=limits, ylim=limits, xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
    axes.set_xticklabels(["0", "0.5", "1"])
    axes.set_yticklabels(["0", "0.5", "1"])
    axes.set_xlabel(x, labelpad=2)
    axes.set_ylabel(y, labelpad=2)


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _inline(svg: str, width: int, height: int, title: str) -> str:
    """The ``<svg>`` element alone, scaled by the page, named for screen readers, colored by the page's variables."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # This rule would hold for the whole page; the page's own style sheet has it for plots alone.
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    name = html.escape(title, quote=True)
    svg = re.sub(
        r"<svg[^>]*>",
        lambda _: f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">',
        svg,
        count=1,
    )
    for color, variable in COLORS.items():
        svg = svg.replace(color, f"var({variable})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
