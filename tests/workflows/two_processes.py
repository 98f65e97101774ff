"""Trainings in two processes, as torchrun starts them, for the tests that compare them with one."""

from __future__ import annotations

import json
import sys

from fork_server import run_in_processes

from medvl.workflows import config_files

TINY = {
    "image_size": 32,
    "embed_dim": 8,
    "vocab_size": 300,
    "max_length": 24,
    "device": "cpu",
    "network_def#text_encoder": {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
}  # fmt: skip
"""Settings of a small training."""

COMPARABLE = {
    # Batch statistics are each process's own, and Adam divides by gradients that are hardly more than rounding.
    "network_def#image_encoder": {
        "_target_": "medvl.networks.ImageEncoder", "backbone": "vit", "image_size": 32, "patch_size": 8,
        "hidden_size": 16, "num_layers": 1,
    },
    "optimizer#_target_": "torch.optim.SGD",
    "learning_rate": 0.01,
}  # fmt: skip
"""Settings whose training in two processes is that in one, up to rounding."""


def in_two_processes(recipe, **settings):
    """``torchrun --nproc_per_node 2 -m monai.bundle run``; what the processes printed."""
    files = json.dumps([str(path) for path in config_files(recipe)])
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files]
    for key, value in settings.items():
        line += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    done = run_in_processes(2, line)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr
