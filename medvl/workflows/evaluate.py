"""Evaluates a trained run by the protocols that its data permit, and writes the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from medvl.data import Manifest, StudyLoader
from medvl.evaluation import (
    BootstrapConfig,
    Embeddings,
    Evaluation,
    GroundingResult,
    LabelRetrievalResult,
    LinearProbeResult,
    SegmentationResult,
    SentenceMaps,
    SingleLabelResult,
    ZeroShotResult,
    embed_studies,
    grounding,
    label_retrieval,
    linear_probe,
    retrieval,
    segmentation,
    sentence_maps,
    write_report,
    zero_shot,
    zero_shot_single_label,
)
from medvl.evaluation.case_selection import CHEXPERT_8X200_CLASSES, CHEXPERT_COMPETITION_FINDINGS, exclusive_classes
from medvl.evaluation.multi_label import checked_labels
from medvl.handlers import read_metrics
from medvl.networks import DualEncoder
from medvl.workflows.masks import Masks, find_masks, masked_dataset
from medvl.workflows.run_folder import METRICS
from medvl.workflows.trained_run import TrainedRun

EVALUATION, REPORT = "evaluation.json", "report.html"
PROTOCOLS = ("zero-shot", "single-label", "retrieval", "linear-probe", "segmentation", "grounding")
GALLERY = 2000  # studies whose small picture is kept, for the report to choose from
CLASS_QUERIES, CLASS_CASES = 10, 200  # of each class in retrieval by finding, and how many are searched at most
SENTENCE_CASES = 4  # studies whose sentences are shown over their image


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
    title: str | None = None,
    untrained: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Runs the protocols on one split of a table, writes ``evaluation.json`` and the report.

    Args:
        run: the trained model.
        manifest: the studies to evaluate on (:meth:`TrainedRun.studies`).
        loader: their batches (:meth:`TrainedRun.loader`).
        output: the folder of ``evaluation.json`` and ``report.html``.
        protocols: some of :data:`PROTOCOLS`. None takes what the data permit: zero-shot where there are labels, retrieval
            where there are reports, grounding where there are masks, single-label where ``classes`` are named; the linear
            probe where there are labels and segmentation where ``mask_columns`` name masks, if the table also has studies
            to learn from.
        data: the table of ``manifest``; that of the training where None.
        columns: names of the table's columns, as for :meth:`TrainedRun.studies`.
        mask_columns: columns with paths of masks, each as ``COLUMN`` or ``NAME=COLUMN`` (:func:`find_masks`).
        classes: findings that single-label zero-shot tells apart. None takes the five of CheXpert's competition (5x200)
            where the table has them all, else every finding that some study shows.
        title: heading of the report.
        untrained: whether the same model with random weights is evaluated beside it.
        progress: whether progress bars are shown.

    Returns:
        The figures.

    Raises:
        ValueError: an unknown protocol, or one that the data do not permit; data that permit none.
    """
    start = time.perf_counter()
    masks = find_masks(run, manifest, data, mask_columns)
    material = Material(run, manifest, loader, masks, data, columns, progress, classes)
    wanted = choose_protocols(protocols, manifest, masks, bool(mask_columns), bool(classes), material.can_learn)
    other = None
    if untrained:
        other = material.evaluate(run.untrained(), wanted, "untrained ")[0]
    result, embeddings = material.evaluate(run.model, wanted, keep_images=GALLERY)
    result = replace(result, untrained=other)
    output = Path(output)
    result.save(output / EVALUATION)
    write_report(
        output / REPORT,
        title=title or f"{run.path.name}: {manifest.name}",
        evaluation=result,
        embeddings=embeddings,
        history=read_metrics(run.path / METRICS),
        notes=notes(run, manifest, len(manifest), loader.skipped, time.perf_counter() - start),
        configuration=run.config,
        environment=run.environment,
        names=manifest.names,
        sentences=shown_sentences(run.model, loader),
    )
    return result


