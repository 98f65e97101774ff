"""What is trained: one line an arm, a recipe with the settings in which it differs from the others.

Every arm of the synthetic set has the same images, augmentation, batch size and number of steps (:func:`settings_of`); what an
arm names replaces that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evidence.scales import SCALES, Scale

SUPERVISED = "supervised"
"""In place of a recipe: the image encoder of convirt's preset, trained on labels alone."""

SEGMENTATION = "segmentation"
"""In place of a recipe: the same image encoder with a decoder, trained on the masks that the setting ``masks`` names."""

IMAGES_ALONE = (SUPERVISED, SEGMENTATION)
"""Trainings of an image encoder without a text tower."""

AUGMENTATION = {
    "flip_prob": 0.0,  # reports tell left from right
    "crop": [0.8, 1.0],
    "rotation": 10.0,
    "translation": 0.05,
    "brightness": [0.8, 1.2],
    "contrast": [0.8, 1.2],
    "blur_prob": 0.0,
}
"""Arguments of :func:`medvl.transforms.image_augmentation`, those of ``medvl demo``."""

LEARNING_RATE = 0.0015
VOCAB_SIZE = 2000


@dataclass(frozen=True)
class Arm:
    """Something that is trained and measured.

    Args:
        name: of the arm, and of the folder of its results.
        title: what tables call it.
        recipe: a recipe of medvl, :data:`SUPERVISED` or :data:`SEGMENTATION`.
        settings: of the recipe, as ``medvl train --set`` takes them, which replace those that all arms share.
        sources: what it learns from, as ``KIND=PART`` with a part of :data:`evidence.data.PARTS` or a real data set of
            :data:`evidence.data.REAL`; empty for the whole synthetic table.
        without: terms of the recipe's loss that are left out, by name.
        repeat: factor on the epochs, for an arm that sees a part of the data in as many steps as the others, or is trained
            longer; 1 in the quick form.
        trained: False for the same network with random weights.
        test: "synthetic" or "pneumonia": what it is measured on.
        most_seeds: number of seeds of an arm that stands in a table and decides nothing; None for all.
        own_scale: name of the scale that it has in the full form in place of the others'; other forms leave it out.
        numbers_only: True if it differs from another arm in numbers alone; the quick form, which shows that everything runs,
            leaves it out.
    """

    name: str
    title: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    repeat: float = 1.0
    trained: bool = True
    test: str = "synthetic"
    most_seeds: int | None = None
    own_scale: str | None = None
    numbers_only: bool = False

    def seeds(self, scale: Scale) -> tuple[int, ...]:
        """The seeds of its trainings; none in a form that leaves it out."""
        left_out = (self.own_scale and scale.name != "full") or (self.numbers_only and scale.is_quick)
        return () if left_out else scale.seeds[: self.most_seeds]

    def scale(self, form: Scale) -> Scale:
        """How large it is trained in a form of the evidence."""
        return SCALES[self.own_scale] if self.own_scale and form.name == "full" else form


def settings_of(arm: Arm, scale: Scale, seed: int) -> dict[str, Any]:
    """The settings of an arm's training, without the paths of its data and its run folder."""
    epochs = scale.real_epochs if arm.test == "pneumonia" else scale.epochs
    repeat = 1.0 if scale.is_quick else arm.repeat
    shared: dict[str, Any] = {
        "seed": seed,
        "epochs": max(1, round(epochs * repeat)) if arm.trained else 1,
        "batch_size": scale.batch_size,
        "image_size": scale.image_size,
        "preset": scale.preset,
        "embed_dim": scale.embed_dim,
        "device": scale.device,
        "learning_rate": LEARNING_RATE,
        "vocab_size": VOCAB_SIZE,
        **{f"augmentation#{name}": value for name, value in AUGMENTATION.items()},
    }
    return {**shared, "val_interval": shared["epochs"], **arm.settings}


# The parts of the methods that the arms below switch.

IDS_ONLY = {  # a batch of images with their own sentences, which are told apart by study and not by label
    "train#dataset#decoupled": False,
    "validate#dataset#decoupled": False,
    "num_texts": None,
    "loss#losses": {
        "pairs": {"_target_": "medvl.losses.ImageTextContrastiveLoss", "gather": "@gather", "image_weight": 0.5}
    },
}

