"""What is written beside a run so that it can be repeated, resumed and evaluated."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser

from medvl.data import Manifest, parse_source, table_path
from medvl.handlers import BestCheckpoint
from medvl.utils.distributed import barrier, is_rank_zero
from medvl.utils.errors import StudyError

CONFIG, ENVIRONMENT, METRICS, SKIPPED = "config.yaml", "environment.json", "metrics.jsonl", "skipped.jsonl"
MODEL, CHECKPOINTS, PROMPTS, TENSORBOARD = "model", "checkpoints", "prompts.json", "tensorboard"
WEIGHTS, TEXT_LABELS = "weights.json", "text_labels.npz"
KEEP = ("last", "best")

# a resumed run may differ in these from the one it goes on with
FREE_ON_RESUME = ("resume", "output", "device", "workers", "progress", "tensorboard", "bundle_root", "on_error")
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


def running_config() -> dict[str, Any]:
    """The configuration, overrides included, whose expression calls this function.

    MONAI hands an expression no reference to the configuration that it stands in, on the command line of
    ``monai.bundle`` least of all; the parser is found among the callers instead.

    Raises:
        RuntimeError: where no bundle configuration is being evaluated.
    """
    frame = sys._getframe(1)
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser.get()
        frame = frame.f_back  # type: ignore[assignment]
    raise RuntimeError("running_config() has a meaning only inside an expression of a bundle configuration.")


class RunFolder:
    """The folder of one training run.

    It holds ``config.yaml`` (the configuration with all overrides), ``environment.json`` (seed, versions, fingerprint of
    the data), ``metrics.jsonl``, ``skipped.jsonl``, ``checkpoints/`` and, when the run is done, ``model/``.

    Args:
        path: the folder; made when the run starts.
        resume: whether to go on with the run that is in it. A folder without a checkpoint starts from the beginning.
    """

    def __init__(self, path: str | Path, resume: bool = False) -> None:
        self.path, self.resume = Path(path), resume

    @property
    def model(self) -> Path:
        """Where the trained model is saved."""
        return self.path / MODEL

    @property
    def checkpoints(self) -> Path:
        """Where the training state is saved."""
        return self.path / CHECKPOINTS

    def claim(self, config: Mapping[str, Any]) -> Path:
        """The folder's path, where this run may write to it; called before anything is written there.

        Of several processes the first goes on, and the others wait until it has read its studies (:meth:`share`): what it
        draws or labels on the way is written once.

        Args:
            config: the bundle's configuration.

        Raises:
            ValueError: where the folder holds a run and ``resume`` is not asked for, or the run there had other settings.
        """
        if is_rank_zero():
            self._check_free(config)
        else:
            barrier()
        return self.path

    def share(self, manifest: Manifest) -> None:
        """Lets the other processes read the studies that this one, the first, has read."""
        if is_rank_zero():
            barrier()

    def start(self, config: Mapping[str, Any], manifest: Manifest, trainer: Any, checkpoint: Any) -> None:
        """Writes the records, and restores the newest checkpoint where the run is resumed.

        Args:
            config: the bundle's configuration.
            manifest: the studies.
            trainer: the engine, with all its handlers attached.
            checkpoint: the trainer's :class:`~medvl.handlers.RunCheckpoint`.

        Raises:
            ValueError: as :meth:`claim`; where the run there had other data.
        """
        if is_rank_zero():
            self._write_records(config, manifest)
        if self.resume:
            checkpoint.restore(map_location=trainer.state.device)

    def _write_records(self, config: Mapping[str, Any], manifest: Manifest) -> None:
        self._check_free(config)
        logger.info(manifest.summary())
        environment = {
            "seed": config["seed"],
            "data": manifest.name,
            "tables_sha256": tables_sha256(config, self.path),
            "data_fingerprint": manifest.fingerprint(),
            "data_summary": manifest.summary(),
            "studies": {split: len(manifest.subset(split, allow_empty=True)) for split in ("train", "val", "test")},
            "label_policy": (config.get("prepare_batch") or {}).get("label_policy"),
            "versions": {name: version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        }
        if (self.path / ENVIRONMENT).exists():
            before = json.loads((self.path / ENVIRONMENT).read_text())
            if before["data_fingerprint"] != environment["data_fingerprint"]:
                raise ValueError(f"{manifest.name} has changed since the run at {self.path} began; start a new run.")
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        _write(self.path / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")

    def _check_free(self, config: Mapping[str, Any]) -> None:
        if (self.path / CONFIG).exists():
            if not self.resume:
                raise ValueError(f"{self.path} already holds a run; go on with it (--resume) or choose another folder.")
            self._check_same(config)

    def _check_same(self, config: Mapping[str, Any]) -> None:
        before = yaml.safe_load((self.path / CONFIG).read_text())
        changed = [
            f"{key} is {config.get(key)!r} but was {before.get(key)!r}"
            for key in sorted(set(config) | set(before))
            if key not in FREE_ON_RESUME and config.get(key) != before.get(key)
        ]
        if changed:  # the shortest says most: a number, and not the component that it stands in
            raise ValueError(
                f"{min(changed, key=len)} in the run at {self.path}; "
                "resume it with the same settings, or choose another folder."
            )

    def train(self, trainer: Any, best: BestCheckpoint | None = None) -> None:
        """Runs what is left of the training: nothing where a restored run has no epoch left or had stopped early.

        PyTorch's threads leave a core to each process that loads data: on a CPU, more of both only wait for each other.

        Args:
            trainer: the engine.
            best: the handler that may have stopped it.
        """
        epoch = trainer.state.epoch
        if epoch < trainer.state.max_epochs and not (best is not None and best.exhausted(epoch)):
            with _cores_left_to(trainer.data_loader.num_workers):
                trainer.run()

    def finish(
        self, network: Any, prompts: Mapping[str, Any], keep: str = "last", best: BestCheckpoint | None = None
    ) -> None:
        """Saves the trained network with its tokenizer, and the prompts to evaluate it with.

        The folder ``model`` appears whole or not at all. Which epoch's weights it holds is logged, and stands in
        ``model/weights.json``. LoRA adapters become part of the weights, so that the model needs peft no more.

        Args:
            network: the :class:`~medvl.networks.DualEncoder`.
            prompts: for each finding, ``{"present": [...], "absent": [...]}``.
            keep: "last" saves the weights as they are, "best" those of the best epoch.
            best: the handler that knows it.

        Raises:
            ValueError: where ``keep`` is neither, or "best" without a handler.
        """
        if keep not in KEEP or (keep == "best" and best is None):
            raise ValueError(f"keep must be 'last', or 'best' with a BestCheckpoint, received {keep!r}.")
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
        (partial / PROMPTS).write_text(json.dumps(prompts, indent=2) + "\n")
        (partial / WEIGHTS).write_text(json.dumps(weights) + "\n")
        shutil.rmtree(self.model, ignore_errors=True)
        partial.rename(self.model)


def read_skipped(path: str | Path) -> list[StudyError]:
    """The studies that the run in this folder left out for an error."""
    lines = (Path(path) / SKIPPED).read_text().splitlines()
    return [StudyError(**json.loads(line)) for line in lines]


def tables_sha256(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Hashes of the tables that a run reads, of ``data`` and of ``sources``; a public set's folder is no table."""
    places = [config["data"], *(parse_source(source)[1] for source in config.get("sources") or [])]
    tables = [table_path(place, folder) for place in places if place is not None]
    return [file_sha256(table) for table in tables if table.is_file()]


@contextmanager
def _cores_left_to(workers: int) -> Iterator[None]:
    """Fewer PyTorch threads, so that each of ``workers`` processes has a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