def choose_protocols(
    protocols: Sequence[str] | None,
    manifest: Manifest,
    masks: Masks | None,
    mask_columns: bool,
    classes: bool,
    can_learn: Callable[[], bool],
) -> list[str]:
    """The protocols asked for, or those that the data permit, in the order of :data:`PROTOCOLS`.

    Raises:
        ValueError: as :func:`evaluate_run`.
    """
    reports = any("report" in study for study in manifest.studies)
    needs = {
        "zero-shot": (bool(manifest.names), "labels; name their columns by --label-column"),
        "single-label": (bool(manifest.names), "labels; name their columns by --label-column"),
        "retrieval": (reports, "reports; name their column by --report-column"),
        "linear-probe": (bool(manifest.names), "labels; name their columns by --label-column"),
        "segmentation": (masks is not None, "masks; name their columns by --mask-column"),
        "grounding": (masks is not None, "masks; name their columns by --mask-column"),
    }
    if protocols is None:
        # The decoders of segmentation take their time, and single-label asks zero-shot's question once more: each must
        # have been asked for, by name or by what it needs.
        asked = {"segmentation": mask_columns, "single-label": classes}
        permitted = [name for name in PROTOCOLS if needs[name][0] and asked.get(name, True)]
        # A table of test studies alone has nothing to learn from.
        learned = {"linear-probe", "segmentation"} & set(permitted)
        if learned and not can_learn():
            permitted = [name for name in permitted if name not in learned]
        if not permitted:
            raise ValueError(f"{manifest.name} has neither labels nor reports to evaluate on; name their columns.")
        return permitted
    for name in protocols:
        if name not in needs:
            raise ValueError(f"--protocol must be among {', '.join(PROTOCOLS)}, received {name!r}.")
        if not needs[name][0]:
            raise ValueError(f"--protocol {name}: {manifest.name} has no {needs[name][1]}.")
    if classes and "single-label" not in protocols:
        raise ValueError(f"--class is for --protocol single-label, received --protocol {' '.join(protocols)}.")
    return [name for name in PROTOCOLS if name in protocols]


