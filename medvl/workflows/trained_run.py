"""A trained run: its model, and data read and prepared as the training did."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.transforms import Compose, SelectItemsd
from safetensors import SafetensorError

from medvl.data import Manifest, StudyDataset, StudyLoader, load_sources, parse_source, read_manifest, table_path
from medvl.data.tables import read_table
from medvl.networks import DualEncoder
from medvl.text import make_class_prompts
from medvl.transforms import ExtractSectionsd, image_preprocessing
from medvl.transforms.image import DEFAULT_HU_RANGE
from medvl.utils.io import file_sha256
from medvl.workflows.run_folder import CONFIG, ENVIRONMENT, MODEL, PROMPTS, TEXT_LABELS

KEYS = ("image", "report", "label", "study_id", "patient_id")
RECORDS = ("seed", "tables_sha256", "data_summary", "studies")
"""Keys of ``environment.json`` that are needed to read data as the training did, and to report on it."""


class TrainedRun:
    """The model of a run folder, with what is needed to read data as the training did.

    Args:
        path: the run's folder.
        device: the device of the model.

    Raises:
        FileNotFoundError: If the folder holds no finished run.
        ValueError: If its records are those of an earlier version, or one of its files is damaged.
    """

    def __init__(self, path: str | Path, device: str | torch.device = "cpu") -> None:
        self.path = Path(path)
        if not (self.path / MODEL).is_dir() or not (self.path / CONFIG).is_file():
            state = (
                "the run in it is not finished; continue it by --resume" if (self.path / CONFIG).exists() else "no run"
            )
            raise FileNotFoundError(f"{self.path} holds no trained model: {state}.")
        self.config = _read_record(self.path / CONFIG)
        self.environment = _read_record(self.path / ENVIRONMENT)
        missing = [name for name in RECORDS if name not in self.environment]
        if missing:
            raise ValueError(
                f"{self.path / ENVIRONMENT} holds no {' and no '.join(missing)}: the run was trained by an earlier version of "
                f"medvl; train it again to evaluate it here, or load {self.path / MODEL} by DualEncoder.from_pretrained."
            )
        try:
            self.model = DualEncoder.from_pretrained(self.path / MODEL).to(device)
        except (ValueError, SafetensorError) as error:
            raise ValueError(f"{self.path / MODEL} cannot be loaded: {error}") from error

    def reinitialized_model(self) -> DualEncoder:
        """A model of the same architecture and tokenizer with random weights."""
        model = copy.deepcopy(self.model)
        with torch.random.fork_rng():
            torch.manual_seed(self.environment["seed"])
            fresh = DualEncoder.from_config(model.to_config())
        model.load_state_dict(fresh.state_dict())
        return model

    def image_preprocessing(self) -> Compose:
        """The deterministic image preprocessing of the training."""
        hu_range = self.config.get("hu_range", DEFAULT_HU_RANGE)
        return image_preprocessing(self.model.image_size, self.model.spatial_dims, hu_range=hu_range)

    def class_prompts(self, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """Present and absent prompts of each finding: those saved with the model, else those of the built-in templates."""
        saved = self.path / MODEL / PROMPTS
        known = _read_record(saved) if saved.is_file() else {}
        return {name: known.get(name) or make_class_prompts([name])[name] for name in names}

    def studies(
        self,
        data: str | Path | None = None,
        split: str = "test",
        columns: Mapping[str, Any] | None = None,
        on_error: str = "raise",
    ) -> Manifest:
        """The studies of one split of a table; without one, of the table or the sources of the training.

        A table without a split column is split by patient as in training where it is the table of the training;
        any other table is taken whole.

        Args:
            data: the table; that of the training where None.
            split: "train", "val", "test" or "all".
            columns: names of columns, which override those of the training; those are used if the table has them.
            on_error: "raise" or "skip".

        Raises:
            ValueError: If the split has no study.
        """
        if data is None and self.config.get("sources"):
            return self._training_sources(split, on_error)
        table = table_path(data or self.config["data"], self.path)
        same_table = table.is_file() and file_sha256(table) in self.environment["tables_sha256"]
        present = read_table(table).columns
        given = {**_existing_columns(self.config["columns"], present), **(columns or {})}
        if "report" not in present:  # images alone can be embedded and scored
            given.setdefault("report_column", None)
        manifest = read_manifest(table, on_error=on_error, **given)
        if same_table:
            manifest = manifest.assign_splits(seed=self.environment["seed"])
        elif not any("split" in study for study in manifest.studies):
            split = "all"
        return manifest.subset(split).drop_missing("image")

    def _training_sources(self, split: str, on_error: str) -> Manifest:
        """The studies with an image of a split of the sources that the model was trained on."""
        sources = (parse_source(source) for source in self.config["sources"])
        manifest = load_sources(
            [f"{kind}={table_path(location, self.path)}" for kind, location in sources],
            self.config["data"],
            columns=self.config["columns"],
            on_error=on_error,
            seed=self.environment["seed"],
            label_cache=self.path / TEXT_LABELS,
        )
        return manifest.subset(split).drop_missing("image")

    def loader(
        self, manifest: Manifest, batch_size: int = 64, on_error: str = "raise", num_workers: int = 0
    ) -> StudyLoader:
        """Batches of these studies, with the images prepared as in training, without augmentation."""
        studies = [fill_missing_keys(study, len(manifest.names)) for study in manifest.studies]
        transform = Compose(
            [
                self.image_preprocessing(),
                ExtractSectionsd("report"),
                SelectItemsd([key for key in KEYS if key != "label" or manifest.names]),
            ]
        )
        dataset = StudyDataset(studies, transform)
        return StudyLoader(dataset, batch_size=batch_size, on_error=on_error, num_workers=num_workers)


def _read_record(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file of a run, which is a dictionary."""
    try:
        content = (yaml.safe_load if path.suffix == ".yaml" else json.loads)(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no settings.")
    return content


def _existing_columns(named: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The arguments that name columns which are there."""
    return {
        argument: names
        for argument, names in named.items()
        if set([names] if isinstance(names, str) else names) <= set(columns)
    }


def fill_missing_keys(study: Mapping[str, Any], findings: int) -> dict[str, Any]:
    """The study with every key of a batch; a missing report is empty, a missing label NaN, a missing patient id the study's."""
    unknown = torch.full((findings,), torch.nan)
    return {"report": "", "patient_id": study["study_id"], "label": unknown, **study}
