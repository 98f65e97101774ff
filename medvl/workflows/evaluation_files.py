"""The files of an evaluation, which keep what an earlier evaluation found."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.data import Manifest
from medvl.evaluation import Evaluation
from medvl.networks.nets.pretrained import WEIGHTS
from medvl.utils.checksums import verify_file, write_listed
from medvl.utils.csv_files import CsvWriter
from medvl.utils.ids import hash_id
from medvl.utils.io import file_sha256, number_files
from medvl.workflows.run_records import MODEL
from medvl.workflows.trained_run import TrainedRun

logger = logging.getLogger(__name__)

EVALUATION, EVALUATION_CSV, REPORT = "evaluation.json", "evaluation.csv", "report.html"
EVALUATED_ON, UNTRAINED, KEY_FIGURES = "evaluated_on", "untrained", "key_figures"


def describe_evaluated(run: TrainedRun, manifest: Manifest) -> dict[str, Any]:
    """What an evaluation is of: the studies and the model, by which two evaluations are known to belong together."""
    ids = sorted(str(study["study_id"]) for study in manifest.studies)
    return {
        "data": manifest.name,
        "studies": len(manifest),
        "studies_hash": hash_id("\n".join(ids)),
        "model_sha256": file_sha256(run.path / MODEL / WEIGHTS),
    }


def save_evaluation(
    result: Evaluation, folder: Path, evaluated_on: Mapping[str, Any], warnings: Sequence[str] = ()
) -> dict[str, str]:
    """Write ``evaluation.json`` and ``evaluation.csv``, and keep the results of an earlier evaluation in the folder.

    Results of other protocols on the same studies by the same model stay in the files, and the earlier report, which alone
    has their figures, gets a number: ``report-1.html``. Files of other studies or of another model get a number altogether.

    Args:
        result: the results.
        folder: where the files are written.
        evaluated_on: what was evaluated (:func:`describe_evaluated`).
        warnings: what must be known of it, such as that the model was trained on these studies.

    Returns:
        For the report, a fact about the earlier results; empty without any.
    """
    earlier = _earlier_results(folder / EVALUATION)
    same = {key: earlier.get(EVALUATED_ON, {}).get(key) for key in evaluated_on} == {**evaluated_on}
    content, rows = _content(result), result.to_csv()
    content[EVALUATED_ON] = {**evaluated_on, **({"warnings": list(warnings)} if warnings else {})}
    facts: dict[str, str] = {}
    if not earlier or not same:
        moved = number_files(folder, (EVALUATION, EVALUATION_CSV, REPORT))
        if moved:
            logger.info("What was in %s is not of the same studies and model; kept as %s.", folder, moved)
    kept = [key for key in earlier if same and key not in (*content, UNTRAINED)]
    if kept:
        others = {key: value for key, value in earlier.get(UNTRAINED, {}).items() if key in kept}
        untrained = {**others, **content.pop(UNTRAINED, {})}
        content = {**{key: earlier[key] for key in kept}, **content, **({UNTRAINED: untrained} if untrained else {})}
        rows = _merge_rows(folder / EVALUATION_CSV, rows, kept)
        moved = number_files(folder, (REPORT,))
        facts = {"Earlier results": f"{', '.join(kept)}: {f'figures in {moved}' if moved else f'in {EVALUATION}'}"}
    write_listed(folder / EVALUATION, json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_listed(folder / EVALUATION_CSV, rows)
    return facts


def _content(result: Evaluation) -> dict[str, Any]:
    """The results as dictionaries, each protocol with its key figures, from which the model's card is written."""
    content = result.to_dict()
    for key, found, untrained in result.pairs():
        figures = found.key_figures_beside(untrained)
        if figures:
            content[key][KEY_FIGURES] = [{"name": figure.name, **figure.cell.to_dict()} for figure in figures]
    return content


def _earlier_results(path: Path) -> dict[str, Any]:
    """The content of an ``evaluation.json``; without what it must have where it is damaged, empty where there is none."""
    if not path.exists():
        return {}
    try:
        verify_file(path)
        verify_file(path.parent / EVALUATION_CSV)
        content = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        logger.warning("The earlier results cannot be read: %s", error)
        content = None
    is_whole = isinstance(content, dict) and isinstance(content.get(EVALUATED_ON), dict)
    return content if is_whole else {EVALUATED_ON: {}}


def _merge_rows(path: Path, rows: str, kept: list[str]) -> str:
    """Lines of CSV, after those of an earlier file that belong to the protocols that are kept."""
    if not path.is_file():
        return rows
    try:
        header, *earlier = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged; move it away, or name another folder (--output).") from error
    if header != next(csv.reader(io.StringIO(rows, newline=""))):
        return rows
    buffer = io.StringIO()
    # The cells of the earlier file are safe for a spreadsheet already.
    CsvWriter(buffer, raw=True).write_rows([header, *(row for row in earlier if row and row[0] in kept)])
    return buffer.getvalue() + rows.split("\n", 1)[1]
