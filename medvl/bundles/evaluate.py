"""Evaluates a trained run and writes the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from medvl.bundles.run_folder import METRICS
from medvl.bundles.trained_run import TrainedRun
from medvl.data import Manifest, StudyLoader
from medvl.evaluation import Embeddings, Evaluation, embed_studies, evaluate, write_report
from medvl.handlers import read_metrics
from medvl.networks import DualEncoder

EVALUATION, REPORT = "evaluation.json", "report.html"
GALLERY = 400  # studies whose picture is kept for the report


def evaluate_run(
    run: TrainedRun,
    manifest: Manifest,
    loader: StudyLoader,
    output: str | Path,
    *,
    title: str | None = None,
    untrained: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Zero-shot classification where the studies have labels, retrieval where they have reports, and the report.

    Args:
        run: the trained model.
        manifest: the studies (:meth:`TrainedRun.studies`).
        loader: their batches (:meth:`TrainedRun.loader`).
        output: the folder of ``evaluation.json`` and ``report.html``.
        title: heading of the report.
        untrained: whether the same model with random weights is evaluated beside it.
        progress: whether progress bars are shown.

    Returns:
        The figures.

    Raises:
        ValueError: where the studies have neither labels nor reports.
    """
    start = time.perf_counter()
    if not manifest.names and not any("report" in study for study in manifest.studies):
        raise ValueError(f"{manifest.name} has neither labels nor reports to evaluate on; name their columns.")
    embeddings = embed(run.model, loader, keep_images=GALLERY, progress=progress)
    prompts = run.prompts(labelled(embeddings, manifest.names))
    options: dict[str, Any] = {"prompts": prompts, "names": manifest.names, "seed": run.environment["seed"]}
    other = None
    if untrained:
        model = run.untrained()
        other = evaluate(embed(model, loader, progress=progress, name="embed untrained"), model, **options)
    result = evaluate(embeddings, run.model, untrained=other, **options)
    output = Path(output)
    result.save(output / EVALUATION)
    write_report(
        output / REPORT,
        title=title or f"{run.path.name}: {manifest.name}",
        evaluation=result,
        embeddings=embeddings,
        history=read_metrics(run.path / METRICS),
        notes=notes(run, manifest, len(embeddings), loader.skipped, time.perf_counter() - start),
        configuration=run.config,
        environment=run.environment,
        names=manifest.names,
    )
    return result


def labelled(embeddings: Embeddings, names: Sequence[str]) -> list[str]:
    """The findings that some study has a state of; a column of blanks is no finding to evaluate."""
    if embeddings.labels is None:
        return []
    known = (~embeddings.labels.isnan()).any(0)
    return [name for name, given in zip(names, known.tolist(), strict=True) if given]


def embed(
    model: DualEncoder, loader: StudyLoader, keep_images: int = 0, progress: bool = False, name: str = "embed"
) -> Embeddings:
    """Embeddings of a loader's studies, with a progress bar."""
    with tqdm(total=len(loader.dataset), desc=name, unit="study", disable=not progress) as bar:
        return embed_studies(model, loader, device=model.device, keep_images=keep_images, progress=bar.update)


def notes(run: TrainedRun, manifest: Manifest, studies: int, skipped: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the report says of the run in short."""
    said = {
        "Evaluated on": f"{studies} studies of {manifest.name}",
        "Rows": manifest.summary(),
        "Trained on": run.environment["data_summary"],
        "Studies": ", ".join(f"{count} {split}" for split, count in run.environment["studies"].items()),
        "Seed": run.environment["seed"],
        "Training time": f"{sum(line['seconds'] for line in read_metrics(run.path / METRICS)):.0f} s",
        "Evaluation time": f"{seconds:.0f} s",
    }
    if skipped:
        said["Skipped"] = f"{len(skipped)} studies could not be read: " + "; ".join(
            map(str, list(skipped.values())[:5])
        )
    return said
