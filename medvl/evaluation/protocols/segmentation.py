"""Few-shot segmentation with a decoder on a frozen image encoder's feature maps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.explanations import DICE, EMPTY_LEFT_EMPTY
from medvl.evaluation.feature_maps import dense_features
from medvl.evaluation.mask_batches import check_masks, labeled_features
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.segmentation_decoder import fit_decoder
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.means import mean_estimates, mean_of_means, nan_mean, weighted_mean_of_means
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.evaluation.thumbnails import thumbnail
from medvl.utils.checks import check_integer, error_message
from medvl.utils.ids import batch_ids

__all__ = ["SegmentationResult", "StructureResult", "segmentation"]


@dataclass(frozen=True)
class SegmentationExample:
    """One test case to show: picture (H, W) uint8, true and predicted mask (h, w) bool, Dice, study and structure."""

    picture: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    dice: float
    study_id: str
    name: str


@dataclass(frozen=True)
class StructureResult:
    """One structure, trained with one number of labeled cases.

    Args:
        dice: mean over the test cases that have the structure and over the seeds.
        prior: Dice of the mean mask of the labeled cases, a baseline that ignores the image.
        empty_clear: fraction of the test cases without the structure in which no pixel was predicted.
        empty_area: fraction of the pixels predicted in them.
        by_seed: the mean Dice of each seed.
    """

    dice: Estimate
    prior: Estimate
    empty_clear: Estimate
    empty_area: Estimate
    by_seed: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The metrics as ``evaluation.json`` has them."""
        metrics = {key: getattr(self, key).to_dict() for key in ("dice", "prior", "empty_clear", "empty_area")}
        return {**metrics, "by_seed": [None if math.isnan(value) else value for value in self.by_seed]}


@dataclass(frozen=True)
class SegmentationResult(ProtocolResult):
    """Few-shot segmentation of K structures on N test cases.

    Args:
        structures: by name and by number of labeled cases.
        macro: mean Dice over the structures that some test case has, by number of labeled cases.
        positives: test cases that have the structure, by name.
        empties: test cases that do not.
        case_dice: Dice of each number of labeled cases, test case and structure (F, N, K), mean over seeds; NaN where
            the mask is empty.
        study_ids: of the N cases.
        patient_ids: of the N cases.
        settings: shots, seeds, steps, width, bootstrap.
        examples: cases for the report, from the worst to the best.
    """

    structures: dict[str, dict[int, StructureResult]]
    macro: dict[int, Estimate]
    positives: dict[str, int]
    empties: dict[str, int]
    case_dice: np.ndarray
    study_ids: list[str]
    patient_ids: list[str]
    settings: dict[str, Any]
    examples: list[SegmentationExample] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them; numbers of labeled cases are the keys, as text."""
        return {
            "macro": {str(shots): {"dice": estimate.to_dict()} for shots, estimate in self.macro.items()},
            "structures": {
                name: {
                    "positives": self.positives[name],
                    "empty": self.empties[name],
                    **{str(shots): result.to_dict() for shots, result in by_shots.items()},
                }
                for name, by_shots in self.structures.items()
            },
            "cases": len(self.study_ids),
            "settings": self.settings,
        }

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Mean Dice (B,) by number of labeled cases for weights (B, N); see :func:`medvl.evaluation.compare`."""
        return {
            f"dice_with_{shots}": weighted_mean_of_means(values)(weights)
            for shots, values in zip(self.settings["shots"], self.case_dice, strict=True)
        }

    def tables(self) -> list[Table]:
        """Dice by structure and number of labeled cases; cases with an empty mask are reported separately."""
        names = ("Labeled", "Cases", "Dice", "Mean mask", "Empty cases", "Empty left empty")
        rows = []
        for name, by_shots in self.structures.items():
            for shots, result in by_shots.items():
                cells = [
                    Cell(shots, spec="d"),
                    Cell(self.positives[name], spec="d"),
                    Cell.of(result.dice),
                    Cell.of(result.prior),
                    Cell(self.empties[name], spec="d"),
                    Cell.of(result.empty_clear),
                ]
                rows.append(Row(f"{name}, {shots} labeled", cells))
        columns = [Column(name, compared=name == "Dice", chart=name == "Dice") for name in names]
        return [Table("segmentation", "Few-shot segmentation", "Structure", columns, rows, DESCRIPTION)]

    def explanations(self) -> dict[str, str]:
        """What Dice and the column of empty cases mean."""
        return {"Dice": DICE, "Empty left empty": EMPTY_LEFT_EMPTY}

    def key_figures(self) -> list[KeyFigure]:
        """The macro Dice with most labeled cases."""
        shots = max(self.macro)
        return [KeyFigure("Segmentation Dice", Cell.of(self.macro[shots], note=f"with {shots} labeled cases"))]


