"""Feature maps of any image encoder: the stages of a convolutional network, or the patch grid of a transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medvl.utils.checks import error_message
from medvl.utils.modes import eval_mode

STAGES = 4
"""Number of stages used, the coarsest ones: those of a ResNet, at 1/4 to 1/32 of the image's side."""

EXTRA_TOKENS = 8
"""Largest number of class and register tokens before the patches of a transformer."""


def dense_features(model: Any, frozen: bool = True) -> Callable[[Tensor], list[Tensor]]:
    """A function from images (N, C, H, W[, D]) to feature maps (N, C', h, w[, d]), from the finest to the coarsest.

    It takes the first of these that ``model`` has:

    - ``feature_maps(image)``, a map or a list of maps;
    - ``image_encoder`` (a :class:`~medvl.networks.DualEncoder`) or ``vision_model`` (Hugging Face), or the model itself
      where it is a torch module: the last output of every size that its layers pass through, the four coarsest of them
      (the stages of a ResNet, a DenseNet, a U-Net), or, where there is one size only (a vision transformer), the patches
      of its output;
    - ``encode_patches(image)``, patch embeddings (N, P, D) with their grid;
    - the model, a plain callable that gives a map, a list of maps, or patches (N, P, C).

    Layers are read by temporary forward hooks; the model is not changed.

    Args:
        model: the model.
        frozen: whether the model runs without gradients and in evaluation mode, after which its mode is restored; False to
            train it with what is learned on its maps.

    Returns:
        The function, from images (N, C, H, W[, D]) to maps (N, C', h, w[, d]).

    Raises:
        TypeError: If the model has none of these.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 2, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 2, stride=2))
        >>> [tuple(features.shape) for features in dense_features(network)(torch.zeros(3, 1, 16, 16))]
        [(3, 4, 8, 8), (3, 8, 4, 4)]
    """
    owner, features = _reader(model)
    return _frozen(owner, features) if frozen else features


def _reader(model: Any) -> tuple[Any, Callable[[Tensor], list[Tensor]]]:
    """What the maps are read of, and the function that reads them."""
    own = getattr(model, "feature_maps", None)
    if callable(own):
        return model, (lambda image: _as_maps(own(image), image))
    encoders = (getattr(model, "image_encoder", None), getattr(model, "vision_model", None), model)
    encoder = next((encoder for encoder in encoders if isinstance(encoder, nn.Module)), None)
    if encoder is not None:
        return encoder, (lambda image: _module_maps(encoder, _fit_channels(encoder, image)))
    patches = getattr(model, "encode_patches", None)
    if callable(patches):
        return model, (lambda image: [_patch_map(*patches(image))])
    if callable(model):
        return model, (lambda image: _as_maps(model(image), image))
    expected = "have feature_maps, image_encoder, vision_model or encode_patches, or be callable"
    raise TypeError(error_message("model", expected, type(model).__name__))


def _frozen(model: Any, features: Callable[[Tensor], list[Tensor]]) -> Callable[[Tensor], list[Tensor]]:
    def run(image: Tensor) -> list[Tensor]:
        # Not inference mode: what is learned on these maps needs ordinary tensors.
        with eval_mode(model), torch.no_grad():
            return [features_.detach() for features_ in features(image)]

    return run


def _fit_channels(encoder: nn.Module, image: Tensor) -> Tensor:
    """Gray images repeated for a Hugging Face model that is configured for color."""
    channels = getattr(getattr(encoder, "config", None), "num_channels", image.shape[1])
    return image.expand(-1, channels, *image.shape[2:]) if image.shape[1] == 1 < channels else image


def _module_maps(encoder: nn.Module, image: Tensor) -> list[Tensor]:
    """The last output of each size; the patches of the final output where fewer than two sizes were passed."""
    by_size: dict[tuple[int, ...], Tensor] = {}

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and _is_stage(output, image):
            by_size[tuple(output.shape[2:])] = output

    handles = [module.register_forward_hook(keep) for module in encoder.modules()]
    try:
        output = encoder(image)
    finally:
        for handle in handles:
            handle.remove()
    if len(by_size) < 2:
        return _as_maps(output, image)
    return [by_size[size] for size in sorted(by_size, reverse=True)[-STAGES:]]


def _is_stage(output: Tensor, image: Tensor) -> bool:
    """Whether a layer's output is a map of the image, smaller than it and of its proportions; (N, C, 1, 1) is a mean."""
    if output.ndim != image.ndim or len(output) != len(image) or max(output.shape[2:]) == 1:
        return False
    ratios = [side / own for side, own in zip(image.shape[2:], output.shape[2:], strict=True)]
    # A side that does not divide is rounded, so proportions are equal to within one cell.
    alike = all(abs(side / ratios[0] - own) <= 1 for side, own in zip(image.shape[2:], output.shape[2:], strict=True))
    return min(ratios) > 1.5 and alike


def _as_maps(output: Any, image: Tensor) -> list[Tensor]:
    """A model's output as a list of maps, finest first."""
    if isinstance(output, Mapping) and "patches" in output and "grid" in output:
        return [_patch_map(output["patches"], output["grid"])]
    if hasattr(output, "last_hidden_state"):
        output = output.last_hidden_state
    if isinstance(output, Tensor):
        output = [output]
    if not isinstance(output, Sequence) or not all(isinstance(features, Tensor) for features in output) or not output:
        expected = "be a tensor (N, C, h, w[, d]) or (N, P, C), or a list of them"
        raise TypeError(error_message("feature maps", expected, type(output).__name__))
    maps = [features if features.ndim == image.ndim else _token_map(features, image) for features in output]
    return sorted(maps, key=lambda features: -features[0, 0].numel())


def _patch_map(patches: Tensor, grid: Sequence[int]) -> Tensor:
    """Patches (N, P, C) as a map (N, C, h, w[, d])."""
    return patches.transpose(1, 2).unflatten(2, tuple(int(side) for side in grid))


def _token_map(tokens: Tensor, image: Tensor) -> Tensor:
    """Tokens (N, L, C), class tokens first, as a map of the image's proportions."""
    if tokens.ndim != 3:
        expected = f"have {image.ndim} axes as the images, or be tokens (N, P, C)"
        raise ValueError(error_message("feature maps", expected, tuple(tokens.shape)))
    sides = image.shape[2:]
    shortest = min(sides)
    for cells in range(min(tokens.shape[1], shortest), 0, -1):
        grid = [round(cells * side / shortest) for side in sides]
        number = int(torch.tensor(grid).prod())
        if number <= tokens.shape[1]:
            if tokens.shape[1] - number <= EXTRA_TOKENS:
                return _patch_map(tokens[:, tokens.shape[1] - number :], grid)
            break
    raise ValueError(
        f"{tokens.shape[1]} tokens are no grid of the proportions of an image {tuple(sides)}, with at most {EXTRA_TOKENS} "
        "class tokens before it; give the model a feature_maps method."
    )
