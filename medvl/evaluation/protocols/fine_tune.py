"""Fine-tuning of the whole image encoder on labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvl.evaluation.context import ProtocolContext, labeled_findings
from medvl.evaluation.embeddings import Embeddings
from medvl.evaluation.explanations import BY_FINDING
from medvl.evaluation.multi_label import finding_table
from medvl.evaluation.protocols.linear_probe import ProbeResult, fit_probes, probe_result
from medvl.evaluation.registry import Protocol, register_protocol
from medvl.evaluation.results import KeyFigure, ProtocolResult
from medvl.evaluation.statistics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig
from medvl.evaluation.statistics.curves import auroc_and_average_precision
from medvl.evaluation.tables import Cell, Table
from medvl.evaluation.targets import Uncertain, check_disjoint_patients, f1_thresholds, finding_targets
from medvl.utils.checks import check_integer, error_message
from medvl.utils.tensors import as_plain

__all__ = ["FindingClassifier", "FineTuneResult", "fine_tune"]

Batches = Iterable[Mapping[str, Any]]


class FindingClassifier(nn.Module):
    """An image encoder with a layer norm and a linear layer on its embedding: one logit for each finding.

    Args:
        encoder: a module with ``encode_image`` ((N, C, H, W[, D]) to (N, D)) that is differentiable.
        embed_dim: D.
        num_findings: F.
    """

    def __init__(self, encoder: nn.Module, embed_dim: int, num_findings: int) -> None:
        super().__init__()
        self.encoder = encoder
        # Embeddings are unit vectors; the norm gives the linear layer features of unit variance.
        self.head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_findings))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, F)."""
        encode: Any = self.encoder.encode_image
        return self.head(encode(image))