LOCAL_PAIRS = [  # by study in place of by meaning, with the transport between whole reports and images
    {"_target_": "medvl.losses.PatchSentenceMatchingLoss", "gather": "@gather", "alignment": "transport"},
    "@local_weight",
]
NO_INTEGRITY = {
    "network_def#semantic_integrity": None,
    "loss#argument_names": {"weights": None, "patch_mask": "visible_mask"},
}
NO_MASK = {**NO_INTEGRITY, "mask_ratio": 0.0, "network_def#patch_decoder": None}
WHOLE_IMAGE_MAPS = {"network_def#local_projections": False}
"""Without a local loss the projections of patches and sentences stay random: maps are those of the whole image's."""

VIT = {
    "_target_": "medvl.networks.ImageEncoder",
    "backbone": "vit_tiny",
    "image_size": "@image_size",
    "patch_size": 8,
    "num_layers": 4,
}


THIRDS = ("image-text=third-1", "image-label=third-2", "text-label=third-3")

REAL_SETTINGS = {  # settings of the two arms on real images, chosen on the validation split
    "image_size": 32,
    "batch_size": 64,
    "learning_rate": 0.001,
    "columns": {"label_column": "finding"},
}
REAL_REPEAT = 2.0  # four epochs; chosen on the validation split among two, four and eight
REAL_SOURCES = ("image-label=pneumonia", "text-label=openi")

