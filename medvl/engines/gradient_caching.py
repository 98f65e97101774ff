"""Gradient caching: the exact gradient of a large contrastive batch, at the memory of a chunk of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medvl.engines.chunks import BatchSize, Chunk, GatheredRows, RowOwners, plan_chunks, rows_like, take_rows
from medvl.utils.batch_norm import ChunkedStatistics, kept_statistics, tracked_norms
from medvl.utils.checks import check_integer, check_type, error_message
from medvl.utils.distributed import is_distributed, is_rank_zero
from medvl.utils.sharding import is_sharded

logger = logging.getLogger(__name__)

Forward = Callable[..., Mapping[str, Any]]


class GradientCaching:
    """A training step whose batch passes the network in chunks, with the gradient of the whole batch.

    A contrastive loss depends on all embeddings of a batch together, so that the gradients of smaller batches do not add up to
    it. Gradient caching (Gao et al. 2021, https://arxiv.org/abs/2101.06983) makes them add up:

    1. the chunks pass the network without a graph, and every output of it is kept for the whole batch;
    2. the loss of the whole batch, and its gradient with respect to those outputs. Parameters of the loss get theirs here;
    3. each chunk passes the network again, with the same random numbers (dropout, stochastic depth, masks), and the kept
       gradients of its outputs are propagated to the weights, where they add up.

    The result is that of the plain step with the whole batch, up to rounding, for any network without batch statistics. Memory
    is that of a chunk's graph, or of the loss, and twice the outputs; the price is a second forward pass. In a single process
    a batch that is one chunk passes once, as in a plain step.

    **Batch norm** in training mode normalizes by the statistics of its chunk, as it would in a plain step with a batch of
    that size, and a warning says so once. Its running statistics are updated once a step, in the first pass, by the mean over
    chunks of their statistics (:class:`medvl.utils.batch_norm.ChunkedStatistics`); the second pass leaves them alone.
    ``SyncBatchNorm`` is refused in several processes, which may have different numbers of chunks.

    **Several processes.** The loss may gather embeddings (:func:`medvl.utils.distributed.all_gather_with_grad`); under
    ``DistributedDataParallel`` gradients are reduced once, in the last chunk.

    **Mixed precision.** With the trainer's ``amp`` both passes and the loss run under ``torch.autocast`` of the device, the
    CPU included, with its ``amp_kwargs``.

    It is the ``iteration_update`` of ``monai.engines.SupervisedTrainer``, which otherwise stays as it is. For other loops,
    :meth:`embed` does the first pass and :meth:`CachedBatch.backward` the second. The network is called as
    ``network(image, name=value, ...)`` and returns a dictionary of tensors, as a :class:`~medvl.networks.DualEncoder` does.

    Args:
        chunk_size: maximum number of images of a chunk, which bring their texts along; at least 1. Texts without an image are
            spread over the chunks, of which there are enough for each to get at most as many. None for one chunk, the whole
            batch.
        row_owners: for arguments and outputs of networks of your own, by name, whether their rows are those of the batch's
            images ("image") or texts ("text"), or all chunks share them ("shared", as a learned scale). By default they are
            recognized by their names or, where a batch has different numbers of images and texts, by their number of rows.

    Raises:
        TypeError: If ``chunk_size`` is not an integer.
        ValueError: If ``chunk_size`` is below 1, or an owner is unknown.

    Example:
        >>> class Encoders(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.image, self.text = nn.Linear(4, 3), nn.Embedding(10, 3)
        ...     def forward(self, image, input_ids):
        ...         return {"image_embeds": self.image(image), "text_embeds": self.text(input_ids).mean(1)}
        >>> from medvl.losses import ImageTextContrastiveLoss
        >>> network, loss = Encoders(), ImageTextContrastiveLoss()
        >>> batch = GradientCaching(chunk_size=2).embed(network, torch.rand(5, 4), input_ids=torch.arange(10).reshape(5, 2))
        >>> loss(batch.output["image_embeds"], batch.output["text_embeds"]).backward()
        >>> batch.backward()
        >>> len(batch.chunks), network.image.weight.grad.shape
        (3, torch.Size([3, 4]))
    """

    def __init__(self, chunk_size: int | None, row_owners: Mapping[str, str] | None = None) -> None:
        if chunk_size is not None:
            check_integer(chunk_size, "chunk_size", minimum=1)
        self.chunk_size, self.row_owners = chunk_size, RowOwners(row_owners)
        self._warned = False

    def __call__(self, engine: SupervisedTrainer, batchdata: Any) -> dict[str, Any]:
        """One step of a trainer, with the events and the output of MONAI's own.

        Raises:
            ValueError: If the trainer accumulates gradients over steps, which is not exact for a contrastive loss, or
                ``prepare_batch`` gives the network arguments by position.
        """
        steps = getattr(engine, "accumulation_steps", 1)
        if steps != 1:
            expected = "be 1 with gradient caching, which gives the exact gradient of a larger batch"
            raise ValueError(error_message("accumulation_steps", expected, steps))
        prepared = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        image, targets, args, kwargs = (*prepared, (), {}) if len(prepared) == 2 else prepared
        if args:
            raise ValueError(
                error_message("prepare_batch", "name the arguments of the network", f"{len(args)} by position")
            )
        ids = (targets.get("image_ids"), targets.get("text_ids")) if isinstance(targets, Mapping) else None

        def autocast() -> AbstractContextManager[Any]:
            device = torch.device(engine.state.device).type
            return torch.autocast(device, **engine.amp_kwargs) if engine.amp else nullcontext()

        def forward(*inputs: Any, **named: Any) -> Mapping[str, Any]:
            with autocast():  # of its own in every pass: the weights that it casts belong to one graph
                return engine.inferer(*inputs, engine.network, **named)

        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        engine.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: targets}
        batch = self._embed(engine.network, forward, image, kwargs, ids)
        engine.state.output[CommonKeys.PRED] = batch.output
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        with autocast():
            loss = engine.loss_function(batch.output, targets).mean()
        engine.state.output[CommonKeys.LOSS] = loss
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        scaler = engine.scaler if engine.amp else None
        (loss if scaler is None else scaler.scale(loss)).backward()
        batch.backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if scaler is None:
            engine.optimizer.step()
        else:
            scaler.step(engine.optimizer)
            scaler.update()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def embed(self, network: nn.Module, image: Tensor | None = None, **kwargs: Any) -> CachedBatch:
        """The first pass of a batch.

        Args:
            network: in training mode; may be a ``DistributedDataParallel``.
            image: (N, ...); None for a batch of texts.
            **kwargs: other arguments of the network, such as ``input_ids`` (M, L). ``image_ids`` and ``text_ids``, where the
                network takes them, keep a study's images and texts in one chunk.

        Returns:
            The batch, whose ``output`` goes to the loss. After the loss's ``backward``, its own
            :meth:`~CachedBatch.backward` adds the gradients of the network's weights to theirs.

        Raises:
            ValueError: If it is not known whether an argument or output belongs to images or texts, or the network has
                ``SyncBatchNorm`` in training mode in several processes.
            TypeError: If the output of the network is not a dictionary of tensors.
        """
        return self._embed(network, network, image, kwargs, None)

    def _embed(
        self, network: nn.Module, forward: Forward, image: Tensor | None, kwargs: Mapping[str, Any], ids: Any
    ) -> CachedBatch:
        self._check_network(network)
        view_index = kwargs.get("view_index")
        images = 0 if image is None else len(image)
        studies = images if view_index is None else int(view_index.max()) + 1 if len(view_index) else 0
        size = BatchSize(images, studies, self.row_owners.count_texts(kwargs))
        image_ids, text_ids = (kwargs.get("image_ids"), kwargs.get("text_ids")) if ids is None else ids
        chunks = plan_chunks(
            size,
            max(1, size.images, size.texts) if self.chunk_size is None else self.chunk_size,
            _as_list(image_ids) if studies else (),
            _as_list(text_ids) if size.texts else (),
            _as_list(view_index),
        )
        if len(chunks) > 1:
            self._warn_of_batch_norm(network)
        return CachedBatch(network, forward, image, kwargs, size, chunks, self.row_owners)

    def _check_network(self, network: nn.Module) -> None:
        """Raise for a network that communicates in each pass, if processes may have different numbers of chunks."""
        if is_distributed():
            if is_sharded(network) and self.chunk_size is not None:
                expected = "be None for a sharded network, as processes may have different numbers of chunks"
                raise ValueError(error_message("chunk_size", expected, self.chunk_size))
            for name, module in network.named_modules():
                if isinstance(module, nn.SyncBatchNorm) and module.training:
                    expected = "have no SyncBatchNorm in training mode with gradient caching in several processes"
                    raise ValueError(error_message("network", expected, name))

    def _warn_of_batch_norm(self, network: nn.Module) -> None:
        if self._warned:
            return
        self._warned = True
        names = [name for name, norm in tracked_norms(network).items() if isinstance(norm, _BatchNorm)]
        if names and is_rank_zero():
            logger.warning(
                "The network has batch norm (%s%s), which normalizes each chunk of at most %d images by the chunk's own "
                "statistics: the gradient is not exactly that of the whole batch. Its running statistics are updated once a "
                "step, by the mean over chunks.",
                names[0],
                f" and {len(names) - 1} more" if len(names) > 1 else "",
                self.chunk_size,
            )


class CachedBatch:
    """A batch that has passed the network in chunks; made by :meth:`GradientCaching.embed`.

    Args:
        network: the network.
        forward: calls the network with a chunk.
        image: (N, C, H, W[, D]), or None for texts alone.
        kwargs: other inputs of the network, such as ``input_ids`` (M, L).
        size: number of images and of texts.
        chunks: what passes together.
        row_owners: which rows of an output belong to a chunk.

    Attributes:
        output: dictionary of the network's outputs for the whole batch, as leaves of the loss's graph.
        chunks: list of :class:`~medvl.engines.chunks.Chunk`, what passes together.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Forward,
        image: Tensor | None,
        kwargs: Mapping[str, Any],
        size: BatchSize,
        chunks: Sequence[Chunk],
        row_owners: RowOwners,
    ) -> None:
        self.network, self.chunks = network, list(chunks)
        self._forward, self._image, self._kwargs = forward, image, dict(kwargs)
        self._size, self._row_owners = size, row_owners
        self._owners: dict[str, str] = {}
        self._graph: Mapping[str, Any] | None = None
        self._states: list[_RandomState] = []
        devices = [value.device for value in (image, *kwargs.values()) if isinstance(value, Tensor)]
        self._device = devices[0] if devices else torch.device("cpu")
        # DistributedDataParallel's own communication in a pass with a graph has to come after the loss's in every process,
        # however many chunks each has.
        values: Mapping[str, Any]
        if len(self.chunks) > 1 or is_distributed():
            values = self._first_pass()
        else:  # the graph of a single chunk need not be made again
            self._graph = values = _checked(forward(image, **kwargs))
        self.output: dict[str, Any] = {name: _as_leaf(value) for name, value in values.items()}

    def backward(self) -> None:
        """The second pass: add the gradients of the network's weights, once the loss's ``backward`` has run."""
        if self._graph is not None:
            self._propagate(self._graph, None)
        for chunk, state in zip(self.chunks, self._states, strict=bool(self._states)):
            last = chunk is self.chunks[-1]
            with _without_reduction(self.network, not last), state.replayed(), kept_statistics(self.network):
                self._propagate(self._pass(chunk), chunk, last)
        self._graph, self._states = None, []
        for value in self.output.values():
            if isinstance(value, Tensor):
                value.grad = None

    @torch.no_grad()
    def _first_pass(self) -> dict[str, Any]:
        """The outputs of all chunks."""
        statistics = ChunkedStatistics(self.network)
        gathered: dict[str, GatheredRows] = {}
        shared: dict[str, Any] = {}
        for chunk in self.chunks:
            self._states.append(_RandomState(self._device))
            share = len(chunk.images) / self._size.images if self._size.images else 1 / len(self.chunks)
            with statistics.chunk(share):
                output = self._pass(chunk)
            for name, value in output.items():
                owner = self._owner(name, value, chunk)
                if owner == "shared":
                    shared.setdefault(name, value)
                elif rows := chunk.rows(owner):
                    gathered.setdefault(name, GatheredRows(self._size.rows(owner))).put(rows, value)
        statistics.finish()
        return {name: shared[name] if name in shared else gathered[name].value for name in self._owners}

    def _pass(self, chunk: Chunk) -> Mapping[str, Any]:
        """The output of the network for a chunk, without the arguments of a side that the chunk does not have."""
        inputs: dict[str, Any] = {}
        for name, value in self._kwargs.items():
            owner = self._row_owners.of_argument(name, value, self._size)
            if owner == "shared" or value is None:
                inputs[name] = value
            elif rows := chunk.inputs(owner):
                inputs[name] = take_rows(value, rows)
        if "view_index" in inputs:
            inputs["view_index"] = _numbered(inputs["view_index"], chunk.studies)
        image = take_rows(self._image, chunk.images) if chunk.images else None
        return _checked(self._forward(image, **inputs))

    def _owner(self, name: str, value: Any, chunk: Chunk) -> str:
        if name not in self._owners:
            texts = len(chunk.inputs("text"))
            self._owners[name] = self._row_owners.of_output(name, value, len(chunk.images), texts)
        return self._owners[name]

    def _propagate(self, output: Mapping[str, Any], chunk: Chunk | None, last: bool = True) -> None:
        """Backward of a chunk's outputs, or the whole batch's; what all chunks share is in the last one's."""
        tensors, grads = [], []
        for name, value in output.items():
            grad = self._grad(name, value, chunk, last)
            if grad is not None and value.requires_grad:
                tensors.append(value)
                grads.append(grad)
        if tensors:
            torch.autograd.backward(tensors, grads)

    def _grad(self, name: str, value: Tensor, chunk: Chunk | None, last: bool) -> Tensor | None:
        """The loss's gradient with respect to an output of a chunk."""
        grad = self.output[name].grad
        if grad is None:
            # DistributedDataParallel waits for a gradient of every output of the pass in which it reduces them.
            return torch.zeros_like(value) if last and is_distributed() else None
        if chunk is None:
            return grad
        owner = self._owners[name]
        if owner == "shared":
            return grad if last else None
        rows = chunk.rows(owner)
        return rows_like(grad, rows, value) if rows else None


class _RandomState:
    """The state of torch's random generators, of the CPU and of an accelerator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._other = None
        if device.type != "cpu":
            self._other = torch.get_device_module(device).get_rng_state(device)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """A block in which the generators start from this state; afterwards they go on where they were."""
        devices = [] if self._other is None else [self._device]
        with torch.random.fork_rng(devices, device_type="cuda" if self._other is None else self._device.type):
            torch.set_rng_state(self._cpu)
            if self._other is not None:
                torch.get_device_module(self._device).set_rng_state(self._other, self._device)
            yield


def _without_reduction(network: Any, active: bool) -> AbstractContextManager[Any]:
    """A block in which ``DistributedDataParallel`` adds gradients up without reducing them over processes."""
    return network.no_sync() if active and hasattr(network, "no_sync") else nullcontext()


def _checked(output: Any) -> Mapping[str, Tensor]:
    check_type(output, "the output of the network", Mapping)
    for name, value in output.items():
        check_type(value, f"output[{name!r}] of the network", Tensor)
    return output


def _as_leaf(value: Tensor) -> Tensor:
    value = value.detach()
    return value.requires_grad_() if value.is_floating_point() else value


def _as_list(values: Tensor | Sequence[Any] | None) -> list[Any] | None:
    return values.tolist() if isinstance(values, Tensor) else None if values is None else list(values)


def _numbered(view_index: Tensor, studies: Sequence[int]) -> Tensor:
    """The row among ``studies`` of each view."""
    row_of = {study: row for row, study in enumerate(studies)}
    return torch.tensor([row_of[int(study)] for study in view_index], device=view_index.device)
