"""What a model is fed: found in the recipe that trains it, kept in the model's folder, used by everything that reads that."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, DeleteItemsd, Randomizable, SelectItemsd

from medvl.data import Manifest, StudyDataset, UnifiedDataset
from medvl.data.leaks import image_paths
from medvl.networks import DualEncoder
from medvl.text import content_sentences
from medvl.transforms import ExtractSectionsd, RandSentenced, ResizeLongestd, TokenizeTextd
from medvl.transforms.description import describe_transform, make_transforms
from medvl.transforms.packed_image import read_settings
from medvl.utils.errors import StudyError, plain_reason
from medvl.utils.io import write_json
from medvl.utils.tar_members import TarMember
from medvl.utils.targets import DTYPE, TARGET
from medvl.workflows.run_records import read_record

logger = logging.getLogger(__name__)

PREPROCESSING = "preprocessing.json"
OWN_PACKAGES = ("medvl", "monai")
HASHED_STUDIES = 16
"""Number of validation studies whose pixels and texts are hashed."""


@dataclass(frozen=True)
class ModelInput:
    """The deterministic preprocessing of images and reports, as plain data, and how much of a report is one text.

    Args:
        image: descriptions of the transforms of ``image`` (:func:`~medvl.transforms.description.describe_transform`); None
            where one of them cannot be described.
        report: the same of ``report``.
        problems: sentences on what cannot be described, by key.
        text_unit: "report" or "sentence".
        max_length: maximum number of tokens of a text; None if it is not known.
    """

    image: list[dict[str, Any]] | None
    report: list[dict[str, Any]] | None
    problems: dict[str, str]
    text_unit: str = "report"
    max_length: int | None = None

    @classmethod
    def of(cls, dataset: StudyDataset | UnifiedDataset, manifest: Any) -> ModelInput:
        """What a recipe feeds its network, from its validation dataset and its manifest."""
        image_steps, text_steps = _steps(dataset)
        problems: dict[str, str] = {}
        descriptions = {
            "image": _described("image", [step for step in image_steps if _changes(step, "image")], problems),
            "report": _described("report", _report_steps(dataset, manifest), problems),
        }
        for step in text_steps:
            if _changes(step, "text"):
                problems["report"] = _problem("report", step, "it changes the text after the sections.")
                descriptions["report"] = None
        tokens = _tokens(text_steps)
        by_sentence = any(isinstance(step, RandSentenced) for step in text_steps)
        by_sentence = by_sentence or getattr(manifest, "text_unit", "report") == "sentence"
        return cls(
            descriptions["image"],
            descriptions["report"],
            problems,
            "sentence" if by_sentence else "report",
            None if tokens is None else int(tokens.transform.max_length),
        )

    def apply(self, network: Any) -> None:
        """Make a network encode reports as it is trained on them."""
        processor = getattr(network, "text_processor", None)
        if processor is None:
            return
        encoding = {"report": "whole", "sentence": "sentences"}[self.text_unit]
        if processor.report_encoding != encoding:
            logger.info("A report is encoded %s, since the recipe trains on %ss.", _ENCODINGS[encoding], self.text_unit)
        processor.report_encoding, processor.max_length = encoding, self.max_length

    def packages(self) -> list[str]:
        """The packages, other than medvl and monai, whose code is part of the preprocessing."""
        steps = [*(self.image or []), *(self.report or [])]
        found = {step[TARGET].partition(".")[0] for step in steps} - set(OWN_PACKAGES)
        return sorted(found)

    def save(self, folder: Path) -> None:
        """Write ``preprocessing.json`` to a model's folder."""
        write_json(folder / PREPROCESSING, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> ModelInput:
        """Read ``preprocessing.json`` of a model's folder.

        Raises:
            ValueError: If the file is missing or damaged.
        """
        path = folder / PREPROCESSING
        if not path.is_file():
            raise ValueError(
                f"{folder} holds no {PREPROCESSING}, which says what the model is fed: the run was trained by an earlier "
                "version of medvl; train it again to evaluate it here, or load the model by DualEncoder.from_pretrained."
            )
        try:
            read = cls(**read_record(path))
        except TypeError as error:
            raise ValueError(f"{path} is damaged: {plain_reason(error)}.") from error
        if (problem := read._problem_of_types()) is not None:
            raise ValueError(f"{path} is damaged: {problem}.")
        return read

    def _problem_of_types(self) -> str | None:
        """What is of another type than :meth:`save` writes."""
        for key, steps in (("image", self.image), ("report", self.report)):
            if steps is None:
                whole = isinstance(self.problems, dict) and isinstance(self.problems.get(key), str)
            else:
                whole = isinstance(steps, list) and all(
                    isinstance(step, dict) and isinstance(step.get(TARGET), str) for step in steps
                )
            if not whole:
                return f"{key} is neither a list of transforms, each with {TARGET}, nor null with its problem"
        if self.text_unit not in ("report", "sentence"):
            return "text_unit is neither report nor sentence"
        return None if self.max_length is None or type(self.max_length) is int else "max_length is no integer"

    def transforms(self, key: str, trusted_packages: Sequence[str] = ()) -> Compose:
        """The preprocessing of ``image`` or ``report``.

        Args:
            key: which of the two.
            trusted_packages: packages whose code may be run.

        Raises:
            ValueError: If it is not part of the model's folder, or names code of a package that is not trusted.
        """
        steps = {"image": self.image, "report": self.report}[key]
        if steps is None:
            raise ValueError(
                f"{self.problems[key]} Give it to TrainedRun, as TrainedRun(path, {key}_preprocessing=...), to use the model."
            )
        return make_transforms(steps, trusted_packages)

    def card(self) -> str:
        """A section for the model's card, in Markdown."""
        unit = "each sentence is a text of its own" if self.text_unit == "sentence" else "the report is one text"
        cut = "" if self.max_length is None else f", cut after {self.max_length} tokens"
        lines = [f"- Texts: {unit}{cut}."]
        for key, steps in (("report", self.report), ("image", self.image)):
            if steps is None:
                lines.insert(0, f"- {self.problems[key]}")
            else:
                lines.insert(0, f"- Preprocessing of each {key}: {' → '.join(map(_call, steps)) or 'none'}.")
        if self.packages():
            lines.append(
                f"- The preprocessing runs code of {' and '.join(self.packages())}, which the reader has to trust."
            )
        return (
            "\n\n## What the model is fed\n\n"
            + "\n".join(lines)
            + f"\n\n`{PREPROCESSING}` says the same for programs.\n"
        )


def log_packed_size(dataset: StudyDataset | UnifiedDataset) -> None:
    """Say where packed images are of another size than those that the network is fed, which are resized from them."""
    images = dataset.images if isinstance(dataset, UnifiedDataset) else dataset
    sizes = [step.transform.size for step in images.steps if isinstance(step, ResizeLongestd)]
    member = next((TarMember.parse(path) for study in images.studies[:1] for path in image_paths(study)), None)
    if member is None or not sizes:
        return
    packed = read_settings(member.folder)["image_size"]
    if packed < sizes[0]:
        logger.warning("The images were packed at %d pixels and are enlarged to %d: pack them again.", packed, sizes[0])
    elif packed > sizes[0]:
        logger.info("The images were packed at %d pixels and are resized to %d.", packed, sizes[0])


_ENCODINGS = {"whole": "as one text", "sentences": "by its sentences"}


def _steps(dataset: StudyDataset | UnifiedDataset) -> tuple[list[Any], list[Any]]:
    """The steps that images go through, and those that texts go through."""
    if isinstance(dataset, UnifiedDataset):
        return dataset.images.steps, dataset.texts.steps
    return dataset.steps, dataset.steps


def _report_steps(dataset: StudyDataset | UnifiedDataset, manifest: Any) -> list[Any]:
    """The steps that a report goes through; of several sources, its sections are taken before the dataset is made."""
    steps = [step for step in _steps(dataset)[1] if _changes(step, "report")]
    if isinstance(dataset, UnifiedDataset):
        steps.insert(0, ExtractSectionsd("report", getattr(manifest, "sections", ("findings", "impression"))))
    return steps


def _changes(step: Any, key: str) -> bool:
    """Whether a step changes what is under a key, or may do so."""
    if isinstance(step, SelectItemsd | DeleteItemsd) or getattr(step, "fixed_outputs", False):
        return False
    keys = getattr(step, "keys", None)
    if not isinstance(keys, tuple | list):
        return key != "text"  # it may change anything
    return key in keys


def _tokens(text_steps: Iterable[Any]) -> TokenizeTextd | None:
    return next((step for step in text_steps if isinstance(step, TokenizeTextd)), None)


def _described(key: str, steps: Sequence[Any], problems: dict[str, str]) -> list[dict[str, Any]] | None:
    """Descriptions of steps, or None with the problem. A random step is left out: evaluation draws nothing."""
    descriptions = []
    for step in steps:
        if isinstance(step, Randomizable):
            logger.warning("The validation draws %s of each %s, which evaluation leaves out.", type(step).__name__, key)
            continue
        try:
            descriptions.append(describe_transform(step))
        except ValueError as error:
            problems[key] = _problem(key, step, str(error))
            return None
    return descriptions


def _problem(key: str, step: Any, reason: str) -> str:
    name = getattr(step, "__name__", type(step).__name__)
    return f"The preprocessing of each {key} is not part of the model's folder, because of its step {name}: {reason}"


def _call(step: Mapping[str, Any]) -> str:
    arguments = ", ".join(
        f"{name}={value[DTYPE] if isinstance(value, dict) and DTYPE in value else repr(value)}"
        for name, value in step.items()
        if name not in (TARGET, "keys", "allow_missing_keys")
    )
    return f"`{step[TARGET].rpartition('.')[2]}({arguments})`"


def hash_training_inputs(dataset: StudyDataset | UnifiedDataset, manifest: Manifest, text_unit: str) -> dict[str, Any]:
    """Hashes of what the validation feeds the network for the first studies of the validation split, by study id.

    Args:
        dataset: of the validation, in the state in which training uses it.
        manifest: the studies.
        text_unit: "report" or "sentence".

    Returns:
        ``count`` of studies, and one hash of all their ids (``studies``), images (``pixels``) and token ids (``texts``).
    """
    text_steps = _steps(dataset)[1]
    images = dataset.images if isinstance(dataset, UnifiedDataset) else dataset
    tokens = _tokens(text_steps)
    whole = {str(study["study_id"]): study for study in manifest.subset("val", allow_empty=True).studies}
    reports = [step for step in _report_steps(dataset, manifest) if not isinstance(step, Randomizable)]

    def texts_of(row: int) -> list[list[int]]:
        study = dict(whole[str(images.studies[row]["study_id"])])
        if tokens is None or not str(study.get("report") or "").strip():
            return []
        for step in reports:
            study = step(study)
        text = study["text"] if isinstance(dataset, UnifiedDataset) and "text" in study else study["report"]
        return [tokens.transform(part)["input_ids"].tolist() for part in split_text(text, text_unit)]

    return _hashes(images, texts_of)


def hash_model_inputs(dataset: StudyDataset, model: DualEncoder) -> dict[str, Any]:
    """The same hashes of what a trained model is fed, from its own folder.

    Args:
        dataset: the validation studies, prepared by :meth:`TrainedRun.loader`.
        model: the model.
    """
    unit = {"whole": "report", "sentences": "sentence"}[model.text_processor.report_encoding]

    def texts_of(row: int) -> list[list[int]]:
        report = dataset[row]["report"]
        if model.tokenizer is None or not report.strip():
            return []
        tokens = [model.tokenize(text) for text in split_text(report, unit)]
        return [ids["input_ids"][0].tolist() for ids in tokens]

    return _hashes(dataset, texts_of)


def split_text(report: str, text_unit: str) -> list[str]:
    """The texts of a report: itself, or its sentences."""
    return (content_sentences(report) or [report]) if text_unit == "sentence" else [report]


def _hashes(dataset: StudyDataset, texts_of: Callable[[int], list[list[int]]]) -> dict[str, Any]:
    """Hashes of the first studies by study id; a study with several images counts as many times, one that fails not at all."""
    pixels, texts, ids = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    count = 0
    for row in sorted(range(len(dataset)), key=lambda row: str(dataset.studies[row]["study_id"]))[:HASHED_STUDIES]:
        try:
            image, tokens = torch.as_tensor(dataset[row]["image"]), texts_of(row)
        except StudyError:
            continue
        pixels.update(f"{tuple(image.shape)}".encode())
        pixels.update(np.ascontiguousarray(image.as_subclass(torch.Tensor).float().numpy()).tobytes())
        texts.update(f"{tokens}".encode())
        ids.update(f"{dataset.studies[row]['study_id']}\n".encode("utf-8", "surrogatepass"))
        count += 1
    return {"count": count, "studies": ids.hexdigest(), "pixels": pixels.hexdigest(), "texts": texts.hexdigest()}