_ARMS = [
    # What every table has beside its own arms.
    Arm("untrained", "untrained ResNet", "convirt", trained=False),
    Arm("supervised", "labels only, supervised", SUPERVISED),
    # The recipes, on the whole synthetic table.
    Arm("convirt", "convirt", "convirt"),
    Arm("medclip", "medclip", "medclip", {"num_texts": 32}),
    Arm("umcl", "umcl", "umcl"),
    Arm("mlip", "mlip", "mlip"),
    Arm("medvl", "medvl", "medvl"),
    # MedCLIP: targets by meaning or by study, and pairs or not.
    Arm("medclip-ids", "medclip, hard targets (pairs by study)", "medclip", IDS_ONLY),
    Arm(
        "medclip-sharp",
        "medclip, targets of temperature 0.01",
        "medclip",
        {"num_texts": 32, "target_temperature": 0.01},
        most_seeds=2,
        numbers_only=True,
    ),
    Arm(
        "medclip-paper",
        "medclip, targets of temperature 1",
        "medclip",
        {"num_texts": 32, "target_temperature": 1.0},
        most_seeds=2,
        numbers_only=True,
    ),
    Arm(
        "medclip-unpaired-20",
        "medclip, 20 % of the images, reports of the others",
        "medclip",
        {"num_texts": 32},
        sources=("image-label=first-20", "text-label=last-80"),
        repeat=5.0,
    ),
    Arm("convirt-20", "convirt, 20 % of the pairs", "convirt", sources=("image-text=first-20",), repeat=5.0),
    # UMCL: thirds of the patients, of which one has pairs, one labeled images, one reports.
    Arm("umcl-pairs", "umcl, pairs of a third", "umcl", sources=THIRDS[:1], repeat=3.0),
    Arm("umcl-labels", "umcl, labeled images of a third", "umcl", sources=THIRDS[1:2], repeat=3.0),
    Arm("umcl-pairs-labels", "umcl, pairs and labeled images", "umcl", sources=THIRDS[:2], repeat=1.5),
    Arm("umcl-all", "umcl, pairs, labeled images and reports", "umcl", sources=THIRDS),
    Arm("umcl-pairs-long", "umcl, pairs of a third, long", "umcl", sources=THIRDS[:1], repeat=9.0, numbers_only=True),
    Arm(
        "umcl-labels-long",
        "umcl, labeled images of a third, long",
        "umcl",
        sources=THIRDS[1:2],
        repeat=9.0,
        numbers_only=True,
    ),
    Arm(
        "umcl-all-long",
        "umcl, pairs, labeled images and reports, long",
        "umcl",
        sources=THIRDS,
        repeat=3.0,
        numbers_only=True,
    ),
    Arm(
        "umcl-all-wide",
        "umcl, the three in batches of 96",
        "umcl",
        {"batch_size": 96},
        sources=THIRDS,
        repeat=3.0,
        numbers_only=True,
    ),
    Arm(
        "umcl-written",
        "umcl, the same with written prompts alone",
        "umcl",
        {"num_prompt_tokens": 0},
        sources=THIRDS,
    ),
    # MLIP: part after part, and each part replaced.
    Arm("untrained-mlip", "untrained ResNet of mlip", "mlip", trained=False),
    Arm(
        "mlip-global",
        "mlip, global loss only",
        "mlip",
        {**NO_MASK, **WHOLE_IMAGE_MAPS, "loss#argument_names": {"weights": None}},
        without=("local", "reconstruction"),
    ),
    Arm("mlip-local", "mlip, + local loss", "mlip", NO_MASK, without=("reconstruction",)),
    Arm("mlip-mask", "mlip, + masks and their prediction", "mlip", NO_INTEGRITY),
    Arm("mlip-transport", "mlip, transport", "mlip", {"loss#losses#local#0#alignment": "transport"}),
    Arm("mlip-max", "mlip, max", "mlip", {"loss#losses#local#0#alignment": "max"}, most_seeds=2),
    Arm("mlip-pairs", "mlip, local loss by study, transport", "mlip", {"loss#losses#local": LOCAL_PAIRS}, most_seeds=2),
    Arm("mlip-ratio-30", "mlip, 30 % masked", "mlip", {"mask_ratio": 0.3}, most_seeds=2, numbers_only=True),
    Arm("mlip-ratio-60", "mlip, 60 % masked", "mlip", {"mask_ratio": 0.6}, most_seeds=2, numbers_only=True),
    Arm("mlip-vit", "mlip, ViT", "mlip", {"network_def#image_encoder": VIT}, most_seeds=2),
    # medvl without one of its terms.
    Arm("medvl-no-pairs", "medvl without the pairs", "medvl", without=("pairs",)),
    Arm("medvl-no-local", "medvl without the patches", "medvl", WHOLE_IMAGE_MAPS, without=("local",)),
    Arm("medvl-no-matching", "medvl without the matching by labels", "medvl", without=("matching",)),
    # medvl on the demonstration's data, as long as the demonstration trains and longer.
    Arm("medvl-demo", "medvl, the demonstration", "medvl", own_scale="demo"),
    Arm("mlip-demo", "mlip, the demonstration", "mlip", own_scale="demo"),
    Arm("medvl-long", "medvl, the demonstration's data for 24 epochs", "medvl", own_scale="long"),
    Arm("supervised-demo", "labels only, supervised", SUPERVISED, own_scale="demo"),
    Arm("supervised-long", "labels only, supervised", SUPERVISED, own_scale="long", most_seeds=2),
    Arm("untrained-demo", "untrained ResNet", "medvl", trained=False, own_scale="demo"),
    # The encoder of convirt with a decoder of masks: what few labeled cases of real lungs gain from.
    Arm("masks-findings", "masks of generated findings", SEGMENTATION, {"masks": "findings"}),
    Arm("masks-lungs", "masks of generated lungs", SEGMENTATION, {"masks": "generated-lungs"}),
    Arm(
        "masks-lungs-pooled",
        "masks of generated lungs, pooled",
        SEGMENTATION,
        {"masks": "generated-lungs", "pooled": True},
    ),
    Arm(
        "masks-lungs-pooled-long",
        "masks of generated lungs, pooled, 6 × the steps",
        SEGMENTATION,
        {"masks": "generated-lungs", "pooled": True},
        repeat=6.0,
        numbers_only=True,
    ),
    Arm("masks-real", "masks of real lungs (ceiling)", SEGMENTATION, {"masks": "lungs"}),
    # Real images.
    Arm(
        "real-medclip",
        "medclip, unpaired",
        "medclip",
        {
            **REAL_SETTINGS,
            "max_length": 48,
            "text_sampling_weights": {"image-label": 0.5, "text-label": 0.5},
        },
        REAL_SOURCES,
        repeat=REAL_REPEAT,
        test="pneumonia",
    ),
    Arm(
        "real-umcl",
        "umcl, unpaired",
        "umcl",
        {**REAL_SETTINGS, "max_length": 64, "sampling_weights": {"image-label": 0.8, "text-label": 0.2}},
        REAL_SOURCES,
        repeat=REAL_REPEAT,
        test="pneumonia",
    ),
    Arm("real-supervised", "labels only, supervised", SUPERVISED, REAL_SETTINGS, repeat=REAL_REPEAT, test="pneumonia"),
    Arm("real-untrained", "untrained ResNet", "medclip", REAL_SETTINGS, REAL_SOURCES, trained=False, test="pneumonia"),
]
ARMS = {arm.name: arm for arm in _ARMS}
