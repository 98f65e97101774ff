"""The page of the evidence, made from the results files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evidence.arms import ARMS
from evidence.claim import FIGURES, Claim, arms_of, by_seed
from evidence.claims import all_claims
from evidence.plots import decided, plot_comparisons, plot_recipes
from evidence.scales import SCALES
from evidence.statistics import NO_RESULTS, Interval, t_interval
from evidence.store import Store
from medvl.utils.io import write_text

RESULTS = Path(__file__).parent / "results"
RECIPES_IMAGE = "evidence_recipes.png"
NONE = "–"

INTRODUCTION = """<!-- Made by python -m evidence --page from the files in evidence/results. Do not edit. -->
# Evidence

What the papers claim, tried on data that anyone can have: generated chest X-rays with reports
([](synthetic.md)), and a few public real images. [](evidence_howto.md) says how these figures are made again and how a claim is
added.

Each figure is of the test split and is the mean over seeds with its 95 % interval. A comparison is the difference of two
arms, seed by seed, with Student's t-interval of the differences: it is about another seed on the same test studies, not about
other test studies. A claimed difference is **reproduced** if its whole interval is above 0 (or above minus the margin, where a
claim is “as good as”), **not reproduced** if it is below, and **undecided** otherwise. A claim is reproduced if all its
comparisons are. The arms of the synthetic set have the same images, augmentation, batch size and number of steps (but for those
on the demonstration's data, which are compared with numbers), and small networks from random weights: a claim that is not
reproduced here may hold at the papers' size, and the reverse.
"""
NOTHING = """
:::{{note}}
There are no results of the {form} form of this version yet: `python -m evidence --full` makes them. Until then this page
shows what is run, and no figures.
:::
"""
QUICK = """
:::{warning}
These are the figures of the quick form, which only shows that everything runs. They are no evidence for anything.
:::
"""


def write_page(store: Store, folder: Path, scale: str = "full") -> Path:
    """Write ``evidence.md`` and its plots to a folder of documentation; returns the page."""
    if store.results(scale):
        plot_recipes(store, scale, folder / "images" / RECIPES_IMAGE)
        for group in filter(partial(decided, store, scale), _groups(all_claims())):
            plot_comparisons(store, scale, folder / "images" / _group_image(group), group)
    page = folder / "evidence.md"
    write_text(page, render(store, scale))
    return page


def render(store: Store, scale: str = "full") -> str:
    """The page's text."""
    claims, results = all_claims(), store.results(scale)
    parts = [INTRODUCTION]
    if scale == "quick":
        parts.append(QUICK)
    if not results:
        parts.append(NOTHING.format(form=scale))
    else:
        parts += [_origin(results), _missing(results, claims, scale), _summary(claims, store, scale)]
        parts.append(f"![The recipes and the baselines, mean and interval of five measures](images/{RECIPES_IMAGE})\n")
    for group in _groups(claims):
        own = [claim for claim in claims if claim.group == group]
        if decided(store, scale, group):
            title = own[0].title.partition(":")[0]
            parts.append(f"![Comparisons with their intervals, by verdict: {title}](images/{_group_image(group)})\n")
        parts += [_claim(claim, store, scale, bool(results)) for claim in own]
    parts.append(_arms(claims, results))
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _groups(claims: Sequence[Claim]) -> list[str]:
    """The groups of claims, in their order."""
    return list(dict.fromkeys(claim.group for claim in claims))


def _group_image(group: str) -> str:
    return f"evidence_{group}.png"


def _origin(results: Sequence[dict[str, Any]]) -> str:
    """Which code, versions and time the figures are from."""
    dates = sorted(result["date"] for result in results)
    commits = ", ".join(f"`{commit}`" for commit in sorted({str(result["commit"]) for result in results}))
    versions = "; ".join(
        f"{name} {', '.join(sorted({result['versions'][name] for result in results}))}"
        for name in results[0]["versions"]
    )
    hours = sum(sum(result["seconds"].values()) for result in results) / 3600
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return (
        f"Made from {len(results)} trainings on {when}, at commit {commits} (a plus sign: with changes), with {versions}: "
        f"{hours:.1f} hours of one core.\n"
    )


def _missing(results: Sequence[dict[str, Any]], claims: Sequence[Claim], scale: str) -> str:
    """A note if trainings are still to be done."""
    planned = {(arm.name, seed) for arm in arms_of(claims) for seed in arm.seeds(SCALES[scale])}
    done = planned & {(result["arm"], result["seed"]) for result in results}
    if done == planned:
        return ""
    return (
        f":::{{note}}\n{len(done)} of {len(planned)} trainings are done. What has one seed has no interval, and its claims are "
        "undecided; `python -m evidence --full` makes what is missing.\n:::\n"
    )


def _summary(claims: Sequence[Claim], store: Store, scale: str) -> str:
    verdicts = {claim.name: claim.verdict(store, scale) for claim in claims}
    counts = Counter(verdicts.values())
    total = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
    rows = [[f"[{claim.title}](#{_anchor(claim.title)})", verdicts[claim.name]] for claim in claims]
    return f"## Verdicts\n\nOf {len(claims)} claims: {total}.\n\n{_table(['claim', 'verdict'], rows)}"


def _claim(claim: Claim, store: Store, scale: str, with_results: bool) -> str:
    checked = "" if claim.checked else "; as we understand the paper, not checked word for word"
    lines = [f"## {claim.title}", "", f"**Claim** ({claim.source}{checked}). {claim.says}", ""]
    lines += [f"**Run.** {claim.done} `python -m evidence --full --only {claim.name}`", ""]
    if with_results:
        lines += [_figures(claim, store, scale), "", _comparisons(claim, store, scale), ""]
        lines += [f"**Verdict: {claim.verdict(store, scale)}.**", ""]
    else:
        lines += ["**Compared:**", "", *(f"- {comparison.title}" for comparison in claim.comparisons), ""]
    if claim.needed is not None:
        lines += [f"{claim.needed} of the {len(claim.comparisons)} comparisons must be reproduced.", ""]
    return "\n".join([*lines, claim.remarks, ""])


def _figures(claim: Claim, store: Store, scale: str) -> str:
    """Arms by figures, without columns that no arm has."""
    columns = [*claim.figures, "classifier/auroc"]
    columns = [figure for figure in columns if any(by_seed(store, scale, arm, figure) for arm in claim.rows)]
    rows = []
    for arm in claim.rows:
        values = [list(by_seed(store, scale, arm, figure).values()) for figure in columns]
        seeds = len(store.seeds(scale, arm))
        rest = f" ({seeds} seed{'s' * (seeds > 1)})" if 0 < seeds < len(SCALES[scale].seeds) else ""
        rows.append([ARMS[arm].title + rest, *(interval_text(t_interval(found)) for found in values)])
    return _table(["", *(FIGURES[figure] for figure in columns)], rows)


def _comparisons(claim: Claim, store: Store, scale: str) -> str:
    rows = []
    for comparison in claim.comparisons:
        interval, verdict = comparison.result(store, scale)
        wanted = f"at least {-comparison.margin:g}" if comparison.margin else "above 0"
        rows.append([comparison.title, interval_text(interval, "+"), wanted, verdict])
    return _table(["difference", "mean and interval", "claimed", "verdict"], rows)


def _arms(claims: Sequence[Claim], results: Sequence[dict[str, Any]]) -> str:
    """What each arm is, and what a training of it took."""
    rows = []
    for arm in arms_of(claims):
        own = [result for result in results if result["arm"] == arm.name]
        settings = ", ".join(f"`{name}={_short(value)}`" for name, value in arm.settings.items())
        sources = ", ".join(f"`{source}`" for source in arm.sources)
        scale = f"the scale `{arm.own_scale}` of `evidence/scales.py`" if arm.own_scale else ""
        without = ", ".join(f"without the loss's term `{term}`" for term in arm.without)
        steps = str(own[0]["steps"]) if own else NONE
        seconds = f"{sum(sum(r['seconds'].values()) for r in own) / len(own):.0f} s" if own else NONE
        recipe = arm.recipe + ("" if arm.trained else ", random weights")
        rows.append(
            [
                f"`{arm.name}`",
                recipe,
                "; ".join(filter(None, [settings, without, sources, scale])) or NONE,
                steps,
                seconds,
            ]
        )
    head = ["arm", "recipe", "what differs from the shared settings", "steps", "time"]
    return f"## What was trained\n\nThe settings in full are in `evidence/arms.py`.\n\n{_table(head, rows)}"


def _short(value: Any) -> str:
    """A setting in a word or two."""
    if isinstance(value, dict):
        return "{" + ", ".join(value) + "}"
    return str(value)


def interval_text(interval: Interval, sign: str = "") -> str:
    """A mean with its interval.

    Example:
        >>> interval_text(Interval(0.5, 0.45, 0.55, 5)), interval_text(Interval(0.02, float("nan"), 0.0, 1), "+")
        ('0.500 [0.450, 0.550]', '+0.020')
    """
    if not interval.number:
        return NONE
    if interval.number < 2:
        return f"{interval.mean:{sign}.3f}"
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _anchor(title: str) -> str:
    """The address of a heading in the rendered page."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


__all__ = ["NO_RESULTS", "RESULTS", "interval_text", "render", "write_page"]
