"""One training in several processes, as ``torchrun`` starts them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medvl.networks import DualEncoder
from medvl.utils.distributed import is_distributed

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
    """A network whose gradients are the mean over all processes; the network itself where there is one process.

    Weights without a gradient are expected where a loss leaves an output unused, as MLIP without its reconstruction leaves the
    predicted patches, and for learned prompt tokens, which stand only beside images without a report.

    Args:
        network: the network.
        loss: a :class:`~medvl.losses.CombinedLoss`, which knows the outputs that its terms use; None for a loss that uses all.
    """
    if not is_distributed():
        return network
    used = loss.used_names() if hasattr(loss, "used_names") else set(OUTPUTS)
    unused = [name for name, part in OUTPUTS.items() if name not in used and getattr(network, part, None) is not None]
    tokens = network.text_encoder.prompt_embedding is not None
    wrapped = UsedOutputs(network, used) if unused else network
    return DistributedDataParallel(wrapped, find_unused_parameters=tokens or bool(unused))


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
