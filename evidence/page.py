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
from evidence.store import ResultsError, Store, result_key
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
claim is “as good as”), **not reproduced** if it is below, and **undecided** otherwise; one about every seed is reproduced if
no seed is below. A claim is reproduced if all its comparisons are, or as many as it names.

The arms of the synthetic set have the same table, augmentation, batch size and, up to the last batch of an epoch, number of
steps; where an arm has a part of the table, more steps or the demonstration's data, its claim says so. Arms of one recipe have
one configuration but for what the last table names. Of the recipes, convirt learns from images and reports alone; the others
read the labels of the table too, mlip in its local loss. All are small networks from random weights: a claim that is not
reproduced here may hold at the papers' size, and the reverse.

AUROC is a mean over findings. Zero-shot classification and the probes have “No Finding” among them; fine-tuning, other wordings
and a classifier of its own do not, so that figures of the first and of the second kind are not to be compared.
"""
QUICK = """
:::{warning}
These are the figures of the quick form, which only shows that everything runs. They are no evidence for anything.
:::
"""


def write_page(store: Store, folder: Path, scale: str = "full") -> Path:
    """Write ``evidence.md`` and its plots to a folder of documentation; returns the page.

    Raises:
        ResultsError: If the store has no results of the scale.
    """
    if not store.results(scale):
        raise ResultsError(
            f"{store.folder} must have results of the {scale} form, got none; python -m evidence --full makes them."
        )
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
    parts += [_origin(results), _missing(results, claims, scale), _summary(claims, store, scale)]
    parts.append(f"![The recipes and the baselines, mean and interval of five measures](images/{RECIPES_IMAGE})\n")
    for group in _groups(claims):
        own = [claim for claim in claims if claim.group == group]
        if decided(store, scale, group):
            title = own[0].title.partition(":")[0]
            parts.append(f"![Comparisons with their intervals, by verdict: {title}](images/{_group_image(group)})\n")
        parts += [_claim(claim, store, scale) for claim in own]
    parts.append(_arms(claims, results))
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _groups(claims: Sequence[Claim]) -> list[str]:
    """The groups of claims, in their order."""
    return list(dict.fromkeys(claim.group for claim in claims))


def _group_image(group: str) -> str:
    return f"evidence_{group}.png"


def _origin(results: Sequence[dict[str, Any]]) -> str:
    """Which code, versions and time the figures are from."""
    made = [origin for result in results for origin in (result, *result.get("kept", ()))]
    dates = sorted(origin["date"] for origin in made)
    commits = ", ".join(f"`{commit}`" for commit in sorted({str(origin["commit"]) for origin in made}))
    versions = "; ".join(
        f"{name} {', '.join(sorted({str(origin['versions'].get(name, 'unknown')) for origin in made}))}"
        for name in dict.fromkeys(name for origin in made for name in origin["versions"])
    )
    hours = sum(sum(result["seconds"].values()) for result in results) / 3600
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return (
        f"Made from {len(results)} trainings on {when}, at commit {commits} (a plus sign: with changes), with {versions}: "
        f"{hours:.1f} hours of one core.\n"
    )


def _missing(results: Sequence[dict[str, Any]], claims: Sequence[Claim], scale: str) -> str:
    """Notes if trainings are still to be done, and if results are of other settings than their arms now have."""
    form = SCALES[scale]
    planned = {(arm.name, seed): result_key(arm, form, seed) for arm in arms_of(claims) for seed in arm.seeds(form)}
    found = {(result["arm"], result["seed"]): result["key"] for result in results}
    done = {place for place, key in found.items() if planned.get(place) == key}
    notes = []
    if len(done) < len(planned):
        notes.append(
            f":::{{note}}\n{len(done)} of {len(planned)} trainings are done. What has one seed has no interval, and its "
            "claims are undecided; `python -m evidence --full` makes what is missing.\n:::\n"
        )
    if len(done) < len(found):
        others = ", ".join(f"`{arm}` seed {seed}" for arm, seed in sorted(found.keys() - done))
        notes.append(
            f":::{{warning}}\nResults of settings that no arm has any more: {others}. `python -m evidence --full` makes them "
            "again where there is such an arm; delete the others.\n:::\n"
        )
    return "\n".join(notes)


def _summary(claims: Sequence[Claim], store: Store, scale: str) -> str:
    verdicts = {claim.name: claim.verdict(store, scale) for claim in claims}
    counts = Counter(verdicts.values())
    total = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
    rows = [[f"[{claim.title}](#{_anchor(claim.title)})", verdicts[claim.name]] for claim in claims]
    return f"## Verdicts\n\nOf {len(claims)} claims: {total}.\n\n{_table(['claim', 'verdict'], rows)}"


def _claim(claim: Claim, store: Store, scale: str) -> str:
    checked = "" if claim.checked else "; as we understand the paper, not checked word for word"
    lines = [f"## {claim.title}", "", f"**Claim** ({claim.source}{checked}). {claim.says}", ""]
    lines += [f"**Run.** {claim.done} `python -m evidence --full --only {claim.name}`", ""]
    lines += [_figures(claim, store, scale), "", _comparisons(claim, store, scale), ""]
    lines += [f"**Verdict: {claim.verdict(store, scale)}.**", ""]
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
        cells = [interval_text(t_interval(found)) + _of_seeds(len(found), seeds) for found in values]
        rows.append([ARMS[arm].title + rest, *cells])
    return _table(["", *(FIGURES[figure] for figure in columns)], rows)


def _of_seeds(number: int, seeds: int) -> str:
    """How many seeds a figure has that is not defined for each of them."""
    return f" (of {number} seed{'s' * (number > 1)})" if 0 < number < seeds else ""


def _comparisons(claim: Claim, store: Store, scale: str) -> str:
    rows = []
    for comparison in claim.comparisons:
        interval, verdict = comparison.result(store, scale)
        at_least = comparison.margin or comparison.every_seed
        wanted = f"at least {0 - comparison.margin:g}" if at_least else "above 0"
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
        repeat = f"{arm.repeat:g} times the epochs" if arm.repeat != 1 else ""
        without = ", ".join(f"without the loss's term `{term}`" for term in arm.without)
        steps = str(own[0]["steps"]) if own else NONE
        seconds = f"{sum(sum(r['seconds'].values()) for r in own) / len(own):.0f} s" if own else NONE
        recipe = arm.recipe + ("" if arm.trained else ", random weights")
        rows.append(
            [
                f"`{arm.name}`",
                recipe,
                "; ".join(filter(None, [settings, without, sources, repeat, scale])) or NONE,
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
