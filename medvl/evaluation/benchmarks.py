"""The field's evaluation sets by name, drawn from public data sets by the published rules."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medvl.data import Manifest
from medvl.data.label_columns import CHEXPERT_FINDINGS
from medvl.data.public.registry import PublicLocation
from medvl.evaluation.case_selection import (
    CHEXPERT_8X200_CLASSES,
    CHEXPERT_COMPETITION_FINDINGS,
    draw_per_class,
    exclusive_label_classes,
)
from medvl.evaluation.retrieval_lists import RetrievalLists, select_5x200, select_8x200
from medvl.utils.checks import check_option, error_message

logger = logging.getLogger(__name__)

SEED = 0
"""Of the draws and splits: a benchmark's studies do not depend on the run."""


@dataclass(frozen=True)
class Benchmark:
    """An evaluation set of a public data set.

    Args:
        name: on the command line, ``--benchmark NAME:PATH``.
        dataset: name of the public data set (:func:`medvl.data.public_datasets`).
        rule: in one sentence, which studies are evaluated and how, and who published it.
        protocols: names of the protocols that it runs by default.
        select: function from all studies to the same ones with the split ``test`` for those to evaluate on.
        count: number of images that the publication evaluates on; None if it is not published.
        options: of the data set.
        classes: of single-label classification.
        prompts: function from a finding to its published present and absent prompts; None for the model's own.
        lists: file or folder of the published list of images (``NAME,lists=PATH:PATH``), in place of a draw; None for the draw.
        select_listed: function from all studies and ``lists`` to the same ones with the split ``test`` for those on the list,
            and the number of images on the list that are not there; None where no list is read.
    """

    name: str
    dataset: str
    rule: str
    protocols: tuple[str, ...]
    select: Callable[[Manifest], Manifest]
    count: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    prompts: Callable[[str], dict[str, list[str]]] | None = None
    lists: str | None = None
    select_listed: Callable[[Manifest, Path], tuple[Manifest, list[str]]] | None = None

    def retrieval(self) -> RetrievalLists | None:
        """The queries and candidates of the published lists; None without lists, or where they are of another protocol."""
        if self.lists is None or "label-retrieval" not in self.protocols:
            return None
        return RetrievalLists.read(self.lists)

    def read(self, path: str | Path, on_error: str = "raise") -> tuple[Manifest, Manifest]:
        """The studies to evaluate on, and all studies of the data set with their splits.

        Args:
            path: folder of the data set in its published layout.
            on_error: ``"raise"`` the first bad study's error, or ``"skip"`` bad studies.

        Raises:
            FileNotFoundError: If the folder or the list lacks a file of the layout.
            ValueError: If no study is to be evaluated, or an image of the list is not there and ``on_error`` is ``"raise"``.
        """
        whole = PublicLocation(self.dataset, str(path), dict(self.options)).read(on_error)
        if self.lists is None or self.select_listed is None:
            try:
                whole = self.select(whole)
            except ValueError as error:
                raise ValueError(f"{self.name}:{path}: {error}") from error
        else:
            whole, missing = self.select_listed(whole, Path(self.lists))
            if missing and on_error == "raise":
                raise ValueError(
                    f"{len(missing)} images of the list {self.lists} are not in {path}, the first {missing[0]}; "
                    "--on-error skip evaluates on the others."
                )
        whole = replace(whole, name=f"{self.name}:{Path(path).name}")
        chosen = whole.subset("test")
        if self.count is not None and len(chosen) != self.count:
            logger.warning("%s: %d images, and %d as published.", whole.name, len(chosen), self.count)
        return chosen, whole


def parse_benchmark(text: str) -> tuple[Benchmark, str]:
    """Parse ``NAME:PATH``, or ``NAME,lists=PATH:PATH`` with a published list of images.

    Raises:
        ValueError: If it is not of that form, or the name is unknown or has no list.

    Example:
        >>> benchmark, path = parse_benchmark("rsna:/data/rsna")
        >>> benchmark.protocols, benchmark.count, path
        (('zero-shot',), 4003, '/data/rsna')
    """
    head, colon, path = text.partition(":")
    name, comma, option = head.partition(",")
    if not colon or not path:
        raise ValueError(
            error_message("benchmark", f"be NAME:PATH with NAME one of {', '.join(BENCHMARKS)}", repr(text))
        )
    check_option(name, "benchmark", tuple(BENCHMARKS))
    if not comma:
        return BENCHMARKS[name], path
    key, sign, lists = option.partition("=")
    if key != "lists" or not sign or BENCHMARKS[name].select_listed is None:
        with_lists = ", ".join(known for known, benchmark in BENCHMARKS.items() if benchmark.select_listed)
        raise ValueError(error_message("option of a benchmark", f"be lists=PATH, of {with_lists}", repr(f"{head}")))
    return replace(BENCHMARKS[name], lists=lists), path


def _with_test(manifest: Manifest, rows: Sequence[int]) -> Manifest:
    """The studies of these rows as the test split, the others as the training split."""
    chosen = set(rows)
    studies = [{**study, "split": "test" if row in chosen else "train"} for row, study in enumerate(manifest.studies)]
    return replace(manifest, studies=studies)


