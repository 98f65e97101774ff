"""What the recipes' configurations have in common, as classes and functions that they name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Evaluator
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler
from torch import nn
from tqdm.auto import tqdm

from medvl.data import StudyDataset, UnifiedDataset
from medvl.handlers import (
    BestCheckpoint,
    EpochSeed,
    FiniteLoss,
    FiniteWeights,
    GradientClipping,
    MetricsLog,
    ProgressBar,
    RunCheckpoint,
    SkippedLog,
)
from medvl.networks import DualEncoder
from medvl.networks.encoders.adapters import add_adapters
from medvl.utils.checks import check_option, error_message
from medvl.utils.distributed import is_distributed, is_rank_zero
from medvl.utils.errors import StudyError
from medvl.utils.extras import require_extra
from medvl.workflows.processes import shard_network
from medvl.workflows.run_folder import RunFolder
from medvl.workflows.run_records import METRICS, SKIPPED, TENSORBOARD

logger = logging.getLogger(__name__)


class DefaultTrainHandlers:
    """The handlers of every recipe's trainer apart from the validation, attached in the order in which they must act.

    The epoch is seeded; a loss, gradient or weight that is not finite stops the run; gradients are clipped; the learning rate
    follows the scheduler; the validation metric determines the best epoch; the epoch is logged to ``metrics.jsonl`` (and
    TensorBoard) and ``skipped.jsonl``; the checkpoint is last, so that everything that a resumed run depends on is on disk by
    then, and within an epoch it holds the state of the others. A run whose folder another process has taken over stops.

    In the list of a trainer's handlers it follows MONAI's ``ValidationHandler``, whose metrics it reads.

    Args:
        run_folder: the folder that the logs are written to.
        loader: the training loader.
        scheduler: the learning rate scheduler, stepped after each iteration.
        checkpoint: writes the training state.
        evaluator: the validation engine; None if its loader has no study.
        best: chooses the best epoch.
        seed: the run's seed.
        max_grad_norm: gradients are clipped to this norm.
        skipped: studies that were skipped when the data was read.
        tensorboard: whether the terms of the loss, the learning rates and the validation metrics are logged to TensorBoard.
        progress: whether a progress bar is shown.

    Raises:
        ValueError: If the best epoch is to be chosen and there is no study to validate on.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        loader: Any,
        scheduler: Any,
        checkpoint: RunCheckpoint,
        *,
        evaluator: Evaluator | None = None,
        best: BestCheckpoint | None = None,
        seed: int = 0,
        max_grad_norm: float = 1.0,
        skipped: Iterable[StudyError] = (),
        tensorboard: bool = False,
        progress: bool = True,
    ) -> None:
        if evaluator is not None and not len(evaluator.data_loader.dataset):
            evaluator = None
        if best is not None and evaluator is None:
            raise ValueError(
                "keep='best' and patience need the validation metric, but the validation split has no study."
            )
        self._run_folder, self._checkpoint = run_folder, checkpoint
        seeds, log = EpochSeed(loader, seed=seed), MetricsLog(run_folder.path / METRICS, evaluator)
        skipped_log = SkippedLog(
            run_folder.path / SKIPPED,
            errors=skipped,
            loaders=[loader] if evaluator is None else [loader, evaluator.data_loader],
        )
        checkpoint.parts |= {"epoch": seeds, "metrics": log, "skipped": skipped_log}
        handlers = [
            seeds,
            FiniteLoss(),
            FiniteWeights(),
            GradientClipping(max_grad_norm),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            best,
            log,
            _tensorboard(run_folder.path / TENSORBOARD, evaluator) if tensorboard and is_rank_zero() else None,
            skipped_log,
            checkpoint,
            ProgressBar(progress and is_rank_zero()),
        ]
        self.handlers = [handler for handler in handlers if handler is not None]

    def attach(self, engine: Any) -> None:
        """Register the handlers with a trainer."""
        is_due = self._checkpoint.is_due
        for event in (
            Events.EPOCH_COMPLETED,
            Events.ITERATION_COMPLETED(event_filter=lambda engine, _: is_due(engine)),
        ):
            engine.add_event_handler(event, self._run_folder.check_lock)
        for handler in self.handlers:
            handler.attach(engine)


