"""Weak scaling: the same batch for each of one and two processes, each on a core of its own.

    python tests/benchmarks/bench_processes.py --steps 10 --rounds 3

The efficiency is the time of a step in one process over that in two, whose batch is together twice as large. Where the two
processes do not communicate (the last line), it is what the machine itself allows: caches, memory and other work are shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # a core for each process, and a process with more threads cannot be forked

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from medvl import networks
from medvl.losses import ImageTextContrastiveLoss


def make_step(size: int, batch: int, connected: bool):
    """A training step of a ViT and a BERT."""
    torch.manual_seed(0)
    vit = {"backbone": "vit", "patch_size": 16, "hidden_size": 192, "num_layers": 6, "num_heads": 3}
    bert = {
        "model_type": "bert", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 512,
        "vocab_size": 1000,
    }  # fmt: skip
    network = networks.medclip("small", image_size=size, image_encoder=vit, text_encoder=bert, embed_dim=128)
    network = DistributedDataParallel(network) if connected else network
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    loss = ImageTextContrastiveLoss(gather=connected)
    image, tokens = torch.rand(batch, 1, size, size), torch.randint(5, 1000, (batch, 32))

    def step() -> None:
        optimizer.zero_grad()
        output = network(image, input_ids=tokens)
        loss(output["image_embeds"], output["text_embeds"], logit_scale=output["logit_scale"]).backward()
        optimizer.step()

    return step


def seconds(processes: int, asked: argparse.Namespace, connected: bool = True) -> float:
    """The median time of a step, of the slowest process."""
    with tempfile.TemporaryDirectory() as folder:
        pids = []
        for rank in range(processes):
            pid = os.fork()
            if not pid:
                try:
                    if processes > 1:
                        store = f"file://{folder}/store"
                        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
                    step = make_step(asked.size, asked.batch, connected and processes > 1)
                    times = []
                    for number in range(asked.steps + 2):
                        if processes > 1:
                            dist.barrier()
                        begun = time.perf_counter()
                        step()
                        times += [time.perf_counter() - begun] if number > 1 else []
                    with open(f"{folder}/{rank}", "w") as file:
                        file.write(str(statistics.median(times)))
                finally:
                    os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        return max(float(open(f"{folder}/{rank}").read()) for rank in range(processes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="studies for each process")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    asked = parser.parse_args()
    found = {"one process": [], "two processes": [], "two, not connected": []}
    for _ in range(asked.rounds):  # by turns, so that other work on the machine falls on all
        found["one process"].append(seconds(1, asked))
        found["two processes"].append(seconds(2, asked))
        found["two, not connected"].append(seconds(2, asked, connected=False))
    one = statistics.median(found["one process"])
    print("| | seconds of a step | efficiency | of each round |\n|---|---:|---:|---|")
    for name, values in found.items():
        rounds = ", ".join(f"{a / b:.2f}" for a, b in zip(found["one process"], values, strict=True))
        print(f"| {name} | {statistics.median(values):.3f} | {one / statistics.median(values):.2f} | {rounds} |")


if __name__ == "__main__":
    main()