@dataclass(frozen=True)
class FineTuneResult(ProtocolResult):
    """A fine-tuned classifier and its metrics on the test studies.

    Args:
        result: metrics on the test studies.
        classifier: with the weights of the best epoch, in evaluation mode.
        history: ``loss`` and validation ``auroc`` (macro; None where no finding has both classes) of each epoch.
        best_epoch: the epoch whose weights were kept; 0 for the linear probe that training starts from.
        settings: epochs, learning rates, weight decay, seed.
    """

    result: ProbeResult
    classifier: FindingClassifier
    history: tuple[dict[str, float | None], ...]
    best_epoch: int
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Metrics, history and settings as ``evaluation.json`` has them."""
        return {
            **self.result.to_dict(),
            "history": list(self.history),
            "best_epoch": self.best_epoch,
            "settings": self.settings,
        }

    def tables(self) -> list[Table]:
        """Metrics by finding and their macro mean."""
        description = "A copy of the image encoder with a linear head, trained on all labels of the training studies."
        metrics = ("auroc", "auprc", "f1")
        return [
            finding_table("fine-tune", "Fine-tuning", self.result.findings, self.result.macro, metrics, description)
        ]

    def explanations(self) -> dict[str, str]:
        """What the metrics mean."""
        return BY_FINDING

    def key_figures(self) -> list[KeyFigure]:
        """The macro AUROC."""
        return [KeyFigure("Fine-tuned macro AUROC", Cell.of(self.result.macro["auroc"], chance=0.5))]


def fine_tune(
    model: nn.Module,
    train: Batches,
    validation: Batches,
    test: Batches,
    names: Sequence[str],
    *,
    findings: Sequence[str] | None = None,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    head_learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    uncertain: Uncertain = "exclude",
    device: torch.device | str | None = None,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    seed: int = 0,
) -> FineTuneResult:
    """Train a copy of the image encoder with a linear head on labeled studies, and score it on others.

    The head starts at the linear probe: a logistic regression of each finding on the embeddings as they are, C chosen on
    validation. From a random head the first steps would distort the features that the pre-training has learned (Kumar et al.
    2022, https://arxiv.org/abs/2202.10054). The loss is the binary cross entropy over the known labels of the batch; the
    optimizer is AdamW with a smaller learning rate for the encoder than for the head, and cosine schedules to zero. The epoch
    with the best macro AUROC on validation is kept, the probe itself being epoch 0, and the thresholds of F1 are chosen there.

    Args:
        model: a module with ``encode_image``; it is copied and left as it is.
        train: batches with ``image`` and ``label`` (N, K), iterated once an epoch and once before, such as a shuffling loader.
        validation: the same of other patients.
        test: the same of other patients again.
        names: the K findings in the order of the labels' columns.
        findings: those to classify; None for all.
        epochs: number of epochs.
        learning_rate: of the encoder; 0 trains the head alone.
        head_learning_rate: of the head.
        weight_decay: of both.
        uncertain: how a label of -1 counts: excluded, as present or as absent.
        device: to train on; None for the device of the model's weights.
        bootstrap: of the intervals, clustered by patient.
        seed: of dropout.

    Returns:
        The metrics with the classifier.

    Raises:
        ValueError: If labels are missing or have another width than ``names``, the sets share a patient, or ``epochs`` is
            below 1.
        RuntimeError: If the loss is not finite, or ``encode_image`` has no gradient.
    """
    check_integer(epochs, "epochs", minimum=1)
    task = _Task(tuple(names), tuple(names if findings is None else findings), uncertain)
    device = next(model.parameters()).device if device is None else torch.device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = copy.deepcopy(model).to(device)
        classifier, checked, scores = _probe_classifier(encoder, train, validation, task, device)
        groups = [
            {"params": [p for p in encoder.parameters() if p.requires_grad], "lr": learning_rate},
            {"params": classifier.head.parameters(), "lr": head_learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        history: list[dict[str, float | None]] = []
        auroc = _macro_auroc(scores, task.targets(checked))
        best, best_epoch, weights = -np.inf if np.isnan(auroc) else auroc, 0, copy.deepcopy(classifier.state_dict())
        for epoch in range(1, epochs + 1):
            loss, trained = _train_epoch(classifier, optimizer, train, task, device)
            schedule.step()
            classifier.eval()
            checked, scores = _score(classifier, validation, device)
            auroc = _macro_auroc(scores, task.targets(checked))
            history.append({"loss": loss, "auroc": None if np.isnan(auroc) else auroc})
            # With validation cases of one class the last epoch is taken.
            if np.isnan(auroc) or auroc > best:
                best = best if np.isnan(auroc) else auroc
                best_epoch, weights = epoch, copy.deepcopy(classifier.state_dict())
    classifier.load_state_dict(weights)
    classifier.eval()
    checked, scores = _score(classifier, validation, device)
    thresholds = f1_thresholds(scores, task.targets(checked))
    tested, scores = _score(classifier, test, device)
    check_disjoint_patients(train=trained, validation=checked, test=tested)
    result = probe_result(
        tested,
        task.findings,
        scores=scores[None],
        probabilities=0.5 * (1 + np.tanh(scores / 2))[None],
        thresholds=thresholds[None],
        targets=task.targets(tested),
        train_studies=float(len(trained)),
        bootstrap=bootstrap,
    )
    settings = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "head_learning_rate": head_learning_rate,
        "weight_decay": weight_decay,
        "uncertain": uncertain,
        "bootstrap": bootstrap.to_dict(),
        "seed": seed,
    }
    return FineTuneResult(result, classifier, tuple(history), best_epoch, settings)


@dataclass(frozen=True)
class _Task:
    """Which columns of the labels are the targets, and how they are read."""

    names: tuple[str, ...]
    findings: tuple[str, ...]
    uncertain: Uncertain

    def targets(self, studies: Embeddings) -> np.ndarray:
        return finding_targets(studies, self.names, self.findings, self.uncertain)


def _studies(batches: Sequence[Mapping[str, Any]]) -> Embeddings:
    """Labels and ids of batches, without embeddings."""
    labels = [as_plain(torch.as_tensor(batch["label"])).cpu() for batch in batches if "label" in batch]
    if len(labels) < len(batches) or not labels:
        raise ValueError(error_message("batches", "each hold image and label", "none, or one without"))
    embeds = torch.ones(sum(map(len, labels)), 1)
    studies, patients = ([i for batch in batches for i in batch.get(key, [])] for key in ("study_id", "patient_id"))
    return Embeddings(embeds, embeds, study_ids=studies, patient_ids=patients, labels=torch.cat(labels))


def _image(batch: Mapping[str, Any], device: torch.device) -> Tensor:
    return as_plain(torch.as_tensor(batch["image"])).to(device)


def _probe_classifier(
    encoder: nn.Module, train: Batches, validation: Batches, task: _Task, device: torch.device
) -> tuple[FindingClassifier, Embeddings, np.ndarray]:
    """The classifier with the linear probe as its head, and the validation studies with their logits (N, F)."""
    encode: Any = encoder.encode_image
    encoder.eval()

    def features_of(image: Tensor) -> Tensor:
        embeds = encode(image)
        return F.layer_norm(embeds, embeds.shape[-1:])

    parts = [_score(features_of, part, device) for part in (train, validation)]
    (trained, features), (checked, _) = parts
    check_disjoint_patients(train=trained, validation=checked)
    probes = fit_probes([part for _, part in parts], [task.targets(studies) for studies, _ in parts])
    classifier = FindingClassifier(encoder, features.shape[1], len(task.findings))
    with torch.no_grad():
        for parameter, values in zip(classifier.head[1].parameters(), probes.linear(), strict=True):
            parameter.copy_(torch.as_tensor(values))
    classifier.to(device).eval()
    return classifier, *_score(classifier, validation, device)


def _train_epoch(
    classifier: FindingClassifier, optimizer: torch.optim.Optimizer, batches: Batches, task: _Task, device: torch.device
) -> tuple[float, Embeddings]:
    """Mean loss of one epoch, and the labels and ids that it saw."""
    classifier.train()
    losses, seen = [], []
    for batch in batches:
        seen.append({key: batch[key] for key in ("label", "study_id", "patient_id") if key in batch})
        targets = torch.as_tensor(task.targets(_studies(seen[-1:])), dtype=torch.float32, device=device)
        known = ~targets.isnan()
        if not bool(known.any()):
            continue
        loss = F.binary_cross_entropy_with_logits(classifier(_image(batch, device))[known], targets[known])
        if not bool(loss.isfinite()):
            raise RuntimeError(f"The loss of fine-tuning is {loss.item()}; try a smaller learning rate.")
        optimizer.zero_grad()
        loss.backward()
        if optimizer.param_groups[0]["lr"] and all(p.grad is None for p in classifier.encoder.parameters()):
            raise RuntimeError("encode_image has no gradient, so that its encoder cannot be fine-tuned.")
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses)) if losses else float("nan"), _studies(seen)


def _score(
    function: Callable[[Tensor], Tensor], batches: Batches, device: torch.device
) -> tuple[Embeddings, np.ndarray]:
    """Labels and ids of studies, and what a classifier, or the encoder, gives for their images (N, F)."""
    scores, seen = [], []
    with torch.inference_mode():
        for batch in batches:
            seen.append({key: batch[key] for key in ("label", "study_id", "patient_id") if key in batch})
            scores.append(function(_image(batch, device)).double().cpu())
    return _studies(seen), torch.cat(scores).numpy()


def _macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean AUROC of the findings with cases of both classes; NaN for none."""
    known = ~np.isnan(targets)
    values = [
        auroc_and_average_precision(scores[rows, column], targets[rows, column] == 1)[0][0]
        for column, rows in enumerate(known.T)
    ]
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _run(context: ProtocolContext) -> FineTuneResult:
    studies = context.split_studies("train")
    order = np.random.default_rng(context.seed).permutation(len(studies))
    train = context.loader([studies[row] for row in order])
    validation, test = (context.loader(context.split_studies(split)) for split in ("validation", "test"))
    findings = labeled_findings(context.embeddings(), context.findings)
    return fine_tune(
        context.model,
        train,
        validation,
        test,
        context.findings,
        findings=findings,
        bootstrap=context.bootstrap,
        seed=context.seed,
    )


register_protocol(Protocol("fine-tune", _run, requires=["labels", "training", "validation"], on_request=True, order=60))
