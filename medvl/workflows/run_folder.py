"""The folder of a training run: what is written to it, resumed from it, and who may write to it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from medvl.data import Manifest, StudyDataset, UnifiedDataset, parse_source
from medvl.data.studies import SYNTHETIC
from medvl.handlers import BestCheckpoint, RunCheckpoint
from medvl.handlers.checkpoint_file import check_finite_weights, describe_position
from medvl.networks import DualEncoder
from medvl.utils.checks import check_option, error_message
from medvl.utils.checksums import CHECKSUMS, verify_checksums, write_checksums, write_listed
from medvl.utils.disk import name_full_disk
from medvl.utils.distributed import barrier, get_world_size, is_distributed, is_rank_zero, lost_process
from medvl.utils.io import check_writable, json_text, remove_partial_files, write_json
from medvl.utils.sharding import is_sharded
from medvl.utils.threads import torch_threads
from medvl.workflows.folder_lock import FolderLock
from medvl.workflows.literals import literal_text
from medvl.workflows.locations import absolute_locations
from medvl.workflows.model_card import write_model_card
from medvl.workflows.model_input import ModelInput, hash_training_inputs, log_packed_size
from medvl.workflows.processes import whole_network
from medvl.workflows.run_records import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    METRICS,
    MODEL,
    PROMPTS,
    SKIPPED,
    TENSORBOARD,
    WEIGHTS,
    describe_environment,
    find_differences,
    read_record,
)
from medvl.workflows.split_record import KEY_FILE, SPLITS_FILE, SplitRecord, read_key
from medvl.workflows.step_size import PER_PROCESS, check_step_size

WRITTEN = (
    ENVIRONMENT, SPLITS_FILE, KEY_FILE, METRICS, SKIPPED, MODEL, f"{MODEL}.partial", CHECKPOINTS, TENSORBOARD
)  # fmt: skip
"""Names in a run folder that a run writes over or deletes; with ``config.yaml`` they are a run's own."""
KEEP = ("last", "best")
SETTINGS_ONLY = (
    "# The settings of a run by plain `monai.bundle run`, which cannot record the components of its configuration;\n"
    "# `command` in environment.json names its files.\n"
)

