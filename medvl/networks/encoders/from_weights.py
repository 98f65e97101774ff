"""Image backbones with published weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.networks.nets.resnet import resnet_params
from torch import nn

from medvl.networks.encoders.backbones import DENSENETS, RESNETS, VITS, HuggingFaceBackbone, build_backbone
from medvl.networks.encoders.published import READ, LoadReport, Tower, find_family, load_tower, read_tower
from medvl.networks.encoders.weight_files import NAMES
from medvl.utils.checks import check_positive, error_message
from medvl.utils.limits import read_small_text

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class Weighted(NamedTuple):
    """A backbone with published weights.

    Attributes:
        network: the backbone.
        config: its description for ``ImageEncoder.to_config``.
        image_size: side of the images.
        normalization: mean and standard deviation of the input; None for none.
        report: what was loaded.
    """

    network: nn.Module
    config: dict[str, Any]
    image_size: int
    normalization: Normalization | None
    report: LoadReport


def is_weights(source: object) -> bool:
    """Whether this is a file of weights, or a folder with one that is no model folder of Hugging Face, as timm's.

    Example:
        >>> is_weights("resnet50"), is_weights(None)
        (False, False)
    """
    if not isinstance(source, str | Path):
        return False
    path = Path(source).expanduser()
    if not os.path.isdir(path):
        return os.path.isfile(path)
    config = path / "config.json"
    return any((path / name).is_file() for name in NAMES) and not (
        config.is_file() and '"model_type"' in read_small_text(config)
    )


def backbone_of(path: str | Path) -> str | dict[str, Any]:
    """The backbone whose published weights are at a path: a name, or a dictionary with a ``model_type`` of Hugging Face.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the weights are of no layout that is read, or of a size without a name.
    """
    family, options = find_family(path)
    names: dict[str, dict[str, Any]] = {}
    if family == "resnet":
        names = {name: _sizes(name, family) for name in RESNETS}
    elif family == "densenet":
        names = {name: _sizes(name, family) for name in DENSENETS}
    elif family is not None:
        return family if family == "vit" else {"model_type": family}
    found = [name for name, sizes in names.items() if all(options[key] == value for key, value in sizes.items())]
    if not found:
        got = "another layout" if family is None else f"a {family} of other sizes, {options}"
        raise ValueError(error_message(f"weights in {path}", f"be those of {', '.join(READ.values())}", got))
    return found[0]


def build_with_weights(
    backbone: str | Mapping[str, Any],
    path: str | Path,
    spatial_dims: int,
    in_channels: int,
    image_size: int | None,
    given: Normalization | None,
    options: Mapping[str, Any],
) -> Weighted:
    """Build a backbone for published weights, and load them.

    Args:
        backbone: the name of one of MONAI's networks, or a dictionary with a ``model_type`` of Hugging Face.
        path: the file or folder of the weights.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        image_size: side of the images; None for that of the weights, or 224.
        given: a normalization in place of that of the weights.
        options: options of the backbone, which the weights complete.

    Raises:
        ValueError: If the weights are not of a layout that is read for the backbone.
    """
    build = _build_named if isinstance(backbone, str) else _build_hugging_face
    return build(backbone, path, spatial_dims, in_channels, image_size, given, options)  # type: ignore[arg-type]


def _build_named(
    name: str,
    path: str | Path,
    spatial_dims: int,
    in_channels: int,
    image_size: int | None,
    given: Normalization | None,
    options: Mapping[str, Any],
) -> Weighted:
    family = _family(name)
    tower = read_tower(path, family, own_layout=False, monai=True)
    _check_dims(tower, spatial_dims)
    merged = tower.merge(name, {**_sizes(name, family), **options})
    for fact in ("layers", "block"):
        merged.pop(fact, None)
    normalization = _normalization(tower, given)
    channels = max(map(len, normalization)) if normalization else 1
    if channels > 1:
        if in_channels not in (1, channels):
            raise ValueError(error_message("in_channels", f"be 1 or the {channels} of the weights", in_channels))
        if in_channels == 1:
            tower.notes.append("a single channel is repeated over 3, which are normalized each")
    size = image_size or tower.image_size or 224
    network = build_backbone(name, spatial_dims, in_channels if channels == 1 else channels, size, **merged)
    report = load_tower(network, tower)
    return Weighted(network, {"backbone": name, **merged}, size, normalization, report)


def _build_hugging_face(
    config: Mapping[str, Any],
    path: str | Path,
    spatial_dims: int,
    in_channels: int,
    image_size: int | None,
    given: Normalization | None,
    options: Mapping[str, Any],
) -> Weighted:
    family = str(config.get("model_type"))
    tower = read_tower(path, family, own_layout=True, monai=False)
    _check_dims(tower, spatial_dims)
    values = {"model_type": family, **tower.merge(family, {k: v for k, v in config.items() if k != "model_type"})}
    size = image_size or tower.image_size
    if size is not None and "image_size" not in config:
        values["image_size"] = size
    network = HuggingFaceBackbone(values, in_channels, size)
    report = load_tower(network, tower)
    return Weighted(
        network, {"backbone": network.to_config()}, network.image_size, _normalization(tower, given), report
    )


def read_normalization(
    mean: float | Sequence[float] | None, std: float | Sequence[float] | None
) -> Normalization | None:
    """The arguments ``input_mean`` and ``input_std`` as tuples, None without either.

    Raises:
        ValueError: If they are not numbers, one or one for each channel, or a deviation is not above 0.
    """
    if mean is None and std is None:
        return None
    pair = tuple(_numbers(value, default) for value, default in ((mean, 0.0), (std, 1.0)))
    for value in pair[1]:
        check_positive(value, "input_std")
    if len({len(values) for values in pair} - {1}) > 1:
        raise ValueError(error_message("input_std", f"have {len(pair[0])} values, as input_mean", len(pair[1])))
    return pair[0], pair[1]


def _numbers(value: float | Sequence[float] | None, default: float) -> tuple[float, ...]:
    """One number where all are equal, else one for each channel."""
    values = (
        (default if value is None else value,) if value is None or not isinstance(value, Sequence) else tuple(value)
    )
    return tuple(map(float, values[:1] if len(set(values)) == 1 else values))


def _normalization(tower: Tower, given: Normalization | None) -> Normalization | None:
    if given is not None:
        tower.notes[:] = [note for note in tower.notes if "input" not in note]
        return given
    return read_normalization(tower.mean, tower.std)


def _family(name: str) -> str:
    """The family of layouts for one of MONAI's networks."""
    for family, names in (("resnet", RESNETS), ("densenet", DENSENETS), ("vit", VITS)):
        if name in names:
            return family
    expected = (
        "be a ResNet, a DenseNet or a ViT to be given weights; a dictionary such as {'model_type': 'swin'} takes those of a "
        "Hugging Face model"
    )
    raise ValueError(error_message("backbone", expected, repr(name)))


def _sizes(name: str, family: str) -> dict[str, Any]:
    """What the name of a network says of its size, which the weights must have too."""
    if family == "resnet":
        return {"layers": tuple(resnet_params[name][1]), "block": resnet_params[name][0]}
    if family == "densenet":
        return {"block_config": DENSENETS[name]}
    return {} if name == "vit" else dict(VITS[name])


def _check_dims(tower: Tower, spatial_dims: int) -> None:
    if spatial_dims != tower.spatial_dims:
        expected = f"be {tower.spatial_dims}, as in the weights {tower.path}"
        raise ValueError(error_message("spatial_dims", expected, spatial_dims))
