"""One training in several processes, as ``torchrun`` starts them."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medvl.networks import DualEncoder
from medvl.utils.distributed import is_distributed


def wrap_ddp(network: DualEncoder) -> nn.Module:
    """A network whose gradients are the mean over all processes; the network itself where there is one process.

    Every step uses every weight but those of learned prompt tokens, which stand only beside images without a report.
    """
    if not is_distributed():
        return network
    tokens = network.text_encoder.prompt_embedding is not None
    return DistributedDataParallel(network, find_unused_parameters=tokens)
