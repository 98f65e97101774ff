"""One training in several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medvl.networks import DualEncoder
from medvl.utils.checks import error_message
from medvl.utils.distributed import get_world_size, is_distributed, is_rank_zero
from medvl.utils.layers import block_names
from medvl.utils.sharding import is_sharded, load_whole_state, whole_state

OUTPUTS = {
    "image_embeds": "image_projection",
    "text_embeds": "text_projection",
    "patch_embeds": "patch_projection",
    "sentence_embeds": "sentence_projection",
    "patch_prediction": "patch_decoder",
    "logit_scale": "logit_scale",
}
"""Outputs of the dual encoders, and the part of the network that has no weight in any other."""


def wrap_ddp(network: DualEncoder, loss: Any = None) -> nn.Module:
    """A network whose gradients are the mean over all processes; the network itself in one process, or if it is sharded.

    Weights without a gradient are expected where a loss leaves an output unused, as MLIP without its reconstruction leaves the
    predicted patches, and for learned prompt tokens, which stand only beside images without a report.

    Args:
        network: the network.
        loss: a :class:`~medvl.losses.CombinedLoss`, which knows the outputs that its terms use; None for a loss that uses all.
    """
    if not is_distributed() or is_sharded(network):
        return network
    used = loss.used_names() if hasattr(loss, "used_names") else set(OUTPUTS)
    unused = [name for name, part in OUTPUTS.items() if name not in used and getattr(network, part, None) is not None]
    tokens = network.text_encoder.prompt_embedding is not None
    wrapped = UsedOutputs(network, used) if unused else network
    return DistributedDataParallel(wrapped, find_unused_parameters=tokens or bool(unused))


def shard_network(network: DualEncoder, device: str | torch.device = "cpu") -> DualEncoder:
    """Divide the weights of a network, their gradients and the optimizer's state over all processes (FSDP2).

    The blocks of both encoders are whole for their own forward and backward pass only
    (``torch.distributed.fsdp.fully_shard``); gradients are the mean over all processes, as with
    :func:`wrap_ddp`. In a single process the network stays as it is.

    Args:
        network: changed in place, before the optimizer is made.
        device: the device to train on.

    Raises:
        ValueError: If the network has learned prompt tokens, which do not get a gradient in every process.
    """
    if network.text_encoder.prompt_embedding is not None:
        raise ValueError(error_message("sharded", "be False for a network with learned prompt tokens", True))
    if not is_distributed():
        return network
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    skeleton = copy.deepcopy(network).to("meta")
    mesh = init_device_mesh(torch.device(device).type, (get_world_size(),))
    for encoder in (network.image_encoder, network.text_encoder):
        modules = dict(encoder.named_modules())
        for name in block_names(list(modules)):
            fully_shard(modules[name], mesh=mesh)
    scalars = {value for value in network.parameters() if not value.ndim}  # cannot be divided
    for value in scalars:
        if value.requires_grad:
            value.register_post_accumulate_grad_hook(_average_gradient)
    fully_shard(network, mesh=mesh, ignored_params=scalars)
    for method in ("encode_image", "encode_patches", "encode_text"):
        register_fsdp_forward_method(network, method)
    network.__dict__["skeleton"] = skeleton  # no module of the network
    return network


def _average_gradient(parameter: Tensor) -> None:
    if parameter.grad is not None:
        dist.all_reduce(parameter.grad)
        parameter.grad /= get_world_size()


def whole_network(network: DualEncoder) -> DualEncoder:
    """A copy of a sharded network on the CPU that is not, in the first process; every process must call it.

    The others get a copy without values. A network that is not sharded is returned itself.
    """
    if not is_sharded(network):
        return network
    state = whole_state(network.state_dict())
    copied: DualEncoder = network.__dict__["skeleton"]
    if is_rank_zero():
        copied = copied.to_empty(device="cpu")
        load_whole_state(copied, state)
        copied.text_processor = network.text_processor
    return copied


class UsedOutputs(nn.Module):
    """A network without the outputs that a loss does not use: ``DistributedDataParallel`` waits for the gradient of any output.

    Args:
        network: its output is a dictionary.
        used: names of outputs. Those without a gradient stay too.
    """

    def __init__(self, network: nn.Module, used: set[str]) -> None:
        super().__init__()
        self.network, self.used = network, used

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The output of the network."""
        output = self.network(*args, **kwargs)
        return {name: value for name, value in output.items() if name in self.used or not value.requires_grad}
