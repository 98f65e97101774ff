"""What a claim is: a statement of a paper, the arms that test it, and the comparisons that decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from evidence import statistics
from evidence.arms import ARMS, IMAGES_ALONE, SEGMENTATION, SUPERVISED, Arm
from evidence.statistics import NO_RESULTS, Interval, t_interval
from evidence.store import Store

FIGURES = {
    "zero_shot/auroc": "zero-shot AUROC",
    "probe/1": "probe, 1 % of labels",
    "probe/10": "probe, 10 %",
    "probe/100": "probe, 100 %",
    "retrieval/image_to_text_r10": "image to report R@10",
    "retrieval/text_to_image_r10": "report to image R@10",
    "grounding/cnr": "grounding CNR",
    "grounding/pointing": "pointing game",
    "few_shot/dice_5": "findings, Dice with 5 cases",
    "few_shot/dice_10": "findings, Dice with 10 cases",
    "own_masks/dice": "masks of its own training, Dice",
    "own_masks/constant_dice": "one mask for all images, Dice",
    "real_lungs/dice_5": "real lungs, Dice with 5 cases",
    "real_lungs/dice_10": "real lungs, Dice with 10 cases",
    "fine_tune/10": "fine-tuned, 10 % of labels",
    "fine_tune/100": "fine-tuned, 100 %",
    "same_diagnosis/auroc": "same diagnosis recognized (AUROC)",
    "wording/mean": "zero-shot AUROC, mean over wordings",
    "wording/spread": "spread over wordings",
    "classifier/auroc": "its own classifier (AUROC)",
    "pneumonia/auroc": "zero-shot pneumonia AUROC",
}
"""Titles of the figures that tables show."""

ENCODER_MEASURES = {"probe", "few_shot", "real_lungs", "fine_tune", "own_masks"}
"""What :data:`evidence.arms.IMAGES_ALONE` have, without a text tower."""


@dataclass(frozen=True)
class Comparison:
    """A difference that a claim expects: the figure of ``above`` minus that of ``below``, by seed.

    Args:
        above: the arm that is claimed to have the greater figure.
        below: the other arm, or a number.
        figure: of both, as ``MEASURE/FIGURE``.
        below_figure: of the other arm, where it is another.
        margin: how much smaller the first may be, where it is claimed to be as good and not better.
        every_seed: whether the claim is about each seed, and not about the mean.
    """

    above: str
    below: str | float
    figure: str
    below_figure: str | None = None
    margin: float = 0.0
    every_seed: bool = False

    @property
    def title(self) -> str:
        """In words."""
        first, second = FIGURES[self.figure], FIGURES[self.below_figure or self.figure]
        if not isinstance(self.below, str):
            return f"{ARMS[self.above].title} − {self.below:g}: {first}{' (every seed)' if self.every_seed else ''}"
        if first == second:
            return f"{ARMS[self.above].title} − {ARMS[self.below].title}: {first}"
        return f"{ARMS[self.above].title} ({first}) − {ARMS[self.below].title} ({second})"

    def differences(self, store: Store, scale: str) -> list[float]:
        """By seed, of the seeds that both arms have."""
        ours = by_seed(store, scale, self.above, self.figure)
        if not isinstance(self.below, str):
            return [value - self.below for value in ours.values()]
        theirs = by_seed(store, scale, self.below, self.below_figure or self.figure)
        return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]

    def result(self, store: Store, scale: str) -> tuple[Interval, str]:
        """The paired difference with its interval, and the verdict."""
        differences = self.differences(store, scale)
        interval = t_interval(differences)
        if not differences:
            return interval, NO_RESULTS
        if self.every_seed:
            return interval, statistics.every_seed(differences, self.margin)
        return interval, statistics.verdict(interval, self.margin)


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and how it is tested.

    Args:
        name: for ``--only`` and headings, as ``GROUP-CLAIM``.
        title: a heading.
        says: what the paper says.
        source: where.
        checked: whether that was checked against the paper; otherwise the page says that it was not.
        done: what is run here.
        arms: rows of its table, beside those of ``baselines``.
        figures: columns of its table.
        comparisons: what decides.
        needed: how many comparisons must be reproduced; all by default.
        baselines: arms that stand in the table for comparison.
        remarks: what was examined where the claim fails, and what does not follow from it.
    """

    name: str
    title: str
    says: str
    source: str
    checked: bool
    done: str
    arms: tuple[str, ...]
    figures: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = field(default_factory=tuple)
    needed: int | None = None
    baselines: tuple[str, ...] = ("supervised", "untrained")
    remarks: str = ""

    @property
    def group(self) -> str:
        """The paper, or what else its name begins with."""
        return self.name.split("-")[0]

    @property
    def rows(self) -> tuple[str, ...]:
        """The arms of the table in order, each once."""
        return tuple(dict.fromkeys((*self.arms, *self.baselines)))

    def measures(self) -> dict[str, set[str]]:
        """The measures that each arm needs."""
        columns = {figure.partition("/")[0] for figure in self.figures}
        needs = {arm: set(columns) for arm in self.rows}
        for comparison in self.comparisons:
            needs.setdefault(comparison.above, set()).add(comparison.figure.partition("/")[0])
            if isinstance(comparison.below, str):
                figure = comparison.below_figure or comparison.figure
                needs.setdefault(comparison.below, set()).add(figure.partition("/")[0])
        for arm in needs:
            recipe = ARMS[arm].recipe
            if recipe in IMAGES_ALONE:
                needs[arm] &= ENCODER_MEASURES
            if recipe == SUPERVISED:
                needs[arm].add("classifier")
            if recipe != SEGMENTATION:
                needs[arm].discard("own_masks")
        return needs

    def verdict(self, store: Store, scale: str) -> str:
        """In one word, from those of the comparisons."""
        return statistics.combine((c.result(store, scale)[1] for c in self.comparisons), self.needed)


def by_seed(store: Store, scale: str, arm: str, figure: str) -> dict[int, float]:
    """A figure of an arm by seed, where it is known."""
    found = store.figures(scale, arm)
    return {seed: figures[figure] for seed, figures in found.items() if figures.get(figure) is not None}


def needed_measures(claims: Iterable[Claim]) -> dict[str, set[str]]:
    """The measures that each arm of some claims needs; an arm that several share is trained once for all of them."""
    needs: dict[str, set[str]] = {}
    for claim in claims:
        for arm, measures in claim.measures().items():
            needs.setdefault(arm, set()).update(measures)
    return needs


def arms_of(claims: Iterable[Claim]) -> list[Arm]:
    """The arms of some claims, in the order of :data:`evidence.arms.ARMS`."""
    needs = needed_measures(claims)
    return [arm for arm in ARMS.values() if arm.name in needs]
