"""Run by ``torchrun`` from test_gradient_caching.py: chunks in two processes equal one process with the whole batch."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.distributed as dist
from caching_cases import RECIPES, Case, differences, make_case
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from medvl.engines import GradientCaching
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.workflows import wrap_ddp


def close(what: str, got: dict, expected: dict) -> None:
    got, expected = (
        {name.removeprefix("module.").removeprefix("network."): value for name, value in some.items()}
        for some in (got, expected)
    )
    worst = differences(got, expected)
    name = max(worst, key=lambda key: worst[key])
    if not worst[name] <= 1e-5:
        raise SystemExit(f"rank {dist.get_rank()}: {what}: {name} differs by {worst[name]}")


def check(name: str, case: Case, chunk_sizes: tuple[int, ...]) -> None:
    """Rank 0 has 7 images and rank 1 has 4, with their texts and, ragged too, the texts without an image."""
    rank = dist.get_rank()
    alone = copy.deepcopy(case)
    owners = case.batch["text_ids"].tolist()
    first = [owner < 7 or owner >= 103 for owner in owners]
    texts = [row for row, is_first in enumerate(first) if is_first != bool(rank)]
    share = case.share(slice(0, 7) if rank == 0 else slice(7, 11), torch.tensor(texts))
    network = wrap_ddp(share.network, share.loss)
    reductions = []

    def count(state, bucket):
        reductions.append(bucket.index())
        return allreduce_hook(state, bucket)

    network.register_comm_hook(None, count)
    expected = replace(share, network=network).gradients()
    expected["the loss"] = average(expected["the loss"])
    close(f"{name} in two processes", expected, whole(alone))
    for chunk_size in chunk_sizes:
        reductions.clear()
        got = replace(share, network=network).gradients(GradientCaching(chunk_size))
        got["the loss"] = average(got["the loss"])
        close(f"{name} by {chunk_size}", got, expected)
        if len(reductions) != len(set(reductions)):
            raise SystemExit(f"{name} by {chunk_size}: reduced more than once: {reductions}")


def average(loss: torch.Tensor) -> torch.Tensor:
    """The mean over processes."""
    total = loss.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def whole(case: Case) -> dict:
    """The gradients of one process; its losses do not gather."""
    for term in case.loss.losses:
        if "gather" in getattr(term, "options", {}):
            term.options["gather"] = False
    return case.gradients()


def without_terms() -> Case:
    """MLIP without two of its terms, so that weights stay without a gradient, and a frozen tower."""
    case = make_case("mlip", gather=True)
    case.network.text_encoder.requires_grad_(False)
    pairs = ImageTextContrastiveLoss(image_weight=0.5, pool_texts=True, paired_only=True, gather=True)
    return replace(case, loss=CombinedLoss({"global": pairs}, {"weights": "semantic_integrity"}))


def check_sync_batch_norm() -> None:
    network = nn.Sequential(nn.SyncBatchNorm(3))
    try:
        GradientCaching(2).embed(network, torch.rand(4, 3))
    except ValueError as error:
        expected = (
            "network must have no SyncBatchNorm in training mode with gradient caching in several processes, got 0."
        )
        if str(error) == expected:
            return
    raise SystemExit("SyncBatchNorm was not refused")


def main() -> None:
    dist.init_process_group("gloo")
    for recipe in RECIPES:
        check(recipe, make_case(recipe, gather=True), (5, 2))
    check("mlip without terms", without_terms(), (3,))
    check_sync_batch_norm()
    dist.barrier()
    print("done", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
