"""Run by ``torchrun`` from test_distributed.py: every loss with gather=True equals one process on the whole batch."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from medvl.losses import (
    ImageTextContrastiveLoss,
    ImageTextLabelContrastiveLoss,
    MaskedPatchLoss,
    PatchSentenceMatchingLoss,
    SemanticMatchingLoss,
    SemanticSentenceLoss,
    SigmoidContrastiveLoss,
)

D, K = 6, 4
TOLERANCE = 1e-6


class LargestMatrix(TorchDispatchMode):
    """The most elements of any result with as many columns as there are texts, or rows as there are images."""

    def __init__(self, images: int, texts: int) -> None:
        super().__init__()
        self.whole, self.seen = {(images, texts), (texts, images)}, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and tuple(result.shape) in self.whole:
            self.seen = True
        return result


def slices(sizes: list[int]) -> slice:
    start = sum(sizes[: dist.get_rank()])
    return slice(start, start + sizes[dist.get_rank()])


def close(name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    if got.shape != expected.shape:
        raise SystemExit(f"rank {dist.get_rank()}: {name} has shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    error = (got - expected).abs().max().item() if got.numel() else 0.0
    if not error <= TOLERANCE:
        raise SystemExit(f"rank {dist.get_rank()}: {name} differs by {error}")


def make_loss(name: str, **options):
    return {
        "pairs": lambda: ImageTextContrastiveLoss(**options),
        "semantic": lambda: SemanticMatchingLoss(**options),
        "semantic dot": lambda: SemanticMatchingLoss(similarity="dot", target_temperature=0.02, **options),
        "labels": lambda: ImageTextLabelContrastiveLoss(label_agreement="soft", **options),
        "sigmoid": lambda: SigmoidContrastiveLoss(label_agreement="overlap", **options),
        "sharp labels": lambda: ImageTextLabelContrastiveLoss(
            label_agreement="soft", agreement_temperature=0.1, **options
        ),
        "paired": lambda: ImageTextContrastiveLoss(paired_only=True, **options),
        "pooled": lambda: ImageTextContrastiveLoss(pool_texts=True, paired_only=True, **options),
        "sentences": lambda: SemanticSentenceLoss(**options),
        "transport": lambda: SemanticSentenceLoss(alignment="transport", epsilon=0.2, **options),
        "patches": lambda: PatchSentenceMatchingLoss(epsilon=0.2, **options),
    }[name]()


def run(name: str, image_sizes: list[int], text_sizes: list[int], tile_size, scale: float) -> None:
    images, texts, own_images, own_texts = sum(image_sizes), sum(text_sizes), slices(image_sizes), slices(text_sizes)
    generator = torch.Generator().manual_seed(7)
    by_parts = name in ("patches", "sentences", "transport")
    # Sentences that share a plan by their text's id have a row each.
    shapes = ((images, 5, D), (texts, 1 if name == "transport" else 3, D)) if by_parts else ((images, D), (texts, D))
    whole = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    ids = [torch.randint(0, 4, (n,), generator=generator) for n in (images, texts)]
    labels = [torch.randint(-1, 2, (n, K), generator=generator) for n in (images, texts)]
    weights = torch.rand(images, generator=generator)
    extra = {
        "pairs": {"image_ids": ids[0], "text_ids": ids[1], "weights": weights},
        "semantic": {"image_labels": labels[0], "text_labels": labels[1]},
        "semantic dot": {"image_labels": labels[0], "text_labels": labels[1]},
        "paired": {"image_ids": ids[0], "text_ids": ids[1], "weights": weights},
        "pooled": {"image_ids": ids[0], "text_ids": ids[1], "weights": weights},
        "sentences": {"image_labels": labels[0], "text_labels": labels[1], "weights": weights},
        "transport": {"image_labels": labels[0], "text_labels": labels[1], "text_ids": ids[1]},
        "patches": {"image_ids": ids[0], "text_ids": ids[1], "weights": weights},
    }.get(name, {"image_labels": labels[0], "text_labels": labels[1], "image_ids": ids[0], "text_ids": ids[1]})
    full = [x.clone().requires_grad_() for x in whole]
    full_scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    expected = make_loss(name)(*full, **extra, logit_scale=full_scale)
    expected.backward()

    own = [x[part].clone().requires_grad_() for x, part in zip(whole, (own_images, own_texts), strict=True)]
    own_scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    own_extra = {key: value[own_texts if key.startswith("text") else own_images] for key, value in extra.items()}
    with LargestMatrix(images, texts) as matrices:
        value = make_loss(name, gather=True, tile_size=tile_size)(*own, **own_extra, logit_scale=own_scale)
        value.backward()
    if tile_size is not None and not by_parts and matrices.seen:
        raise SystemExit(f"{name}: the whole matrix was made")
    label = f"{name}, tile_size={tile_size}, scale={scale}"
    close(f"{label}: loss", value.detach(), expected.detach())
    world = dist.get_world_size()
    for side, mine, all_, part in zip(("image", "text"), own, full, (own_images, own_texts), strict=True):
        close(f"{label}: {side} gradient", mine.grad / world, all_.grad[part])
    dist.all_reduce(own_scale.grad)
    close(f"{label}: scale gradient", own_scale.grad / world, full_scale.grad)


def run_reconstruction(sizes: list[int], reduction: str) -> None:
    """The mean is over the hidden patches of all images, of which the processes have different numbers."""
    images, own = sum(sizes), slices(sizes)
    generator = torch.Generator().manual_seed(3)
    prediction, image = (torch.randn(images, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    image, visible = image.reshape(images, 1, 4, 4), torch.rand(images, 4, generator=generator) < 0.5
    full, part = prediction.clone().requires_grad_(), prediction[own].clone().requires_grad_()
    expected = MaskedPatchLoss(2, reduction=reduction)(full, image, visible)
    expected.sum().backward()
    value = MaskedPatchLoss(2, reduction=reduction, gather=True)(part, image[own], visible[own])
    value.sum().backward()
    close(f"reconstruction, {reduction}: loss", value.detach(), expected.detach())
    close(f"reconstruction, {reduction}: gradient", part.grad / dist.get_world_size(), full.grad[own])


def run_in_ddp(own: slice, count: int, tile_size) -> None:
    """A trained network's parameters get the gradients of one process with the whole batch."""
    inputs = torch.randn(2, count, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)
    network = torch.nn.Linear(5, D, dtype=torch.float64)
    ImageTextContrastiveLoss()(network(inputs[0]), network(inputs[1])).backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    parallel = DistributedDataParallel(network)
    images, texts = parallel(inputs[:, own]).unbind(0)
    ImageTextContrastiveLoss(gather=True, tile_size=tile_size)(images, texts).backward()
    for got, wanted in zip(network.parameters(), expected, strict=True):
        close("gradient of a network in DistributedDataParallel", got.grad, wanted)


def check_batch(image_sizes: list[int], text_sizes: list[int]) -> None:
    names = (
        "pairs",
        "paired",
        "pooled",
        "semantic",
        "semantic dot",
        "labels",
        "sharp labels",
        "sigmoid",
        "patches",
        "sentences",
        "transport",
    )
    for reduction in ("mean", "sum", "none"):
        run_reconstruction(image_sizes, reduction)
    for name in names:
        # A tile of 100 texts holds all of them: only the images are split, by process.
        for tile_size, scale in ((None, 10.0), (2, 10.0), (100, 100.0)):
            run(name, image_sizes, text_sizes, tile_size, scale)
    if image_sizes == text_sizes:
        for tile_size in (None, 2):
            run_in_ddp(slices(image_sizes), sum(image_sizes), tile_size)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    # Each argument is one batch: sizes of the images' shares and of the texts', such as "4,1/2,3".
    for batch in sys.argv[1:]:
        check_batch(*([int(n) for n in sizes.split(",")] for sizes in batch.split("/")))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.write(f"rank {os.environ['RANK']} done\n")


if __name__ == "__main__":
    main()
