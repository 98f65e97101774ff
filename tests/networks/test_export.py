"""Both encoders as files: what they return, with batches and lengths that they were not traced with."""

from __future__ import annotations

import sys

import pytest
import torch

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, convirt, export_encoders
from medvl.utils.extras import MissingExtraError

pytestmark = pytest.mark.slow

BERT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
VIT = {"patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2}


def texts(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, 50, (count, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    return ids, mask


def test_files_give_the_models_embeddings(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from onnxruntime import InferenceSession

    torch.manual_seed(0)
    model = DualEncoder(ImageEncoder("vit", image_size=32, **VIT), TextEncoder(BERT, "last_layers"), embed_dim=8)
    model.train()
    files = export_encoders(model, tmp_path / "deployed")
    assert model.training
    assert model.text_encoder.model.training
    assert list(files) == ["image_encoder.pt2", "image_encoder.onnx", "text_encoder.pt2", "text_encoder.onnx"]
    assert all(path.parent == tmp_path / "deployed" and path.is_file() for path in files.values())
    model.eval()
    for count, length in ((1, 24), (5, 3)):
        image, (ids, mask) = torch.rand(count, 1, 32, 32), texts(count, length)
        expected = {"image": model.encode_image(image), "text": model.encode_text(ids, mask)}
        inputs = {"image": {"image": image}, "text": {"input_ids": ids, "attention_mask": mask}}
        for side, values in inputs.items():
            program = torch.export.load(files[f"{side}_encoder.pt2"]).module()
            torch.testing.assert_close(program(*values.values()), expected[side], atol=1e-4, rtol=0)
            session = InferenceSession(files[f"{side}_encoder.onnx"], providers=["CPUExecutionProvider"])
            embeds = session.run(["embeds"], {name: value.numpy() for name, value in values.items()})[0]
            torch.testing.assert_close(torch.from_numpy(embeds), expected[side], atol=1e-4, rtol=0)


def test_a_file_that_differs_is_an_error(tmp_path, monkeypatch):
    model = DualEncoder(ImageEncoder("resnet10", image_size=32, width=0.125), TextEncoder(BERT), embed_dim=8)
    module = sys.modules["medvl.networks.export"]
    run = module._run_torch
    monkeypatch.setattr(module, "_run_torch", lambda path, inputs: run(path, inputs) + 2e-4)
    with pytest.raises(RuntimeError, match=r"image_encoder.pt2 differs from the model by 2\.0e-04, more than 1e-04"):
        export_encoders(model, tmp_path, formats=["torch"])


def test_what_is_missing_is_said_first(tmp_path, monkeypatch):
    model = DualEncoder(ImageEncoder("vit", image_size=16, **VIT), TextEncoder(BERT), embed_dim=8)
    with pytest.raises(ValueError, match="formats must be one of 'torch', 'onnx', got 'tensorrt'"):
        export_encoders(model, tmp_path, formats=["tensorrt"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'^ONNX export needs onnxruntime: pip install "medvl\[onnx\]"$'):
        export_encoders(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strict", [False, True])
def test_encoders_are_traced_with_masks_and_patches_that_vary(strict):
    text, image = TextEncoder(BERT, "mean").eval(), ImageEncoder("vit", image_size=32, **VIT).eval()
    ids, mask = texts(2, 6)
    traced = torch.export.export(text, (ids, torch.ones_like(mask)), strict=strict).module()
    torch.testing.assert_close(traced(ids, mask)["embed"], text(ids, mask)["embed"])
    inputs = torch.rand(2, 1, 32, 32), torch.tensor([[5, 7], [9, 11]])
    traced = torch.export.export(
        image, (torch.rand(2, 1, 32, 32), torch.tensor([[0, 1], [2, 3]])), strict=strict
    ).module()
    torch.testing.assert_close(traced(*inputs)["patches"], image(*inputs)["patches"])


def test_weights_of_another_type_are_named(tmp_path):
    model = convirt("small", image_size=32, embed_dim=8).to(torch.bfloat16)
    with pytest.raises(
        ValueError, match=r"^model must have float32 weights \(model\.float\(\)\), got torch\.bfloat16\.$"
    ):
        export_encoders(model, tmp_path / "out", formats=["torch"])
    assert not (tmp_path / "out").exists()
