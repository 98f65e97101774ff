"""Reading the published weights of an image encoder: recognizing their layout, and what they say of the architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from medvl.networks.encoders.published.convolutional import read_convnext, read_densenet, read_resnet
from medvl.networks.encoders.published.transformer import read_swin, read_vit
from medvl.networks.encoders.weight_files import read_weights
from medvl.utils.checks import error_message
from medvl.utils.errors import plain_reason
from medvl.utils.limits import TEXT, check_size

Weights = dict[str, Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FREE = {"output_stride", "dilated", "num_heads", "num_attention_heads", "layer_norm_eps"}
"""Options that the weights suggest, and that may be chosen otherwise."""
VIT_HEADS = {1280: 16, 1408: 16, 1664: 16}
"""Attention heads of the ViTs "huge", "giant" and "gigantic", by their width; others have one for each 64 channels."""
READ = {
    "resnet": "a ResNet of torchvision, timm, RadImageNet, TorchXRayVision or MedicalNet",
    "densenet": "a DenseNet of torchvision, timm, RadImageNet or TorchXRayVision",
    "vit": "a ViT of torchvision or timm",
    "swin": "a Swin of torchvision, timm or Microsoft",
    "convnext": "a ConvNeXt of torchvision, timm or Facebook",
}
"""What is read for which family of backbones, for messages."""
_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"^layer1\.0\.conv1\.weight$", "resnet"),
    (r"^features\.denseblock1\.", "densenet"),
    (r"^(?:blocks\.0\.attn\.qkv|encoder\.layers\.encoder_layer_0\.ln_1)\.weight$", "vit"),
    (r"^(?:layers\.0\.blocks\.0|features\.1\.0)\.attn\.qkv\.weight$", "swin"),
    (r"^(?:stages\.0\.0\.dwconv|stages\.0\.blocks\.0\.conv_dw|features\.1\.0\.block\.0)\.weight$", "convnext"),
)
_READERS: dict[str, Callable[[Weights, bool], dict[str, Any]]] = {
    "resnet": read_resnet,
    "densenet": read_densenet,
    "vit": read_vit,
    "swin": read_swin,
    "convnext": read_convnext,
}
# The numbers of torchvision's ResNet's parts, whose names RadImageNet's nn.Sequential lost.
_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_RADIMAGENET = re.compile(r"backbone\.\d+\.")
_THRESHOLDS = "op_threshs"  # of TorchXRayVision
# A weight that each family has, behind the prefix of a larger model's image encoder.
_INSIDE = re.compile(
    r"(.+\.)(?:layer1\.0\.conv1|features\.denseblock1\.denselayer1\.norm\.?1|(?<!layers\.\d\.)blocks\.0\.attn\.qkv|encoder\.layers\.encoder_layer_0\.ln_1"
    r"|features\.1\.0\.(?:attn\.qkv|block\.0)|layers\.0\.blocks\.0\.attn\.qkv|stages\.0\.0\.dwconv|stages\.0\.blocks\.0\.conv_dw)\.weight"
)


@dataclass
class Tower:
    """The published weights of an image encoder.

    Args:
        path: the file or folder.
        family: "resnet", "densenet", "vit", "swin" or "convnext"; None for another Hugging Face model's own layout.
        weights: by the names of the backbone here.
        origin: the published name of each of them.
        options: options of the backbone that the weights imply.
        unused: published names of weights that no backbone has, with the reason.
        notes: what was assumed, for the log.
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        image_size: side of the images for the position table; None without one.
        mean: mean of the input, for values in [0, 1]; None if the layout does not tell.
        std: standard deviation of the input.
    """

    path: Path
    family: str | None
    weights: Weights
    origin: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    spatial_dims: int = 2
    in_channels: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def merge(self, backbone: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the weights and those that are given, which must not contradict them.

        Raises:
            ValueError: If an option is given that the weights rule out.
        """
        for name in sorted(self.options.keys() & given.keys() - FREE):
            if _plain(given[name]) != _plain(self.options[name]):
                expected = f"be {self.options[name]!r}, as in the weights {self.path}"
                raise ValueError(error_message(f"{name} of {backbone}", expected, repr(given[name])))
        return {**self.options, **given}


def read_tower(path: str | Path, family: str, own_layout: bool, monai: bool) -> Tower:
    """Read published weights for a backbone.

    Args:
        path: a file or folder of weights, see :func:`~medvl.networks.encoders.weight_files.read_weights`.
        family: the family of the backbone, such as "resnet", or the ``model_type`` of a Hugging Face model.
        own_layout: whether weights of no known family are taken as those of the Hugging Face model itself.
        monai: whether the backbone is MONAI's, else Hugging Face's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged, holds more than weights, or is of no layout that is read for this family.
    """
    path = Path(path).expanduser()
    published = read_weights(path)
    names = _standard_names(published)
    standard = {new: published[old] for new, old in names.items()}
    beside = published.keys() - set(names.values())
    found = _find_family(standard)
    if found != family:
        if own_layout and found is None:
            return Tower(path, None, standard, names)
        read = READ.get(family, f"the backbone {family}")
        what = f"those of {READ[found]}" if found else f"the names {', '.join(sorted(standard)[:3])} ..."
        raise ValueError(error_message(f"weights in {path}", f"be those of {read}", what))
    facts = _read_layout(family, standard, monai, path)
    origin = {new: names[old] for new, old in facts.pop("origin").items()}
    unused = {names[name]: reason for name, reason in facts.pop("unused").items()}
    unused |= dict.fromkeys(sorted(beside), "another part of the model")
    tower = Tower(path, family, origin=origin, unused=unused, **facts)
    _set_heads(tower, monai)
    _set_normalization(tower, standard, any(map(_RADIMAGENET.match, published)))
    return tower


