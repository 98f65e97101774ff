"""The page that compares several runs on the same studies: one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvl import __version__
from medvl.evaluation.explanations import BRIER
from medvl.evaluation.report.downloads import content_policy
from medvl.evaluation.report.page import TableSection, page_templates
from medvl.evaluation.report.pictures import sentence_cases
from medvl.evaluation.report.plots import loss_curve
from medvl.evaluation.report.sentence_maps import SentenceMaps
from medvl.evaluation.results import Evaluation
from medvl.evaluation.statistics.bootstrap import BootstrapConfig
from medvl.evaluation.statistics.comparison import Comparison, compare, p_value_text
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.utils.io import write_text

TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "brier": "Brier score",
    "ppv": "PPV",
    "npv": "NPV",
    "cnr": "CNR",
    "miou": "mIoU",
    "pointing": "Pointing game",
    "median_rank": "Median rank",
    "mean_rank": "Mean rank",
}
"""Titles of statistics that their names do not give."""
LOWER_IS_BETTER = ("brier", "median_rank", "mean_rank")
REPEATED = {"label_agreement": ("f1", "zero_shot")}
"""By protocol, a metric that another protocol has too: F1 of the same scores, at the same thresholds where there are any."""


def statistic_title(name: str, names: Collection[str] = ()) -> str:
    """A statistic's name as it is read; among ``names``, one that others specify by a finding is called their macro mean.

    Example:
        >>> statistic_title("f1", ["f1", "f1/Edema"])
        'F1, macro'
        >>> [statistic_title(name) for name in ("auroc/Edema", "image_to_text/recall_at_5", "brier")]
        ['AUROC, Edema', 'Image to text, R@5', 'Brier score (lower is better)']
    """
    parts = name.split("/", 1)
    title = _title(parts)
    if any(other.startswith(f"{name}/") for other in names):
        title += ", macro"
    return f"{title} (lower is better)" if set(parts) & set(LOWER_IS_BETTER) else title


def _title(parts: Sequence[str]) -> str:
    if parts[0] in TITLES or parts[0] in ("sensitivity", "specificity"):
        # What follows a metric is a finding, whose name stays as it is.
        return ", ".join([_part_title(parts[0]), *parts[1:]])
    return ", ".join(map(_part_title, parts))


def _part_title(part: str) -> str:
    for word, short in (("recall_at_", "R@"), ("precision_at_", "P@")):
        if part.startswith(word):
            return part.replace(word, short)
    plain = part.replace("_", " ")
    return TITLES.get(part, plain[:1].upper() + plain[1:])


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Args:
        name: what the page calls it.
        results: of the protocols.
        history: lines of its ``metrics.jsonl``.
        sentences: heat maps of the first reports' sentences.
        notes: what must be known of it, in sentences.
    """

    name: str
    results: Evaluation
    history: Sequence[Mapping[str, Any]] = ()
    sentences: Sequence[SentenceMaps] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class RunsComparison:
    """Runs on the same studies, and the paired differences of each from the first.

    Args:
        runs: the runs, the first of which the others are compared with.
        differences: by protocol and name of the run: run minus first.
        bootstrap: of the intervals and p-values.
    """

    runs: Sequence[ComparedRun]
    differences: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)

    @classmethod
    def of(cls, runs: Sequence[ComparedRun], order: Sequence[str], bootstrap: BootstrapConfig) -> RunsComparison:
        """Compare every run with the first, by the protocols that all have and whose results can be paired.

        Args:
            runs: at least two.
            order: keys of protocols, in the order shown.
            bootstrap: of the intervals and p-values.
        """
        first, *others = runs
        shared = [
            key for key in order if all(key in run.results and hasattr(run.results[key], "statistics") for run in runs)
        ]
        differences: dict[str, dict[str, Comparison]] = {
            key: {run.name: compare(run.results[key], first.results[key], bootstrap=bootstrap) for run in others}  # type: ignore[arg-type]
            for key in shared
        }
        return cls(runs, differences, bootstrap)

    def to_dict(self) -> dict[str, Any]:
        """The differences, as ``comparison.json`` has them: plain dictionaries, None for NaN."""
        return {
            "runs": [run.name for run in self.runs],
            "differences": {
                key: {name: difference.to_dict() for name, difference in by_run.items()}
                for key, by_run in self.differences.items()
            },
        }

    def tables(self) -> list[Table]:
        """One table a protocol, one row a statistic that all runs have: values, and differences from the first run."""
        tables = []
        first, *others = self.runs
        for key, by_run in self.differences.items():
            columns = [Column(first.name)]
            for run in others:
                columns += [Column(run.name), Column(f"{run.name} - {first.name}"), Column(f"p of {run.name}")]
            parts = [by_run[run.name].differences for run in others]
            rows = []
            for statistic in parts[0]:
                if not all(statistic in of_run for of_run in parts):
                    continue
                cells = [Cell(parts[0][statistic].second)]
                for part in (of_run[statistic] for of_run in parts):
                    difference = Cell.of(part.difference, spec="+.3f")
                    cells += [Cell(part.first), difference, Cell(part.p_value, text=p_value_text(part.p_value))]
                rows.append(Row(statistic_title(statistic, parts[0]), cells))
            title = first.results[key].tables()[0].title
            tables.append(Table(key.replace("_", "-"), title, "Statistic", columns, rows))
        return tables

    def _sections(self) -> list[TableSection]:
        """The tables with what their figures mean, each explanation once."""
        first = self.runs[0]
        said: set[str] = set()
        sections = []
        for key, table in zip(self.differences, self.tables(), strict=True):
            lines = {name: line for name, line in first.results[key].explanations().items() if line not in said}
            if any(row.name.startswith("Brier") for row in table.rows):
                lines["Brier score"] = BRIER
            said.update(lines.values())
            sections.append(TableSection(table.name, table.title, "", [table], lines))
        return sections

    def significant(self) -> list[str]:
        """For every run, in how many statistics it differs from the first, and how many would by chance; each counts once."""
        notes = []
        for run in self.runs[1:]:
            known = [
                part.p_value
                for key, by_run in self.differences.items()
                for name, part in by_run[run.name].differences.items()
                if not math.isnan(part.p_value) and not self._is_repeated(key, name, run.name)
            ]
            if known:
                notes.append(
                    f"{run.name} differs from {self.runs[0].name} at p < 0.05 in {sum(value < 0.05 for value in known)} of "
                    f"{len(known)} statistics; between equal models it would be about {len(known) / 20:.0f}."
                )
        return notes

    def _is_repeated(self, key: str, statistic: str, run: str) -> bool:
        """Whether a statistic stands in another protocol's table as well, with the same values."""
        metric, other = REPEATED.get(key, ("", ""))
        if statistic.split("/")[0] != metric or other not in self.differences:
            return False
        twin = self.differences[other][run].differences.get(statistic)
        own = self.differences[key][run].differences[statistic]
        return twin is not None and math.isclose(twin.first, own.first) and math.isclose(twin.second, own.second)

    def table(self) -> str:
        """The tables as plain text, each under its title."""
        return "\n\n".join(f"{table.heading}\n{table.to_text()}" for table in self.tables())


