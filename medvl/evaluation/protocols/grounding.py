"""Phrase grounding: where in an image a model sees what a phrase says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medvl.evaluation.embeddings import batch_ids, thumbnail
from medvl.evaluation.heat_maps import enlarge, patch_encoder, patch_maps, phrase_embeddings, point_hits
from medvl.evaluation.protocols.segmentation import checked_masks
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, Estimate
from medvl.evaluation.statistics.means import mean_estimates, mean_of_means, weighted_mean_of_means
from medvl.evaluation.tables import text_table
from medvl.functional import GROUNDING_THRESHOLDS, contrast_to_noise_ratio, mean_iou
from medvl.utils.modes import eval_mode

MEASURES = ("cnr", "miou", "pointing")
TITLES = {"cnr": "CNR", "miou": "mIoU", "pointing": "Pointing game"}
PHRASE = "phrase"
"""Name of the one mask of each image where the batches bring their own phrases."""


@dataclass(frozen=True)
class GroundingExample:
    """One test case for the eye.

    Args:
        picture: the image (H, W), uint8.
        heat: cosines on the model's grid (h, w).
        truth: the region, boolean, at the mask's size.
        name: of the region.
        study_id: where it comes from.
        values: its ``cnr``, ``miou`` and ``pointing``.
    """

    picture: np.ndarray
    heat: np.ndarray
    truth: np.ndarray
    name: str
    study_id: str
    values: dict[str, float]


@dataclass(frozen=True)
class GroundedFinding:
    """One finding's figures over the cases that have its region.

    Args:
        cnr: signed contrast-to-noise ratio; chance 0.
        miou: mean IoU over the thresholds; a map that marks the whole picture has the ``area``.
        pointing: share of the maps whose highest point is inside; a random point has the ``area``.
        area: mean share of the picture that the region takes.
        cases: how many.
        without: cases without the region, which take no part.
    """

    cnr: Estimate
    miou: Estimate
    pointing: Estimate
    area: float
    cases: int
    without: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as ``evaluation.json`` has them."""
        figures = {name: getattr(self, name).to_dict() for name in MEASURES}
        area = None if np.isnan(self.area) else self.area
        chance = {"cnr": 0.0, "miou": area, "pointing": area}
        return {**figures, "chance": chance, "cases": self.cases, "without_region": self.without}


