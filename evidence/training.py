"""Training of an arm: a recipe as ``medvl train`` runs it, or an image encoder alone on labels or masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, EnsureTyped, Lambdad, SelectItemsd, Transform
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional as F

from evidence.arms import SEGMENTATION, SUPERVISED, Arm, settings_of
from evidence.data import EvidenceData, LungCases, TestData
from evidence.scales import Scale
from medvl.data import StudyDataset, StudyLoader
from medvl.engines import warmup_cosine
from medvl.evaluation import FindingClassifier, SegmentationDecoder, dense_features, segmentation_loss
from medvl.handlers import EpochSeed, FiniteLoss, GradientClipping, read_metrics
from medvl.networks import convirt
from medvl.text import make_class_prompts
from medvl.transforms import RandRadiographAffined, image_augmentation, image_preprocessing
from medvl.workflows import RecipeWorkflow, TrainedRun, train


@dataclass
class Trained:
    """A trained arm, ready to be measured.

    Args:
        model: a dual encoder; without texts only its image side is trained.
        test: the studies to measure it on.
        scale: the scale of the arm.
        seed: of the training.
        steps: number of optimizer steps.
        classifier: of the findings, of the supervised baseline only.
        segmenter: the encoder with the decoder of masks that it was trained with, of a training on masks only.
        masked_test: gives the test images with such masks, likewise.
        run: the run folder's model and prompts; None without a recipe.
    """

    model: nn.Module
    test: TestData
    scale: Scale
    seed: int
    steps: int
    classifier: FindingClassifier | None = None
    segmenter: nn.Module | None = None
    masked_test: Callable[[], StudyDataset] | None = None
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
    if arm.recipe == SEGMENTATION:
        return train_segmenter(settings, scale, data, arm)
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


def known_labels_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy over the labels (N, K) that are known, 1 or 0."""
    known = (labels == 0) | (labels == 1)
    return F.binary_cross_entropy_with_logits(logits[known], labels[known])


class Segmenter(nn.Module):
    """The image encoder of a dual encoder with a decoder of its feature maps.

    Args:
        model: the dual encoder.
        image_size: side of the images.
        structures: number of them.
    """

    def __init__(self, model: nn.Module, image_size: int, structures: int) -> None:
        super().__init__()
        self.encoder = model.image_encoder
        maps = dense_features(self.encoder)(torch.zeros(1, 1, image_size, image_size))
        self.decoder = SegmentationDecoder([features.shape[1] for features in maps], structures)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K, H, W)."""
        return self.decoder(dense_features(self.encoder, frozen=False)(image), image.shape[2:])


class PooledSegmenter(nn.Module):
    """The same encoder with a decoder of its pooled features: the masks are learned, and no feature map is asked for them.

    Args:
        model: the dual encoder.
        structures: number of them.
        grid: side of the coarse logits, which are enlarged to the images' size.
        width: of the decoder's hidden layer.
    """

    def __init__(self, model: Any, structures: int, grid: int = 16, width: int = 256) -> None:
        super().__init__()
        self.encoder = model.image_encoder
        self.decoder = nn.Sequential(
            nn.Linear(self.encoder.out_features, width),
            nn.ReLU(),
            nn.Linear(width, structures * grid**2),
            nn.Unflatten(1, (structures, grid, grid)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K, H, W)."""
        coarse = self.decoder(self.encoder(image)["embed"])
        return F.interpolate(coarse, image.shape[2:], mode="bilinear", align_corners=False)


def train_supervised(settings: Mapping[str, Any], scale: Scale, data: EvidenceData, arm: Arm) -> Trained:
    """The image encoder of convirt's preset with a linear head, trained on every label of the training split."""
    model, test = _untrained(settings, scale, data, arm)
    classifier = FindingClassifier(model, scale.embed_dim, len(test.manifest.names))
    steps = _fit(classifier, known_labels_loss, "label", test.studies("train"), test.prepare, settings, scale)
    return Trained(model.eval(), test, scale, settings["seed"], steps, classifier=classifier.eval())


