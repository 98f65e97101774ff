"""Training of an arm: a recipe as ``medvl train`` runs it, or the supervised baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evidence.arms import SUPERVISED, Arm, settings_of
from evidence.data import EvidenceData, TestData
from evidence.scales import Scale
from medvl.data import StudyDataset, StudyLoader
from medvl.engines import warmup_cosine
from medvl.evaluation import FindingClassifier
from medvl.handlers import EpochSeed, FiniteLoss, GradientClipping, read_metrics
from medvl.networks import convirt
from medvl.text import make_class_prompts
from medvl.transforms import image_augmentation, image_preprocessing
from medvl.workflows import RecipeWorkflow, TrainedRun, train


@dataclass
class Trained:
    """A trained arm, ready to be measured.

    Args:
        model: a dual encoder; of the supervised baseline only its image side is trained.
        test: the studies to measure it on.
        scale: the scale of the arm.
        seed: of the training.
        steps: number of optimizer steps.
        classifier: of the findings, of the supervised baseline only.
        run: the run folder's model and prompts; None of the supervised baseline.
    """

    model: nn.Module
    test: TestData
    scale: Scale
    seed: int
    steps: int
    classifier: FindingClassifier | None = None
    run: TrainedRun | None = None

    def class_prompts(self, names: Any) -> dict[str, dict[str, list[str]]]:
        """Present and absent prompts of findings: those saved with the model."""
        return make_class_prompts(list(names)) if self.run is None else self.run.class_prompts(names)


def train_arm(arm: Arm, scale: Scale, seed: int, data: EvidenceData, folder: Path) -> Trained:
    """Train an arm, or go on with its training in the run folder; a finished one is only read.

    Args:
        arm: what to train.
        scale: how large.
        seed: of the training.
        data: the tables.
        folder: the run folder.
    """
    settings = settings_of(arm, scale, seed)
    if arm.recipe == SUPERVISED:
        return train_supervised(settings, scale, data, arm)
    settings |= {**data.settings(arm), "output": str(folder), "resume": True, "progress": False}
    if arm.without:
        terms = RecipeWorkflow(arm.recipe).whole_config()["loss"]["losses"]
        settings["loss#losses"] = {name: term for name, term in terms.items() if name not in arm.without}
    path = train(arm.recipe, settings)
    run = TrainedRun(path, scale.device)
    model = run.model if arm.trained else run.reinitialized_model()
    steps = read_metrics(path / "metrics.jsonl")[-1]["iteration"] if arm.trained else 0
    test = TestData(
        data.manifest(arm),
        run.image_preprocessing(),
        run.model.image_size,
        data.folder / "masks",
        run.report_preprocessing(),
    )
    return Trained(model.eval(), test, scale, seed, steps, run=run)


class KnownLabelsLoss(nn.Module):
    """Binary cross entropy over the labels that are known."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over known labels (N, K), 1 or 0."""
        known = (labels == 0) | (labels == 1)
        return F.binary_cross_entropy_with_logits(logits[known], labels[known])


def train_supervised(settings: Mapping[str, Any], scale: Scale, data: EvidenceData, arm: Arm) -> Trained:
    """The image encoder of convirt's preset with a linear head, trained on every label of the training split.

    Augmentation, batch size, steps, learning rate and schedule are those of the other arms.
    """
    from monai.engines import SupervisedTrainer
    from monai.handlers import LrScheduleHandler
    from monai.transforms import Compose, SelectItemsd
    from monai.utils import set_determinism

    seed, size, batch_size = (settings[name] for name in ("seed", "image_size", "batch_size"))
    set_determinism(seed)
    test = TestData(data.manifest(arm), image_preprocessing(size), size, data.folder / "masks")
    model = convirt(scale.preset, image_size=size, embed_dim=scale.embed_dim)
    classifier = FindingClassifier(model, scale.embed_dim, len(test.manifest.names)).to(scale.device)
    options = {name.removeprefix("augmentation#"): value for name, value in settings.items() if "augmentation#" in name}
    transform = Compose(
        [test.prepare, image_augmentation(size, **options), SelectItemsd(["image", "label", "study_id", "patient_id"])]
    )
    dataset = StudyDataset(test.studies("train"), transform, seed=seed, cache_bytes=2 * 10**9)
    loader = StudyLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=len(dataset) >= batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), settings["learning_rate"], weight_decay=1e-4)
    steps = settings["epochs"] * len(loader)
    handlers = [
        EpochSeed(loader, seed),
        FiniteLoss(),
        GradientClipping(1.0),
        LrScheduleHandler(warmup_cosine(optimizer, steps), print_lr=False, epoch_level=False),
    ]
    trainer = SupervisedTrainer(
        device=torch.device(scale.device),
        max_epochs=settings["epochs"],
        train_data_loader=loader,
        network=classifier,
        optimizer=optimizer,
        loss_function=KnownLabelsLoss(),
        prepare_batch=lambda batch, device, non_blocking, **_: (batch["image"].to(device), batch["label"].to(device)),
        train_handlers=handlers,
        decollate=False,
    )
    trainer.run()
    return Trained(model.eval(), test, scale, seed, steps, classifier=classifier.eval())