def _draw_exclusive(classes: Sequence[str], per_class: int, among: Sequence[str]) -> Callable[[Manifest], Manifest]:
    """Draw equally many images of each class from the training split, each of which shows that class alone."""

    def select(manifest: Manifest) -> Manifest:
        studies = manifest.studies
        labels = np.full((len(studies), len(manifest.names)), np.nan, dtype=np.float32)
        for row, study in enumerate(studies):
            if study.get("split") == "train" and "label" in study:
                labels[row] = study["label"]
        numbers = exclusive_label_classes(labels, manifest.names, classes, among)
        return _with_test(
            manifest, draw_per_class(numbers, classes, per_class, np.random.default_rng(SEED), "images").tolist()
        )

    return select


def _shuffle_split(by_id: bool) -> Callable[[Manifest], Manifest]:
    """GLoRIA's split into 70 % training, 15 % validation and 15 % test images: two draws as by scikit-learn with seed 0."""

    def select(manifest: Manifest) -> Manifest:
        ids = [str(study["study_id"]) for study in manifest.studies]
        order = np.argsort(ids, kind="stable") if by_id else np.arange(len(ids))
        held_out, train = _draw_fraction(order, 0.3)
        validation, test = _draw_fraction(held_out, 0.5)
        split = dict.fromkeys(train.tolist(), "train")
        split |= dict.fromkeys(validation.tolist(), "val") | dict.fromkeys(test.tolist(), "test")
        studies = [{**study, "split": split[row]} for row, study in enumerate(manifest.studies)]
        return replace(manifest, studies=studies)

    return select


def _draw_fraction(rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """A part of the rows, rounded up, and the rest, as scikit-learn's ``train_test_split`` draws test and training part."""
    drawn = np.random.RandomState(SEED).permutation(len(rows))
    number = math.ceil(fraction * len(rows))
    return rows[drawn[:number]], rows[drawn[number:]]


def _all(manifest: Manifest) -> Manifest:
    return _with_test(manifest, range(len(manifest)))


def _validation_set(manifest: Manifest) -> Manifest:
    """The published validation set is evaluated on, and nothing is held out of the training set."""
    return _with_test(manifest, [row for row, study in enumerate(manifest.studies) if study.get("split") == "val"])


def _ct_clip_prompts(finding: str) -> dict[str, list[str]]:
    return {"present": [f"{finding} is present."], "absent": [f"{finding} is not present."]}


_FINDINGS = tuple(name for name in CHEXPERT_FINDINGS if name != "No Finding")

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "chexpert-5x200",
            "chexpert",
            "200 frontal images of CheXpert's training set for each of the five competition findings, of which no other "
            "of the 13 findings is present or uncertain (GLoRIA, Huang et al. 2021); drawn anew, or those of its table, "
            "lists=chexpert_5x200.csv.",
            ("single-label",),
            _draw_exclusive(CHEXPERT_COMPETITION_FINDINGS, 200, _FINDINGS),
            count=1000,
            options={"views": "frontal"},
            classes=CHEXPERT_COMPETITION_FINDINGS,
            select_listed=select_5x200,
        ),
        Benchmark(
            "chexpert-8x200",
            "chexpert",
            "10 query and 200 candidate frontal images of CheXpert's training set for each of eight classes, of which no other "
            "finding is present or uncertain (ConVIRT, Zhang et al. 2020); drawn anew, without its radiologist's choice, or "
            "those of its lists, with their text queries, lists=FOLDER.",
            ("label-retrieval",),
            _draw_exclusive(CHEXPERT_8X200_CLASSES, 210, _FINDINGS),
            count=1680,
            options={"views": "frontal"},
            select_listed=select_8x200,
        ),
        Benchmark(
            "rsna",
            "rsna",
            "15 % of the 26,684 labeled images, by GLoRIA's split of 70 / 15 / 15 % (Huang et al. 2021); pneumonia.",
            ("zero-shot",),
            _shuffle_split(by_id=True),
            count=4003,
        ),
        Benchmark(
            "siim",
            "siim",
            "15 % of the labeled images, by GLoRIA's split of 70 / 15 / 15 % (Huang et al. 2021), of images and "
            "not of the table's rows, which would have an image with several masks in two splits; pneumothorax.",
            ("zero-shot",),
            _shuffle_split(by_id=False),
        ),
        Benchmark(
            "ms-cxr",
            "ms-cxr",
            "All pairs of an image and a phrase; the means over the eight findings (BioViL, Boecking et al. 2022).",
            ("grounding",),
            _all,
            count=1162,
        ),
        Benchmark(
            "ct-rate",
            "ct-rate",
            "The 18 findings of the 3,039 volumes of the validation set, by the prompts of the released code, 'X is present.' "
            "and 'X is not present.' (CT-CLIP, Hamamci et al. 2024; 'X.' and 'not X.' in its first release).",
            ("zero-shot",),
            _validation_set,
            count=3039,
            prompts=_ct_clip_prompts,
        ),
    )
}
"""The benchmarks by name."""
