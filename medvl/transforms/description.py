"""Deterministic transforms as plain data for a model's folder, and transforms made from that."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monai.transforms import Compose, MapTransform, Randomizable

from medvl.transforms.study import StudyMapTransform
from medvl.utils.targets import Allowed, describe, describe_as, make

ALLOWED = {
    "medvl.transforms": (
        "LoadStudyImaged",
        "RadiographIntensityd",
        "ResizeLongestd",
        "PadToSquared",
        "ExtractSectionsd",
    ),
    "monai.transforms.utility.dictionary": (
        "CastToTyped",
        "EnsureChannelFirstd",
        "EnsureTyped",
        "RepeatChanneld",
        "SqueezeDimd",
        "Transposed",
    ),
}
ALLOWED_MODULES = tuple(f"monai.transforms.{kind}.dictionary" for kind in ("croppad", "intensity", "spatial"))
"""What a model's folder may name: transforms of pixels and of report text that read and write nothing else."""


def is_allowed(transform: type) -> bool:
    """Whether a class may be made from the description in a model's folder without trust in its package.

    Example:
        >>> from monai.transforms import Lambdad, ScaleIntensityRanged
        >>> is_allowed(ScaleIntensityRanged), is_allowed(Lambdad)
        (True, False)
    """
    if issubclass(transform, Randomizable):
        return False
    if issubclass(transform, StudyMapTransform):
        return (
            transform.__module__.startswith("medvl.transforms.") and transform.__name__ in ALLOWED["medvl.transforms"]
        )
    return transform.__module__ in ALLOWED_MODULES or transform.__name__ in ALLOWED.get(transform.__module__, ())


def describe_transform(transform: Any) -> dict[str, Any]:
    """A dictionary transform as plain data: its class and its arguments.

    Args:
        transform: one of medvl, or one that a configuration made (:class:`medvl.workflows.RecipeWorkflow` remembers how).

    Returns:
        ``{"_target_": name of the class, argument: value, ...}``.

    Raises:
        ValueError: If its arguments are not known, or not plain data.

    Example:
        >>> from medvl.transforms import PadToSquared
        >>> describe_transform(PadToSquared("image", value=0))
        {'_target_': 'medvl.transforms.image.PadToSquared', 'keys': ['image'], 'value': 0, 'allow_missing_keys': False}
    """
    if isinstance(transform, StudyMapTransform) and type(transform).__module__.startswith("medvl.transforms."):
        names = inspect.signature(type(transform)).parameters
        owners = (transform, transform.transform)
        found = {name: getattr(owner, name) for name in names for owner in owners if hasattr(owner, name)}
        if set(found) == set(names):
            return describe_as(transform, found)
    return describe(transform)


def make_transforms(descriptions: Iterable[Mapping[str, Any]], trusted_packages: Sequence[str] = ()) -> Compose:
    """The transforms that were described, one after the other.

    Only transforms of medvl and MONAI that work on pixels or report text are made; others need trust in their package, whose
    code is then imported and run.

    Args:
        descriptions: of :func:`describe_transform`.
        trusted_packages: names of packages.

    Raises:
        ValueError: If a transform is not allowed, or cannot be made.

    Example:
        >>> import torch
        >>> steps = [{"_target_": "monai.transforms.intensity.dictionary.ScaleIntensityd", "keys": ["image"], "maxv": 2.0}]
        >>> make_transforms(steps)({"image": torch.tensor([[0.0, 5.0]])})["image"].tolist()
        [[0.0, 2.0]]
    """
    allowed = Allowed(MapTransform, ("medvl.transforms", "monai.transforms"), is_allowed)
    return Compose([make(description, allowed, trusted_packages) for description in descriptions])
