"""Phrase grounding: heat maps of phrases against annotated regions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.evaluation.context import ProtocolContext
from medvl.evaluation.grounding_examples import GroundingExample, choose_examples, side_text
from medvl.evaluation.heat_maps import patch_encoder, patch_maps, phrase_embeddings, pointing_game_on_grid, upsample
from medvl.evaluation.mask_batches import check_masks
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.means import mean_estimates, mean_of_means, weighted_mean_of_means
from medvl.evaluation.tables import Cell, Column, Row, Table
from medvl.evaluation.thumbnails import thumbnail
from medvl.functional import GROUNDING_THRESHOLDS, contrast_to_noise_ratio, mean_iou
from medvl.utils.checks import check_text_list, error_message
from medvl.utils.ids import batch_ids
from medvl.utils.modes import eval_mode

__all__ = ["GroundedFinding", "GroundingResult", "grounding"]

METRICS = ("cnr", "miou", "pointing")
TITLES = {"cnr": "CNR", "miou": "mIoU", "pointing": "Pointing game"}
PHRASE = "phrase"
"""Name of the one mask of each image where the batches have their own phrases."""


@dataclass(frozen=True)
class GroundedFinding:
    """Metrics of one finding over the cases that have its region.

    Args:
        cnr: signed contrast-to-noise ratio; 0 by chance.
        miou: mean IoU over the thresholds; that of a map that marks the whole image is ``area``.
        pointing: fraction of the maps whose highest patch is inside; that of a random point is ``area``.
        area: mean fraction of the image that the region covers.
        cases: number of cases with the region.
        without: number of cases without it, which are left out.
    """

    cnr: Estimate
    miou: Estimate
    pointing: Estimate
    area: float
    cases: int
    without: int

    def to_dict(self) -> dict[str, Any]:
        """The metrics as ``evaluation.json`` has them."""
        metrics = {name: getattr(self, name).to_dict() for name in METRICS}
        area = None if np.isnan(self.area) else self.area
        chance = {"cnr": 0.0, "miou": area, "pointing": area}
        return {**metrics, "chance": chance, "cases": self.cases, "without_region": self.without}


@dataclass(frozen=True)
class GroundingResult(ProtocolResult):
    """Phrase grounding of F findings on N cases.

    Args:
        macro: means of ``cnr``, ``miou`` and ``pointing`` over the findings that some case has.
        chance: expected values by chance, by the same names.
        findings: metrics by finding.
        case_values: the three metrics of each case and finding (3, N, F); NaN where there is no region.
        study_ids: of the N cases.
        patient_ids: of the N cases.
        phrases: the phrases of each finding; empty where the batches have their own.
        settings: thresholds, bootstrap, the ``grid`` of the maps and the ``image_size`` in pixels, None where images differ.
        examples: cases for the report.
    """

    macro: dict[str, Estimate]
    chance: dict[str, float]
    findings: dict[str, GroundedFinding]
    case_values: np.ndarray
    study_ids: list[str]
    patient_ids: list[str]
    phrases: dict[str, list[str]]
    settings: dict[str, Any]
    examples: list[GroundingExample] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Metrics and settings as ``evaluation.json`` has them."""
        chance = {name: None if np.isnan(value) else value for name, value in self.chance.items()}
        return {
            "macro": {**{name: estimate.to_dict() for name, estimate in self.macro.items()}, "chance": chance},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "cases": len(self.study_ids),
            "settings": self.settings,
        }

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Means over findings (B,) of each metric for weights (B, N); see :func:`medvl.evaluation.compare`."""
        return {
            name: weighted_mean_of_means(np.where(np.isfinite(values), values, np.nan))(weights)
            for name, values in zip(METRICS, self.case_values, strict=True)
        }

    def tables(self) -> list[Table]:
        """The three metrics by finding and their macro mean."""
        columns = [Column("Cases"), *(Column(TITLES[key], compared=True) for key in METRICS)]
        rows = [
            Row(
                name,
                [
                    Cell(finding.cases, spec="d"),
                    Cell.of(finding.cnr),
                    Cell.of(finding.miou, chance=finding.area),
                    Cell.of(finding.pointing, chance=finding.area),
                ],
            )
            for name, finding in self.findings.items()
        ]
        means = [Cell.of(self.macro[key], chance=None if key == "cnr" else self.chance[key]) for key in METRICS]
        rows.append(Row("Macro", [Cell(), *means], summary=True))
        return [Table("grounding", "Phrase grounding", "Finding", columns, rows, self._description())]

    def _description(self) -> str:
        """What was measured, with the grid of the maps where it is one."""
        grid, size = self.settings.get("grid"), self.settings.get("image_size")
        if grid is None or size is None:
            return DESCRIPTION
        pixels = side_text(round(side / cells) for side, cells in zip(size, grid, strict=True))
        return (
            f"{DESCRIPTION} The maps are {side_text(grid)} patches, each of about {pixels} pixels of the "
            f"{side_text(size)} image that the model sees; what looks finer is interpolated."
        )

    def explanations(self) -> dict[str, str]:
        """What the three metrics mean."""
        thresholds = ", ".join(f"{threshold:g}" for threshold in self.settings["thresholds"])
        return {**EXPLANATIONS, "mIoU": EXPLANATIONS["mIoU"].format(thresholds=thresholds)}

    def key_figures(self) -> list[KeyFigure]:
        """The mean contrast-to-noise ratio."""
        return [KeyFigure("Grounding CNR", Cell.of(self.macro["cnr"], chance=0.0))]


DESCRIPTION = "Does the heat map of a finding's phrases lie on the finding? Measured on the cases that have its region."
EXPLANATIONS = {
    "CNR": "How much higher the map is inside the region than outside, in units of its spread (contrast-to-noise ratio). 0 is "
    "chance, negative where the map avoids the region; there is no upper limit.",
    "mIoU": "Overlap of the region with what the map marks, from 0 to 1, averaged over the thresholds {thresholds} of the "
    "cosine. Its chance is the overlap of a map that marks the whole image: the region's fraction of the image.",
    "Pointing game": "How often the center of the highest patch lies in the region: 1 is perfect. A point drawn at random "
    "lies there as often as the region is large, which is its chance.",
}


def grounding(
    model: Any,
    batches: Iterable[Mapping[str, Any]],
    phrases: Mapping[str, Sequence[str]] | None = None,
    *,
    names: Sequence[str] | None = None,
    thresholds: Sequence[float] = GROUNDING_THRESHOLDS,
    device: torch.device | str | None = None,
    examples: int = 10,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    progress: Callable[[int], None] | None = None,
) -> GroundingResult:
    """Compare heat maps of phrases with the regions annotated for them.

    The heat map of a phrase is the cosine of each patch embedding with the phrase's embedding, upsampled to the mask by
    linear interpolation and not rescaled. The unit vectors of several phrases of a finding are averaged. With A the region
    and B the rest of the image::

        CNR = (mean_A - mean_B) / sqrt(var_A + var_B),   signed,
        mIoU = mean over thresholds t of #(A and {map >= t}) / #(A or {map >= t}),   0 where nothing reaches t,
        pointing game: is the center of the highest patch in A?

    (Boecking et al., 2022, https://arxiv.org/abs/2204.09817; Zhang et al., 2018). Cases with an empty mask are left out. The
    baselines are chance (0 for CNR, the region's fraction of the image for the others) and the same model untrained.

    Args:
        model: anything with ``encode_patches(image)``, which gives patch embeddings (N, P, D) and their grid, and
            ``encode_sentences`` or ``encode_text``. ``phrases`` are encoded by ``encode_class_prompts`` where it has it and no
            sentence head of its own, so that learned prompt tokens precede them as in zero-shot classification.
        batches: dictionaries with ``image`` (N, C, H, W[, D]), ``mask`` (N, K, H, W[, D]), 0 or 1, and, where known,
            ``study_id`` and ``patient_id``; without ``phrases`` also ``phrase``, N strings: the
            phrase of each image, for all of its masks.
        phrases: the phrases of each finding; None takes each image's own ``phrase``.
        names: of the K masks; those of ``phrases`` by default. A mask without phrases is ignored.
        thresholds: of the mIoU, on the scale of the cosines.
        device: where images go; None leaves them where they are.
        examples: number of findings of which the worst, the median and the best case by CNR are kept for the report.
        bootstrap: of the intervals, clustered by patient.
        progress: called with the number of cases after each batch.

    Returns:
        Metrics by finding. A finding that no case has is NaN, named in a warning and left out of the means.

    Raises:
        TypeError: If the model has no ``encode_patches``.
        ValueError: If there is no batch, masks have another shape or other values than 0 and 1, or a finding with phrases is
            not among ``names``.

    Example:
        >>> class Model:
        ...     def encode_patches(self, image):  # one patch a pixel: bright, dark
        ...         return torch.stack([image.flatten(1), 1 - image.flatten(1)], dim=2), tuple(image.shape[2:])
        ...     def encode_text(self, texts):
        ...         return torch.tensor([[1.0, 0.0] if "bright" in text else [0.0, 1.0] for text in texts])
        >>> image = torch.zeros(1, 1, 4, 4)
        >>> image[..., :2, :2] = 1
        >>> result = grounding(Model(), [{"image": image, "mask": image}], {"Opacity": ["bright"]})
        >>> result.findings["Opacity"].pointing.value, result.findings["Opacity"].miou.value
        (1.0, 1.0)
        >>> result.findings["Opacity"].area
        0.25
    """
    names = _names(phrases, names)
    patch_encoder(model)
    used = list(names) if phrases is None else [name for name in names if name in phrases]
    columns = [names.index(name) for name in used]
    metrics = _TestMetrics(used, tuple(thresholds))
    with eval_mode(model), torch.inference_mode():
        fixed = None
        if phrases is not None:
            fixed = torch.stack(
                [_ensemble(phrase_embeddings(model, list(phrases[name]), as_class_prompts=True)) for name in used]
            )
        for batch in batches:
            images, truth = check_masks(batch["image"], batch["mask"], names)
            if fixed is not None:
                texts = fixed
            else:  # an image's phrase for each of its masks, all of which but one are empty where they are findings
                own = phrase_embeddings(model, _own_phrases(batch, len(images)))
                texts = own[:, None].expand(-1, len(used), -1)
            maps = patch_maps(model, images if device is None else images.to(device), texts)
            metrics.add(batch, images, maps.cpu(), truth[:, columns])
            if progress is not None:
                progress(len(images))
    settings = {"thresholds": list(thresholds), "bootstrap": bootstrap.to_dict()}
    used_phrases = {} if phrases is None else {name: list(phrases[name]) for name in used}
    return metrics.result(used_phrases, settings, examples)


class _TestMetrics:
    """Metrics of the test cases, accumulated batch by batch."""

    def __init__(self, names: Sequence[str], thresholds: tuple[float, ...]) -> None:
        self.names, self.thresholds = tuple(names), thresholds
        self.values: list[np.ndarray] = []
        self.area: list[np.ndarray] = []
        self.study_ids: list[str] = []
        self.patient_ids: list[str] = []
        self.kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.shapes: dict[str, set[tuple[int, ...]]] = {"grid": set(), "image_size": set()}

    def add(self, batch: Mapping[str, Any], images: Tensor, maps: Tensor, truth: Tensor) -> None:
        number = len(images)
        studies, patients = batch_ids(batch, number, len(self.study_ids))
        self.study_ids += studies
        self.patient_ids += patients
        self.shapes["grid"].add(tuple(maps.shape[2:]))
        self.shapes["image_size"].add(tuple(images.shape[2:]))
        large = upsample(maps, truth.shape[2:]).flatten(0, 1)
        masks = truth.flatten(0, 1)
        measured = (
            contrast_to_noise_ratio(large, masks),
            mean_iou(large, masks, self.thresholds),
            pointing_game_on_grid(maps, truth).flatten(),
        )
        self.values.append(np.stack([values.double().numpy().reshape(truth.shape[:2]) for values in measured]))
        self.area.append(truth.flatten(2).double().mean(dim=2).numpy())
        if truth.ndim == 4:
            self.kept += [(thumbnail(images[row]), maps[row].numpy(), truth[row].numpy()) for row in range(number)]

    def result(self, phrases: dict[str, list[str]], settings: dict[str, Any], examples: int) -> GroundingResult:
        if not self.values:
            raise ValueError(error_message("batches", "hold at least one batch of studies", "none"))
        values, area = np.concatenate(self.values, axis=1), np.concatenate(self.area)
        given: np.ndarray = area > 0
        absent = [
            name for name, some in zip(self.names, np.asarray(given.any(axis=0)).tolist(), strict=True) if not some
        ]
        if absent:
            warnings.warn(
                f"No case has a region of {', '.join(absent)}, left out of the means.",
                RuntimeWarning,
                stacklevel=3,
            )
        bootstrap = BootstrapConfig(**settings["bootstrap"])
        # The contrast of two constant regions is infinite.
        finite = np.where(np.isfinite(values), values, np.nan)
        estimates = [mean_estimates(measure, self.patient_ids, bootstrap) for measure in finite]
        areas = [float(area[given[:, f], f].mean()) if given[:, f].any() else np.nan for f in range(len(self.names))]
        findings = {
            name: GroundedFinding(
                cnr=estimates[0][f],
                miou=estimates[1][f],
                pointing=estimates[2][f],
                area=areas[f],
                cases=int(given[:, f].sum()),
                without=int((~given[:, f]).sum()),
            )
            for f, name in enumerate(self.names)
        }
        chance = float(np.nanmean(areas)) if given.any() else np.nan
        macro = [mean_of_means(measure, self.patient_ids, bootstrap) for measure in finite]
        return GroundingResult(
            macro=dict(zip(METRICS, macro, strict=True)),
            chance={"cnr": 0.0, "miou": chance, "pointing": chance},
            findings=findings,
            case_values=values,
            study_ids=self.study_ids,
            patient_ids=self.patient_ids,
            phrases=phrases,
            settings={**settings, **{name: _only(shapes) for name, shapes in self.shapes.items()}},
            examples=self._examples(values, examples),
        )

    def _examples(self, values: np.ndarray, number: int) -> list[GroundingExample]:
        if len(self.kept) < values.shape[1]:
            return []
        return choose_examples(values, self.kept, self.names, self.study_ids, METRICS, number)


def _only(shapes: set[tuple[int, ...]]) -> list[int] | None:
    """The one shape, or None where there are several."""
    return list(next(iter(shapes))) if len(shapes) == 1 else None


def _names(phrases: Mapping[str, Sequence[str]] | None, names: Sequence[str] | None) -> list[str]:
    if phrases is None:
        return list(names or [PHRASE])
    names = list(phrases if names is None else names)
    unknown = [name for name in phrases if name not in names]
    if unknown or not phrases:
        raise ValueError(error_message("phrases", f"be of masks among {names}", unknown or "none"))
    for name, given in phrases.items():
        check_text_list(given, f"phrases[{name!r}]")
    return names


def _own_phrases(batch: Mapping[str, Any], number: int) -> list[str]:
    given = batch.get(PHRASE)
    if given is None or len(given) != number:
        expected = f"hold a {PHRASE!r} for each of its {number} images where phrases is None"
        raise ValueError(error_message("batch", expected, "none" if given is None else len(given)))
    return list(given)


def _ensemble(embeds: Tensor) -> Tensor:
    return F.normalize(embeds.mean(dim=0), dim=-1)


def _run(context: ProtocolContext) -> GroundingResult:
    """The masks' names are grounded by the prompts that state them, or each image's mask by the phrase it was drawn for."""
    phrases = None
    if not any("phrase" in study for study in context.studies):
        phrases = {name: sides["present"] for name, sides in context.class_prompts(context.mask_names).items()}
    loader = context.masked_batches(context.studies)
    with context.progress_bar(loader, "grounding") as progress:
        return grounding(
            context.model,
            loader,
            phrases,
            names=context.mask_names,
            device=context.model.device,
            bootstrap=context.bootstrap,
            progress=progress,
        )


register_protocol(Protocol("grounding", _run, requires=["masks"], options=["mask_columns"], order=80))