def progress_wrapper(
    description: str, enabled: bool = True, total: int | None = None
) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A function that shows a progress bar while an iterable is consumed, in the first process only.

    Args:
        description: what stands before the bar.
        enabled: whether a bar is shown.
        total: the number of items, for an iterable without a length.

    Example:
        >>> list(progress_wrapper("read images", enabled=False)([1, 2]))
        [1, 2]
    """

    def wrap(items: Iterable[Any]) -> Iterable[Any]:
        return tqdm(items, desc=description, total=total, disable=not (enabled and is_rank_zero()))

    return wrap


def cache_images(dataset: StudyDataset | UnifiedDataset, progress: bool = True) -> None:
    """Read the images of a dataset into its cache, with a progress bar.

    Args:
        dataset: as far as its ``cache_bytes`` allow.
        progress: whether a bar is shown.
    """
    images = dataset.images if isinstance(dataset, UnifiedDataset) else dataset
    dataset.load(progress_wrapper("read images", progress, len(images)))


def _tensorboard(folder: Path, evaluator: Evaluator | None) -> TensorBoardStatsHandler:
    require_extra("The setting tensorboard", "tensorboard")

    def log_step(engine: Any, writer: Any) -> None:
        step = engine.state.iteration
        values = {"loss": engine.state.output["loss"].detach(), **getattr(engine.loss_function, "terms", {})}
        scale = engine.state.output["pred"].get("logit_scale")
        if scale is not None:
            values["logit_scale"] = scale.detach()
        for name, value in values.items():
            writer.add_scalar(f"train/{name}", float(value), step)
        for number, group in enumerate(engine.optimizer.param_groups):
            writer.add_scalar(f"learning_rate/{number}", group["lr"], step)

    def log_epoch(engine: Any, writer: Any) -> None:
        for name, value in (evaluator.state.metrics if evaluator is not None else {}).items():
            writer.add_scalar(f"val/{name}", float(value), engine.state.epoch)

    return TensorBoardStatsHandler(log_dir=str(folder), iteration_event_writer=log_step, epoch_event_writer=log_epoch)


def prepare_network(
    network: DualEncoder,
    device: str | torch.device = "cpu",
    frozen_text_layers: int | str | None = None,
    lora_rank: int = 0,
    frozen_image_layers: int | str | None = None,
    gradient_checkpointing: bool = False,
    sync_batch_norm: bool = False,
    sharded: bool = False,
) -> DualEncoder:
    """Freeze layers of the encoders or add LoRA adapters to the text encoder, and move the network to its device.

    Args:
        network: changed in place.
        device: the device to train on.
        frozen_text_layers: how many of the text encoder's layers are frozen, with its embeddings, or "all"; None freezes
            nothing.
        lora_rank: rank of LoRA adapters in the linear layers of the text encoder, whose other weights are then frozen; 0 for
            none. Needs the package peft.
        frozen_image_layers: how many of the image encoder's layers are frozen, with what comes before them, or "all"; None
            freezes nothing. Their batch norm keeps its statistics.
        gradient_checkpointing: keep only the inputs of the encoders' blocks for the gradient, and compute the rest again:
            ``DualEncoder.gradient_checkpointing_enable``.
        sync_batch_norm: with several processes, normalize by the images of all of them (``torch.nn.SyncBatchNorm``, which
            needs GPUs). It changes nothing in a single process.
        sharded: with several processes, divide the weights over them: :func:`~medvl.workflows.shard_network`.

    Returns:
        The network.

    Raises:
        ValueError: If ``sync_batch_norm`` is true on a CPU, the rank is negative, both options are given, an encoder does not
            have so many layers, or the network could not be loaded again from what :meth:`RunFolder.save_model` will save.
        ModuleNotFoundError: If peft is not installed.
    """
    check_saveable(network)
    if sync_batch_norm:
        network = _with_sync_batch_norm(network, device)
    if lora_rank < 0 or (lora_rank and frozen_text_layers is not None):
        raise ValueError(
            error_message(
                "lora_rank",
                "be at least 0, and 0 where frozen_text_layers is given (LoRA freezes the rest by itself)",
                f"lora_rank={lora_rank} and frozen_text_layers={frozen_text_layers!r}",
            )
        )
    if lora_rank:
        adapter = {"peft_type": "LORA", "r": lora_rank, "lora_alpha": 2 * lora_rank, "target_modules": "all-linear"}
        network.text_encoder.model = add_adapters(network.text_encoder.model, {"default": adapter})
    elif frozen_text_layers is not None:
        network.text_encoder.freeze(None if frozen_text_layers == "all" else int(frozen_text_layers))
    if frozen_image_layers is not None:
        network.image_encoder.freeze(None if frozen_image_layers == "all" else int(frozen_image_layers))
    if gradient_checkpointing:
        network.gradient_checkpointing_enable()
    if sharded:  # which takes weights in the usual memory format only
        return shard_network(network.to(device), device)
    # Convolutions are fastest in this memory format.
    channels_last = torch.channels_last if network.spatial_dims == 2 else torch.channels_last_3d
    return network.to(device, memory_format=channels_last)  # type: ignore[call-overload]  # not in torch's types


def _with_sync_batch_norm(network: DualEncoder, device: str | torch.device) -> DualEncoder:
    """A network whose batch norm takes its statistics from all processes."""
    kind = torch.device(device).type
    if kind == "cpu":
        expected = "be False on a CPU, where torch.nn.SyncBatchNorm does not work"
        raise ValueError(error_message("sync_batch_norm", expected, True))
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if is_distributed() else network


def autocast_options(precision: str | None = None, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The arguments ``amp`` and ``amp_kwargs`` of MONAI's trainer for a precision.

    Args:
        precision: "float32", "bfloat16" or "float16"; None for MONAI's choice, float16 on a GPU and float32 elsewhere.
        device: the device to train on.

    Raises:
        ValueError: If the precision is unknown, or "float16" on a CPU, whose gradients would not be scaled.

    Example:
        >>> autocast_options("bfloat16"), autocast_options()
        ({'amp': True, 'amp_kwargs': {'dtype': torch.bfloat16}}, {'amp': False, 'amp_kwargs': {}})
    """
    on_gpu = torch.device(device).type == "cuda"
    check_option(precision, "precision", (None, "float32", "bfloat16", *(("float16",) if on_gpu else ())))
    if precision is None or precision == "float32":
        return {"amp": on_gpu and precision is None, "amp_kwargs": {}}
    return {"amp": True, "amp_kwargs": {"dtype": getattr(torch, precision)}}


def check_saveable(network: Any) -> None:
    """Raise before the training if the network could not be saved, or not be loaded again.

    Raises:
        ValueError: If a part of the network has no configuration, or its configuration builds another network.
    """
    if not isinstance(network, DualEncoder):
        return
    with torch.random.fork_rng(devices=[]):
        try:
            config = json.loads(json.dumps(network.to_config()))
            again = type(network).from_config(config, trusted_packages=network.packages())
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"The trained network could not be saved and loaded: {error}") from error
    shapes = [{name: tuple(value.shape) for name, value in one.state_dict().items()} for one in (network, again)]
    differing = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
    if differing:
        now, then = (shape.get(differing[0], "missing") for shape in shapes)
        raise ValueError(
            f"The trained network could not be loaded: {differing[0]} is {now}, and {then} in a network that is built from its "
            "configuration."
        )
    for package in network.packages():
        logger.warning(
            "The network has code of the package %s: who loads the model needs it, and --trust-package %s or "
            "DualEncoder.from_pretrained(folder, trusted_packages=[%r]).",
            package,
            package,
            package,
        )
