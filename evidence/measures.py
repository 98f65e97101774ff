"""The measures of a trained arm on its test split, one function each, as figures by name.

Each is a protocol of :mod:`medvl.evaluation` with the library's own defaults. Intervals are made over seeds
(:mod:`evidence.statistics`), so that the protocols' own, over test patients, are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from scipy.stats import rankdata

from evidence.data import REAL, LungCases
from evidence.training import Trained
from medvl.data import StudyLoader
from medvl.evaluation import (
    BootstrapConfig,
    Embeddings,
    ProtocolContext,
    fine_tune,
    registered_protocols,
    segmentation,
    zero_shot,
)

Figures = dict[str, float]
NO_INTERVAL = BootstrapConfig(n_resamples=1)

WORDINGS = (
    ("{}.", "No {}."),
    ("There is {}.", "There is no {}."),
    ("{} is present.", "{} is absent."),
    ("{} is seen.", "{} is not seen."),
    ("Evidence of {}.", "No evidence of {}."),
    ("Findings consistent with {}.", "No findings consistent with {}."),
    ("The radiograph shows {}.", "The radiograph shows no {}."),
    ("Signs of {}.", "No signs of {}."),
)
"""Ways to say that a finding is there, and that it is not."""

MORE_EPOCHS = 4
"""Factor on the epochs of fine-tuning on 10 % of the labels, whose epochs are ten times as short."""

MORE_DRAWS = 3
"""Factor on the draws of labeled cases of real lungs, whose figures differ much by the cases that were drawn."""


class Measured:
    """A trained arm as the protocols see it.

    Args:
        trained: the arm.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        test = trained.test
        synthetic = test.masks.is_dir() and "No Finding" in test.manifest.names and len(test.manifest.names) > 2
        self.context = ProtocolContext(
            model=trained.model,
            data_name=test.manifest.name,
            studies=test.studies("test"),
            findings=test.manifest.names,
            loader=test.loader,
            splits=lambda: (test.studies("train"), test.studies("val")),
            class_prompts=trained.class_prompts,
            mask_names=test.mask_names if synthetic else (),
            mask_loader=test.mask_loader if synthetic else None,
            seed=trained.seed,
            bootstrap=NO_INTERVAL,
        )

    def protocol(self, name: str) -> Any:
        """The result of a registered protocol as the library runs it."""
        return next(protocol for protocol in registered_protocols() if protocol.name == name).run(self.context)

    @property
    def findings(self) -> list[str]:
        """The findings that are both present and absent in some test study, without "No Finding"."""
        labels = self.labels
        return [
            name
            for name, states in zip(self.context.findings, labels.T, strict=True)
            if name != "No Finding" and (states == 1).any() and (states == 0).any()
        ]

    @property
    def labels(self) -> torch.Tensor:
        """The labels of the test studies (N, K)."""
        labels = self.embeddings.labels
        if labels is None:
            raise ValueError(f"{self.context.data_name} has no labels.")
        return labels

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings of the test studies, computed once."""
        return self.context.embeddings()


def zero_shot_auroc(measured: Measured) -> Figures:
    """Macro AUROC of zero-shot classification by the prompts saved with the model, "No Finding" among the findings."""
    return {"auroc": measured.protocol("zero-shot").macro["auroc"].value}


def pneumonia(measured: Measured) -> Figures:
    """AUROC of zero-shot detection of pneumonia, on real images."""
    names = ["Pneumonia"]
    prompts = measured.trained.class_prompts(names)
    found = zero_shot(
        measured.embeddings, prompts, measured.trained.model, measured.context.findings, bootstrap=NO_INTERVAL
    )
    return {"auroc": found.findings["Pneumonia"].auroc.value}


def classifier(measured: Measured) -> Figures:
    """Macro AUROC of the supervised baseline's own classifier, which has learned from all labels."""
    model = measured.trained.classifier
    if model is None:
        raise ValueError("Only the supervised baseline has a classifier.")
    device = next(model.parameters()).device
    with torch.inference_mode():
        batches = measured.context.loader(measured.context.studies)
        scores = torch.cat([model(batch["image"].to(device)).cpu() for batch in batches])
    columns = [list(measured.context.findings).index(name) for name in measured.findings]
    labels = measured.labels
    return {"auroc": float(np.mean([_auroc(scores[:, k].numpy(), labels[:, k].numpy() == 1) for k in columns]))}


def probe(measured: Measured) -> Figures:
    """Macro AUROC of linear probes on 1, 10 and 100 % of the training patients, "No Finding" among the findings."""
    fractions = measured.protocol("linear-probe").fractions
    return {f"{100 * fraction:g}": part.macro["auroc"].value for fraction, part in fractions.items()}


def retrieval(measured: Measured) -> Figures:
    """Recall at 10 in both directions, with its chance."""
    found = measured.protocol("retrieval").directions
    figures = {f"{key}_r10": direction.values["recall_at_10"].value for key, direction in found.items()}
    return {**figures, **{f"{key}_chance": direction.chance["recall_at_10"] for key, direction in found.items()}}


def grounding(measured: Measured) -> Figures:
    """Contrast-to-noise ratio and pointing game of the findings' prompts against their masks."""
    found = measured.protocol("grounding")
    return {
        "cnr": found.macro["cnr"].value,
        "pointing": found.macro["pointing"].value,
        "pointing_chance": found.chance["pointing"],
    }


def few_shot(measured: Measured) -> Figures:
    """Mean Dice of findings of the synthetic set by a decoder that learned from few labeled cases."""
    context = measured.context
    train = context.masked_batches(context.split_studies("train")).dataset
    return _few_shot_dice(measured, train, context.masked_batches(context.studies), context.mask_names)


def real_lungs(measured: Measured) -> Figures:
    """Dice of lungs on real images of patients that no arm learns from, by a decoder that learned from few labeled cases."""
    test = measured.trained.test
    train, held_out = LungCases(test.prepare, test.image_size).split()
    return _few_shot_dice(measured, train, StudyLoader(held_out, batch_size=16), ["lungs"], MORE_DRAWS)


def own_masks(measured: Measured) -> Figures:
    """Mean Dice, on test images, of the structures whose masks a training on masks has learned, by its own decoder.

    An image without a structure is left out of that structure's mean. For comparison, the Dice of one mask for all images: the
    pixels that belong to the structure in at least half of the test images.
    """
    segmenter, masked_test = measured.trained.segmenter, measured.trained.masked_test
    if segmenter is None or masked_test is None:
        raise ValueError("Only a training on masks has a decoder of masks.")
    device = next(segmenter.parameters()).device
    batches = StudyLoader(masked_test(), batch_size=64)
    with torch.inference_mode():
        found = [(segmenter(batch["image"].to(device)).cpu() > 0, batch["mask"] > 0) for batch in batches]
    predicted, truth = (torch.cat(parts) for parts in zip(*found, strict=True))
    constant = (truth.float().mean(0) >= 0.5).expand_as(truth)
    named = {"dice": predicted, "constant_dice": constant}
    return {name: float(compute_dice(masks, truth).nanmean(0).nanmean()) for name, masks in named.items()}


def _few_shot_dice(measured: Measured, train: Any, test: Any, names: Sequence[str], more_draws: int = 1) -> Figures:
    scale = measured.trained.scale
    found = segmentation(
        measured.trained.model,
        train,
        test,
        names=names,
        shots=scale.shots,
        seeds=scale.draws * more_draws,
        steps=scale.decoder_steps,
        device=next(measured.trained.model.parameters()).device,
        examples=0,
        bootstrap=NO_INTERVAL,
    )
    return {f"dice_{shots}": estimate.value for shots, estimate in found.macro.items()}


def fine_tuning(measured: Measured) -> Figures:
    """Macro AUROC of the whole encoder fine-tuned on the labels of 10 and of 100 % of the training patients."""
    test, scale = measured.trained.test, measured.trained.scale
    train = test.studies("train")
    patients = sorted({study["patient_id"] for study in train})
    order = np.random.default_rng(measured.trained.seed).permutation(patients).tolist()
    figures = {}
    for percent in (10, 100):
        kept = set(order[: max(1, round(percent * len(order) / 100))])
        part = [study for study in train if study["patient_id"] in kept]
        found = fine_tune(
            measured.trained.model,
            test.loader(part, shuffle=True, seed=measured.trained.seed),
            test.loader(test.studies("val")),
            test.loader(test.studies("test")),
            measured.context.findings,
            findings=measured.findings,
            epochs=scale.fine_tune_epochs * (MORE_EPOCHS if percent < 100 else 1),
            bootstrap=NO_INTERVAL,
            seed=measured.trained.seed,
        )
        figures[f"{percent}"] = found.result.macro["auroc"].value
    return figures


def same_diagnosis(measured: Measured) -> Figures:
    """How well a model tells reports of other patients with the image's own diagnosis from those with another.

    For each image, the AUROC of its cosines with the reports of the other test patients, those with exactly its findings
    against the others; the mean over the images that have both. A study without a report has an image only. A model that takes
    every other study for a negative has no reason to be above 0.5.
    """
    embeddings = measured.embeddings
    columns = [list(measured.context.findings).index(name) for name in measured.findings]
    present = (measured.labels[:, columns] == 1).numpy()
    same = (present[:, None] == present[None]).all(2)
    patients, reported = np.array(embeddings.patient_ids), embeddings.has_text.numpy()
    scores = (embeddings.image @ embeddings.text.T).numpy()
    values = []
    for row in range(len(scores)):
        others = (patients != patients[row]) & reported
        values.append(_auroc(scores[row, others], same[row, others]))
    known = [value for value in values if not np.isnan(value)]
    return {"auroc": float(np.mean(known)) if known else float("nan")}


def wording(measured: Measured) -> Figures:
    """Macro AUROC of zero-shot classification by each of :data:`WORDINGS`: mean, lowest and standard deviation."""
    values = []
    for present, absent in WORDINGS:
        prompts = {
            name: {"present": [_sentence(present, name)], "absent": [_sentence(absent, name)]}
            for name in measured.findings
        }
        found = zero_shot(
            measured.embeddings, prompts, measured.trained.model, measured.context.findings, bootstrap=NO_INTERVAL
        )
        values.append(found.macro["auroc"].value)
    return {"mean": float(np.mean(values)), "lowest": float(min(values)), "spread": float(np.std(values, ddof=1))}


def _sentence(form: str, name: str) -> str:
    text = form.format(name.lower())
    return text[0].upper() + text[1:]


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve; NaN where there is one class."""
    number = int(positive.sum())
    if number in (0, len(positive)):
        return float("nan")
    ranks = float(rankdata(scores)[positive].sum())
    return (ranks - number * (number + 1) / 2) / (number * (len(positive) - number))


MEASURES: dict[str, Callable[[Measured], Figures]] = {
    "zero_shot": zero_shot_auroc,
    "probe": probe,
    "retrieval": retrieval,
    "grounding": grounding,
    "few_shot": few_shot,
    "own_masks": own_masks,
    "real_lungs": real_lungs,
    "fine_tune": fine_tuning,
    "same_diagnosis": same_diagnosis,
    "wording": wording,
    "classifier": classifier,
    "pneumonia": pneumonia,
}
"""By name; a figure is called ``MEASURE/FIGURE``, as ``zero_shot/auroc``."""

NEEDS = {"real_lungs": REAL["lungs"]}
"""The real data that a measure needs; it is left out where they are missing."""


def measure(trained: Trained, names: set[str]) -> Figures:
    """The figures of some measures, by ``MEASURE/FIGURE``."""
    measured = Measured(trained)
    return {
        f"{name}/{figure}": float(value)
        for name, function in MEASURES.items()
        if name in names
        for figure, value in function(measured).items()
    }
