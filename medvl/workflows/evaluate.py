"""Evaluation of a trained run by the protocols that its data permit, with its files and its report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from medvl.data import Manifest, StudyLoader
from medvl.evaluation import BootstrapConfig, Evaluation, SentenceMaps, sentence_maps, write_report
from medvl.evaluation.benchmarks import Benchmark
from medvl.evaluation.context import ProtocolContext, embed
from medvl.evaluation.registry import Protocol, choose_protocols
from medvl.handlers import read_metrics
from medvl.networks import DualEncoder
from medvl.utils.checksums import one_at_a_time
from medvl.utils.counts import count_of
from medvl.utils.io import check_writable
from medvl.utils.limits import check_regular_file
from medvl.workflows.evaluation_files import EVALUATION, EVALUATION_CSV, REPORT, describe_evaluated, save_evaluation
from medvl.workflows.masks import find_masks, masked_dataset
from medvl.workflows.model_card import update_model_card
from medvl.workflows.run_records import METRICS
from medvl.workflows.trained_run import TrainedRun

__all__ = ["embed", "evaluate_run"]

logger = logging.getLogger(__name__)

MAX_PICTURES = 2000
"""Number of studies whose small picture is kept, for the report to choose from."""

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
SENTENCE_CASES = 4
"""Number of studies whose sentences are shown over their image."""


def evaluate_run(
    run: TrainedRun,
    manifest: Manifest,
    loader: StudyLoader,
    output: str | Path,
    *,
    protocols: Sequence[str] | None = None,
    data: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    mask_columns: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    benchmark: Benchmark | None = None,
    whole: Manifest | None = None,
    title: str | None = None,
    untrained: bool = True,
    show_text: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Run protocols on one split of a table; write ``evaluation.json``, ``evaluation.csv`` and the report.

    Results of other protocols that an earlier evaluation of the same studies and model wrote there are kept. Where ``output``
    is the run's own folder, the figures are written into the model's card as well.

    Args:
        run: the trained model.
        manifest: the studies to evaluate on (:meth:`TrainedRun.studies`).
        loader: their batches (:meth:`TrainedRun.loader`).
        output: folder of the files.
        protocols: names of protocols (:func:`medvl.evaluation.protocol_names`). None runs every one whose
            requirements the data meet, but those that wait to be asked for by name or by an option of theirs.
        data: the table of ``manifest``; that of the training where None.
        columns: names of the table's columns, as for :meth:`TrainedRun.studies`.
        mask_columns: columns with paths of masks, each as ``COLUMN`` or ``NAME=COLUMN``.
        classes: findings that single-label zero-shot tells apart. None takes the five of CheXpert's competition (5x200)
            where the table has them all, else every finding that some study shows.
        benchmark: the evaluation set that the studies are; it names protocols, classes and prompts where they are not given.
        whole: all studies of the benchmark's data set, to train probes on (:meth:`medvl.evaluation.benchmarks.Benchmark.read`).
        title: heading of the report.
        untrained: whether the same model with random weights is evaluated beside it.
        show_text: whether the report shows text of the studies' reports.
        progress: whether progress bars are shown.

    Returns:
        The results.

    Raises:
        ValueError: If a protocol is unknown or the data do not permit it, or permit none.
        OSError: If the files cannot be written; this is checked before the work.
    """
    start = time.perf_counter()
    output = Path(output)
    check_writable(output / EVALUATION)
    for name in (EVALUATION, EVALUATION_CSV):  # which are read
        check_regular_file(output / name)
    history = read_metrics(run.path / METRICS)  # a damaged file is an error before the work, not after it
    context = evaluation_context(
        run, manifest, loader, data, columns, mask_columns, classes, progress, benchmark, whole
    )
    if benchmark is not None and protocols is None:
        protocols = benchmark.protocols
    chosen = choose_protocols(protocols, context)
    other = run_protocols(chosen, context.for_model(run.reinitialized_model(), "untrained ")) if untrained else None
    result = replace(run_protocols(chosen, context), untrained=other)
    cautions = run.cautions(manifest.studies)
    for said in cautions.values():
        logger.warning("%s", said)
    evaluated_on, sentences = describe_evaluated(run, manifest), example_sentences(run.model, loader)
    with one_at_a_time(output):  # another evaluation may have results to keep, or these to keep
        earlier = save_evaluation(result, output, evaluated_on, list(cautions.values()))
        if output.resolve() == run.path.resolve():
            update_model_card(run.path)
        write_report(
            output / REPORT,
            title=title or f"{run.path.name}: {manifest.name}",
            evaluation=result,
            embeddings=context.embedded,
            history=history,
            facts={**cautions, **run_facts(run, manifest, loader, time.perf_counter() - start), **earlier},
            configuration=run.config,
            environment=run.environment,
            names=manifest.names,
            show_text=show_text,
            sentences=sentences,
        )
    return result


