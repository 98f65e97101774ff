"""Settings for memory and speed of every recipe: cached_chunk, precision, gradient_checkpointing, compile, batch norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medvl.engines import GradientCaching
from medvl.workflows import RecipeWorkflow, recipe_names, training
from medvl.workflows.folder_lock import release_lock

TEXTS = {
    "Pneumothorax": "Large left pneumothorax. The heart is normal.",
    "Edema": "Edema is seen. No pleural effusion. Ribs are intact.",
    "No Finding": "Clear lungs.",
}
TINY = {
    "image_size": 32,
    "embed_dim": 8,
    "vocab_size": 300,
    "max_length": 24,
    "batch_size": 9,
    "epochs": 2,
    "device": "cpu",
    "progress": False,
    # A plain rule: Adam divides by gradients that are hardly more than rounding.
    "optimizer#_target_": "torch.optim.SGD",
    "optimizer#fused": False,
    "learning_rate": 0.05,
    "network_def#image_encoder": {
        "_target_": "medvl.networks.ImageEncoder", "backbone": "vit", "image_size": 32, "patch_size": 8,
        "hidden_size": 16, "num_layers": 1, "num_heads": 2,
    },
    "network_def#text_encoder": {
        "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """10 images with a label, 20 with a report, 6 reports with a label and no image."""
    folder = tmp_path_factory.mktemp("studies")
    heads = {"label": "image,study_id,finding", "pair": "image,study_id,report", "text": "study_id,report,finding"}
    rows = {kind: [head] for kind, head in heads.items()}
    for i in range(36):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        name = list(TEXTS)[i % 3]
        kind = "text" if i >= 30 else "label" if i % 9 in (0, 4, 8) else "pair"
        values = {"image": f"{i}.png", "study_id": f"s{i}", "report": TEXTS[name], "finding": name}
        rows[kind].append(",".join(values[column] for column in heads[kind].split(",")))
    for kind, lines in rows.items():
        (folder / f"{kind}.csv").write_text("\n".join(lines) + "\n")
    return folder


def trained(recipe, tables, output, change=None, **settings):
    """The trainer after its epochs, and the weights."""
    kinds = {"image-label": "label", "image-text": "pair"} | ({} if recipe == "medvl" else {"text-label": "text"})
    data = {"sources": [f"{kind}={tables / name}.csv" for kind, name in kinds.items()]}
    data = (
        {"data": str(tables / "pair.csv")} if recipe == "convirt" else data | {"columns": {"label_column": "finding"}}
    )
    workflow = RecipeWorkflow(recipe, workflow_type="train", output=str(output), **data, **{**TINY, **settings})
    if change is not None:
        change(workflow.parser.get())
    try:
        workflow.initialize()
        workflow.run()
    finally:
        release_lock(output)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    return trainer, workflow.parser.get_parsed_content("network").state_dict()


def without_the_key(config):
    del config["train"]["trainer"]["iteration_update"]


@pytest.mark.parametrize("recipe", recipe_names())
def test_null_is_the_plain_training_and_chunks_learn_the_same(tables, tmp_path, recipe):
    """Three trainings of a recipe, each some seconds."""
    plain, weights = trained(recipe, tables, tmp_path / "null")
    assert plain._process_function == plain._iteration
    assert plain.state.iteration >= 2
    _, before = trained(recipe, tables, tmp_path / "before", without_the_key)
    assert all(torch.equal(weights[name], before[name]) for name in before)

    cached, again = trained(recipe, tables, tmp_path / "cached", cached_chunk=2)
    assert isinstance(cached._process_function, GradientCaching)
    assert cached.state.iteration == plain.state.iteration
    for name, value in weights.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(cached.state.output["loss"], plain.state.output["loss"], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(again[name], value) for name, value in weights.items()), "not the same sums"


@pytest.mark.parametrize("recipe", recipe_names())
def test_precision_checkpointing_and_compilation(tables, tmp_path, recipe):
    """Four trainings of a recipe of one epoch each: plain, with the blocks computed again, compiled, in bfloat16."""
    once = {"epochs": 1, "batch_size": 18}
    plain, weights = trained(recipe, tables, tmp_path / "plain", **once)
    eager = {"train#trainer#compile_kwargs": {"backend": "eager"}}
    for name, more in (("gradient_checkpointing", {}), ("compile", eager)):
        trainer, again = trained(recipe, tables, tmp_path / name, **{name: True}, **more, **once)
        network = getattr(trainer.network, "_orig_mod", trainer.network)
        assert hasattr(trainer.network, "_orig_mod") == (name == "compile")
        checkpointed = any(hasattr(module, "checkpointed_class") for module in network.image_encoder.modules())
        assert checkpointed == network.text_encoder.model.is_gradient_checkpointing == (name != "compile")
        for key, value in weights.items():
            torch.testing.assert_close(again[key], value, rtol=1e-4, atol=1e-6, msg=f"{name}: {key}")

    # MONAI's own step has no autocast on a CPU.
    trainer, _ = trained(recipe, tables, tmp_path / "bfloat16", precision="bfloat16", cached_chunk=None, **once)
    losses = [float(one.state.output["loss"].detach()) for one in (plain, trainer)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_what_a_cpu_cannot_do(tables, tmp_path):
    for number, (setting, expected) in enumerate(
        (
            ({"precision": "float16"}, "precision must be one of None, 'float32', 'bfloat16', got 'float16'."),
            (
                {"sync_batch_norm": True},
                "sync_batch_norm must be False on a CPU, where torch.nn.SyncBatchNorm does not work, got True.",
            ),
        )
    ):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            trained("convirt", tables, tmp_path / str(number), **setting)
        error = caught.value
        while error.__cause__ is not None:
            error = error.__cause__
        assert str(error) == expected


def test_batch_norm_over_processes_on_gpus(monkeypatch):
    """The conversion alone: torch.nn.SyncBatchNorm runs on GPUs only."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    assert type(training._with_sync_batch_norm(network, "cuda")[1]) is nn.BatchNorm2d
    monkeypatch.setattr(training, "is_distributed", lambda: True)
    assert type(training._with_sync_batch_norm(network, "cuda:1")[1]) is nn.SyncBatchNorm


def test_a_chunk_is_a_number(tables, tmp_path):
    with pytest.raises(ValueError, match=r"^cached_chunk must be at least 1, got 0\.$"):
        trained("convirt", tables, tmp_path / "run", cached_chunk=0)
