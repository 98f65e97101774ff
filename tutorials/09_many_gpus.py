# %% [markdown]
# # Large batches: several processes, and gradient caching
#
# A contrastive loss compares every image of a step with every text of it, so that the gradients of parts of a batch do
# not add up to the gradient of the batch. Two things restore it: `gather=True` where several processes (GPUs) share a
# batch, and gradient caching where one device cannot hold it. Both are shown here on a CPU, with two processes in
# place of two GPUs. It runs in about a minute on two cores and writes the folder `many-gpus/`.

# %%
import subprocess
import sys
import time
from pathlib import Path

import torch
from matplotlib import pyplot as plt

from medvl.data import SyntheticChestXRay
from medvl.engines import GradientCaching
from medvl.losses import ImageTextContrastiveLoss
from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, TextProcessor
from medvl.transforms import train_tokenizer

BATCH = 32
folder = Path("many-gpus")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## One batch, and its gradient
#
# A vision transformer and a small BERT. A network with batch norm would see other statistics in a part of a batch than
# in the whole; [Scale](../docs/scale.md) says what happens then.

# %%
torch.manual_seed(0)
studies = [SyntheticChestXRay(length=BATCH, size=64)[index] for index in range(BATCH)]
reports = [study["report"] for study in studies]
tokenizer = train_tokenizer(reports, vocab_size=500, min_patients=1)
sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
model = DualEncoder(
    ImageEncoder("vit", image_size=64, patch_size=8, hidden_size=64, num_layers=4, num_heads=4),
    TextEncoder({"model_type": "bert", "vocab_size": len(tokenizer), **sizes}),
    embed_dim=32,
    text_processor=TextProcessor(tokenizer),
).eval()  # without dropout, so that gradients can be compared
batch = {"image": torch.stack([study["image"] for study in studies]), **model.tokenize(reports)}
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(15):  # at first all embeddings are nearly the same, and so are all gradients
    output = model(batch["image"], batch["input_ids"], batch["attention_mask"])
    loss = ImageTextContrastiveLoss()(output["image_embeds"], output["text_embeds"], logit_scale=output["logit_scale"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"after a few steps: loss {loss.item():.2f}")
model.save_pretrained(folder / "model")
torch.save({key: batch[key] for key in ("image", "input_ids", "attention_mask")}, folder / "batch.pt")


class Held:
    """A tensor that is kept for the backward pass, counted as long as it is."""

    live = peak = 0

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        Held.live += tensor.nbytes
        Held.peak = max(Held.peak, Held.live)

    def __del__(self) -> None:
        Held.live -= self.tensor.nbytes


def gradients(chunk_size: int | None) -> tuple[torch.Tensor, float, float]:
    """Gradient of all weights as one vector, MiB that the backward pass held, and seconds."""
    model.zero_grad()
    Held.peak, start = 0, time.process_time()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        if chunk_size is None:
            output = model(batch["image"], **inputs)
        else:
            cached = GradientCaching(chunk_size).embed(model, batch["image"], **inputs)
            output = cached.output
        loss = ImageTextContrastiveLoss()(
            output["image_embeds"], output["text_embeds"], logit_scale=output["logit_scale"]
        )
        loss.backward()
        if chunk_size is not None:
            cached.backward()
    return flat(), Held.peak / 2**20, time.process_time() - start


def flat() -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def error(gradient: torch.Tensor) -> float:
    """Length of the difference from the gradient of the whole batch, relative to its length."""
    return float((gradient - whole).norm() / whole.norm())


gradients(None)  # warm-up
whole, memory, seconds = gradients(None)
print(f"the whole batch: {memory:.1f} MiB kept for the backward pass")

# %% [markdown]
# ## Gradient caching
#
# The images pass in chunks without a graph; the loss of the whole batch gives the gradient of the embeddings; then
# each chunk passes again and propagates its part. Memory is that of a chunk, and time that of a second forward pass.
# In a recipe it is `--set cached_chunk=8`.

# %%
chunks = {size: gradients(size) for size in (16, 8, 4)}
for size, (gradient, held, spent) in chunks.items():
    print(f"chunks of {size}: {held:.1f} MiB, {spent / seconds:.1f} times the CPU time, error {error(gradient):.1e}")
    assert error(gradient) < 1e-4

# %% [markdown]
# ## Two processes
#
# Each holds half of the batch. `DistributedDataParallel` averages the gradients of the processes; without `gather`
# each half is a batch of its own, with half of the negatives. On GPUs the script is the same with the backend "nccl";
# a whole recipe is `torchrun --nproc_per_node 8 -m medvl train convirt --data cases.csv`, which gathers by default.

# %%
script = folder / "two_processes.py"
script.write_text(
    """import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from medvl.losses import ImageTextContrastiveLoss
from medvl.networks import DualEncoder

distributed.init_process_group("gloo")
rank, processes = distributed.get_rank(), distributed.get_world_size()
model = DualEncoder.from_pretrained("many-gpus/model")
network = DistributedDataParallel(model)
batch = torch.load("many-gpus/batch.pt", weights_only=True)
part = {key: value.chunk(processes)[rank] for key, value in batch.items()}
for gather in (False, True):
    network.zero_grad()
    output = network(**part)
    loss = ImageTextContrastiveLoss(gather=gather)
    loss(output["image_embeds"], output["text_embeds"], logit_scale=output["logit_scale"]).backward()
    if rank == 0:
        found = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        torch.save(torch.cat(found), f"many-gpus/gather_{gather}.pt")
distributed.destroy_process_group()
"""
)
subprocess.run(
    [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)], check=True
)
parts = {gather: torch.load(folder / f"gather_{gather}.pt", weights_only=True) for gather in (False, True)}
for gather, gradient in parts.items():
    print(f"two processes, gather={gather}: error {error(gradient):.1e}")
assert error(parts[True]) < 1e-4 < error(parts[False])

# %% [markdown]
# ## What it gives
#
# Left, how far each gradient is from that of the whole batch: without `gather` it is another gradient, by a few
# percent at the beginning of a training; the other two differ by rounding. Right, the memory that chunks need.

# %%
errors = {
    "2 processes,\ngather=False": error(parts[False]),
    "2 processes,\ngather=True": error(parts[True]),
    "gradient caching,\nchunks of 8": error(chunks[8][0]),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), dpi=90, layout="constrained")
bars = left.barh(list(errors), list(errors.values()), color=["#D55E00", "#0072B2", "#0072B2"])
left.bar_label(bars, [f"{value:.0e}" for value in errors.values()], padding=3)
left.set(xscale="log", xlim=(1e-8, 20), xlabel="relative error of the gradient")
left.invert_yaxis()
held = {"all 32": memory} | {str(size): found[1] for size, found in chunks.items()}
bars = right.bar(list(held), list(held.values()), color=["#999999", *["#0072B2"] * len(chunks)])
right.bar_label(bars, [f"{value:.1f}" for value in held.values()], padding=2)
right.set(xlabel="images in a chunk", ylabel="MiB kept for the backward pass", ylim=(0, 1.12 * memory))
figure.savefig(folder / "gradients.png")
