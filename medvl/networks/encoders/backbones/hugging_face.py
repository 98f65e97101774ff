"""Any Hugging Face vision model as a 2D backbone: convolutional, ViT-like or windowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import MODEL_MAPPING, PretrainedConfig, PreTrainedModel

from medvl.functional.masking import gather_patches
from medvl.networks.encoders.backbones.features import PatchFeatures
from medvl.networks.encoders.hugging_face_files import build_model, find_folder, model_config, read_model
from medvl.networks.encoders.published.load import fit_weight
from medvl.utils.checks import error_message
from medvl.utils.modes import eval_mode

Source: TypeAlias = PreTrainedModel | PretrainedConfig | Mapping[str, Any] | str | Path

# With one position vector for each patch, added in the embeddings: masked patches can be dropped after them.
MASKABLE_TYPES = {
    "vit",
    "deit",
    "vit_msn",
    "ijepa",
    "clip_vision_model",
    "siglip_vision_model",
    "dinov2",
    "dinov2_with_registers",
}
# With a position table for one image size (the DINO models interpolate theirs).
FIXED_SIZE_TYPES = MASKABLE_TYPES - {"dinov2", "dinov2_with_registers"} | {"beit", "data2vec-vision"}

# Whose table is the whole of what depends on the image's size: it can be interpolated to another one.
RESIZABLE_TYPES = {"vit", "deit", "vit_msn", "ijepa", "clip_vision_model", "siglip_vision_model"}

# They apply the last layer norm to the class token only; patches that share the projection need it too.
POST_LAYERNORM_TYPES = {
    "clip_vision_model",
    "altclip_vision_model",
    "chinese_clip_vision_model",
    "metaclip_2_vision_model",
}


def is_hugging_face(backbone: Any) -> bool:
    """Whether this is a Hugging Face model, its configuration, a local folder, or a name of the Hub in the local cache."""
    if isinstance(backbone, str | Path):
        return find_folder(backbone) is not None
    return isinstance(backbone, PreTrainedModel | PretrainedConfig | Mapping)


class HuggingFaceBackbone(nn.Module):
    """A Hugging Face vision model that returns patch features.

    The patches are the cells of a two-dimensional feature map, or the tokens of a sequence without class and register tokens,
    after the model's last layer norm. The embedding is the model's own pooled output, else the class token, else the mean of
    the patches. A dense pooler over the class token (ViT, DeiT) is removed, as in Hugging Face's classifiers.

    Args:
        source: a model; its configuration (object or dictionary with ``model_type``), built with random weights; or a local
            folder with weights, or the name of a model of the Hub that is in the local cache. The vision encoder is taken from
            an image-text model such as CLIP.
        in_channels: channels of the image, also for a dictionary without ``num_channels``. A single channel is repeated over
            the channels of a model that has more.
        image_size: side of the images, also for a dictionary without ``image_size``. By default the model's own, or 224. The
            position table of a folder is interpolated to another size.

    Attributes:
        adapted (list[str]): what was changed in the weights of a folder, as sentences without a full stop.
    """

    def __init__(self, source: Source, in_channels: int = 1, image_size: int | None = None) -> None:
        super().__init__()
        if isinstance(source, Mapping):
            source = {
                "num_channels": in_channels,
                **({} if image_size is None else {"image_size": image_size}),
                **source,
            }
        self.model = build_vision_model(source)
        self.adapted: list[str] = []
        if isinstance(source, str | Path) and image_size is not None:
            self.model = resize_positions(self.model, image_size, self.adapted)
        config = self.model.config
        self.supports_masking = config.model_type in MASKABLE_TYPES
        own_size = getattr(config, "image_size", None)
        own_size = own_size if own_size is None or isinstance(own_size, int) else max(own_size)
        self.image_size = image_size or own_size or 224
        if config.model_type in FIXED_SIZE_TYPES and self.image_size != own_size:
            raise ValueError(
                error_message("image_size", f"be {own_size}, as the model's position table has", image_size)
            )
        channels = getattr(config, "num_channels", 3)
        if in_channels not in (1, channels):
            raise ValueError(error_message("in_channels", f"be 1 or the model's {channels}", in_channels))
        self.channels = channels
        self.stages = len(getattr(config, "depths", ())) or 1
        patch = getattr(config, "patch_stride", None) or getattr(config, "patch_size", None) or 4
        self.patch_size = (patch, patch) if isinstance(patch, int) else tuple(patch)
        self.out_features = self._width()
        if self.supports_masking:
            self.model.embeddings.register_forward_hook(_keep_visible)

    @torch.no_grad()
    def _width(self) -> int:
        """Channels of the patches, from a ViT's configuration, else from a forward pass, as configurations differ."""
        if self.supports_masking:
            return int(self.model.config.hidden_size)
        image = torch.zeros(1, self.channels, self.image_size, self.image_size, device=self.model.device)
        with eval_mode(self.model):
            states = self.model(pixel_values=image.to(self.model.dtype)).last_hidden_state
        return int(states.shape[1 if states.ndim == 4 else 2])

    def to_config(self) -> dict[str, Any]:
        """The model's configuration as a dictionary."""
        config = self.model.config.to_dict()
        config.pop("_name_or_path", None)  # a path on this machine
        return {"num_channels": self.channels, **config}  # missing in BLIP's

    def forward(self, image: torch.Tensor, visible_indices: torch.Tensor | None = None) -> PatchFeatures:
        if image.shape[1] != self.channels:
            image = image.expand(-1, self.channels, -1, -1)
        size = tuple(image.shape[2:])
        self._check_size(size)
        if visible_indices is None:
            output = self.model(pixel_values=image)
        else:
            self.model.embeddings.visible_indices = visible_indices
            self.model.embeddings.patches = math.prod(self._grid(size))
            try:
                output = self.model(pixel_values=image)
            finally:
                self.model.embeddings.visible_indices = None
        states, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
        if states.ndim == 4:
            features = PatchFeatures.from_feature_map(states)
            return features if pooled is None else features._replace(embed=pooled.flatten(1))
        grid = self._grid(size)
        prefix = states.shape[1] - (math.prod(grid) if visible_indices is None else visible_indices.shape[1])
        if prefix < 0:
            raise ValueError(
                f"{type(self.model).__name__} gives {states.shape[1]} tokens for an image of {size} pixels, "
                f"fewer than the {grid[0]} x {grid[1]} patches expected; use sides that are multiples of the model's stride."
            )
        patches = states[:, prefix:]
        if self.model.config.model_type in POST_LAYERNORM_TYPES:
            patches = self.model.post_layernorm(patches)
        if pooled is None:
            pooled = states[:, 0] if prefix else patches.mean(1)
        return PatchFeatures(pooled, patches, grid)

    def _grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        sides = zip(size, self.patch_size, strict=True)
        if self.stages == 1:
            return tuple(side // patch for side, patch in sides)
        return tuple(
            -(-side // (patch * 2 ** (self.stages - 1))) for side, patch in sides
        )  # windowed models pad the image

    def _check_size(self, size: tuple[int, ...]) -> None:
        config = self.model.config
        if config.model_type in FIXED_SIZE_TYPES:
            if any(side != self.image_size for side in size):
                raise ValueError(
                    error_message(
                        "image", f"have sides of {self.image_size} pixels, as the model's position table has", size
                    )
                )
        elif (
            self.stages == 1
            and hasattr(config, "patch_size")
            and any(side % patch for side, patch in zip(size, self.patch_size, strict=True))
        ):
            raise ValueError(
                error_message("image", f"have sides that are multiples of patch_size {self.patch_size}", size)
            )


def _keep_visible(embeddings: Any, inputs: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Keep the visible patches and the class and register tokens in the output of the embeddings."""
    visible_indices = getattr(embeddings, "visible_indices", None)
    if visible_indices is None:
        return tokens
    prefix = tokens.shape[1] - embeddings.patches
    return torch.cat([tokens[:, :prefix], gather_patches(tokens[:, prefix:], visible_indices)], dim=1)


def build_vision_model(source: Source) -> PreTrainedModel:
    """A Hugging Face vision model from itself, its configuration (random weights) or a local folder (its weights)."""
    if isinstance(source, Mapping):
        source = model_config(source, "backbone")
    missing: list[str] = []
    if isinstance(source, PreTrainedModel):
        model = source
    elif isinstance(source, PretrainedConfig):
        model = build_model(source)
    else:
        model, missing = read_model(find_folder(source) or source)
        model.train()
    if hasattr(model.config, "vision_config"):
        model = model.vision_model
    if not isinstance(model, MODEL_MAPPING.get(type(model.config), type(model))):
        model = model.base_model  # without the head of a classifier
    if model.main_input_name != "pixel_values":
        raise ValueError(
            error_message(
                "backbone", "be a vision model", f"{type(model).__name__}, which takes {model.main_input_name}"
            )
        )
    if model.config.model_type == "vit_mae":
        raise ValueError(
            error_message(
                "backbone",
                "see every patch",
                "a ViTMAEModel, which hides and shuffles them itself; give its weights the model_type 'vit'",
            )
        )
    if hasattr(getattr(model, "pooler", None), "dense"):
        model.pooler = None
        missing = [name for name in missing if "pooler." not in name]
    if missing:
        raise ValueError(f"the folder {source} lacks the weights {', '.join(missing)} of its {type(model).__name__}.")
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)  # for the model's own masked pre-training, not used here
    return model


@torch.no_grad()
def resize_positions(model: PreTrainedModel, image_size: int, adapted: list[str]) -> PreTrainedModel:
    """The model for images of another size, with its position table interpolated; itself if no table depends on the size.

    Args:
        model: the model.
        image_size: side of the images.
        adapted: what was done is added to this list.
    """
    config = model.config
    if config.model_type not in RESIZABLE_TYPES or config.image_size == image_size or image_size % config.patch_size:
        return model
    config = type(config).from_dict({**config.to_dict(), "image_size": image_size})
    resized = build_vision_model(type(model)(config))
    own = resized.state_dict()
    for name, value in model.state_dict().items():
        converted = fit_weight(name, value, own[name], adapted)
        if converted is None:
            return model
        own[name].copy_(converted)
    return resized.train(model.training)
