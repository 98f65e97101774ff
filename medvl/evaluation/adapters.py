"""Adapters that give any model the interface of the protocols: ``encode_image``, ``encode_text`` and, where it has
patches, ``encode_patches`` and ``feature_maps``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medvl.utils.checks import error_message

TEXTS_AT_ONCE = 256


class FunctionModel(nn.Module):
    """A model from plain functions.

    Torch modules among the functions, or whose methods they are, are registered as submodules, so that the protocols can
    switch them to evaluation mode and back.

    Args:
        encode_image: from images (N, C, H, W[, D]) to (N, D).
        encode_text: from M strings to (M, D).
        encode_patches: from images to patch embeddings (N, P, D) and their grid (h, w[, d]); for grounding.
        feature_maps: from images to maps (N, C', h, w[, d]), one or a list; for segmentation. None takes the patches.
        logit_scale: 1 / tau, for probabilities; None for the protocols' default.

    Example:
        >>> model = FunctionModel(lambda images: images.mean((2, 3)), lambda texts: torch.ones(len(texts), 1))
        >>> model.encode_image(torch.ones(2, 1, 4, 4)).shape, hasattr(model, "encode_patches")
        (torch.Size([2, 1]), False)
    """

    def __init__(
        self,
        encode_image: Callable[[Tensor], Tensor],
        encode_text: Callable[[Sequence[str]], Tensor],
        *,
        encode_patches: Callable[[Tensor], tuple[Tensor, Sequence[int]]] | None = None,
        feature_maps: Callable[[Tensor], Any] | None = None,
        logit_scale: float | None = None,
    ) -> None:
        super().__init__()
        functions = {
            "encode_image": encode_image,
            "encode_text": encode_text,
            "encode_patches": encode_patches,
            "feature_maps": feature_maps,
        }
        given = {name: function for name, function in functions.items() if function is not None}
        for name, function in given.items():
            if not callable(function):
                raise TypeError(error_message(name, "be callable", type(function).__name__))
        if encode_patches is not None and feature_maps is None:
            given["feature_maps"] = self._patch_maps
        owners = [getattr(function, "__self__", function) for function in functions.values()]
        self.parts = nn.ModuleList(dict.fromkeys(owner for owner in owners if isinstance(owner, nn.Module)))
        # Not by Module.__setattr__, which would register a function that is a module a second time.
        self.__dict__.update(given)
        if logit_scale is not None:
            self.logit_scale = float(logit_scale)

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D) of images (N, C, H, W); the same as ``encode_image``."""
        encode: Any = self.encode_image
        return encode(images)

    def _patch_maps(self, images: Tensor) -> Tensor:
        """Patch embeddings as maps (N, D, h, w[, d])."""
        encode: Any = self.encode_patches
        patches, grid = encode(images)
        return patches.transpose(1, 2).unflatten(2, tuple(int(side) for side in grid))


class HuggingFaceModel(nn.Module):
    """A Hugging Face image-text model (``CLIPModel``, ``SiglipModel``, ``VisionTextDualEncoderModel`` and the like).

    Gray images are repeated for a model with color channels, and images of other sizes are resized. With a processor, or a
    mean and standard deviation, images in [0, 1] are standardized as in the training of the model.

    Args:
        model: an object with ``get_image_features`` and ``get_text_features``. It is used, not copied.
        processor: the model's processor, with its tokenizer and image processor, or a tokenizer alone: a function from M
            strings to ``input_ids`` and ``attention_mask`` with the arguments ``padding``, ``truncation``, ``max_length`` and
            ``return_tensors`` of Hugging Face's.
        image_mean: of each channel; None takes the image processor's.
        image_std: of each channel; None takes the image processor's.
        max_length: tokens at most; None takes the text model's positions.
        padding: as the tokenizer takes it; SigLIP was trained with ``"max_length"``.

    Raises:
        TypeError: If the model or the processor does not have these methods.

    Example:
        >>> from transformers import CLIPConfig, CLIPModel
        >>> sizes = dict(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
        >>> clip = CLIPModel(CLIPConfig(
        ...     text_config=dict(vocab_size=40, eos_token_id=2, **sizes),
        ...     vision_config=dict(image_size=16, patch_size=8, **sizes), projection_dim=4))
        >>> def tokenizer(texts, **options):
        ...     return {"input_ids": torch.tensor([[5, len(text) % 30 + 3, 2] for text in texts])}
        >>> model = HuggingFaceModel(clip, tokenizer)
        >>> images = torch.rand(3, 1, 20, 20)
        >>> model.encode_image(images).shape, model.encode_text(["Clear.", "Effusion."]).shape
        (torch.Size([3, 4]), torch.Size([2, 4]))
        >>> patches, grid = model.encode_patches(images)
        >>> patches.shape, grid, round(float(model.logit_scale), 1)
        (torch.Size([3, 4, 4]), (2, 2), 14.3)
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        max_length: int | None = None,
        padding: bool | str = True,
    ) -> None:
        super().__init__()
        for name in ("get_image_features", "get_text_features"):
            if not callable(getattr(model, name, None)):
                raise TypeError(error_message("model", f"have {name}, as CLIPModel has", type(model).__name__))
        self.model = model
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if not callable(self.tokenizer):
            raise TypeError(error_message("processor", "be a processor or a tokenizer", type(processor).__name__))
        images = getattr(processor, "image_processor", None)
        mean = getattr(images, "image_mean", None) if image_mean is None else image_mean
        deviation = getattr(images, "image_std", None) if image_std is None else image_std
        self.register_buffer("image_mean", None if mean is None else torch.tensor(mean), persistent=False)
        self.register_buffer("image_std", None if deviation is None else torch.tensor(deviation), persistent=False)
        config: Any = model.config
        self.vision_config, text_config = config.vision_config, config.text_config
        self.max_length = max_length or getattr(text_config, "max_position_embeddings", None)
        self.padding = padding

    @property
    def logit_scale(self) -> Tensor:
        """1 / tau (); Hugging Face's models keep its logarithm."""
        scale: Any = self.model.logit_scale
        return scale.detach().exp()

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D) of images (N, C, H, W)."""
        features: Any = self.model.get_image_features
        return F.normalize(_pooled(features(pixel_values=self.prepare(images))).float(), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (M, D) of M strings, cut at the model's length."""
        features: Any = self.model.get_text_features
        texts, parts = list(texts), []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            tokens = self.tokenizer(
                texts[start : start + TEXTS_AT_ONCE],
                padding=self.padding,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            kept = {key: tokens[key].to(self.device) for key in ("input_ids", "attention_mask") if key in tokens}
            parts.append(F.normalize(_pooled(features(**kept)).float(), dim=-1))
        return torch.cat(parts)

    def encode_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Unit vectors (N, P, D) of patches in the joint space, and their grid (h, w).

        The projection of the pooled vector is applied to each patch, for which the model was not trained.
        """
        maps = self.feature_maps(images)
        patches = maps.flatten(2).transpose(1, 2)
        norm, projection = _part(self.model, "post_layernorm"), getattr(self.model, "visual_projection", None)
        if norm is not None and not _normalizes_tokens(self.model):
            patches = norm(patches)
        if projection is not None:
            patches = projection(patches)
        return F.normalize(patches.float(), dim=-1), tuple(maps.shape[2:])

    def feature_maps(self, images: Tensor) -> Tensor:
        """The image encoder's last hidden state as a map (N, C, h, w)."""
        pixels = self.prepare(images)
        encoder: Any = self.model.vision_model
        tokens = encoder(pixel_values=pixels).last_hidden_state
        if tokens.ndim == 4:
            return tokens
        size = self.vision_config.patch_size
        grid = tuple(side // size for side in pixels.shape[2:])
        extra = tokens.shape[1] - grid[0] * grid[1]
        if extra < 0:
            raise ValueError(
                f"The {tokens.shape[1]} tokens are fewer than the patches {grid} of images {tuple(pixels.shape)}."
            )
        return tokens[:, extra:].transpose(1, 2).unflatten(2, grid)

    def prepare(self, images: Tensor) -> Tensor:
        """Images as the image encoder takes them (N, C, S, S).

        Raises:
            ValueError: For volumes, or a number of channels that is neither one nor the model's.
        """
        images = images.as_subclass(Tensor).to(self.device, torch.get_default_dtype())
        channels, size = getattr(self.vision_config, "num_channels", 3), getattr(self.vision_config, "image_size", None)
        if images.ndim != 4 or images.shape[1] not in (1, channels):
            expected = f"have shape (N, 1, H, W) or (N, {channels}, H, W)"
            raise ValueError(error_message("images", expected, tuple(images.shape)))
        sides = (size, size) if isinstance(size, int) else size
        if sides is not None and tuple(images.shape[2:]) != tuple(sides):
            images = F.interpolate(images, size=tuple(sides), mode="bicubic", antialias=True)
        images = images.expand(-1, channels, -1, -1)
        if isinstance(self.image_mean, Tensor) and isinstance(self.image_std, Tensor):
            images = (images - self.image_mean.view(-1, 1, 1)) / self.image_std.view(-1, 1, 1)
        return images

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device


def _pooled(output: Any) -> Tensor:
    """The projected vectors, which Hugging Face returns as such or, since version 5, as ``pooler_output``."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _part(model: nn.Module, name: str) -> nn.Module | None:
    """The image encoder's module of that name, wherever it sits."""
    encoder: Any = model.vision_model
    return next((module for path, module in encoder.named_modules() if path.split(".")[-1] == name), None)


def _normalizes_tokens(model: nn.Module) -> bool:
    """Whether the last hidden state went through ``post_layernorm`` already, as SigLIP's does and CLIP's does not."""
    return "siglip" in str(getattr(getattr(model, "config", None), "model_type", "")).lower()