@dataclass(frozen=True)
class GroundingResult:
    """Phrase grounding of F findings on N cases.

    Args:
        macro: means of ``cnr``, ``miou`` and ``pointing`` over the findings that some case has.
        chance: means of what chance gives, by the same names.
        findings: figures by finding.
        case_values: the three measures of each case and finding (3, N, F); NaN where there is no region.
        study_ids: of the N cases.
        patient_ids: of the N cases.
        phrases: the phrases of each finding; empty where the batches brought their own.
        settings: thresholds, bootstrap.
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
        """Figures and settings as ``evaluation.json`` has them."""
        chance = {name: None if np.isnan(value) else value for name, value in self.chance.items()}
        return {
            "macro": {**{name: estimate.to_dict() for name, estimate in self.macro.items()}, "chance": chance},
            "findings": {name: result.to_dict() for name, result in self.findings.items()},
            "cases": len(self.study_ids),
            "settings": self.settings,
        }

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Means over findings (B,) of each measure for weights (B, N); see :func:`medvl.evaluation.compare`."""
        return {
            name: weighted_mean_of_means(np.where(np.isfinite(values), values, np.nan))(weights)
            for name, values in zip(MEASURES, self.case_values, strict=True)
        }

    def table(self, untrained: GroundingResult | None = None) -> str:
        """The figures as a plain-text table, with an untrained model's beside them."""
        head = ["Grounding", "Cases", "CNR", "mIoU", "Pointing game", "Chance"]
        head += ["Untrained CNR", "mIoU", "Pointing"] if untrained is not None else []
        rows = []
        for name, result in self.findings.items():
            row = [name, str(result.cases), *(str(getattr(result, key)) for key in MEASURES), f"{result.area:.3f}"]
            if untrained is not None:
                row += [f"{getattr(untrained.findings[name], key).value:.3f}" for key in MEASURES]
            rows.append(row)
        last = ["Macro", "", *(str(self.macro[key]) for key in MEASURES), f"{self.chance['pointing']:.3f}"]
        rows.append(last + ([f"{untrained.macro[key].value:.3f}" for key in MEASURES] if untrained is not None else []))
        return text_table(head, rows, rule_before_last=True)


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
    """Compare heat maps of phrases with the regions that people (or a generator) marked for them.

    The heat map of a phrase is the cosine of each patch embedding with the phrase's embedding, enlarged to the mask by
    interpolation; nothing is rescaled. Where a finding has several phrases, their unit vectors are averaged. With A the
    region and B the rest of the picture,

        CNR = (mean_A - mean_B) / sqrt(var_A + var_B),   signed,
        mIoU = mean over thresholds t of #(A and {map >= t}) / #(A or {map >= t}),   0 where nothing reaches t,
        pointing game: is the centre of the highest patch in A?

    (Boecking et al., 2022, https://arxiv.org/abs/2204.09817; Zhang et al., 2018). Only cases with a region count: an empty
    mask is neither a hit nor a miss. The level to beat is chance (0 for CNR, the region's share of the picture for the
    others) and the same model untrained.

    Args:
        model: anything with ``encode_patches(image)``, which gives patch embeddings (N, P, D) and their grid, and
            ``encode_sentences`` or ``encode_text``. ``phrases`` go by ``encode_class_prompts`` where it has one and no sentence
            head of its own, so that learned prompt tokens stand in front of them as in zero-shot classification.
        batches: dictionaries with ``image`` (N, C, H, W[, D]), ``mask`` (N, K, H, W[, D]), 0 or 1, and, where known,
            ``study_id`` and ``patient_id``; without ``phrases`` also ``phrase``, N strings, and one mask each (K = 1).
        phrases: the phrases of each finding; None takes each image's own ``phrase``.
        names: of the K masks; those of ``phrases`` by default. A mask without phrases is passed over.
        thresholds: of the mIoU, on the scale of the cosines.
        device: where images go; None leaves them where they are.
        examples: how many cases to keep for the report.
        bootstrap: of the intervals, clustered by patient.
        progress: called with the number of cases after each batch.

    Returns:
        Figures by finding. A finding that no case has is NaN, named in a warning and left out of the means.

    Raises:
        TypeError: if the model has no ``encode_patches``.
        ValueError: if there is no batch, masks do not fit, or a phrase's name is not among ``names``.

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
    tally = _Tally(used, tuple(thresholds))
    with eval_mode(model), torch.inference_mode():
        fixed = None
        if phrases is not None:
            fixed = torch.stack(
                [_ensemble(phrase_embeddings(model, list(phrases[name]), prompts=True)) for name in used]
            )
        for batch in batches:
            images, truth = checked_masks(batch["image"], batch["mask"], names)
            texts = fixed if fixed is not None else phrase_embeddings(model, _own_phrases(batch, len(images)))[:, None]
            maps = patch_maps(model, images if device is None else images.to(device), texts)
            tally.add(batch, images, maps.cpu(), truth[:, columns])
            if progress is not None:
                progress(len(images))
    settings = {"thresholds": list(thresholds), "bootstrap": bootstrap.to_dict()}
    said = {} if phrases is None else {name: list(phrases[name]) for name in used}
    return tally.result(said, settings, examples)


class _Tally:
    """Measures of the test cases, batch by batch."""

    def __init__(self, names: Sequence[str], thresholds: tuple[float, ...]) -> None:
        self.names, self.thresholds = tuple(names), thresholds
        self.values: list[np.ndarray] = []
        self.area: list[np.ndarray] = []
        self.study_ids: list[str] = []
        self.patient_ids: list[str] = []
        self.kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, batch: Mapping[str, Any], images: Tensor, maps: Tensor, truth: Tensor) -> None:
        number = len(images)
        studies, patients = batch_ids(batch, number, len(self.study_ids))
        self.study_ids += studies
        self.patient_ids += patients
        large = enlarge(maps, truth.shape[2:]).flatten(0, 1)
        masks = truth.flatten(0, 1)
        measured = (
            contrast_to_noise_ratio(large, masks),
            mean_iou(large, masks, self.thresholds),
            point_hits(maps, truth).flatten(),
        )
        self.values.append(np.stack([values.double().numpy().reshape(truth.shape[:2]) for values in measured]))
        self.area.append(truth.flatten(2).double().mean(dim=2).numpy())
        if truth.ndim == 4:
            self.kept += [(thumbnail(images[row]), maps[row].numpy(), truth[row].numpy()) for row in range(number)]

    def result(self, phrases: dict[str, list[str]], settings: dict[str, Any], examples: int) -> GroundingResult:
        if not self.values:
            raise ValueError("batches must hold at least one batch of studies; received none")
        values, area = np.concatenate(self.values, axis=1), np.concatenate(self.area)
        given: np.ndarray = area > 0
        absent = [
            name for name, some in zip(self.names, np.asarray(given.any(axis=0)).tolist(), strict=True) if not some
        ]
        if absent:
            warnings.warn(
                f"no case has a region for {', '.join(absent)}, which is left out of the means",
                RuntimeWarning,
                stacklevel=3,
            )
        bootstrap = BootstrapConfig(**settings["bootstrap"])
        # Two flat levels have an infinite contrast, which no mean can hold.
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
            macro=dict(zip(MEASURES, macro, strict=True)),
            chance={"cnr": 0.0, "miou": chance, "pointing": chance},
            findings=findings,
            case_values=values,
            study_ids=self.study_ids,
            patient_ids=self.patient_ids,
            phrases=phrases,
            settings=settings,
            examples=self._examples(values, examples),
        )

    def _examples(self, values: np.ndarray, number: int) -> list[GroundingExample]:
        """For each finding, or as many as asked for, the case of middling contrast."""
        if len(self.kept) < values.shape[1] or number < 1:
            return []
        cnr = np.where(np.isfinite(values[0]), values[0], np.nan)
        chosen: list[tuple[int, int]] = []
        for column in range(cnr.shape[1]):
            rows = np.flatnonzero(~np.isnan(cnr[:, column]))
            if len(rows):
                chosen.append((int(rows[np.argsort(cnr[rows, column], kind="stable")[len(rows) // 2]]), column))
        chosen = [chosen[round(place)] for place in np.linspace(0, len(chosen) - 1, min(number, len(chosen)))]
        return [
            GroundingExample(
                picture=self.kept[row][0],
                heat=self.kept[row][1][column],
                truth=self.kept[row][2][column],
                name=self.names[column],
                study_id=self.study_ids[row],
                values={name: float(values[m, row, column]) for m, name in enumerate(MEASURES)},
            )
            for row, column in chosen
        ]


def _names(phrases: Mapping[str, Sequence[str]] | None, names: Sequence[str] | None) -> list[str]:
    if phrases is None:
        return list(names or [PHRASE])
    names = list(phrases if names is None else names)
    unknown = [name for name in phrases if name not in names]
    if unknown or not phrases:
        raise ValueError(f"phrases must be for masks among {names}; received {unknown or 'none'}")
    for name, said in phrases.items():
        if isinstance(said, str) or not said:
            raise ValueError(f"phrases for {name!r} must be a list of at least one phrase; received {said!r}")
    return names


def _own_phrases(batch: Mapping[str, Any], number: int) -> list[str]:
    said = batch.get(PHRASE)
    if said is None or len(said) != number:
        received = "none" if said is None else len(said)
        raise ValueError(
            f"without phrases, a batch must hold a {PHRASE!r} for each of its {number} images; received {received}"
        )
    return list(said)


def _ensemble(embeds: Tensor) -> Tensor:
    return F.normalize(embeds.mean(dim=0), dim=-1)