@dataclass
class Material:
    """What the protocols of a run are run on."""

    run: TrainedRun
    manifest: Manifest
    loader: StudyLoader
    masks: Masks | None
    data: str | Path | None
    columns: Mapping[str, Any] | None
    progress: bool
    classes: Sequence[str] | None = None
    _embedded: dict[str, Embeddings] = field(default_factory=dict)

    def evaluate(
        self, model: DualEncoder, wanted: Sequence[str], name: str = "", keep_images: int = 0
    ) -> tuple[Evaluation, Embeddings | None]:
        """The figures of one model, and its embeddings where some protocol needs them."""
        seed = self.run.environment["seed"]
        result, embeddings = Evaluation(), None
        if {"zero-shot", "single-label", "retrieval", "linear-probe"} & set(wanted):
            embeddings = embed(model, self.loader, keep_images, self.progress, f"{name}embed")
        if embeddings is not None and "zero-shot" in wanted:
            result = replace(result, zero_shot=self.zero_shot(model, embeddings, name, seed))
        if embeddings is not None and "single-label" in wanted:
            result = replace(result, single_label=self.single_label(model, embeddings, seed))
        if embeddings is not None and "retrieval" in wanted:
            by_finding = self.label_retrieval(model, embeddings, seed)
            result = replace(
                result,
                retrieval=retrieval(embeddings, bootstrap=BootstrapConfig(seed=seed), seed=seed),
                label_retrieval=by_finding,
            )
        if embeddings is not None and "linear-probe" in wanted:
            result = replace(result, linear_probe=self.linear_probe(model, embeddings, name, seed))
        if "segmentation" in wanted:
            result = replace(result, segmentation=self.segmentation(model, name, seed))
        if "grounding" in wanted:
            result = replace(result, grounding=self.grounding(model, name, seed))
        return result, embeddings

    def zero_shot(self, model: DualEncoder, embeddings: Embeddings, name: str, seed: int) -> ZeroShotResult:
        """Zero-shot classification; the thresholds of F1 come from the validation split where the table has one."""
        val = self.splits()[1]
        known = {study["study_id"] for study in self.manifest.studies}
        apart = val and not known & {study["study_id"] for study in val}
        validation = self._embed(model, val, f"{name}validation split") if apart else None
        names = self.manifest.names
        prompts = self.run.prompts(labelled(embeddings, names))
        return zero_shot(embeddings, prompts, model, names, validation=validation, bootstrap=BootstrapConfig(seed=seed))

    def single_label(self, model: DualEncoder, embeddings: Embeddings, seed: int) -> SingleLabelResult:
        """Which one of the classes does an image show?"""
        names = self.manifest.names
        classes = self.classes or default_classes(embeddings, names)
        prompts = {name: sides["present"] for name, sides in self.run.prompts(classes).items()}
        return zero_shot_single_label(
            embeddings, prompts, model, names, bootstrap=BootstrapConfig(seed=seed), seed=seed
        )

    def label_retrieval(self, model: DualEncoder, embeddings: Embeddings, seed: int) -> LabelRetrievalResult | None:
        """Retrieval by finding among the classes of the 8x200 layout that have cases enough; None for fewer than two."""
        names = self.manifest.names
        classes = [name for name in CHEXPERT_8X200_CLASSES if name in names]
        while len(classes) > 1:
            counts = np.bincount(exclusive_classes(embeddings, names, classes) + 1, minlength=len(classes) + 1)[1:]
            few = [name for name, count in zip(classes, counts, strict=True) if count < 2 * CLASS_QUERIES]
            if not few:
                break
            classes = [name for name in classes if name not in few]
        if len(classes) < 2:
            return None
        prompts = self.run.prompts(classes)
        return label_retrieval(
            embeddings,
            names,
            classes,
            texts={name: prompts[name]["present"] for name in classes},
            encode_text=model,
            ks=(5, 10),
            per_class=min(CLASS_CASES, int(counts.min()) - CLASS_QUERIES),
            queries_per_class=CLASS_QUERIES,
            bootstrap=BootstrapConfig(seed=seed),
            seed=seed,
        )

    def linear_probe(self, model: DualEncoder, embeddings: Embeddings, name: str, seed: int) -> LinearProbeResult:
        """A linear probe, learned on the training split and chosen on the validation split."""
        train, val, test = self.parts()
        if not val:
            raise ValueError(f"--protocol linear-probe: {self.manifest.name} has no studies in its validation split.")
        kept = {study["study_id"] for study in test}
        return linear_probe(
            self._embed(model, train, f"{name}training split"),
            self._embed(model, val, f"{name}validation split"),
            embeddings.rows([row for row, study in enumerate(embeddings.study_ids) if study in kept]),
            self.manifest.names,
            findings=labelled(embeddings, self.manifest.names),
            bootstrap=BootstrapConfig(seed=seed),
        )

    def segmentation(self, model: DualEncoder, name: str, seed: int) -> SegmentationResult:
        """Few-shot segmentation, learned on the training split."""
        masks = self._masks()
        train, _, test = self.parts()
        labelled_cases = masked_dataset(self.run, train, masks)
        loader = self._masked_loader(test, masks)
        with self._bar(loader, f"{name}segmentation") as update:
            return segmentation(
                model,
                labelled_cases,
                loader,
                names=masks.names,
                device=model.device,
                bootstrap=BootstrapConfig(seed=seed),
                seed=seed,
                progress=update,
            )

    def grounding(self, model: DualEncoder, name: str, seed: int) -> GroundingResult:
        """Grounding of the masks' names, by the prompts that state them."""
        masks = self._masks()
        phrases = {region: sides["present"] for region, sides in self.run.prompts(masks.names).items()}
        loader = self._masked_loader(self.manifest.studies, masks)
        with self._bar(loader, f"{name}grounding") as update:
            return grounding(
                model,
                loader,
                phrases,
                names=masks.names,
                device=model.device,
                bootstrap=BootstrapConfig(seed=seed),
                progress=update,
            )

    def splits(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The training and the validation studies of the table."""
        whole = self.run.studies(self.data, "all", self.columns, self.loader.on_error)
        whole = whole.assign_splits(seed=self.run.environment["seed"])
        return whole.subset("train", allow_empty=True).studies, whole.subset("val", allow_empty=True).studies

    def can_learn(self) -> bool:
        """Whether there are studies to learn from, to choose by and to measure on."""
        train, val = self.splits()
        taken = {study["study_id"] for study in (*train, *val)}
        return bool(train and val) and any(study["study_id"] not in taken for study in self.manifest.studies)

    def parts(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Studies to learn from, to choose by and to measure on: the table's splits, or a split by patient.

        Raises:
            ValueError: where nothing is left to learn from or to measure on.
        """
        train, val = self.splits()
        taken = {study["study_id"] for study in (*train, *val)}
        test = [study for study in self.manifest.studies if study["study_id"] not in taken]
        if not train or not test:
            raise ValueError(
                f"{self.manifest.name} has no studies both to learn from and to measure on: the training split holds "
                f"{len(train)}, and {len(test)} of those evaluated are outside of it."
            )
        return train, val, test

    def _embed(self, model: DualEncoder, studies: list[dict[str, Any]], name: str) -> Embeddings:
        # Two protocols may ask for the same split; the name says whose embeddings these are.
        if name not in self._embedded:
            part = replace(self.manifest, studies=studies)
            loader = self.run.loader(part, batch_size=self.loader.batch_size, on_error=self.loader.on_error)
            self._embedded[name] = embed(model, loader, progress=self.progress, name=name)
        return self._embedded[name]

    def _masks(self) -> Masks:
        if self.masks is None:
            raise ValueError(f"{self.manifest.name} has no masks.")
        return self.masks

    def _masked_loader(self, studies: Sequence[Mapping[str, Any]], masks: Masks) -> StudyLoader:
        dataset = masked_dataset(self.run, studies, masks)
        return StudyLoader(dataset, batch_size=self.loader.batch_size, on_error=self.loader.on_error)

    @contextmanager
    def _bar(self, loader: StudyLoader, name: str) -> Iterator[Any]:
        with tqdm(total=len(loader.dataset), desc=name, unit="study", disable=not self.progress) as bar:
            yield bar.update


def shown_sentences(model: DualEncoder, loader: StudyLoader) -> list[SentenceMaps]:
    """Heat maps of the sentences of a few reports, for the eye."""
    if model.spatial_dims != 2 or not hasattr(model, "encode_patches"):
        return []
    shown: list[SentenceMaps] = []
    for row, study in enumerate(loader.dataset.studies):
        if len(shown) == SENTENCE_CASES:
            break
        if not str(study.get("report") or "").strip() or study["study_id"] in loader.skipped:
            continue
        item = loader.dataset[row]
        maps = sentence_maps(model, item["image"].to(model.device), item["report"], study_id=str(study["study_id"]))
        if maps is not None:
            shown.append(maps)
    return shown


def labelled(embeddings: Embeddings, names: Sequence[str]) -> list[str]:
    """The findings that some study has a state of; a column of blanks is no finding to evaluate."""
    if embeddings.labels is None:
        return []
    known = (~embeddings.labels.isnan()).any(0)
    return [name for name, given in zip(names, known.tolist(), strict=True) if given]


def default_classes(embeddings: Embeddings, names: Sequence[str]) -> list[str]:
    """The five findings of CheXpert's competition where all are among the names, else every finding that is present."""
    if set(CHEXPERT_COMPETITION_FINDINGS) <= set(names):
        return list(CHEXPERT_COMPETITION_FINDINGS)
    shown = (checked_labels(embeddings, names) == 1).any(0)
    return [name for name, somewhere in zip(names, shown.tolist(), strict=True) if somewhere]


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
