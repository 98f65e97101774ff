"""MONAI transforms for reports, labels, prompts and radiographs: an array and a dictionary class for each.

As in MONAI, each dictionary class has three names: ``LabelReportd``, ``LabelReportD`` and ``LabelReportDict`` are one class.
"""

from __future__ import annotations

from medvl.utils.extras import require_extra

require_extra("medvl.transforms", "monai")

from medvl.transforms.image import (
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
from medvl.transforms.labels import (
    ApplyLabelPolicy,
    ApplyLabelPolicyD,
    ApplyLabelPolicyd,
    ApplyLabelPolicyDict,
    LabelPolicy,
    LabelReport,
    LabelReportD,
    LabelReportd,
    LabelReportDict,
)
from medvl.transforms.load_image import (
    LoadStudyImage,
    LoadStudyImageD,
    LoadStudyImaged,
    LoadStudyImageDict,
)
from medvl.transforms.masking import (
    RandMaskPatches,
    RandMaskPatchesD,
    RandMaskPatchesd,
    RandMaskPatchesDict,
)
from medvl.transforms.prompts import (
    AddPromptTokens,
    AddPromptTokensD,
    AddPromptTokensd,
    AddPromptTokensDict,
    LabelsToPrompt,
    LabelsToPromptD,
    LabelsToPromptd,
    LabelsToPromptDict,
)
from medvl.transforms.regions import DrawRegions, DrawRegionsD, DrawRegionsd, DrawRegionsDict
from medvl.transforms.text import (
    ExtractSections,
    ExtractSectionsD,
    ExtractSectionsd,
    ExtractSectionsDict,
    RandSentence,
    RandSentenceD,
    RandSentenced,
    RandSentenceDict,
    SplitSentences,
    SplitSentencesD,
    SplitSentencesd,
    SplitSentencesDict,
)
from medvl.transforms.text_augmentation import (
    RandTextAugment,
    RandTextAugmentD,
    RandTextAugmentd,
    RandTextAugmentDict,
)
from medvl.transforms.tokenize import (
    TokenizeText,
    TokenizeTextD,
    TokenizeTextd,
    TokenizeTextDict,
)
from medvl.transforms.tokenizer_training import rare_tokens, train_tokenizer

__all__ = [
    "AddPromptTokens",
    "AddPromptTokensD",
    "AddPromptTokensDict",
    "AddPromptTokensd",
    "ApplyLabelPolicy",
    "ApplyLabelPolicyD",
    "ApplyLabelPolicyDict",
    "ApplyLabelPolicyd",
    "DrawRegions",
    "DrawRegionsD",
    "DrawRegionsDict",
    "DrawRegionsd",
    "ExtractSections",
    "ExtractSectionsD",
    "ExtractSectionsDict",
    "ExtractSectionsd",
    "LabelPolicy",
    "LabelReport",
    "LabelReportD",
    "LabelReportDict",
    "LabelReportd",
    "LabelsToPrompt",
    "LabelsToPromptD",
    "LabelsToPromptDict",
    "LabelsToPromptd",
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
    "RandMaskPatches",
    "RandMaskPatchesD",
    "RandMaskPatchesDict",
    "RandMaskPatchesd",
    "RandRadiographAffine",
    "RandRadiographAffineD",
    "RandRadiographAffineDict",
    "RandRadiographAffined",
    "RandSentence",
    "RandSentenceD",
    "RandSentenceDict",
    "RandSentenced",
    "RandTextAugment",
    "RandTextAugmentD",
    "RandTextAugmentDict",
    "RandTextAugmentd",
    "ResizeLongest",
    "ResizeLongestD",
    "ResizeLongestDict",
    "ResizeLongestd",
    "SplitSentences",
    "SplitSentencesD",
    "SplitSentencesDict",
    "SplitSentencesd",
    "TokenizeText",
    "TokenizeTextD",
    "TokenizeTextDict",
    "TokenizeTextd",
    "image_augmentation",
    "image_preprocessing",
    "rare_tokens",
    "train_tokenizer",
]
