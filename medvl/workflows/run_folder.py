"""What is written beside a run so that it can be repeated, resumed and evaluated."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from medvl.data import Manifest, parse_source, table_path
from medvl.data.studies import SYNTHETIC
from medvl.handlers import BestCheckpoint, RunCheckpoint
from medvl.networks import DualEncoder
from medvl.utils.checks import check_option, error_message
from medvl.utils.distributed import barrier, is_rank_zero
from medvl.utils.errors import StudyError
from medvl.utils.io import file_sha256, read_json_lines, write_json, write_text
from medvl.workflows.literals import literal_text
from medvl.workflows.split_record import SPLITS_FILE, SplitRecord

CONFIG, ENVIRONMENT, METRICS, SKIPPED = "config.yaml", "environment.json", "metrics.jsonl", "skipped.jsonl"
MODEL, CHECKPOINTS, PROMPTS, TENSORBOARD = "model", "checkpoints", "prompts.json", "tensorboard"
WEIGHTS, TEXT_LABELS = "weights.json", "text_labels.npz"
WRITTEN = (
    ENVIRONMENT, SPLITS_FILE, METRICS, SKIPPED, MODEL, f"{MODEL}.partial", CHECKPOINTS, TENSORBOARD
)  # fmt: skip
"""Names in a run folder that a run writes over or deletes; with ``config.yaml`` they are a run's own."""
KEEP = ("last", "best")
SETTINGS_ONLY = (
    "# The settings of a run by plain `monai.bundle run`, which cannot record the components of its configuration;\n"
    "# `command` in environment.json names its files.\n"
)

# a resumed run may differ in these from the one it continues
FREE_ON_RESUME = (
    "resume", "output", "device", "num_workers", "progress", "tensorboard", "bundle_root", "on_error", "layers"
)  # fmt: skip
PACKAGES = (
    "medvl",
    "torch",
    "monai",
    "pytorch-ignite",
    "transformers",
    "tokenizers",
    "numpy",
    "pillow",
    "pydicom",
    "nibabel",
)


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WholeConfig:
    """A configuration that MONAI's parser passes on as it is, without instantiating what it describes.

    Args:
        content: the configuration, with ``_target_`` and expressions as they are in its file.
    """

    content: Mapping[str, Any]