def write_comparison(path: str | Path, comparison: RunsComparison, *, show_text: bool = True) -> Path:
    """Write a comparison as one self-contained HTML file.

    It has the tables, which can be sorted and saved as CSV, the loss curves, and the runs' heat maps of the same sentences side
    by side.

    Args:
        path: the file. Its folder is made, and the file is written whole or not at all.
        comparison: the runs and their differences.
        show_text: False keeps the sentences of reports out of the file.

    Returns:
        The path.
    """
    config = comparison.bootstrap
    templates = page_templates()
    script = templates.get_template("sort.js.j2").render()
    parts = {
        "title": " and ".join(run.name for run in comparison.runs)
        if len(comparison.runs) == 2
        else "Comparison of runs",
        "version": __version__,
        "first": comparison.runs[0].name,
        "names": [run.name for run in comparison.runs],
        "notes": [f"{run.name}: {note}" for run in comparison.runs for note in run.notes],
        "sections": comparison._sections(),
        "significant": comparison.significant(),
        "script": script,
        "policy": content_policy(script),
        "curves": [(run.name, loss_curve(run.history)) for run in comparison.runs],
        "cases": _side_by_side(comparison.runs, show_text),
        "shows_text": show_text,
        "level": f"{100 * config.confidence_level:g} %",
        "n_resamples": config.n_resamples,
    }
    text = templates.get_template("comparison.html.j2").render(**parts)
    write_text(path, text, follow_links=False)
    return Path(path)


def _side_by_side(runs: Sequence[ComparedRun], show_text: bool) -> list[dict[str, Any]]:
    """For each study that all runs show: its image, and for each sentence the runs' heat maps."""
    shown = [{case["study"]: case for case in sentence_cases(run.sentences, show_text)} for run in runs]
    cases = []
    for study, case in shown[0].items():
        if not all(study in of_run for of_run in shown):
            continue
        sentences = [
            {"text": sentence["text"], "maps": [of_run[study]["sentences"][place] for of_run in shown]}
            for place, sentence in enumerate(case["sentences"])
        ]
        cases.append({"study": study, "picture": case["picture"], "sentences": sentences})
    return cases