def find_family(path: str | Path) -> tuple[str | None, dict[str, Any]]:
    """The family of published weights, None for one that is not read, and the options of a backbone that they imply.

    Args:
        path: a file or folder of weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged or holds more than weights.
    """
    published = read_weights(path)
    standard = {new: published[old] for new, old in _standard_names(published).items()}
    family = _find_family(standard)
    return family, {} if family is None else _read_layout(family, standard, True, path)["options"]


def _read_layout(family: str, standard: Weights, monai: bool, path: str | Path) -> dict[str, Any]:
    """What a family's reader makes of the weights; ``ValueError`` if those that it goes by are missing or of another shape."""
    try:
        return _READERS[family](standard, monai)
    except (KeyError, IndexError) as error:
        got = f"weights without {error.args[0]}" if isinstance(error, KeyError) else "one with too few axes"
        raise ValueError(error_message(f"weights in {path}", f"be those of {READ[family]}", got)) from error


def _set_heads(tower: Tower, monai: bool) -> None:
    """The number of attention heads of a ViT that is not one for each 64 channels: it cannot be seen in the weights."""
    if tower.family != "vit":
        return
    width = tower.options["hidden_size"]
    arguments = _timm_config(tower.path).get("model_args")
    stated = arguments.get("num_heads") if isinstance(arguments, dict) else None
    heads = stated if type(stated) is int and stated > 0 else VIT_HEADS.get(width)
    if heads is not None:
        tower.options["num_heads" if monai else "num_attention_heads"] = heads


def _find_family(names: Weights) -> str | None:
    return next((kind for pattern, kind in _FAMILIES if any(re.search(pattern, name) for name in names)), None)


def _standard_names(published: Weights) -> dict[str, str]:
    """The names of torchvision or timm, to the published ones.

    Prefixes are removed, RadImageNet's numbers are named, and of a larger model the image encoder alone is kept, if it has one.
    """
    prefixes = [prefix for prefix in ("model.", "backbone.") if _all_begin(published, prefix)]
    names = {name.removeprefix(prefixes[0]) if prefixes else name: name for name in published}
    inside = {match[1] for name in names if (match := _INSIDE.fullmatch(name))}
    if len(inside) == 1:  # the image encoder of a larger model
        prefix = inside.pop()
        names = {name.removeprefix(prefix): old for name, old in names.items() if name.startswith(prefix)}
    if "0.weight" in names and "4.0.conv1.weight" in names:
        return {f"{_PARTS.get(name.split('.')[0], '?')}.{name.partition('.')[2]}": old for name, old in names.items()}
    if "0.conv0.weight" in names:
        return {f"features.{name.removeprefix('0.')}": old for name, old in names.items()}
    return names


def _all_begin(published: Weights, prefix: str) -> bool:
    return all(name.startswith(prefix) for name in published if name != _THRESHOLDS)


def _set_normalization(tower: Tower, weights: Weights, is_radimagenet: bool) -> None:
    """The mean and the deviation of the input that the layout, or a configuration of timm beside it, tells."""
    heads = [weights[name] for name in ("classifier.weight", "fc.weight") if name in weights]
    is_xray = tower.in_channels == 1 and (_THRESHOLDS in weights or any(len(head) == 18 for head in heads))
    if stated := _timm_normalization(tower.path):
        tower.mean, tower.std = stated
    elif tower.spatial_dims == 3:
        tower.notes.append("no normalization of the input (MedicalNet's is by the mean and deviation of each volume)")
    elif is_radimagenet:
        tower.mean, tower.std = (0.5,), (0.5,)
        tower.notes.append("input of [-1, 1] as for RadImageNet")
    elif is_xray:
        tower.mean, tower.std = (0.5,), (1 / 2048,)
        tower.notes.append("input of [-1024, 1024] as for TorchXRayVision")
    elif tower.in_channels == 3:
        tower.mean, tower.std = IMAGENET
        tower.notes.append("input normalized as for ImageNet (input_mean and input_std say otherwise)")


def _timm_normalization(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """What the configuration of a model of timm says, ``config.json`` beside the weights."""
    config = _timm_config(path)
    try:
        stated = config["pretrained_cfg"]
        mean, std = (tuple(float(value) for value in stated[name]) for name in ("mean", "std"))
    except (KeyError, TypeError):
        return None
    except ValueError as error:
        raise ValueError(f"config.json of {path} is damaged: {plain_reason(error)}.") from error
    return mean, std


def _timm_config(path: Path) -> dict[str, Any]:
    """The content of ``config.json`` beside the weights; nothing without one.

    Raises:
        ValueError: If the file is damaged.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    check_size(file.stat().st_size, str(file), TEXT)
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {plain_reason(error)}.") from error
    return content if isinstance(content, dict) else {}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
