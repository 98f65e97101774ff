"""Comparison of trained runs on the same studies, with its report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data import Manifest
from medvl.data.cells import class_key
from medvl.data.leaks import content_key, image_paths
from medvl.evaluation import BootstrapConfig
from medvl.evaluation.registry import choose_protocols, registered_protocols
from medvl.evaluation.report.comparison import ComparedRun, RunsComparison, write_comparison
from medvl.handlers import read_metrics
from medvl.utils.checks import error_message
from medvl.utils.checksums import one_at_a_time
from medvl.utils.io import check_writable, number_files, write_text
from medvl.utils.limits import check_regular_file
from medvl.utils.tar_members import TarMember
from medvl.workflows.evaluate import evaluation_context, example_sentences, run_protocols
from medvl.workflows.run_records import METRICS
from medvl.workflows.trained_run import TrainedRun

logger = logging.getLogger(__name__)

COMPARISON, PAGE = "comparison.json", "comparison.html"
RESAMPLES = 2000
"""A p-value needs more resamples than an interval."""


def compare_runs(
    runs: Sequence[TrainedRun],
    output: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    columns: Mapping[str, Any] | None = None,
    protocols: Sequence[str] | None = None,
    mask_columns: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    batch_size: int = 64,
    on_error: str = "raise",
    show_text: bool = True,
    progress: bool = False,
) -> RunsComparison:
    """Evaluate runs on the same studies; write their differences as ``comparison.json`` and ``comparison.html``.

    Differences are paired by patient (:func:`medvl.evaluation.compare`): each run is compared with the first.

    Args:
        runs: at least two.
        output: folder of the files.
        data: a table for all runs; None takes each run's own, which must give the same studies.
        split: "train", "val", "test" or "all".
        columns: names of the table's columns, as for :meth:`TrainedRun.studies`.
        protocols: names of protocols (:func:`medvl.evaluation.protocol_names`). None runs every one whose requirements the data
            meet, but those that wait to be asked for.
        mask_columns: columns with paths of masks, each as ``COLUMN`` or ``NAME=COLUMN``.
        classes: findings that single-label zero-shot tells apart.
        batch_size: studies at once.
        on_error: what a study that cannot be read does, "raise" or "skip".
        show_text: whether the page shows sentences of reports.
        progress: whether progress bars are shown.

    Returns:
        The runs with their results, and the differences.

    Raises:
        ValueError: If there are fewer than two runs, or their studies differ.
        OSError: If the files cannot be written; this is checked before the work.
    """
    if len(runs) < 2:
        raise ValueError(error_message("runs", "be at least two", len(runs)))
    output = Path(output)
    earlier = output / COMPARISON
    check_writable(earlier)
    check_regular_file(earlier)
    histories = [read_metrics(run.path / METRICS) for run in runs]  # a damaged one is named before the work
    compared: list[ComparedRun] = []
    first: Manifest | None = None
    for name, run, history in zip(unique_names([run.path for run in runs]), runs, histories, strict=True):
        manifest = run.studies(data, split, columns, on_error, label_reports=True)
        if first is None:
            first = manifest
        elif problem := _difference(first, manifest, compared[0].name, name):
            raise ValueError(f"Runs are compared on the same studies, but {problem}; give one table by --data.")
        notes = list(run.cautions(manifest.studies).values())
        for said in notes:
            logger.warning("%s: %s", name, said)
        loader = run.loader(manifest, batch_size=batch_size, on_error=on_error)
        context = evaluation_context(run, manifest, loader, data, columns, mask_columns, classes, progress)
        results = run_protocols(choose_protocols(protocols, context), context)
        compared.append(ComparedRun(name, results, history, example_sentences(run.model, loader), notes))
    bootstrap = BootstrapConfig(n_resamples=RESAMPLES, seed=runs[0].environment["seed"])
    order = [protocol.key for protocol in registered_protocols()]
    comparison = RunsComparison.of(compared, order, bootstrap)
    content = json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n"
    with one_at_a_time(output):
        if earlier.exists() and earlier.read_bytes() != content.encode():
            moved = number_files(output, (COMPARISON, PAGE))
            logger.info("What was in %s is another comparison; kept as %s.", output, moved)
        write_text(earlier, content, follow_links=False)
        write_comparison(output / PAGE, comparison, show_text=show_text)
    return comparison


def _difference(one: Manifest, other: Manifest, name: str, other_name: str) -> str:
    """How the studies of two runs differ, or ``""``: in their ids, in the content of their images, or in their labels.

    Images of packed folders, which hold other files than a table, are known by their ids alone.
    """
    ids, other_ids = ([str(study["study_id"]) for study in manifest.studies] for manifest in (one, other))
    if ids != other_ids:
        common = len(set(ids) & set(other_ids))
        return f"{name} has {len(ids)} and {other_name} has {len(other_ids)}, of which {common} are common"
    findings = {class_key(finding): place for place, finding in enumerate(other.names)}
    pairs = [(place, findings[class_key(key)]) for place, key in enumerate(one.names) if class_key(key) in findings]
    places, other_places = ([pair[side] for pair in pairs] for side in (0, 1))
    images = labels = 0
    for study, other_study in zip(one.studies, other.studies, strict=True):
        images += _have_other_images(study, other_study)
        if "label" in study and "label" in other_study:
            states, other_states = study["label"][places], other_study["label"][other_places]
            labels += not np.array_equal(states, other_states, equal_nan=True)
    if not images and not labels:
        return ""
    what = f"{images} of them have another image" if images else f"{labels} of them have other labels"
    return f"{what} in {other_name} than in {name}"


def _have_other_images(study: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    paths, other_paths = image_paths(study), image_paths(other)
    if paths == other_paths or any(TarMember.parse(path) is not None for path in (*paths, *other_paths)):
        return False
    return list(map(content_key, paths)) != list(map(content_key, other_paths))


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents as tell them apart, and a number where a folder is given again.

    Example:
        >>> unique_names([Path("a/run"), Path("b/run"), Path("c/other")])
        ['a/run', 'b/run', 'other']
        >>> unique_names([Path("a/run"), Path("a/run")])
        ['run (1)', 'run (2)']
    """
    parts = [path.resolve().parts for path in paths]
    names = []
    for own in parts:
        length = 1
        while any(other[-length:] == own[-length:] for other in parts if other != own):
            length += 1
        names.append(Path(*own[-length:]).as_posix())
    return [
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]
