"""The networks and losses of the recipes in small, with batches of every kind, for tests of gradient caching."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from medvl import networks
from medvl.engines import PrepareBatchImageText
from medvl.losses import (
    CombinedLoss,
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    MaskedPatchLoss,
    SemanticMatchingLoss,
    SemanticSentenceLoss,
)

RECIPES = ("convirt", "medclip", "medvl", "mlip", "umcl")
NETWORK_KEYS = ("input_ids", "attention_mask", "sentence_ids", "visible_indices")
VOCABULARY, LENGTH, FINDINGS, PATCHES, PROMPT_TOKENS = 40, 12, 4, 16, 2


@dataclass(frozen=True)
class Case:
    """What a trainer needs for one step."""

    network: nn.Module
    loss: CombinedLoss
    batch: dict[str, Any]
    network_keys: tuple[str, ...] = NETWORK_KEYS

    def trainer(self, iteration_update: Any = None, **options: Any) -> SupervisedTrainer:
        """A trainer whose one step leaves the weights as they are, and the gradients in them."""
        return SupervisedTrainer(
            max_epochs=1,
            train_data_loader=[self.batch],
            network=self.network,
            optimizer=torch.optim.SGD([*self.network.parameters(), *self.loss.parameters()], lr=0.0),
            loss_function=self.loss,
            prepare_batch=PrepareBatchImageText(network_keys=self.network_keys),
            iteration_update=iteration_update,
            decollate=False,
            **{"device": "cpu", "optim_set_to_none": True, **options},
        )

    def gradients(self, iteration_update: Any = None, seed: int = 0, **options: Any) -> dict[str, Tensor | None]:
        """Gradients of one step by parameter, and the loss."""
        trainer = self.trainer(iteration_update, **options)
        torch.manual_seed(seed)
        trainer.run()
        parts = (("", self.network), ("loss.", self.loss))
        named = {prefix + name: value.grad for prefix, part in parts for name, value in part.named_parameters()}
        return {**named, "the loss": trainer.state.output["loss"].detach()}

    def share(self, images: slice | list[int], texts: slice | list[int]) -> Case:
        """The same with some rows of the batch."""
        rows = {
            name: value[images if name in ("image", "image_ids", "image_labels", "visible_indices") else texts]
            for name, value in self.batch.items()
        }
        return replace(self, batch=rows)


def make_case(
    name: str, dropout: float = 0.0, images: int = 11, width: int = 16, image_encoder: Any = None, **options: Any
) -> Case:
    """The architecture and loss of a recipe, and a batch as its data gives it, from a fixed seed; options of the losses."""
    torch.manual_seed(1)
    vit = {
        "backbone": "vit",
        "patch_size": 8,
        "hidden_size": width,
        "num_layers": 1,
        "num_heads": 2,
        "dropout_rate": dropout,
    }
    bert = {
        "model_type": "bert", "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": width, "vocab_size": VOCABULARY, "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }  # fmt: skip
    own = {"medvl": {"local_projections": True}, "umcl": {"num_prompt_tokens": PROMPT_TOKENS}}.get(name, {})
    factory = getattr(networks, "medclip" if name == "medvl" else name)
    network = factory("small", image_size=32, image_encoder=image_encoder or vit, text_encoder=bert, embed_dim=8, **own)
    keys = (*NETWORK_KEYS, "image_ids", "text_ids") if name == "mlip" else NETWORK_KEYS
    return Case(network, make_loss(name, **options), make_batch(name, images), keys)


def make_loss(name: str, **options: Any) -> CombinedLoss:
    """The loss of a recipe."""
    pairs = ImageTextContrastiveLoss(image_weight=0.5, pool_texts=True, paired_only=True, **options)
    local = SemanticSentenceLoss(temperature=0.1, attention_temperature=0.05, **options)
    matching = SemanticMatchingLoss(target_temperature=0.1, **options)
    if name == "mlip":
        losses = {
            "global": pairs,
            "local": (local, 0.7),
            "reconstruction": (MaskedPatchLoss(8, gather=options.get("gather", False)), 0.5),
        }
        return CombinedLoss(losses, {"weights": "semantic_integrity", "patch_mask": "visible_mask"})
    return CombinedLoss(
        {
            "convirt": {"contrastive": ImageTextContrastiveLoss(image_weight=0.75, **options)},
            "medclip": {"matching": matching},
            "medvl": {"matching": matching, "pairs": pairs, "local": local},
            "umcl": {"unified": ImageTextLabelContrastiveLoss(label_agreement="soft", **options)},
        }[name]
    )


def make_batch(name: str, images: int) -> dict[str, Any]:
    """Images with no, one and two texts of one to three sentences, and texts without an image; pairs for convirt."""
    owners = [i for i in range(images) for _ in range(i % 3)] + [100 + i for i in range(images // 2)]
    if name == "convirt":
        owners = list(range(images))
    elif name == "medclip":
        owners = [100 + i for i in range(images - 2)]
    texts = len(owners)
    lengths = torch.arange(texts) % (LENGTH - 5) + 5
    place = torch.arange(LENGTH)
    inside = (place > 0) & (place < lengths[:, None] - 1)
    batch = {
        "image": torch.rand(images, 1, 32, 32),
        "input_ids": torch.randint(5, VOCABULARY, (texts, LENGTH)).where(place < lengths[:, None], 0),
        "attention_mask": (place < lengths[:, None]).long(),
        "sentence_ids": torch.where(inside, (place - 1) * (1 + torch.arange(texts)[:, None] // 4 % 3) // LENGTH, -1),
        "image_ids": torch.arange(images),
        "text_ids": torch.tensor(owners),
        "image_labels": torch.randint(-1, 2, (images, FINDINGS)).float(),
        "text_labels": torch.randint(-1, 2, (texts, FINDINGS)).float(),
    }
    if name == "mlip":
        batch["visible_indices"] = torch.rand(images, PATCHES).argsort(1)[:, :10]
    if name == "umcl":  # learned tokens in two prompts only
        batch["input_ids"][-2:, 1 : 1 + PROMPT_TOKENS] = VOCABULARY + torch.arange(PROMPT_TOKENS)
    return batch


def differences(got: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> dict[str, float]:
    """The largest difference by name, as a share of the largest gradient of that name or 0.001; infinite for a missing one."""
    result = {}
    for name, value in expected.items():
        other = got[name]
        if value is None or other is None:
            result[name] = 0.0 if value is other else float("inf")
        else:
            result[name] = float((other - value).abs().max() / value.abs().max().clamp(min=1e-3))
    return result
