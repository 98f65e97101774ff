"""A trained run: its model, and data read and prepared as the training did."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose, SelectItemsd, Transform
from safetensors import SafetensorError

from medvl.data import Manifest, StudyDataset, StudyLoader, load_sources, parse_source, read_manifest, table_path
from medvl.data.cells import class_key
from medvl.data.column_selection import OF_ONE_TABLE, applicable_options
from medvl.data.default_columns import default_column
from medvl.data.locations import parse_location
from medvl.data.splits import SPLITS
from medvl.data.tables import read_table
from medvl.data.text_labels import log_other_language, read_texts
from medvl.handlers.checkpoint_file import find_infinite_weight
from medvl.networks import DualEncoder
from medvl.text import finding_names, make_class_prompts
from medvl.transforms import ExtractSections
from medvl.utils.checksums import verify_file
from medvl.utils.io import file_sha256
from medvl.workflows.literals import literal_text
from medvl.workflows.model_input import ModelInput, hash_model_inputs
from medvl.workflows.run_records import CONFIG, ENVIRONMENT, MODEL, PROMPTS, TEXT_LABELS, read_record
from medvl.workflows.split_record import KEY_FILE, SplitRecord

logger = logging.getLogger(__name__)

KEYS = ("image", "report", "label", "study_id", "patient_id")
RECORDS = {"seed": int, "tables_sha256": list, "data_summary": str, "studies": dict}
"""Keys of ``environment.json`` that are needed to read data as the training did, and to report on it, and their types."""


class TrainedRun:
    """The model of a run folder, with what is needed to read data as the training did.

    Args:
        path: the run's folder.
        device: the device of the model.
        image_preprocessing: transforms of ``image`` in place of those of the model's folder, for a model whose folder could not
            hold them.
        report_preprocessing: the same of ``report``.
        trusted_packages: packages whose code the model's folder may name, other than medvl, monai and torch; it is imported and
            run.

    Raises:
        FileNotFoundError: If the folder holds no finished run.
        ValueError: If its records are those of an earlier version, one of its files is damaged, its weights are not finite, or
            the model has code of a package that is not trusted.
    """

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device = "cpu",
        image_preprocessing: Compose | None = None,
        report_preprocessing: Compose | None = None,
        trusted_packages: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.trusted_packages = tuple(trusted_packages)
        self._given = {"image": image_preprocessing, "report": report_preprocessing}
        self._trained_patients: set[str] = set()  # of tables that have been read
        if not (self.path / MODEL).is_dir() or not (self.path / CONFIG).is_file():
            state = (
                "the run in it is not finished; continue it by --resume" if (self.path / CONFIG).exists() else "no run"
            )
            raise FileNotFoundError(f"{self.path} holds no trained model: {state}.")
        self.config = literal_text(read_record(self.path / CONFIG))
        for name, kind in (("data", str), ("columns", Mapping), ("sources", list)):
            if not isinstance(self.config.get(name), kind | None):
                raise ValueError(f"{self.path / CONFIG} is damaged: {name} is of another type than was saved.")
        self.environment = read_record(self.path / ENVIRONMENT)
        missing = [name for name in RECORDS if name not in self.environment]
        if missing:
            raise ValueError(
                f"{self.path / ENVIRONMENT} holds no {' and no '.join(missing)}: the run was trained by an earlier version of "
                f"medvl; train it again to evaluate it here, or load {self.path / MODEL} by DualEncoder.from_pretrained."
            )
        for name, expected in RECORDS.items():
            if not isinstance(self.environment[name], expected):
                raise ValueError(f"{self.path / ENVIRONMENT} is damaged: {name} is of another type than was saved.")
        try:
            self.model = DualEncoder.from_pretrained(self.path / MODEL, trusted_packages=trusted_packages).to(device)
        except (ValueError, SafetensorError) as error:
            raise ValueError(f"{self.path / MODEL} cannot be loaded: {error}") from error
        infinite = find_infinite_weight(self.model.state_dict())
        if infinite is not None:
            raise ValueError(f"{self.path / MODEL} cannot be used: its weights are not finite ({infinite}).")
        self.input = ModelInput.load(self.path / MODEL)

    def reinitialized_model(self) -> DualEncoder:
        """A model of the same architecture and tokenizer with random weights."""
        model = copy.deepcopy(self.model)
        with torch.random.fork_rng():
            torch.manual_seed(self.environment["seed"])
            fresh = DualEncoder.from_config(model.to_config(), self.trusted_packages)
        model.load_state_dict(fresh.state_dict())
        return model

    def image_preprocessing(self) -> Compose:
        """The deterministic preprocessing of images in the training.

        Raises:
            ValueError: If it is not part of the model's folder, or has code of a package that is not trusted.
        """
        return self._preprocessing("image")

    def report_preprocessing(self) -> Compose:
        """The preprocessing of reports in the training, such as the choice of sections.

        Raises:
            ValueError: If it is not part of the model's folder, or has code of a package that is not trusted.
        """
        return self._preprocessing("report")

    def _preprocessing(self, key: str) -> Compose:
        given = self._given[key]
        return self.input.transforms(key, self.trusted_packages) if given is None else given

    @cached_property
    def input_difference(self) -> str | None:
        """A sentence on how what the model is fed differs from what the validation of the training fed it.

        The first validation studies of the training are read again. None if their pixels and texts are the same, or if they
        cannot be read.
        """
        recorded = self.environment.get("validation_inputs")
        try:
            dataset = self.loader(self.studies(split="val")).dataset
        except (OSError, ValueError):
            return None
        found = hash_model_inputs(dataset, self.model)  # type: ignore[arg-type]  # its loaders are of StudyDatasets
        if not recorded or recorded["studies"] != found["studies"]:
            return None
        differing = [what for what in ("pixels", "texts") if recorded[what] != found[what]]
        if not differing:
            return None
        return (
            f"The {' and '.join(differing)} of the validation studies are not those that the training validated on: their "
            "files have changed, or another version of a library or kind of processor prepares them otherwise."
        )

    @property
    def finding_names(self) -> list[str]:
        """The findings that have prompts in the model's folder, which are those of the training's labels or vocabulary."""
        return list(self._saved_prompts)

    @cached_property
    def _saved_prompts(self) -> dict[str, dict[str, list[str]]]:
        saved = self.path / MODEL / PROMPTS
        prompts = read_record(saved) if saved.is_file() else {}
        for name, sides in prompts.items():
            if not isinstance(sides, dict) or not all(_are_texts(sides.get(side)) for side in ("present", "absent")):
                raise ValueError(f"{saved} is damaged: {name!r} has no texts for present and absent.")
        return prompts

    def class_prompts(self, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
        """Present and absent prompts of each finding: those saved with the model, else those of the built-in templates.

        Spellings that differ by case, white space or underscores are one finding.
        """
        saved = {class_key(name): sides for name, sides in self._saved_prompts.items()}
        return {name: saved.get(class_key(name)) or make_class_prompts([name])[name] for name in names}

    def studies(
        self,
        data: str | Path | None = None,
        split: str = "test",
        columns: Mapping[str, Any] | None = None,
        on_error: str = "raise",
        label_reports: bool = False,
    ) -> Manifest:
        """The studies of one split of a table; without one, of the table or the sources of the training.

        A split column is taken as it is. A table without one is recognized by its studies, whatever else has changed in it:
        those of the training have the splits they had there; new ones beside them are split by the rule of the training
        where it gives the others the splits they had, and are test otherwise. A table that has no study in common with the
        training is taken whole.

        Args:
            data: the table; that of the training where None.
            split: "train", "val", "test" or "all".
            columns: names of columns, which override those of the training; those are used if the table has them.
            on_error: "raise" or "skip".
            label_reports: whether studies of a table without labels are labeled from their reports
                (:func:`~medvl.workflows.label_studies`).

        Raises:
            ValueError: If the split has no study, or the table has ids in common with the training and no image.
        """
        if data is None and self.config.get("sources"):
            return self._training_sources(split, on_error)
        manifest = self._read(data, columns or {}, on_error)
        if not any("split" in study for study in manifest.studies):
            known = self._training_splits(manifest, split)
            manifest, split = (manifest, "all") if known is None else (known, split)
        manifest = manifest.subset(split).drop_missing("image")
        return label_studies(manifest) if label_reports else manifest

    def _read(self, data: str | Path | None, columns: Mapping[str, Any], on_error: str) -> Manifest:
        """A table with the columns of the training as far as it has them; packed and public data sets have their own."""
        location = data or self.config.get("data")
        if location is None:
            raise ValueError(f"{self.path / CONFIG} names no table; give one (--data).")
        if parse_location(location, "data") is not None:
            return read_manifest(location, on_error=on_error, **columns)
        table = table_path(location, self.path)
        self._check_table(table)
        trained = self._columns_for(table)
        if "image_column" in columns:
            trained.pop("image_template", None)
        options, read = applicable_options({**trained, **columns}, table)
        given = {**options, **columns}
        if read.default_columns["report_column"] not in read.columns:  # images alone can be embedded and scored
            given.setdefault("report_column", None)
        return read_manifest(table, on_error=on_error, **given)

    def _check_table(self, table: Path) -> None:
        """Raise where the drawn table is not as it was written; say where the table of the training has changed since."""
        if self.path in table.parents:
            verify_file(table)
        trained = [table_path(self.config["data"], self.path)] if self.config.get("data") else []
        is_same = any(os.path.realpath(table) == os.path.realpath(one) for one in trained)
        if is_same and table.is_file() and file_sha256(table) not in self.environment["tables_sha256"]:
            logger.warning("%s has changed since the training.", table)

    def _columns_for(self, table: Path) -> dict[str, Any]:
        """The options of the training that hold for a table: of another one than that of the training, the columns only."""
        trained = self.config.get("data")
        same = trained is not None and os.path.realpath(table) == os.path.realpath(table_path(trained, self.path))
        columns = self.config.get("columns") or {}
        return {name: value for name, value in columns.items() if same or name not in OF_ONE_TABLE}

    @cached_property
    def split_record(self) -> SplitRecord:
        """Which studies were in which split of the training.

        Raises:
            ValueError: If the run folder has no such record, or it is damaged.
        """
        return SplitRecord.load(self.path)

    def training_overlap(self, studies: Sequence[Mapping[str, Any]]) -> str | None:
        """A sentence on how many of these studies the model was trained on; None if it was trained on none of them."""
        if not (self.path / KEY_FILE).is_file():
            return f"{self.path} holds no {KEY_FILE}, so that it is not known whether the model was trained on these studies."
        number = self.split_record.count_in(studies, "train", self._trained_patients)
        if not number:
            return None
        return (
            f"{number} of the {len(studies)} studies, or their patients, were in the training split of this run (by image, "
            "its content, study id or patient id): these figures do not show how the model does on new studies."
        )

    def cautions(self, studies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """What is to be said beside figures on these studies, each a sentence by its title; empty if there is nothing."""
        tested = [study for study in studies if study.get("split") == "test"]
        changed = chosen = 0
        if (self.path / KEY_FILE).is_file():
            changed, chosen = self.split_record.count_changed(studies), self.split_record.count_in(tested, "val")
        chosen_text = (
            f"{chosen} of the {len(tested)} test studies, or their patients, were in the validation split of this run, by "
            "which its weights were chosen."
        )
        changed_text = (
            f"{changed} of the {len(studies)} studies have an image whose file has changed since the training: these figures "
            "are on images that were not in its data."
        )
        said = {
            "Trained on these studies": self.training_overlap(studies),
            "Weights chosen on these studies": chosen_text if chosen else None,
            "Images changed since training": changed_text if changed else None,
            "Input differs from training": self.input_difference,
        }
        return {title: text for title, text in said.items() if text is not None}

    def _training_splits(self, manifest: Manifest, split: str) -> Manifest | None:
        """A table without a split column with the splits that its studies had in training; None if it has none of them."""
        try:
            known = self.split_record.assign_splits(manifest, self.environment["seed"])
        except ValueError:
            if split == "all":  # asked for as they are
                return None
            raise
        if known is not None and split in SPLITS and not known.subset(split, allow_empty=True).studies:
            had = " and ".join(sorted({study["split"] for study in known.studies}))
            raise ValueError(
                f"{manifest.name} has {len(manifest)} studies and none in the split {split}: in the training they were in "
                f"{had}. Name another split (--split), or all."
            )
        if known is not None:
            self._remember_patients(known.studies)
        return known

    def _remember_patients(self, studies: Sequence[Mapping[str, Any]]) -> None:
        """Remember whose studies were in training: the run may not have known the patients that a table has by now."""
        for study in studies:
            patient = study.get("patient_id")
            if patient is None or patient in self._trained_patients or study["split"] != "train":
                continue
            if self.split_record.split_of(study) == "train":  # and not put there by now
                self._trained_patients.add(patient)

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
        studies = self._as_in_training(manifest.studies)
        self._remember_patients(studies)
        return replace(manifest, studies=studies).subset(split).drop_missing("image")

    def _as_in_training(self, studies: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The studies of the sources, with the splits they had where the sources have no splits of their own."""
        locations = [self.config["data"], *(parse_source(source)[1] for source in self.config["sources"])]
        tables = [read_table(path) for name in locations if (path := table_path(name, self.path)).is_file()]
        named = self.config["columns"].get("split_column")
        if any(named in table.columns if named else default_column(table, "split_column") for table in tables):
            return studies
        return [{**study, "split": self.split_record.split_of(study) or study["split"]} for study in studies]

    def loader(
        self, manifest: Manifest, batch_size: int = 64, on_error: str = "raise", num_workers: int = 0
    ) -> StudyLoader:
        """Batches of these studies, with the images prepared as in training, without augmentation."""
        studies = [fill_missing_keys(study, len(manifest.names)) for study in manifest.studies]
        transform = Compose(
            [
                self.image_preprocessing(),
                PrepareReport(self.report_preprocessing()),
                SelectItemsd([key for key in KEYS if key != "label" or manifest.names]),
            ]
        )
        dataset = StudyDataset(studies, transform)
        return StudyLoader(dataset, batch_size=batch_size, on_error=on_error, num_workers=num_workers)