def train_segmenter(settings: Mapping[str, Any], scale: Scale, data: EvidenceData, arm: Arm) -> Trained:
    """The same encoder with a decoder, trained on masks of the training split, or of the real cases that are no test cases."""
    model, test = _untrained(settings, scale, data, arm)
    studies, prepare = _with_masks(settings["masks"], "train", data, test)
    # As many steps as the other arms make: several passes over the real cases, which are few.
    studies = [studies[row % len(studies)] for row in range(len(test.studies("train")))]
    structures = len(prepare(dict(studies[0]))["mask"])
    pooled = settings.get("pooled", False)
    segmenter = PooledSegmenter(model, structures) if pooled else Segmenter(model, test.image_size, structures)
    steps = _fit(segmenter, segmentation_loss, "mask", studies, prepare, settings, scale)
    return Trained(
        model.eval(),
        test,
        scale,
        settings["seed"],
        steps,
        segmenter=segmenter.eval(),
        masked_test=lambda: StudyDataset(*_with_masks(settings["masks"], "test", data, test)),
    )


def _with_masks(masks: str, split: str, data: EvidenceData, test: TestData) -> tuple[list[dict[str, Any]], Compose]:
    """The studies of a split, and what gives them ``image`` and ``mask`` (K, H, W)."""
    if masks == "lungs":
        train, held_out = LungCases(test.prepare, test.image_size).split()
        cases = train if split == "train" else held_out
        return [cases[row] for row in range(len(cases))], Compose([])
    if masks == "findings":
        return test.studies(split), Compose([test.prepare, test.add_masks])
    return test.studies(split), Compose([test.prepare, data.add_lungs])


def _untrained(settings: Mapping[str, Any], scale: Scale, data: EvidenceData, arm: Arm) -> tuple[nn.Module, TestData]:
    """A dual encoder of convirt's preset with random weights by the seed, and what it is measured on."""
    size = settings["image_size"]
    set_determinism(settings["seed"])
    test = TestData(data.manifest(arm), image_preprocessing(size), size, data.folder / "masks")
    return convirt(scale.preset, image_size=size, embed_dim=scale.embed_dim), test


def _fit(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    target: str,
    studies: Sequence[Mapping[str, Any]],
    prepare: Transform,
    settings: Mapping[str, Any],
    scale: Scale,
) -> int:
    """Train a network of images for a target; returns the number of steps.

    Augmentation, batch size, steps, learning rate and schedule are those of the other arms.
    """
    seed, size, batch_size = (settings[name] for name in ("seed", "image_size", "batch_size"))
    network = network.to(scale.device)
    options = {name.removeprefix("augmentation#"): value for name, value in settings.items() if "augmentation#" in name}
    keys = ["image", target, "study_id", "patient_id"]
    augment = image_augmentation(size, **options) if target == "label" else augment_with_mask(size, options)
    transform = Compose([prepare, augment, SelectItemsd(keys)])
    dataset = StudyDataset([dict(study) for study in studies], transform, seed=seed, cache_bytes=2 * 10**9)
    loader = StudyLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=len(dataset) >= batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), settings["learning_rate"], weight_decay=1e-4)
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
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=lambda batch, device, non_blocking, **_: (batch["image"].to(device), batch[target].to(device)),
        train_handlers=handlers,
        decollate=False,
    )
    trainer.run()
    return steps


def augment_with_mask(size: int, options: Mapping[str, Any]) -> Compose:
    """The augmentation of images, whose crop, rotation and translation are those of the mask too."""
    places = {name: options[name] for name in ("flip_prob", "crop", "rotation", "translation")}
    still = {"flip_prob": 0.0, "crop": (1.0, 1.0), "rotation": 0.0, "translation": 0.0, "scale": (1.0, 1.0)}
    return Compose(
        [
            EnsureTyped("mask", dtype=torch.float32, track_meta=False),
            RandRadiographAffined(["image", "mask"], **places, size=size),
            image_augmentation(size, **{**options, **still}),
            Lambdad("mask", lambda mask: (mask >= 0.5).float()),
        ]
    )