def evaluation_context(
    run: TrainedRun,
    manifest: Manifest,
    loader: StudyLoader,
    data: str | Path | None = None,
    columns: Mapping[str, Any] | None = None,
    mask_columns: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    progress: bool = False,
    benchmark: Benchmark | None = None,
    all_studies: Manifest | None = None,
) -> ProtocolContext:
    """What the protocols need of a run and of the studies it is evaluated on; arguments as for :func:`evaluate_run`."""
    seed = run.environment["seed"]
    masks = find_masks(run, manifest, data, mask_columns)
    batch_size = loader.batch_size or 1

    def batches(studies: Sequence[Mapping[str, Any]]) -> StudyLoader:
        part = replace(manifest, studies=[dict(study) for study in studies])
        return run.loader(part, batch_size=batch_size, on_error=loader.on_error)

    def masked_batches(studies: Sequence[Mapping[str, Any]]) -> StudyLoader:
        dataset = masked_dataset(run, studies, masks)  # type: ignore[arg-type]  # only called where there are masks
        return StudyLoader(dataset, batch_size=batch_size, on_error=loader.on_error)

    @cache
    def splits() -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
        whole = all_studies
        if whole is None:
            whole = run.studies(data, "all", columns, loader.on_error, label_reports=True).assign_splits(seed=seed)
        return whole.subset("train", allow_empty=True).studies, whole.subset("val", allow_empty=True).studies

    def class_prompts(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        if benchmark is not None and benchmark.prompts is not None:
            return {name: benchmark.prompts(name) for name in names}
        return run.class_prompts(names)

    if benchmark is not None and not classes and "single-label" in benchmark.protocols:
        classes = benchmark.classes
    return ProtocolContext(
        model=run.model,
        data_name=manifest.name,
        studies=manifest.studies,
        findings=manifest.names,
        loader=batches,
        splits=splits,
        class_prompts=class_prompts,
        test_loader=loader,
        mask_names=() if masks is None else masks.names,
        mask_loader=None if masks is None else masked_batches,
        retrieval_lists=None if benchmark is None else benchmark.retrieval(),
        options={"classes": list(classes or ()), "mask_columns": list(mask_columns)},
        seed=seed,
        bootstrap=BootstrapConfig(seed=seed),
        keep_images=MAX_PICTURES,
        progress=progress,
    )


def run_protocols(chosen: Sequence[Protocol], context: ProtocolContext) -> Evaluation:
    """The results of protocols on one model; those for which the data do not suffice after all are left out."""
    results = {protocol.key: protocol.run(context) for protocol in chosen}
    return Evaluation({key: result for key, result in results.items() if result is not None})


def example_sentences(model: DualEncoder, loader: StudyLoader) -> list[SentenceMaps]:
    """Heat maps of the sentences of the first reports that state a finding, each sentence once."""
    if model.spatial_dims != 2 or not hasattr(model, "encode_patches"):
        return []
    examples: list[SentenceMaps] = []
    for row, study in enumerate(loader.dataset.studies):
        if len(examples) == SENTENCE_CASES:
            break
        if not str(study.get("report") or "").strip() or study["study_id"] in loader.skipped:
            continue
        item = loader.dataset[row]
        maps = sentence_maps(
            model,
            item["image"].to(model.device),
            item["report"],
            study_id=str(study["study_id"]),
            exclude={sentence for example in examples for sentence in example.sentences},
        )
        if maps is not None:
            examples.append(maps)
    return examples


def run_facts(run: TrainedRun, manifest: Manifest, loader: StudyLoader, seconds: float) -> dict[str, Any]:
    """What the report says of the run in short."""
    trained_on, evaluated_on = run.environment["data_summary"], manifest.summary()
    facts = {
        "Evaluated on": f"{count_of(len(manifest), 'study', 'studies')} of {manifest.name}",
        **({} if trained_on.startswith(evaluated_on) else {"Their table": evaluated_on}),
        "Data of the training": trained_on,
        "Splits": ", ".join(f"{SPLIT_NAMES[split]} {count}" for split, count in run.environment["studies"].items()),
        "Seed": run.environment["seed"],
        "Training time": f"{sum(line.get('seconds', 0) for line in read_metrics(run.path / METRICS)):.0f} s",
        "Evaluation time": f"{seconds:.0f} s",
    }
    if loader.skipped:
        first = "; ".join(map(str, list(loader.skipped.values())[:5]))
        facts["Skipped"] = f"{count_of(len(loader.skipped), 'study', 'studies')} could not be read: {first}"
    return facts