DESCRIPTION = (
    "A decoder on the frozen encoder's feature maps, trained on few labeled cases. “Mean mask” is the mean of the labeled "
    "masks, a baseline that ignores the image."
)


def segmentation(
    model: Any,
    train: Sequence[Mapping[str, Any]],
    test: Iterable[Mapping[str, Any]],
    *,
    names: Sequence[str] = ("mask",),
    shots: Sequence[int] = (5, 10, 50),
    seeds: int = 3,
    steps: int = 100,
    width: int = 32,
    device: torch.device | str | None = None,
    examples: int = 6,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> SegmentationResult:
    """Train a decoder on a frozen encoder's feature maps with few labeled cases, and measure Dice on the test cases.

    With P the predicted and G the true pixels of a structure and # their number::

        Dice = 2 #(P and G) / (#P + #G),

    averaged over the test cases that have the structure (an empty prediction there scores 0) and over the seeds. Dice is
    undefined without the structure: it is 0 / 0 where nothing is predicted, and counting that as 1 would favor empty
    predictions of rare structures. These cases are reported separately, by ``empty_clear`` and ``empty_area``.

    The decoder (:class:`SegmentationDecoder`) is a small U-Net decoder over the stages of a convolutional encoder, or a
    perceptron on each patch of a transformer's grid. Its input is the encoder's maps alone, standardized by the labeled
    cases. Each seed draws other labeled cases; a larger number of them contains the smaller ones.

    Args:
        model: anything that :func:`dense_features` takes.
        train: labeled cases to draw from, by index: ``image`` (C, H, W[, D]) and ``mask`` (K, H, W[, D]), 0 or 1.
        test: batches with ``image`` (N, C, H, W[, D]), ``mask`` (N, K, H, W[, D]) and, where known, ``study_id`` and
            ``patient_id``. Patients of ``train`` must not be in it.
        names: of the K structures.
        shots: numbers of labeled cases. A number beyond ``train`` becomes all of it, with a warning.
        seeds: repetitions with other labeled cases and other initial weights.
        steps: number of optimizer steps, each on at most eight cases.
        width: channels of the decoder.
        device: where images go; None leaves them where they are.
        examples: number of test cases kept for the report.
        bootstrap: of the intervals, clustered by patient.
        seed: of the draws and the decoders.
        progress: called with the number of test cases after each batch.

    Returns:
        The metrics. They are NaN where no test case has the structure, or for those of empty cases, where every one has.

    Raises:
        ValueError: If there is no labeled or test case, masks have another shape than (K, H, W[, D]) or other values than 0
            and 1, a number of shots or of seeds is below 1, or a patient is in both train and test.
    """
    check_integer(seeds, "seeds", minimum=1)
    shots = _available_shots(shots, len(train))
    features = dense_features(model)
    orders = [np.random.default_rng([seed, s]).permutation(len(train)) for s in range(seeds)]
    chosen = sorted({int(row) for order in orders for row in order[: max(shots)]})
    maps, masks, patients = labeled_features(features, train, chosen, names, device)
    decoders, priors = [], []
    for number in shots:
        for s, order in enumerate(orders):
            rows = [chosen.index(int(row)) for row in order[:number]]
            decoders.append(
                fit_decoder([m[rows] for m in maps], masks[rows], width=width, steps=steps, seed=1000 * seed + s)
            )
            priors.append(masks[rows].float().mean(dim=0) >= 0.5)
    metrics = _TestMetrics(names, len(shots), seeds, patients)
    for batch in test:
        images, truth = check_masks(batch["image"], batch["mask"], names)
        images = images if device is None else images.to(device)
        found = features(images)
        predicted = torch.stack([decoder.predict(found, truth.shape[2:]) for decoder in decoders]).cpu()
        metrics.add(batch, images, truth, predicted, torch.stack(priors))
        if progress is not None:
            progress(len(images))
    settings = {
        "shots": list(shots),
        "seeds": seeds,
        "steps": steps,
        "width": width,
        "feature_maps": [list(m.shape[1:]) for m in maps],
        "bootstrap": bootstrap.to_dict(),
        "seed": seed,
    }
    return metrics.result(shots, settings, examples)


def dice_scores(predicted: Tensor, truth: Tensor) -> Tensor:
    """Dice of boolean masks over their last axes beyond the second; NaN where the true mask is empty.

    Args:
        predicted: (..., N, K, H, W[, D]).
        truth: (N, K, H, W[, D]).

    Returns:
        (..., N, K), float64.

    Example:
        >>> truth = torch.tensor([[[[1, 1, 0, 0]]], [[[1, 0, 0, 0]]], [[[0, 0, 0, 0]]]]).bool()
        >>> predicted = torch.tensor([[[[1, 0, 0, 0]]], [[[0, 0, 0, 0]]], [[[0, 0, 0, 0]]]]).bool()
        >>> dice_scores(predicted, truth).flatten().round(decimals=4).tolist()
        [0.6667, 0.0, nan]
    """
    axes = tuple(range(2 - truth.ndim, 0))
    both = (predicted & truth).sum(axes).double()
    sizes = truth.sum(axes).double()
    return torch.where(sizes > 0, 2 * both / (predicted.sum(axes) + sizes), torch.nan)


class _TestMetrics:
    """Metrics of the test cases, accumulated batch by batch."""

    def __init__(self, names: Sequence[str], shots: int, seeds: int, train_patients: set[str]) -> None:
        self.names, self.shape, self.train_patients = tuple(names), (shots, seeds), train_patients
        self.dice: list[Tensor] = []
        self.prior: list[Tensor] = []
        self.area: list[Tensor] = []
        self.study_ids: list[str] = []
        self.patient_ids: list[str] = []
        self.kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, batch: Mapping[str, Any], images: Tensor, truth: Tensor, predicted: Tensor, priors: Tensor) -> None:
        number = len(truth)
        studies, patients = batch_ids(batch, number, len(self.study_ids))
        self.study_ids += studies
        self.patient_ids += patients
        shared = self.train_patients & set(patients) if batch.get("patient_id") is not None else set()
        if shared:
            raise ValueError(error_message("train and test", "have no patient in common", repr(min(shared))))
        # (shots * seeds, N, K) as (shots, seeds, N, K)
        self.dice.append(dice_scores(predicted, truth).unflatten(0, self.shape))
        # The mean mask has no Dice in images of another size.
        same_size = priors.shape[-truth.ndim + 1 :] == truth.shape[1:]
        self.prior.append(
            dice_scores(priors[:, None].expand_as(predicted), truth).unflatten(0, self.shape)
            if same_size
            else torch.full_like(self.dice[-1], torch.nan)
        )
        area = predicted.double().mean(tuple(range(3, predicted.ndim))).unflatten(0, self.shape)
        self.area.append(torch.where(truth.flatten(2).any(2), torch.nan, area))
        if truth.ndim == 4:
            # The last number of shots, the first seed.
            shown = predicted.unflatten(0, self.shape)[-1, 0]
            for row in range(number):
                self.kept.append((thumbnail(images[row]), truth[row].numpy(), shown[row].numpy()))

    def result(self, shots: Sequence[int], settings: dict[str, Any], examples: int) -> SegmentationResult:
        if not self.dice:
            raise ValueError(error_message("test", "hold at least one batch", "none"))
        dice, prior, area = (torch.cat(parts, dim=2).numpy() for parts in (self.dice, self.prior, self.area))
        # Averaged over seeds before the bootstrap, since seeds are no further cases.
        case_dice = dice.mean(axis=1)
        clear = np.where(np.isnan(area), np.nan, area == 0)
        bootstrap = BootstrapConfig(**settings["bootstrap"])

        estimates = [
            [mean_estimates(of_shots.mean(axis=0), self.patient_ids, bootstrap) for of_shots in values]
            for values in (dice, prior, clear, area)
        ]
        structures = {
            name: {
                number: StructureResult(
                    dice=estimates[0][f][k],
                    prior=estimates[1][f][k],
                    empty_clear=estimates[2][f][k],
                    empty_area=estimates[3][f][k],
                    by_seed=tuple(float(nan_mean(dice[f, s, :, k])) for s in range(self.shape[1])),
                )
                for f, number in enumerate(shots)
            }
            for k, name in enumerate(self.names)
        }
        given = ~np.isnan(case_dice[0])
        absent = [name for k, name in enumerate(self.names) if not given[:, k].any()]
        if absent:
            warnings.warn(
                f"No test case has {', '.join(absent)}, whose Dice is undefined and left out of the mean.",
                RuntimeWarning,
                stacklevel=3,
            )
        return SegmentationResult(
            structures=structures,
            macro={
                number: mean_of_means(values, self.patient_ids, bootstrap)
                for number, values in zip(shots, case_dice, strict=True)
            },
            positives={name: int(given[:, k].sum()) for k, name in enumerate(self.names)},
            empties={name: int((~given[:, k]).sum()) for k, name in enumerate(self.names)},
            case_dice=case_dice,
            study_ids=self.study_ids,
            patient_ids=self.patient_ids,
            settings=settings,
            examples=self._examples(dice[-1, 0], examples),
        )

    def _examples(self, dice: np.ndarray, number: int) -> list[SegmentationExample]:
        """Cases of the first seed from the worst to the best, evenly spaced by rank."""
        rows, columns = np.nonzero(~np.isnan(dice))
        if not len(rows) or len(self.kept) < len(dice) or number < 1:
            return []
        order = np.argsort(dice[rows, columns], kind="stable")
        places = sorted({round(place) for place in np.linspace(0, len(order) - 1, number)})
        return [
            SegmentationExample(
                picture=self.kept[rows[i]][0],
                truth=self.kept[rows[i]][1][columns[i]],
                predicted=self.kept[rows[i]][2][columns[i]],
                dice=float(dice[rows[i], columns[i]]),
                study_id=self.study_ids[rows[i]],
                name=self.names[columns[i]],
            )
            for i in order[places]
        ]


def _available_shots(shots: Sequence[int], available: int) -> list[int]:
    if not shots or any(number < 1 for number in shots):
        raise ValueError(error_message("shots", "be numbers of labeled cases of at least 1", list(shots)))
    if not available:
        raise ValueError(error_message("train", "hold at least one labeled case", "none"))
    beyond = [number for number in shots if number > available]
    if beyond:
        warnings.warn(
            f"{', '.join(map(str, beyond))} labeled cases were asked for, but there are {available}, which are all used.",
            RuntimeWarning,
            stacklevel=3,
        )
    return sorted({min(number, available) for number in shots})


def _run(context: ProtocolContext) -> SegmentationResult:
    loader = context.masked_batches(context.split_studies("test"))
    with context.progress_bar(loader, "segmentation") as progress:
        return segmentation(
            context.model,
            context.masked_batches(context.split_studies("train")).dataset,
            loader,
            names=context.mask_names,
            device=context.model.device,
            bootstrap=context.bootstrap,
            seed=context.seed,
            progress=progress,
        )


register_protocol(
    Protocol("segmentation", _run, requires=["masks", "training"], options=["mask_columns"], on_request=True, order=70)
)