class PrepareReport(Transform):
    """Applies the preprocessing of reports to a study that has one.

    Args:
        preprocessing: of ``report``.
    """

    keys = ("report",)

    def __init__(self, preprocessing: Compose) -> None:
        self.preprocessing = preprocessing

    def __call__(self, study: Mapping[str, Any]) -> dict[str, Any]:
        return self.preprocessing(dict(study)) if str(study["report"] or "").strip() else dict(study)


def label_studies(manifest: Manifest, vocabulary: str = "chexpert14") -> Manifest:
    """The studies of a table without labels with the finding states that their reports state, which is logged.

    It is returned as it is where it has labels, or where the reports state no finding both present and absent, so that there
    would be nothing to tell apart.

    Args:
        manifest: the studies.
        vocabulary: the findings.
    """
    texts = [study["report"] for study in manifest.studies if "report" in study]
    if manifest.names or not texts or any("label" in study for study in manifest.studies):
        return manifest
    extract = ExtractSections()
    states, other_language = read_texts([extract(text) for text in texts], vocabulary)
    if not ((states == 1).any(axis=0) & (states == 0).any(axis=0)).any():
        return manifest
    log_other_language(other_language)
    rows = iter(states)
    studies = [{**study, "label": next(rows)} if "report" in study else study for study in manifest.studies]
    logger.info(
        "%s: no column of labels is named (--label-column), so the findings are those that the reports state, "
        "by the vocabulary %s (medvl label).",
        manifest.name,
        vocabulary,
    )
    return replace(manifest, studies=studies, names=finding_names(vocabulary))


def fill_missing_keys(study: Mapping[str, Any], findings: int) -> dict[str, Any]:
    """The study with every key of a batch; a missing report is empty, a missing label NaN, a missing patient id the study's."""
    unknown = torch.full((findings,), torch.nan)
    return {"report": "", "patient_id": study["study_id"], "label": unknown, **study}


def _are_texts(value: Any) -> bool:
    """Whether a value is a list of at least one text, all of them Unicode."""
    try:
        return isinstance(value, list) and bool(value) and all(text.encode() for text in value)
    except (AttributeError, UnicodeEncodeError):
        return False
