"""Zero-shot scores of new images by a trained run."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medvl.data import Manifest
from medvl.data.cells import class_key
from medvl.handlers.score_table import write_scores
from medvl.inferers import ZeroShotInferer
from medvl.text.prompts import load_prompt_templates
from medvl.utils.checks import check_unicode, error_message
from medvl.utils.errors import StudyError
from medvl.utils.io import write_json
from medvl.utils.modes import eval_mode
from medvl.workflows.trained_run import TrainedRun

logger = logging.getLogger(__name__)

SCORE_FILES = (".csv", ".json")


def image_manifest(paths: Sequence[str | Path]) -> Manifest:
    """Images as studies, one a path, whose study id is the path as it is given.

    Args:
        paths: image files, or folders with a DICOM series each.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If there is no path, or one is given twice.
    """
    names = [str(path) for path in paths]
    if not names:
        raise ValueError(error_message("images", "name at least one file", "none"))
    for number, name in enumerate(names):
        if not Path(name).exists():
            raise FileNotFoundError(f"{name} does not exist.")
        if name in names[:number]:
            raise ValueError(error_message("images", "name each file once", f"{name} twice"))
    studies = [
        {"study_id": name, "row": number, "image": str(Path(name).absolute())} for number, name in enumerate(names, 1)
    ]
    return Manifest.from_studies(f"{len(names)} images", studies, rows=len(names))


@dataclass
class Predictions:
    """Scores of findings by image.

    Args:
        study_ids: N ids, or paths.
        findings: K names.
        scores: (N, K), in [0, 1]. They rank images; they are not calibrated probabilities.
        skipped: images that could not be read.
    """

    study_ids: list[str]
    findings: list[str]
    scores: np.ndarray
    skipped: list[StudyError]

    def save(self, path: str | Path) -> Path:
        """Write the scores to a .csv or a .json file.

        Raises:
            ValueError: If the suffix is another one.
        """
        path = Path(path)
        check_suffix(path, SCORE_FILES)
        if path.suffix.lower() == ".json":
            rows = [
                {"study_id": name, "scores": {f: round(float(s), 6) for f, s in zip(self.findings, row, strict=True)}}
                for name, row in zip(self.study_ids, self.scores, strict=True)
            ]
            write_json(path, rows)
        else:
            write_scores(path, self.findings, self.study_ids, self.scores.tolist())
        return path


def predict(
    run: TrainedRun,
    manifest: Manifest,
    findings: Sequence[str] | None = None,
    batch_size: int = 64,
    on_error: str = "raise",
) -> Predictions:
    """Zero-shot scores of images: how much closer each is to a finding's prompts than to those of its absence.

    Args:
        run: the trained model with its preprocessing and prompts.
        manifest: the images, of :func:`image_manifest` or :meth:`TrainedRun.studies`.
        findings: K names; those of the training by default. One that the training did not have gets the prompts of the
            built-in templates; one that these do not have either, a warning.
        batch_size: images at once.
        on_error: "raise" or "skip": what an image that cannot be read does.

    Returns:
        Scores in [0, 1], see :class:`~medvl.inferers.ZeroShotInferer`.

    Raises:
        StudyError: If an image cannot be read, unless ``on_error`` is "skip".
        ValueError: If there are no findings: none is given, and the training had none.
    """
    names = list(findings or run.finding_names)
    if not names:
        expected = "be given (--finding of medvl predict), since the training had no findings"
        raise ValueError(error_message("findings", expected, "none"))
    for name in names:
        check_unicode(name, "each of findings")
    _warn_of_unknown(names, run)
    inferer = ZeroShotInferer(run.class_prompts(names))
    loader = run.loader(manifest, batch_size=batch_size, on_error=on_error)
    device = next(run.model.parameters()).device
    ids: list[str] = []
    scores = [np.zeros((0, len(names)), np.float32)]
    with eval_mode(run.model), torch.inference_mode():
        for batch in loader:
            ids += [str(name) for name in batch["study_id"]]
            scores.append(inferer(batch["image"].to(device), run.model).float().cpu().numpy())
    return Predictions(ids, names, np.concatenate(scores), [*manifest.skipped, *loader.skipped.values()])


def _warn_of_unknown(names: Sequence[str], run: TrainedRun) -> None:
    """Warn of findings that neither the training nor the built-in templates have, such as misspelled ones."""
    known = {class_key(name): name for name in (*load_prompt_templates().names, *run.finding_names)}
    for name in names:
        if class_key(name) not in known:
            near = difflib.get_close_matches(class_key(name), known, n=1)
            hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
            logger.warning(
                "%r is no finding of the training or of the built-in prompts%s; its prompts are made of its name.",
                name,
                hint,
            )


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """An error if a file's suffix is not among those that can be written."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(error_message("--output", f"end in {', '.join(suffixes)}", str(path)))