class RunFolder:
    """The folder of one training run.

    It holds ``config.yaml`` (the configuration with all overrides), ``environment.json`` (seed, versions, fingerprint of
    the data), ``splits.json`` (hashes of the studies of each split), ``metrics.jsonl``, ``skipped.jsonl``, ``checkpoints/``
    and, when the run is complete, ``model/``.

    A recipe calls :meth:`acquire` before anything is written, :meth:`release` once the studies are read, :meth:`setup` when
    the trainer is there, then :meth:`run_training` and :meth:`save_model`.

    Args:
        path: the folder; created when the run starts.
        resume: whether to continue the run that is in it. A folder without a checkpoint starts from the beginning.
        config: what to record: the whole configuration, or the settings alone where MONAI's own workflow runs it.
    """

    def __init__(
        self, path: str | Path, resume: bool = False, config: WholeConfig | Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.resume = Path(path), resume
        self._acquired = False
        self.is_whole = isinstance(config, WholeConfig)
        content = config.content if isinstance(config, WholeConfig) else config or {}
        self.config: dict[str, Any] = json.loads(json.dumps(dict(content), default=str))

    @property
    def model(self) -> Path:
        """Where the trained model is saved."""
        return self.path / MODEL

    @property
    def checkpoints(self) -> Path:
        """Where the training state is saved."""
        return self.path / CHECKPOINTS

    def acquire(self) -> Path:
        """Check that the run may write to the folder; called before anything is written there.

        With several processes the first goes on, and the others wait until it has read its studies (:meth:`release`), so that
        what it draws or labels on the way is written once.

        Returns:
            The folder's path.

        Raises:
            ValueError: If the folder holds a run and ``resume`` is false, the run there had other settings, or the folder holds
                no run and something that a run would write over.
        """
        if is_rank_zero():
            self._check_free()
        else:
            barrier()
        return self.path

    def release(self, manifest: Manifest) -> None:
        """Let the other processes read the studies, which this one, the first, has read."""
        if is_rank_zero():
            barrier()

    def setup(self, manifest: Manifest, trainer: Any, checkpoint: RunCheckpoint) -> None:
        """Write the records, and restore the newest checkpoint where the run is resumed.

        Args:
            manifest: the studies.
            trainer: the engine, with all its handlers attached.
            checkpoint: the trainer's handler.

        Raises:
            ValueError: As :meth:`acquire`, and if the run there had other data.
        """
        if is_rank_zero():
            self._write_records(manifest)
        if self.resume:
            checkpoint.restore(map_location=trainer.state.device)

    def _write_records(self, manifest: Manifest) -> None:
        self._check_free()
        logger.info(manifest.summary())
        environment = {
            "seed": self.config["seed"],
            "data": manifest.name,
            "tables_sha256": tables_sha256(literal_text(self.config), self.path),
            "data_fingerprint": manifest.fingerprint(),
            "data_summary": manifest.summary(),
            "studies": {split: len(manifest.subset(split, allow_empty=True)) for split in ("train", "val", "test")},
            "label_policy": (self.config.get("prepare_batch") or {}).get("label_policy"),
            "versions": {name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        }
        if (self.path / ENVIRONMENT).exists():
            before = read_record(self.path / ENVIRONMENT)
            if before.get("data_fingerprint") != environment["data_fingerprint"]:
                raise ValueError(f"{manifest.name} has changed since the run at {self.path} began; start a new run.")
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        write_text(self.path / CONFIG, text if self.is_whole else SETTINGS_ONLY + text)
        SplitRecord.from_studies(manifest.studies).save(self.path)
        write_json(self.path / ENVIRONMENT, environment)

    def _check_free(self) -> None:
        if (self.path / CONFIG).exists():
            if not self.resume:
                raise ValueError(f"{self.path} already holds a run; continue it (--resume) or choose another folder.")
            self._check_same()
        elif not self._acquired:
            self._check_names()
        self._acquired = True

    def _check_names(self) -> None:
        """Raise where a folder without a run holds something that the run would write over or delete."""
        taken = [name for name in WRITTEN if os.path.lexists(self.path / name)]
        drawn = self.path / "data"  # what a run left that was stopped before it had written its records
        if SYNTHETIC in self._locations() and os.path.lexists(drawn) and not is_drawn(drawn):
            taken.append("data")
        if taken:
            raise ValueError(
                f"{self.path} holds {' and '.join(taken)} and no run, and a run would write over "
                f"{'it' if len(taken) == 1 else 'them'}; choose another folder."
            )

    def _locations(self) -> list[str]:
        config = literal_text(self.config)
        return [str(config.get("data")), *(parse_source(source)[1] for source in config.get("sources") or [])]

    def _check_same(self) -> None:
        before, now = literal_text(read_record(self.path / CONFIG)), literal_text(self.config)
        # One of the two may be the settings alone.
        keys = set(now) | set(before) if self.is_whole and "run" in before else set(now) & set(before)
        changed = [
            f"{key} is {now.get(key)!r} but was {before.get(key)!r}"
            for key in sorted(keys)
            if key not in FREE_ON_RESUME and now.get(key) != before.get(key)
        ]
        if changed:  # the shortest says most: a number, and not the component that contains it
            raise ValueError(
                f"{min(changed, key=len)} in the run at {self.path}; "
                "resume it with the same settings, or choose another folder."
            )

    def run_training(self, trainer: Any, best: BestCheckpoint | None = None) -> None:
        """Run what is left of the training: nothing if a restored run has no epoch left or stopped early.

        PyTorch's threads leave a core to each process that loads data: on a CPU, more of both only wait for each other.

        Args:
            trainer: the engine.
            best: the handler that may have stopped it.
        """
        epoch = trainer.state.epoch
        if epoch < trainer.state.max_epochs and not (best is not None and best.should_stop(epoch)):
            with _reserve_cores(trainer.data_loader.num_workers):
                trainer.run()

    def save_model(
        self,
        network: DualEncoder,
        class_prompts: Mapping[str, Any],
        keep: str = "last",
        best: BestCheckpoint | None = None,
    ) -> None:
        """Save the trained network with its tokenizer, and the class prompts to evaluate it with.

        The folder ``model`` appears whole or not at all. Which epoch's weights it holds is logged, and recorded in
        ``model/weights.json``. LoRA adapters are merged into the weights, so that the model does not need peft.

        Args:
            network: the trained network.
            class_prompts: for each finding, ``{"present": [...], "absent": [...]}``.
            keep: "last" saves the current weights, "best" those of the best epoch.
            best: the handler that knows the best epoch.

        Raises:
            ValueError: If ``keep`` is neither, or "best" without a handler.
        """
        check_option(keep, "keep", KEEP)
        if keep == "best" and best is None:
            raise ValueError(error_message("best", "be a BestCheckpoint where keep is 'best'", best))
        if not is_rank_zero():
            return
        epoch = best.restore_best() if keep == "best" and best is not None else 0
        weights: dict[str, Any] = {"epoch": "last"}
        if epoch and best is not None:
            weights = {"epoch": epoch, "chosen_by": best.metric, "value": best.value}
        logger.info("model/ holds the weights of the %s epoch", keep)
        network.text_encoder.merge_adapters()
        partial = self.path / f"{MODEL}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        network.save_pretrained(partial)
        write_json(partial / PROMPTS, class_prompts)
        write_json(partial / WEIGHTS, weights, indent=None)
        shutil.rmtree(self.model, ignore_errors=True)
        partial.rename(self.model)


def read_record(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file of a run, which is a dictionary.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        content = (yaml.safe_load if path.suffix == ".yaml" else json.loads)(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no settings.")
    return content


def is_drawn(folder: Path) -> bool:
    """Whether a folder holds nothing but what the synthetic data set writes there, perhaps not all of it yet."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
    images = list((folder / "images").iterdir()) if "images" in names else []
    drawn = all(path.name.startswith("syn") for path in images)
    return drawn and (names <= {"images"} or (names == {"images", "cases.csv"} and bool(images)))


def read_skipped(path: str | Path) -> list[StudyError]:
    """The studies that the run in this folder skipped for an error.

    Raises:
        ValueError: If a line of the file is damaged, with its number.
    """
    lines = read_json_lines(Path(path) / SKIPPED, "study_id", "key", "reason")
    return [StudyError(line["study_id"], line["key"], line["reason"]) for line in lines]


def tables_sha256(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Hashes of the tables that a run reads, of ``data`` and of ``sources``; the folder of a public set has none."""
    locations = [config["data"], *(parse_source(source)[1] for source in config.get("sources") or [])]
    tables = [table_path(location, folder) for location in locations if location is not None]
    return [file_sha256(table) for table in tables if table.is_file()]


@contextmanager
def _reserve_cores(workers: int) -> Iterator[None]:
    """Fewer PyTorch threads, so that each of ``workers`` processes has a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
