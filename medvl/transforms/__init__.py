"""MONAI transforms for reports, labels, prompts and radiographs: an array and a dictionary class for each."""

from __future__ import annotations

from medvl.transforms.image import (
    LoadStudyImage,
    LoadStudyImageD,
    LoadStudyImaged,
    LoadStudyImageDict,
    PadToSquare,
    PadToSquareD,
    PadToSquared,
    PadToSquareDict,
    RadiographIntensity,
    RadiographIntensityD,
    RadiographIntensityd,
    RadiographIntensityDict,
    ResizeLongest,
    ResizeLongestD,
    ResizeLongestd,
    ResizeLongestDict,
    image_preprocessing,
)
from medvl.transforms.image_augmentation import (
    RandRadiographAffine,
    RandRadiographAffineD,
    RandRadiographAffined,
    RandRadiographAffineDict,
    image_augmentation,
)

__all__ = [
    "LoadStudyImage",
    "LoadStudyImageD",
    "LoadStudyImageDict",
    "LoadStudyImaged",
    "PadToSquare",
    "PadToSquareD",
    "PadToSquareDict",
    "PadToSquared",
    "RadiographIntensity",
    "RadiographIntensityD",
    "RadiographIntensityDict",
    "RadiographIntensityd",
    "RandRadiographAffine",
    "RandRadiographAffineD",
    "RandRadiographAffineDict",
    "RandRadiographAffined",
    "ResizeLongest",
    "ResizeLongestD",
    "ResizeLongestDict",
    "ResizeLongestd",
    "image_augmentation",
    "image_preprocessing",
]
