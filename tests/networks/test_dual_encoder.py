"""The dual encoder: what it embeds, learns and saves."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder
from medvl.utils.targets import state_target

BERT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}


def small_model(**options) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(
        ImageEncoder("resnet10", image_size=64, width=0.125), TextEncoder(BERT, "max"), embed_dim=8, **options
    )


def tokens(texts=3, length=6):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 50, (texts, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:, 4:] = 0
    return ids, mask


class TestDualEncoder:
    def test_unit_vectors_of_what_was_given(self):
        model = small_model()
        ids, mask = tokens()
        output = model(torch.rand(2, 1, 64, 64), ids, mask)
        assert set(output) == {"image_embeds", "text_embeds", "logit_scale"}
        assert output["image_embeds"].shape == (2, 8)
        assert output["text_embeds"].shape == (3, 8)
        for name in ("image_embeds", "text_embeds"):
            torch.testing.assert_close(output[name].norm(dim=-1), torch.ones(len(output[name])))
        assert set(model(input_ids=ids)) == {"text_embeds", "logit_scale"}
        with pytest.raises(ValueError, match=r"^image or input_ids must be given, got neither\.$"):
            model()

    def test_gradient_reaches_every_parameter_of_both_encoders(self):
        model = small_model()
        ids, mask = tokens()
        output = model(torch.rand(3, 1, 64, 64), ids, mask)
        ((output["image_embeds"] @ output["text_embeds"].T) * output["logit_scale"]).log_softmax(
            -1
        ).diagonal().sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert not without
        still = [n for n, p in model.named_parameters() if p.grad.abs().max() == 0 and "token_type" not in n]
        assert not [name for name in still if "key.bias" not in name], "softmax cancels a key's bias, and nothing else"

    def test_batch_of_one_in_training(self):
        ids, mask = tokens(1)
        output = small_model().train()(torch.rand(1, 1, 64, 64), ids, mask)
        assert torch.isfinite(output["image_embeds"]).all()

    @pytest.mark.parametrize("place", ["runs/first/model", "./model", "~/model", "/runs/first", Path("runs/first")])
    def test_a_folder_that_is_not_there_is_not_looked_up_in_the_hub(self, place):
        with pytest.raises(FileNotFoundError, match="is not a folder; expected one that save_pretrained wrote"):
            DualEncoder.from_pretrained(place)

    def test_folder_is_all_one_needs(self, tmp_path):
        model = small_model(image_projection={"layers": 2}, logit_scale={"temperature": 0.2}).eval()
        model.save_pretrained(tmp_path)
        again = DualEncoder.from_pretrained(tmp_path)
        ids, mask = tokens()
        image = torch.rand(2, 1, 64, 64)
        for name, value in model(image, ids, mask).items():
            assert torch.equal(value, again(image, ids, mask)[name]), name
        assert not again.training
        assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md", "SHA256SUMS"}
        assert json.loads((tmp_path / "config.json").read_text())["image_encoder"]["image_size"] == 64
        card = (tmp_path / "README.md").read_text()
        assert card.startswith("---\n")
        assert "`medvl card RUN` writes the whole card" in card

    def test_loading_is_never_partial(self, tmp_path):
        small_model().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "SHA256SUMS").unlink()  # changed on purpose
        (tmp_path / "config.json").write_text(json.dumps({**config, "image_projection": {"layers": 2}}))
        with pytest.raises(ValueError, match="image_projection"):
            DualEncoder.from_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"model.safetensors not found in it"):
            DualEncoder.from_pretrained(tmp_path)

    def test_strings_need_a_tokenizer(self):
        with pytest.raises(ValueError, match="no tokenizer"):
            small_model().encode_text(["Clear lungs."])

    def test_a_module_as_backbone_cannot_be_described(self, tmp_path):
        encoder = ImageEncoder(nn.Conv2d(1, 4, 8, 8), out_features=4)
        model = DualEncoder(encoder, TextEncoder(BERT), embed_dim=8)
        with pytest.raises(
            ValueError,
            match=r"^backbone must be a name, a Hugging Face model, or a module stated by its class and arguments, as .*, "
            r"to be saved, got a Conv2d\.$",
        ):
            model.save_pretrained(tmp_path)

    def test_a_stated_module_as_backbone_is_saved_and_loaded(self, tmp_path):
        stated = {
            "_target_": "torch.nn.Conv2d",
            "in_channels": 1,
            "out_channels": 4,
            "kernel_size": [8, 8],
            "stride": 8,
        }
        model = DualEncoder(ImageEncoder(stated, image_size=32, out_features=4), TextEncoder(BERT), embed_dim=8).eval()
        model.save_pretrained(tmp_path)
        again = DualEncoder.from_pretrained(tmp_path)
        image = torch.rand(2, 1, 32, 32)
        assert torch.equal(again.encode_image(image), model.encode_image(image))
        assert again.to_config() == model.to_config()
        assert model.packages() == []

    def test_a_module_that_states_what_made_it_is_saved(self, tmp_path):
        module = nn.Conv2d(1, 4, 8, 8)
        state_target(module, "torch.nn.Conv2d", {"in_channels": 1, "out_channels": 4, "kernel_size": 8, "stride": 8})
        model = DualEncoder(ImageEncoder(module, out_features=4), TextEncoder(BERT), embed_dim=8).eval()
        model.save_pretrained(tmp_path)
        image = torch.rand(2, 1, 32, 32)
        assert torch.equal(DualEncoder.from_pretrained(tmp_path).encode_image(image), model.encode_image(image))

    @pytest.mark.parametrize(
        ("backbone", "message"),
        [
            (
                {"_target_": "torch.load", "f": "x.pt"},
                r"^torch.load is code of the package torch, which",
            ),
            ({"_target_": "torch.nn.init.normal_", "tensor": 1}, r"^torch.nn.init.normal_ may not be named by a file"),
            (
                {"_target_": "os.system", "command": "ls"},
                r"^os.system is code of the package os, which is run",
            ),
            ({"_target_": "no_such_package.Net"}, r"on the command line --trust-package no_such_package\)\.$"),
            ({"_target_": "monai.networks.nets.NoNet"}, r"^monai.networks.nets.NoNet does not exist here"),
            (
                {"_target_": "torch.nn.Conv2d", "pretrained": True},
                r"^backbone must be stated without pretrained weights",
            ),
            ({"_target_": "torch.nn.Conv2d", "hue": 1}, r"^torch.nn.Conv2d cannot be made from its description"),
        ],
    )
    def test_a_folder_names_no_code_of_its_own(self, backbone, message, tmp_path):
        stated = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 8}
        DualEncoder(ImageEncoder(stated, out_features=4), TextEncoder(BERT), embed_dim=8).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["image_encoder"]["backbone"] = backbone
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "SHA256SUMS").unlink()
        with pytest.raises(ValueError, match=message):
            DualEncoder.from_pretrained(tmp_path)

    def test_a_class_of_another_package_needs_trust(self, tmp_path, monkeypatch):
        (tmp_path / "own_models.py").write_text(
            "from medvl.networks import DualEncoder\nclass Own(DualEncoder):\n    pass\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        own = importlib.import_module("own_models").Own
        config = {**small_model().to_config(), "architecture": "own_models.Elsewhere"}
        assert own.from_config({**config, "architecture": "own_models.Own"}).packages() == ["own_models"]
        with pytest.raises(
            ValueError, match=r"^own_models.Elsewhere is code of the package own_models, which is run only"
        ):
            DualEncoder.from_config(config)
        with pytest.raises(ValueError, match=r"^own_models.Elsewhere does not exist here"):
            DualEncoder.from_config(config, trusted_packages=["own_models"])
