"""What holds for every encoder, image or text, 2D or 3D: one base, run over a table of small ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medvl.networks import ImageEncoder, TextEncoder

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
HF_VIT = {**TRANSFORMER, "image_size": 32, "patch_size": 8}
VIT = {"patch_size": 8, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
SWIN = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2), "window_size": 3, "patch_size": 2}
DENSENET = {"init_features": 8, "growth_rate": 4, "block_config": (1, 2, 1)}
HF_STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}


@dataclass
class Case:
    """An encoder, an input that suits it and, where it takes one, an input of odd sizes.

    ``grid`` and ``odd_grid`` are the patches that the sizes should give, worked out by hand.
    """

    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    grid: tuple[int, ...]
    odd: tuple[int, ...] | None = None
    odd_grid: tuple[int, ...] | None = None
    backend: str | None = "eager"  # of torch.compile: "eager" captures the graph, "aot_eager" the backward too
    texts: bool = field(default=False)

    def inputs(self, count: int, odd: bool = False) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        if self.texts:
            ids = torch.randint(4, 30, (count, *self.size), generator=generator)
            mask = torch.ones_like(ids)
            mask[0, -2:] = 0
            return ids, mask
        return (torch.rand(count, 1, *((self.odd if odd else self.size) or ()), generator=generator),)


def image_case(
    name: str,
    backbone: Any,
    size: int,
    cells: int,
    odd: Any = None,
    odd_grid: Any = None,
    dims: int = 2,
    **options: Any,
) -> Case:
    backend = options.pop("backend", "eager")

    def build() -> ImageEncoder:
        return ImageEncoder(backbone, spatial_dims=dims, image_size=size, **options)

    return Case(f"{name}-{dims}d", build, (size,) * dims, (cells,) * dims, odd, odd_grid, backend)


def text_case(name: str, config: dict[str, Any], pooling: str) -> Case:
    return Case(name, lambda: TextEncoder({**TRANSFORMER, "vocab_size": 30, **config}, pooling), (7,), (7,), texts=True)


CASES = [
    image_case("resnet", "resnet10", 64, 2, (33, 50), (2, 2), width=0.125, backend="aot_eager"),
    image_case("resnet", "resnet10", 40, 2, (33, 50, 35), (2, 2, 2), dims=3, width=0.125),
    image_case("resnet-shortcut-a", "resnet18", 64, 2, (33, 50), (2, 2), width=0.125, backend=None),
    image_case("resnet-bottleneck", "resnet50", 64, 2, (33, 50), (2, 2), width=0.0625, backend=None),
    image_case("resnet-third-stage", "resnet10", 64, 4, (33, 50), (3, 4), width=0.125, patch_stage=3, backend=None),
    image_case("densenet", "densenet121", 32, 2, (33, 50), (2, 3), **DENSENET),
    image_case("densenet", "densenet121", 32, 2, (33, 50, 35), (2, 3, 2), dims=3, **DENSENET),
    image_case("efficientnet", "efficientnet-b0", 64, 2, (33, 50), (2, 2)),
    image_case("efficientnet", "efficientnet-b0", 40, 2, (33, 35, 17), (2, 2, 1), dims=3, backend=None),
    image_case("vit", "vit", 32, 4, backend="aot_eager", **VIT),
    image_case("vit", "vit", 16, 2, dims=3, **VIT),
    image_case("vit-cls", "vit", 32, 4, pooling="cls", backend=None, **VIT),
    image_case("vit-cls", "vit", 16, 2, dims=3, pooling="cls", backend=None, **VIT),
    image_case("swin", "swin", 32, 2, (33, 50), (3, 4), **SWIN),
    image_case("swin", "swin", 32, 2, (33, 50, 17), (3, 4, 2), dims=3, backend=None, **SWIN),
    image_case("hf-vit", {"model_type": "vit", **HF_VIT}, 32, 4),
    image_case("hf-deit", {"model_type": "deit", **HF_VIT}, 32, 4, backend=None),
    image_case("hf-clip", {"model_type": "clip_vision_model", **HF_VIT}, 32, 4),
    image_case("hf-siglip", {"model_type": "siglip_vision_model", **HF_VIT}, 32, 4, backend=None),
    image_case("hf-dinov2", {"model_type": "dinov2", **HF_VIT}, 32, 4, (24, 40), (3, 5), backend=None),
    image_case(
        "hf-swin",
        {
            "model_type": "swin",
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [1, 2],
            "window_size": 2,
            "patch_size": 4,
        },
        32,
        4,
        (33, 50),
        (5, 7),
    ),
    image_case("hf-resnet", {"model_type": "resnet", "embedding_size": 8, **HF_STAGES}, 32, 4, (33, 50), (5, 7)),
    image_case("hf-convnext", {"model_type": "convnext", **HF_STAGES, "num_stages": 2}, 32, 4, (33, 50), (4, 6)),
    text_case("bert-max", {"model_type": "bert"}, "max"),
    text_case("bert-last-layers", {"model_type": "bert"}, "last_layers"),
    text_case("bert-last-four-layers", {"model_type": "bert", "num_hidden_layers": 4}, "last_four_layers"),
    text_case("roberta-cls", {"model_type": "roberta"}, "cls"),
]
ODD = [case for case in CASES if case.odd]


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def elements(output: dict[str, Any]) -> torch.Tensor:
    """The embeddings of the parts: patches or tokens."""
    return output["patches"] if "patches" in output else output["tokens"]


def check_output(case: Case, encoder: nn.Module, output: dict[str, Any], count: int, grid: tuple[int, ...]) -> None:
    if not case.texts:
        assert output["grid"] == grid
    assert output["embed"].shape == (count, encoder.out_features)
    width = encoder.out_features if case.texts else encoder.patch_features
    assert elements(output).shape == (count, math.prod(grid), width)
    assert torch.isfinite(output["embed"]).all()
    assert torch.isfinite(elements(output)).all()


@named(CASES)
def test_forward_in_training_and_evaluation(case):
    encoder = case.build()
    inputs = case.inputs(3)
    check_output(case, encoder, encoder.train()(*inputs), 3, case.grid)
    encoder.eval()
    together = encoder(*inputs)
    check_output(case, encoder, together, 3, case.grid)
    alone = encoder(*(value[1:2] for value in inputs))
    torch.testing.assert_close(together["embed"][1:2], alone["embed"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(elements(together)[1:2], elements(alone), atol=1e-5, rtol=1e-4)
    assert not torch.equal(together["embed"][0], together["embed"][1]), "the input must matter"


@named(CASES)
def test_batch_of_one_trains(case):
    encoder = case.build().train()
    output = encoder(*case.inputs(1))
    check_output(case, encoder, output, 1, case.grid)
    output["embed"].sum().backward()


@named(ODD)
def test_odd_sizes(case):
    encoder = case.build().train()
    output = encoder(*case.inputs(2, odd=True))
    check_output(case, encoder, output, 2, case.odd_grid)
    output["embed"].sum().backward()


@named(CASES)
def test_gradient_of_the_embedding_reaches_every_trainable_parameter(case):
    encoder = case.build().train()
    embed = encoder(*case.inputs(3))["embed"]
    (embed * torch.randn(embed.shape)).sum().backward()
    trained = {name: value for name, value in encoder.named_parameters() if value.requires_grad}
    assert not [name for name, value in trained.items() if value.grad is None]
    # Softmax cancels a bias of the keys; one token type of one, and the place of padding, is never looked up otherwise.
    zero = [name for name, value in trained.items() if value.grad.abs().max() == 0]
    assert not [name for name in zero if not name.endswith(("key.bias", "k_proj.bias"))]


@named(CASES)
def test_configuration_and_weights_restore_the_encoder(case, tmp_path):
    encoder = case.build()
    encoder.train()(*case.inputs(3))  # moves the running statistics
    config = json.loads(json.dumps(encoder.to_config()))
    assert "_name_or_path" not in json.dumps(config) or case.texts
    save_file(encoder.state_dict(), tmp_path / "weights.safetensors")
    again = type(encoder).from_config(config)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    before, after = encoder.eval()(*case.inputs(2)), again.eval()(*case.inputs(2))
    assert torch.equal(before["embed"], after["embed"])
    assert torch.equal(elements(before), elements(after))
    assert json.loads(json.dumps(again.to_config())) == config


@named([case for case in CASES if case.backend])
def test_compiled_is_the_same(case):
    """Captured without the inductor, whose C++ takes a minute a network: a test of its own runs that once.

    Cases without a backend are made of the same modules as a neighbor that has one.
    """
    torch._dynamo.reset()
    encoder = case.build().eval()
    compiled = torch.compile(encoder, backend=case.backend)
    inputs = case.inputs(2)
    expected, output = encoder(*inputs), compiled(*inputs)
    torch.testing.assert_close(output["embed"], expected["embed"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(elements(output), elements(expected), atol=1e-5, rtol=1e-4)
    assert output.get("grid") == expected.get("grid")
    output["embed"].sum().backward()
    assert all(value.grad is not None for value in encoder.parameters() if value.requires_grad)


def test_compiled_by_the_inductor_is_the_same():
    torch._dynamo.reset()
    encoder = ImageEncoder("vit", image_size=16, patch_size=8, hidden_size=8, num_layers=1, num_heads=1).eval()
    image = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(encoder)(image)["patches"], encoder(image)["patches"], atol=1e-5, rtol=1e-4
        )