# a resumed run may differ in these from the one it continues
FREE_ON_RESUME = (
    "resume", "output", "device", "num_workers", "progress", "tensorboard", "bundle_root", "on_error", "layers",
    "checkpoint_interval", "sharded",
)  # fmt: skip

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

    A recipe calls :meth:`acquire` before anything is written, :meth:`release` once the studies are read, :meth:`set_input` and
    :meth:`setup` when the trainer is there, then :meth:`run_training` and :meth:`save_model`. From the first call to the last
    the folder is locked (:class:`~medvl.workflows.FolderLock`).

    Args:
        path: the folder; created when the run starts.
        resume: whether to continue the run that is in it. A folder without a checkpoint starts from the beginning.
        config: what to record: the whole configuration, or the settings alone where MONAI's own workflow runs it.

    Raises:
        ValueError: If ``path`` is empty.
    """

    def __init__(
        self, path: str | Path, resume: bool = False, config: WholeConfig | Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.resume = output_folder(path), resume
        self._lock = FolderLock(path)
        self._acquired = self._complete = False
        self._threads: int | None = None
        self._input: ModelInput | None = None
        self._input_hashes: dict[str, Any] | None = None
        self.is_whole = isinstance(config, WholeConfig)
        content = config.content if isinstance(config, WholeConfig) else config or {}
        self.config: dict[str, Any] = absolute_locations(json.loads(json.dumps(dict(content), default=str)))

    @property
    def model(self) -> Path:
        """Where the trained model is saved."""
        return self.path / MODEL

    @property
    def checkpoints(self) -> Path:
        """Where the training state is saved."""
        return self.path / CHECKPOINTS

    def acquire(self) -> Path:
        """Lock the folder and check that the run may write to it; called before anything is written there.

        With several processes the first goes on, and the others wait until it has read its studies (:meth:`release`), so that
        what it draws or labels on the way is written once.

        Returns:
            The folder's path.

        Raises:
            FolderInUseError: If another process is writing to the folder.
            ValueError: If the folder holds a run and ``resume`` is false, the run there had other settings, or the folder holds
                no run and something that a run would write over.
        """
        if not is_rank_zero():
            barrier()
            return self.path
        check_writable(self.path / CONFIG)
        self._lock.check_unused()
        self._check_free()  # first, so that a folder that is refused stays as it is
        self._lock.acquire()
        try:
            self._check_free()  # again, for another process may have been there in between
            self._acquired = True
            self._sweep()
        except BaseException:
            self._lock.release()
            raise
        return self.path

    def release(self, manifest: Manifest) -> None:
        """Let the other processes read the studies, which this one, the first, has read."""
        if is_rank_zero():
            barrier()

    def check_lock(self) -> None:
        """Raise if another process has taken the folder over, because this one was held up for long.

        Raises:
            FolderInUseError: If so.
        """
        if is_rank_zero() and self._acquired:
            self._lock.check()

    def set_input(self, network: DualEncoder, manifest: Manifest, dataset: StudyDataset | UnifiedDataset) -> None:
        """Find what the recipe feeds the network, for the model's folder, and let the network encode reports that way.

        What cannot be described is logged now, before the training. Called before :meth:`setup`, which records hashes of what
        the validation feeds the network.

        Args:
            network: the network.
            manifest: the studies.
            dataset: the validation dataset, which need not hold a study.
        """
        self._input = ModelInput.of(dataset, manifest)
        self._input.apply(network)
        if not is_rank_zero():
            return
        log_packed_size(dataset)
        for problem in self._input.problems.values():
            logger.warning("%s medvl evaluate and embed will not be able to prepare studies for it.", problem)
        for package in self._input.packages():
            logger.warning(
                "The preprocessing runs code of the package %s: who evaluates the model needs it, and --trust-package %s.",
                package,
                package,
            )
        self._input_hashes = hash_training_inputs(dataset, manifest, self._input.text_unit)

    def _sweep(self) -> None:
        """Remove what a killed run left half written."""
        for folder in (self.path, self.checkpoints, self.path / "data", self.path / "data" / "images"):
            remove_partial_files(folder)
        shutil.rmtree(self.path / f"{MODEL}.partial", ignore_errors=True)

    def setup(self, manifest: Manifest, trainer: Any, checkpoint: RunCheckpoint) -> None:
        """Write the records, and restore the newest whole checkpoint where the run is resumed.

        Args:
            manifest: the studies.
            trainer: the engine, with all its handlers attached.
            checkpoint: the trainer's handler.

        Raises:
            ValueError: As :meth:`acquire`, and if the run there had other data or epochs with another number of steps.
        """
        if is_rank_zero():
            self._write_records(manifest, trainer.state.device, trainer.data_loader.num_workers)
        elif self.resume and (self.path / ENVIRONMENT).is_file():
            self._threads = read_record(self.path / ENVIRONMENT).get("threads")
        if self.resume:
            self._complete = self._has_model()
            path = None if self._complete else checkpoint.restore(map_location=trainer.state.device)
            self._log_start(path, trainer.state.max_epochs)

    def _write_records(self, manifest: Manifest, device: torch.device | str = "cpu", workers: int = 0) -> None:
        self._check_free()
        logger.info(manifest.summary())
        # On a CPU the workers need a core each: more threads than cores only wait for each other.
        threads = max(1, torch.get_num_threads() - workers)
        environment = describe_environment(self.config, self.path, manifest, device, threads)
        if (self.path / ENVIRONMENT).exists():
            environment = self._continue_environment(read_record(self.path / ENVIRONMENT), environment)
        self._threads = environment["threads"]
        environment["validation_inputs"] = self._input_hashes
        text = yaml.safe_dump({**self.config, **self._sizes_before()}, sort_keys=False, allow_unicode=True)
        write_listed(self.path / CONFIG, text if self.is_whole else SETTINGS_ONLY + text)
        SplitRecord.from_studies(manifest.studies, read_key(self.path)).save(self.path)
        write_listed(self.path / ENVIRONMENT, json_text(environment, indent=2) + "\n")

    def _continue_environment(self, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """The record of a resumed run: that of its beginning, with what has changed under ``resumed``.

        Raises:
            ValueError: If the run began with other data.
        """
        if before.get("data_fingerprint") != now["data_fingerprint"]:
            raise ValueError(f"{now['data']} has changed since the run at {self.path} began; start a new run.")
        names = ("versions", "processes", "threads", "device", "cpu", "cuda")
        kept: dict[str, Any] = {key: before[key] for key in names if key in before}
        if kept.get("threads", now["threads"]) != now["threads"] and now["device"] == "cpu":
            logger.info("It trains with %d threads, as it began, so that the weights are the same.", kept["threads"])
        differences = find_differences(before, now)
        if differences:
            changes = ", ".join(f"{name} is {new} and was {old}" for name, (old, new) in differences.items())
            logger.warning(
                "Since the run began, %s: its weights may differ in the last digits from those of an uninterrupted run.",
                changes,
            )
        resumed = [*before.get("resumed", []), *([differences] if differences else [])]
        return {**now, **kept, **({"resumed": resumed} if resumed else {})}

    def _has_model(self) -> bool:
        """Whether the run is complete: its model is saved last, after all epochs."""
        if not self.model.is_dir():
            return False
        try:
            verify_checksums(self.model)
        except (ValueError, OSError) as error:
            if is_rank_zero():
                logger.warning("%s It is made again.", error)
            return False
        return (self.model / CHECKSUMS).is_file()

    def _log_start(self, path: Path | None, epochs: int) -> None:
        if not is_rank_zero():
            return
        if self._complete:
            logger.info("The run at %s is complete, and nothing is left to train.", self.path)
        elif path is not None:
            logger.info("The run at %s goes on after %s of %d.", self.path, describe_position(path), epochs)
        else:
            logger.info("The run at %s starts with the first of %d epochs.", self.path, epochs)

    def _check_free(self) -> None:
        if (self.path / CONFIG).exists():
            if not self.resume:
                raise ValueError(f"{self.path} already holds a run; continue it (--resume) or choose another folder.")
            self._check_same()
        elif not self._acquired:
            self._check_names()

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
        before, now = literal_text(absolute_locations(read_record(self.path / CONFIG))), literal_text(self.config)
        # One of the two may be the settings alone.
        keys = set(now) | set(before) if self.is_whole and "run" in before else set(now) & set(before)
        processes, own = self._processes_before(), get_world_size()
        if processes != own:
            check_step_size(self.path, before, now, processes, own)
            keys -= set(PER_PROCESS)
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

    def _processes_before(self) -> int:
        """The number of processes that the run began with."""
        path = self.path / ENVIRONMENT
        return int(read_record(path).get("processes", 1)) if path.is_file() else get_world_size()

    def _sizes_before(self) -> dict[str, Any]:
        """Sizes for each of the processes that the run began with, which its record keeps."""
        path = self.path / CONFIG
        before = read_record(path) if path.is_file() else {}
        return {key: before[key] for key in PER_PROCESS if key in before and key in self.config}

    def run_training(self, trainer: Any, best: BestCheckpoint | None = None) -> None:
        """Run what is left of the training: nothing if a restored run has no epoch left or stopped early.

        The number of PyTorch's threads is that which the run began with, for sums depend on it in their last digits.

        Args:
            trainer: the engine.
            best: the handler that may have stopped it.

        Raises:
            ProcessLostError: If another process of the run has ended.
        """
        epoch = trainer.state.epoch
        if self._complete or epoch >= trainer.state.max_epochs or (best is not None and best.should_stop(epoch)):
            return
        threads = self._threads or max(1, torch.get_num_threads() - trainer.data_loader.num_workers)
        with warnings.catch_warnings(), torch_threads(threads):
            # MONAI's trainer makes a gradient scaler wherever there is autocast; on a CPU it does nothing.
            warnings.filterwarnings("ignore", message=".*GradScaler")
            # Nothing is done in place with what a sharded network returns.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
            try:
                trainer.run()
            except RuntimeError as error:
                if is_distributed() and (lost := lost_process(error)) is not None:
                    raise lost from error
                raise

    def save_model(
        self,
        network: DualEncoder,
        class_prompts: Mapping[str, Any],
        keep: str = "last",
        best: BestCheckpoint | None = None,
    ) -> None:
        """Save the trained network with its tokenizer, and the class prompts to evaluate it with.

        The folder ``model`` appears whole or not at all, with a checksum of each file. Which epoch's weights it holds is
        logged, and recorded in ``model/weights.json``; what the model must be fed (:meth:`set_input`) in
        ``model/preprocessing.json`` and on its card. LoRA adapters are merged into the weights, so that the model does not need
        peft. The model of a run that was complete stays as it is.

        Args:
            network: the trained network.
            class_prompts: for each finding, ``{"present": [...], "absent": [...]}``.
            keep: "last" saves the current weights, "best" those of the best epoch.
            best: the handler that knows the best epoch.

        Raises:
            ValueError: If ``keep`` is neither, or "best" without a handler, or a weight is not finite.
            DiskFullError: If there is no space left.
        """
        check_option(keep, "keep", KEEP)
        if keep == "best" and best is None:
            raise ValueError(error_message("best", "be a BestCheckpoint where keep is 'best'", best))
        if self._complete:
            if is_rank_zero():
                self._lock.release()
            return
        if not is_rank_zero() and not is_sharded(network):
            return
        epoch = best.restore_best() if keep == "best" and best is not None else 0
        network = whole_network(network)
        if not is_rank_zero():
            return
        weights: dict[str, Any] = {"epoch": "last"}
        if epoch and best is not None:
            weights = {"epoch": epoch, "chosen_by": best.metric, "value": best.value}
        logger.info("model/ holds the weights of the %s epoch", keep)
        network.text_encoder.merge_adapters()
        check_finite_weights(network.state_dict(), "after the training")
        self.check_lock()
        partial = self.path / f"{MODEL}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with name_full_disk(partial):
            network.save_pretrained(partial)
            write_json(partial / PROMPTS, class_prompts)
            write_json(partial / WEIGHTS, weights, indent=None)
            if self._input is not None:
                self._input.save(partial)
            write_model_card(self.path, model_folder=partial)
            write_checksums(partial)
            shutil.rmtree(self.model, ignore_errors=True)
            partial.rename(self.model)
        self._lock.release()


def output_folder(value: str | Path | None) -> Path:
    """The folder that a recipe's ``output`` names.

    Raises:
        ValueError: If it is empty: an empty text would be the working folder.
    """
    if not value:
        raise ValueError(error_message("output", "be the path of a folder", repr(value)))
    return Path(value)


def is_drawn(folder: Path) -> bool:
    """Whether a folder holds nothing but what the synthetic data set writes there, perhaps not all of it yet."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")} - {CHECKSUMS}
    images = list((folder / "images").iterdir()) if "images" in names else []
    drawn = all(path.name.startswith("syn") for path in images)
    return drawn and (names <= {"images"} or (names == {"images", "cases.csv"} and bool(images)))
