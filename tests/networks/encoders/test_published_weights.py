"""Published weights of image encoders: each layout gives what its source model gives, or is refused in one sentence."""

from __future__ import annotations

import copy
import json
import logging
import re

import pytest
import torch
from safetensors.torch import save_file
from source_models import (
    ConvNeXt,
    DenseNet,
    ResNet,
    TimmViT,
    TorchvisionViT,
    randomized,
)
from torch.nn import functional as F
from transformers import (
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from medvl.networks import ImageEncoder, TextEncoder, load_tokenizer
from medvl.networks.encoders.hugging_face_files import read_normalization_of

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
DENSE = {"block_config": (2, 1, 2)}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def close(value, expected):
    """Equal to 1e-5 of the largest value: those of networks with random weights may be in the thousands."""
    scale = expected.detach().abs().max().clamp(min=1)
    torch.testing.assert_close(value / scale, expected / scale, atol=1e-5, rtol=1e-5)


def saved(tmp_path, weights, name="weights.pth"):
    torch.save(weights, tmp_path / name)
    return tmp_path / name


def restored(encoder):
    """The encoder after being saved as a configuration and weights."""
    again = ImageEncoder.from_config(json.loads(json.dumps(encoder.to_config())))
    again.load_state_dict(encoder.state_dict())
    return again.eval()


class TestResNet:
    def test_the_whole_resnet50_of_torchvision(self, tmp_path):
        source = randomized(ResNet((3, 4, 6, 3), basic=False, width=64, classes=10))
        with torch.no_grad():  # variances near those of a trained network, which keep values of many layers finite
            for name, value in source.named_parameters():
                if "conv" in name or name.endswith("downsample.0.weight"):
                    value.mul_(5 / value[0].numel() ** 0.5)
        encoder = ImageEncoder("resnet50", in_channels=1, weights=saved(tmp_path, source.state_dict())).eval()
        image = torch.rand(1, 1, 64, 64)
        with torch.no_grad():
            expected = source.features((image.expand(-1, 3, -1, -1) - MEAN) / STD)
            output = encoder(image)
        close(output["patches"], expected.flatten(2).mT)
        close(output["embed"], expected.mean((2, 3)))
        assert set(encoder.load_report.unused) == {"fc.weight", "fc.bias"}
        assert encoder.load_report.missing == ()
        assert encoder.in_channels == 1

    def test_three_channels_are_summed_for_one_where_all_are_normalized_alike(self, tmp_path, caplog):
        source = randomized(ResNet((2, 2, 2, 2), basic=True))
        path = saved(tmp_path, source.state_dict())
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder("resnet18", weights=path, input_mean=0.4, input_std=0.3).eval()
        assert [record.message for record in caplog.records] == [
            f"{path}: 120 weights loaded; kernels of 3 input channels summed for 1."
        ]
        assert encoder.backbone.conv1.weight.shape[1] == 1
        image = torch.rand(2, 1, 64, 64)
        expected = source.features((image.expand(-1, 3, -1, -1) - 0.4) / 0.3).mean((2, 3))
        close(encoder(image)["embed"], expected)
        close(restored(encoder)(image)["embed"], expected)

    def test_imagenets_normalization_is_a_part_of_the_saved_encoder(self, tmp_path, caplog):
        source = randomized(ResNet((2, 2, 2, 2), basic=True))
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder("resnet18", weights=saved(tmp_path, source.state_dict())).eval()
        assert "input normalized as for ImageNet" in caplog.text
        assert "a single channel is repeated over 3" in caplog.text
        image = torch.rand(2, 1, 64, 64)
        expected = source.features((image.expand(-1, 3, -1, -1) - MEAN) / STD).mean((2, 3))
        close(encoder(image)["embed"], expected)
        config = encoder.to_config()
        assert config["input_mean"] == [0.485, 0.456, 0.406]
        assert (config["shortcut_type"], config["bias_downsample"]) == ("B", False)
        close(restored(encoder)(image)["embed"], expected)

    @pytest.mark.parametrize("name", ["resnet34", "resnet101"])
    def test_other_depths(self, tmp_path, name):
        layers = {"resnet34": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}[name]
        source = randomized(ResNet(layers, basic=name == "resnet34", width=4))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        encoder = ImageEncoder(name, in_channels=3, weights=tmp_path, input_mean=0, input_std=1).eval()
        image = torch.rand(1, 3, 64, 64)
        expected = source.features(image)
        close(encoder(image)["embed"], expected.mean((2, 3)))

    def test_radimagenet(self, tmp_path):
        source = randomized(ResNet((3, 4, 6, 3), basic=False, width=4, classes=0))
        numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
        weights = {}
        for name, value in source.state_dict().items():
            part, _, rest = name.partition(".")
            weights[f"backbone.{numbers[part]}.{rest}"] = value
        encoder = ImageEncoder("resnet50", weights=saved(tmp_path, weights, "ResNet50.pt")).eval()
        image = torch.rand(2, 1, 64, 64)
        expected = source.features((image.expand(-1, 3, -1, -1) - 0.5) / 0.5)
        close(encoder(image)["embed"], expected.mean((2, 3)))
        assert encoder.load_report.renamed["backbone.4.0.conv1.weight"] == ("layer1.0.conv1.weight",)

    @pytest.mark.parametrize(
        ("name", "layers", "shortcut"), [("resnet10", (1, 1, 1, 1), "B"), ("resnet18", (2, 2, 2, 2), "A")]
    )
    def test_medicalnet(self, tmp_path, caplog, name, layers, shortcut):
        source = randomized(ResNet(layers, basic=True, width=4, channels=1, dims=3, shortcut=shortcut, classes=0))
        weights = {f"module.{name}": value for name, value in source.state_dict().items()}
        path = saved(tmp_path, {"state_dict": weights, "epoch": 1})
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder(name, spatial_dims=3, weights=path).eval()
        assert "dilated as in MedicalNet" in caplog.text
        image = torch.rand(1, 1, 32, 32, 32)
        expected = source.features(image)
        output = encoder(image)
        assert output["grid"] == (4, 4, 4)
        close(output["patches"], expected.flatten(2).mT)
        close(restored(encoder)(image)["embed"], expected.mean((2, 3, 4)))
        coarse = ImageEncoder(name, spatial_dims=3, weights=path, output_stride=32, dilated=False).eval()
        assert coarse(image)["grid"] == (1, 1, 1)

    def test_torchxrayvision(self, tmp_path):
        source = randomized(ResNet((3, 4, 6, 3), basic=False, width=4, channels=1, classes=18))
        weights = {f"model.{name}": value for name, value in source.state_dict().items()}
        path = saved(tmp_path, {**weights, "op_threshs": torch.ones(18)})
        encoder = ImageEncoder("resnet50", weights=path).eval()
        image = torch.rand(2, 1, 64, 64)
        expected = source.features(image * 2048 - 1024)
        close(encoder(image)["embed"], expected.mean((2, 3)))

    def test_the_configuration_of_timm_tells_the_normalization(self, tmp_path):
        source = randomized(ResNet((2, 2, 2, 2), basic=True))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        stated = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
        (tmp_path / "config.json").write_text(json.dumps(stated))
        encoder = ImageEncoder("resnet18", weights=tmp_path).eval()
        image = torch.rand(1, 1, 64, 64)
        close(encoder(image)["embed"], source.features((image.expand(-1, 3, -1, -1) - 0.5) / 0.25).mean((2, 3)))

    @pytest.mark.parametrize("prefix", ["gloria.img_encoder.model.", "img_encoder_q.model.", "encoder.encoder."])
    def test_the_image_encoder_of_a_larger_model(self, tmp_path, prefix):
        """As GLoRIA, MGCA and BioViL have it: a ResNet of torchvision beside other parts."""
        source = randomized(ResNet((2, 2, 2, 2), basic=True, classes=0))
        weights = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
        others = {"text_encoder.embeddings.weight": torch.zeros(3), "projector.model.0.weight": torch.zeros(2)}
        path = saved(tmp_path, {"state_dict": {**weights, **others}, "epoch": 3})
        encoder = ImageEncoder("resnet18", weights=path, input_mean=0.5, input_std=0.5).eval()
        image = torch.rand(1, 1, 64, 64)
        close(encoder(image)["embed"], source.features((image.expand(-1, 3, -1, -1) - 0.5) / 0.5).mean((2, 3)))
        assert encoder.load_report.unused == dict.fromkeys(others, "another part of the model")

    def test_two_image_encoders_are_not_chosen_from(self, tmp_path):
        source = randomized(ResNet((2, 2, 2, 2), basic=True, classes=0)).state_dict()
        weights = {f"{side}.{name}": value for side in ("encoder_q", "encoder_k") for name, value in source.items()}
        with pytest.raises(ValueError, match=r"must be those of a ResNet of .*, got the names encoder_k\.bn1"):
            ImageEncoder("resnet18", weights=saved(tmp_path, weights))

    def test_one_channel_is_spread_over_three(self, tmp_path):
        source = randomized(ResNet((2, 2, 2, 2), basic=True, channels=1, classes=0))
        encoder = ImageEncoder("resnet18", in_channels=3, weights=saved(tmp_path, source.state_dict())).eval()
        image = torch.rand(1, 1, 64, 64)
        close(encoder(image.expand(-1, 3, -1, -1))["embed"], source.features(image).mean((2, 3)))


class TestDenseNet:
    def image_and_options(self):
        return torch.rand(2, 1, 64, 64), DENSE

    def test_torchvision(self, tmp_path):
        source = randomized(DenseNet())
        path = saved(tmp_path, source.state_dict())
        image, options = self.image_and_options()
        encoder = ImageEncoder("densenet121", weights=path, **options).eval()
        expected = source.embed((image.expand(-1, 3, -1, -1) - MEAN) / STD)
        close(encoder(image)["embed"], expected)
        close(restored(encoder)(image)["embed"], expected)
        with pytest.raises(
            ValueError,
            match=r"^block_config of densenet121 must be \(2, 1, 2\), as in the weights .*got \(6, 12, 24, 16\)\.$",
        ):
            ImageEncoder("densenet121", weights=path)

    def test_old_names_of_torchvision(self, tmp_path):
        source = randomized(DenseNet())
        weights = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
            for name, value in source.state_dict().items()
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in weights
        image, options = self.image_and_options()
        encoder = ImageEncoder("densenet121", weights=saved(tmp_path, weights), input_mean=0, **options).eval()
        close(encoder(image)["embed"], source.embed(image.expand(-1, 3, -1, -1)))

    @pytest.mark.parametrize("thresholds", [False, True])
    def test_torchxrayvision(self, tmp_path, caplog, thresholds):
        source = randomized(DenseNet(channels=1, classes=18))
        weights = {**source.state_dict(), **({"op_threshs": torch.ones(18)} if thresholds else {})}
        image, options = self.image_and_options()
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder("densenet121", weights=saved(tmp_path, weights), **options).eval()
        assert "input of [-1024, 1024] as for TorchXRayVision" in caplog.text
        expected = source.embed(image * 2048 - 1024)
        close(encoder(image)["embed"], expected)
        assert "classifier.weight" in encoder.load_report.unused

    def test_radimagenet(self, tmp_path):
        source = randomized(DenseNet())
        weights = {f"backbone.0.{name}": value for name, value in source.features.state_dict().items()}
        image, options = self.image_and_options()
        encoder = ImageEncoder("densenet121", weights=saved(tmp_path, weights), **options).eval()
        close(encoder(image)["embed"], source.embed((image.expand(-1, 3, -1, -1) - 0.5) / 0.5))


class TestViT:
    @pytest.mark.parametrize("layout", [TimmViT, TorchvisionViT])
    @pytest.mark.parametrize("backbone", ["vit", {"model_type": "vit"}], ids=["monai", "hugging face"])
    def test_values(self, tmp_path, layout, backbone):
        source = randomized(layout())
        encoder = ImageEncoder(backbone, weights=saved(tmp_path, source.state_dict()), in_channels=1).eval()
        assert encoder.image_size == 32
        image = torch.rand(2, 1, 32, 32)
        with torch.no_grad():
            expected = source((image.expand(-1, 3, -1, -1) - MEAN) / STD)
            output = encoder(image)
        close(output["embed"], expected[:, 0])
        close(output["patches"], expected[:, 1:])
        close(restored(encoder)(image)["embed"], expected[:, 0])

    def test_several_heads(self, tmp_path):
        source = randomized(TimmViT(heads=2))
        path = saved(tmp_path, source.state_dict())
        image = torch.rand(1, 3, 32, 32)
        expected = source(image)[:, 0]
        for encoder in (
            ImageEncoder("vit", weights=path, in_channels=3, num_heads=2, input_mean=0),
            ImageEncoder({"model_type": "vit", "num_attention_heads": 2}, weights=path, in_channels=3, input_mean=0),
        ):
            close(encoder.eval()(image)["embed"], expected)

    @pytest.mark.parametrize("backbone", ["vit", {"model_type": "vit"}], ids=["monai", "hugging face"])
    def test_the_position_table_is_interpolated(self, tmp_path, caplog, backbone):
        source = randomized(TimmViT())
        path = saved(tmp_path, source.state_dict())
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder(backbone, weights=path, in_channels=3, image_size=64, input_mean=0).eval()
        assert "position table of 4 x 4 patches interpolated to 8 x 8" in caplog.text
        grid = source.pos_embed[:, 1:].mT.unflatten(2, (4, 4))
        larger = F.interpolate(grid, (8, 8), mode="bicubic", antialias=True).flatten(2).mT
        source.pos_embed = torch.nn.Parameter(torch.cat([source.pos_embed[:, :1], larger], 1))
        image = torch.rand(1, 3, 64, 64)
        close(encoder(image)["embed"], source(image)[:, 0])

    def test_a_size_that_the_name_does_not_have(self, tmp_path):
        path = saved(tmp_path, randomized(TimmViT()).state_dict())
        with pytest.raises(
            ValueError, match=r"^hidden_size of vit_base must be 16, as in the weights .*weights\.pth, got 768\.$"
        ):
            ImageEncoder("vit_base", weights=path)
        with pytest.raises(ValueError, match=r"^pooling of vit must be 'cls', as in the weights .*, got 'mean'\.$"):
            ImageEncoder("vit", weights=path, pooling="mean")


class TestConvNeXt:
    def facebook(self, name):
        return name

    def timm(self, name):
        name = re.sub(r"^downsample_layers\.0\.", "stem.", name)
        name = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", name)
        name = re.sub(r"^stages\.(\d)\.(\d)\.", r"stages.\1.blocks.\2.", name)
        name = name.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
        return name.replace("head.", "head.fc.") if name.startswith("head.") else re.sub(r"^norm\.", "head.norm.", name)

    def torchvision(self, name):
        name = re.sub(r"^downsample_layers\.(\d)\.", lambda m: f"features.{2 * int(m[1])}.", name)
        name = re.sub(r"^stages\.(\d)\.(\d)\.", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}.", name)
        name = re.sub(r"^(features\.\d\.\d\.)norm\.", r"\1block.2.", name)
        for old, new in {
            "dwconv": "block.0",
            "pwconv1": "block.3",
            "pwconv2": "block.5",
            "gamma": "layer_scale",
        }.items():
            name = name.replace(old, new)
        return (
            name.replace("head.", "classifier.2.")
            if name.startswith("head.")
            else re.sub(r"^norm\.", "classifier.0.", name)
        )

    @pytest.mark.parametrize("layout", ["facebook", "timm", "torchvision"])
    def test_values(self, tmp_path, layout):
        source = randomized(ConvNeXt())
        weights = {getattr(self, layout)(name): value for name, value in source.state_dict().items()}
        if layout == "torchvision":
            weights = {k: v.reshape(-1, 1, 1) if k.endswith("layer_scale") else v for k, v in weights.items()}
        encoder = ImageEncoder({"model_type": "convnext"}, weights=saved(tmp_path, weights)).eval()
        image = torch.rand(2, 1, 64, 64)
        expected = source.embed((image.expand(-1, 3, -1, -1) - MEAN) / STD)
        close(encoder(image)["embed"], expected)
        close(restored(encoder)(image)["embed"], expected)


class TestSwin:
    """transformers' Swin is the source model, its weights under the names of the others."""

    def microsoft(self, weights):
        joined = {}
        for name, value in weights.items():
            name = name.removeprefix("encoder.").replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
            name = name.replace("embeddings.norm", "patch_embed.norm").replace("layernorm_before", "norm1")
            name = name.replace("layernorm_after", "norm2").replace("attention.relative_position_bias.", "attn.")
            name = name.replace("attention.o_proj", "attn.proj")
            name = "norm." + name.removeprefix("layernorm.") if name.startswith("layernorm.") else name
            if match := re.search(r"attention\.[qkv]_proj\.", name):
                name = name.replace(match[0], "attn.qkv.")
                value = torch.cat([joined[name], value]) if name in joined else value
            joined[name] = value
        return {**joined, "head.weight": torch.zeros(5, 8), "layers.0.blocks.1.attn_mask": torch.zeros(4, 4, 4)}

    def timm(self, weights):
        def moved(name):
            return re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)

        return {moved(name): value for name, value in self.microsoft(weights).items()}

    def torchvision(self, weights):
        renamed = {}
        for name, value in self.microsoft(weights).items():
            name = name.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
            name = re.sub(r"^layers\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name)
            name = re.sub(r"^layers\.(\d)\.downsample", lambda m: f"features.{2 * int(m[1]) + 2}", name)
            name = name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
            renamed[name] = value
        return renamed

    @pytest.mark.parametrize("layout", ["microsoft", "timm", "torchvision"])
    def test_values(self, tmp_path, layout):
        sizes = {"embed_dim": 8, "depths": [2, 2, 1], "num_heads": [1, 2, 2], "window_size": 4, "image_size": 64}
        source = randomized(SwinModel(SwinConfig(**sizes)))
        weights = getattr(self, layout)(source.state_dict())
        encoder = ImageEncoder({"model_type": "swin", "image_size": 64}, weights=saved(tmp_path, weights)).eval()
        image = torch.rand(2, 1, 64, 64)
        with torch.no_grad():
            expected = source((image.expand(-1, 3, -1, -1) - MEAN) / STD).pooler_output
        close(encoder(image)["embed"], expected)
        assert len(encoder.load_report.unused) == 2


class TestHuggingFace:
    def test_a_file_of_the_models_own_layout(self, tmp_path):
        source = randomized(ViTForImageClassification(ViTConfig(**VIT, image_size=32)))
        source.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        encoder = ImageEncoder({"model_type": "vit", **VIT, "image_size": 32}, in_channels=3, weights=path).eval()
        image = torch.rand(2, 3, 32, 32)
        close(encoder(image)["embed"], source.vit(image).last_hidden_state[:, 0])

    def test_the_preprocessor_of_a_folder_is_a_part_of_the_encoder(self, tmp_path, caplog):
        """As RAD-DINO is published: a DINOv2 with its mean and deviation beside it."""
        source = randomized(Dinov2Model(Dinov2Config(**VIT, image_size=32)))
        source.save_pretrained(tmp_path)
        stated = {
            "do_normalize": True,
            "image_mean": [0.5307] * 3,
            "image_std": [0.2583] * 3,
            "rescale_factor": 1 / 255,
        }
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder(tmp_path).eval()
        assert "input normalized by mean (0.5307,) and deviation (0.2583,)" in caplog.text
        image = torch.rand(2, 1, 32, 32)
        expected = source((image.expand(-1, 3, -1, -1) - 0.5307) / 0.2583).pooler_output
        close(encoder(image)["embed"], expected)
        close(restored(encoder)(image)["embed"], expected)
        plain = ImageEncoder(tmp_path, input_mean=0, input_std=1).eval()
        close(plain(image)["embed"], source(image.expand(-1, 3, -1, -1)).pooler_output)

    @pytest.mark.parametrize(
        ("stated", "expected"),
        [
            ({"image_mean": [0.5], "image_std": [0.25]}, ([0.5], [0.25])),
            ({"image_mean": [0.5], "image_std": [0.25], "do_normalize": False}, None),
            ({"image_mean": [1.0], "image_std": [2.0], "rescale_factor": 1 / 127.5}, ([0.5], [1.0])),
            ({"image_mean": [51.0], "image_std": [102.0], "do_rescale": False}, ([0.2], [0.4])),
            ({"do_resize": True}, None),
            ({"image_processor": {"image_mean": 0.5, "image_std": 0.5}}, ([0.5], [0.5])),
        ],
    )
    def test_what_a_preprocessor_says_is_for_values_from_0_to_1(self, tmp_path, stated, expected):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
        found = read_normalization_of(tmp_path)
        if expected is None:
            assert found is None
        else:
            close(torch.tensor(found), torch.tensor(expected))

    def test_the_position_table_of_a_folder_is_interpolated(self, tmp_path, caplog):
        source = randomized(ViTModel(ViTConfig(**VIT, image_size=32), add_pooling_layer=False))
        source.save_pretrained(tmp_path)
        with caplog.at_level(logging.WARNING):
            encoder = ImageEncoder(tmp_path, image_size=64).eval()
        assert "position table of 4 x 4 patches interpolated to 8 x 8" in caplog.text
        assert encoder(torch.rand(1, 1, 64, 64))["grid"] == (8, 8)
        table = encoder.backbone.model.embeddings.position_embeddings
        close(table[:, 0], source.embeddings.position_embeddings[:, 0])
        close(encoder.backbone.model.layers[0].attention.q_proj.weight, source.layers[0].attention.q_proj.weight)
        assert encoder.to_config()["image_size"] == 64
        assert restored(encoder)(torch.rand(1, 1, 64, 64))["grid"] == (8, 8)

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        """A cache of the Hub with one model, as ``hf download`` leaves it."""
        folder = tmp_path / "hub" / "models--some--vit"
        snapshot = folder / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123abcd")
        randomized(ViTModel(ViTConfig(**VIT, image_size=32), add_pooling_layer=False)).save_pretrained(snapshot)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        return snapshot

    def test_a_name_in_the_hub(self, cache):
        image = torch.rand(1, 1, 32, 32)
        encoder = ImageEncoder("some/vit").eval()
        close(encoder(image)["embed"], ImageEncoder(cache).eval()(image)["embed"])
        assert "some" not in json.dumps(encoder.to_config())

    def test_a_name_that_is_not_in_the_cache(self, cache):
        hint = (
            "nothing is downloaded here: `hf download microsoft/rad-dino` fetches a model of the Hugging Face Hub of "
            "this name"
        )
        with pytest.raises(ValueError, match=rf"^backbone must be one of .*, got 'microsoft/rad-dino'; {hint}\.$"):
            ImageEncoder("microsoft/rad-dino")
        with pytest.raises(ValueError, match=rf"^model must be .*, got 'microsoft/rad-dino'; {hint}\.$"):
            TextEncoder("microsoft/rad-dino")
        with pytest.raises(ValueError, match=rf"there is no folder microsoft/rad-dino; {hint}\.$"):
            load_tokenizer("microsoft/rad-dino")


class TestByFileAlone:
    """``ImageEncoder(FILE)``: the network is that of the weights."""

    @pytest.mark.parametrize("build", ["resnet18", "resnet50", "densenet121", "vit", "convnext"])
    def test_is_what_the_name_and_the_weights_give(self, tmp_path, build):
        source, backbone = {
            "resnet18": lambda: (ResNet((2, 2, 2, 2), basic=True, width=4), "resnet18"),
            "resnet50": lambda: (ResNet((3, 4, 6, 3), basic=False, width=4), "resnet50"),
            "densenet121": lambda: (DenseNet(blocks=(6, 12, 24, 16), growth=2, width=4), "densenet121"),
            "vit": lambda: (TorchvisionViT(), "vit"),
            "convnext": lambda: (ConvNeXt(), {"model_type": "convnext"}),
        }[build]()
        torch.save(randomized(source).state_dict(), tmp_path / "weights.pth")
        encoders = [ImageEncoder(tmp_path / "weights.pth"), ImageEncoder(backbone, weights=tmp_path / "weights.pth")]
        assert encoders[0].to_config() == encoders[1].to_config()
        states = [encoder.state_dict() for encoder in encoders]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert encoders[0].load_report is not None
        if build == "resnet18":
            assert encoders[0].to_config()["backbone"] == "resnet18"

    def test_a_folder_of_timm(self, tmp_path):
        torch.save(randomized(TimmViT()).state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "config.json").write_text(
            '{"architecture": "vit", "pretrained_cfg": {"mean": [0.4], "std": [0.3]}}'
        )
        assert ImageEncoder(str(tmp_path)).to_config()["input_mean"] == [0.4]

    def test_of_another_size_or_layout(self, tmp_path):
        torch.save(randomized(ResNet((1, 2, 1, 1), basic=True, width=4)).state_dict(), tmp_path / "weights.pth")
        with pytest.raises(
            ValueError, match=r"weights in .* must be those of .*, got a resnet of other sizes, \{'layers'"
        ):
            ImageEncoder(tmp_path / "weights.pth")
        torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=r"must be those of .* or Facebook, got another layout\.$"):
            ImageEncoder(tmp_path / "weights.pth")

    def test_a_configuration_never_names_one(self, tmp_path):
        torch.save(randomized(ResNet((1, 1, 1, 1), basic=True, width=4)).state_dict(), tmp_path / "weights.pth")
        with pytest.raises(ValueError, match="must hold no weights, which are in a file of their own"):
            ImageEncoder.from_config({"backbone": str(tmp_path / "weights.pth")})


class TestRefused:
    def test_another_architecture(self, tmp_path):
        path = saved(tmp_path, randomized(DenseNet()).state_dict())
        expected = (
            f"weights in {path} must be those of a ResNet of torchvision, timm, RadImageNet, TorchXRayVision or MedicalNet, "
            "got those of a DenseNet of torchvision, timm, RadImageNet or TorchXRayVision."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            ImageEncoder("resnet50", weights=path)

    def test_no_known_layout(self, tmp_path):
        path = saved(tmp_path, {"tokens": torch.zeros(3), "a.b": torch.zeros(2)})
        with pytest.raises(
            ValueError, match=r"must be those of a ViT of torchvision or timm, got the names a\.b, tokens \.\.\.\.$"
        ):
            ImageEncoder("vit", weights=path)

    @pytest.mark.parametrize("backbone", ["efficientnet-b0", "swin_tiny"])
    def test_networks_without_published_weights_here(self, backbone):
        with pytest.raises(
            ValueError,
            match=rf"^backbone must be a ResNet, a DenseNet or a ViT to be given weights; .*, got '{backbone}'\.$",
        ):
            ImageEncoder(backbone, weights="anything.pth")

    def test_another_depth_and_another_block(self, tmp_path):
        path = saved(tmp_path, randomized(ResNet((2, 2, 2, 2), basic=True)).state_dict())
        with pytest.raises(
            ValueError, match=r"^block of resnet50 must be 'basic', as in the weights .*, got 'bottleneck'\.$"
        ):
            ImageEncoder("resnet50", weights=path)
        with pytest.raises(
            ValueError, match=r"^layers of resnet34 must be \(2, 2, 2, 2\), as in the weights .*, got \(3, 4, 6, 3\)\.$"
        ):
            ImageEncoder("resnet34", weights=path)
        with pytest.raises(ValueError, match=r"^spatial_dims must be 2, as in the weights .*, got 3\.$"):
            ImageEncoder("resnet18", spatial_dims=3, weights=path)
        with pytest.raises(ValueError, match=r"^in_channels must be 1 or the 3 of the weights, got 2\.$"):
            ImageEncoder("resnet18", in_channels=2, weights=path)

    def test_a_stem_of_several_convolutions(self, tmp_path):
        weights = randomized(ResNet((2, 2, 2, 2), basic=True)).state_dict()
        weights["conv1.0.weight"] = weights.pop("conv1.weight")
        with pytest.raises(
            ValueError, match=r"^the stem of the ResNet must be one convolution of side 7, got several convolutions"
        ):
            ImageEncoder("resnet18", weights=saved(tmp_path, weights))

    @pytest.mark.parametrize(("change", "message"), [
        (lambda weights: weights.pop("layer3.1.bn1.bias"),
         r"1 weights are missing in it, the first layer3\.1\.bn1\.bias; what is read here is a ResNet of"),
        (lambda weights: weights.update({"layer1.0.se.fc1.weight": torch.zeros(1)}),
         r"1 of its \d+ weights cannot be used, the first layer1\.0\.se\.fc1\.weight \(the backbone has no"),
        (lambda weights: weights.update({"layer1.0.conv1.weight": torch.zeros(2, 8, 3, 3)}),
         r"the first layer1\.0\.conv1\.weight \(its shape \(2, 8, 3, 3\) is not that of"),
    ])  # fmt: skip
    def test_never_half(self, tmp_path, change, message):
        weights = copy.copy(randomized(ResNet((2, 2, 2, 2), basic=True)).state_dict())
        change(weights)
        with pytest.raises(ValueError, match=message):
            ImageEncoder("resnet18", weights=saved(tmp_path, weights))

    def test_a_pickled_module(self, tmp_path):
        """As TorchXRayVision publishes its files: the page says how to make a state dict of one."""
        torch.save(DenseNet(), tmp_path / "xrv.pt")
        with pytest.raises(ValueError, match=r"xrv\.pt holds more than weights and is not loaded"):
            ImageEncoder("densenet121", weights=tmp_path / "xrv.pt")

    def test_a_file_that_does_not_exist(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"got .*none\.pth, which does not exist"):
            ImageEncoder("resnet50", weights=tmp_path / "none.pth")

    def test_a_configuration_never_reads_weights(self):
        with pytest.raises(
            ValueError, match=r"^the configuration of an image encoder must hold no weights, .* got '/etc/passwd'\.$"
        ):
            ImageEncoder.from_config({"backbone": "resnet18", "weights": "/etc/passwd"})


class TestNormalization:
    def test_without_weights(self):
        plain, normalizing = (
            ImageEncoder("resnet10", width=0.125),
            ImageEncoder("resnet10", width=0.125, input_mean=0.5, input_std=0.25),
        )
        normalizing.load_state_dict(plain.state_dict())
        image = torch.rand(1, 1, 64, 64)
        close(normalizing.eval()(image)["embed"], plain.eval()((image - 0.5) / 0.25)["embed"])
        assert normalizing.to_config()["input_std"] == [0.25]
        assert "input_mean" not in plain.to_config()

    def test_masked_patches_and_volumes(self):
        encoder = ImageEncoder(
            "vit",
            image_size=16,
            patch_size=8,
            hidden_size=16,
            num_layers=1,
            num_heads=2,
            input_mean=0.5,
            spatial_dims=3,
        )
        visible = torch.tensor([[0, 3]])
        image = torch.rand(1, 1, 16, 16, 16)
        plain = ImageEncoder(
            "vit", image_size=16, patch_size=8, hidden_size=16, num_layers=1, num_heads=2, spatial_dims=3
        )
        plain.load_state_dict(encoder.state_dict())
        close(encoder.eval()(image, visible)["patches"], plain.eval()(image - 0.5, visible)["patches"])

    def test_out_of_range(self):
        with pytest.raises(ValueError, match=r"^input_std must be above 0, got 0\.0\.$"):
            ImageEncoder("resnet10", width=0.125, input_std=0)
        with pytest.raises(ValueError, match=r"^input_std must have 3 values, as input_mean, got 2\.$"):
            ImageEncoder("resnet10", width=0.125, input_mean=[0.1, 0.2, 0.3], input_std=[1, 2])
        with pytest.raises(
            ValueError, match=r"^input_mean must have one value, or one for each of 2 channels, got 3\.$"
        ):
            ImageEncoder("resnet10", in_channels=2, width=0.125, input_mean=[0.1, 0.2, 0.3])


class TestQuirks:
    """Files that are not quite as published."""

    @pytest.fixture
    def weights(self):
        return randomized(ResNet((2, 2, 2, 2), basic=True, width=64)).state_dict()

    @pytest.fixture
    def image(self):
        return torch.rand(1, 1, 32, 32)

    @staticmethod
    def embed(path, image):
        with torch.no_grad():
            return ImageEncoder(str(path)).eval()(image)["embed"]

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda weights: {"net": weights, "epoch": 3},
            lambda weights: {"state_dict": {"model": weights}},
            lambda weights: {f"backbone.{name}": value for name, value in weights.items()},
            lambda weights: {f"module.backbone.{name}": value for name, value in weights.items()},
        ],
    )
    def test_wrapped(self, tmp_path, weights, image, wrap):
        torch.save(weights, tmp_path / "plain.pth")
        torch.save(wrap(weights), tmp_path / "wrapped.pth")
        assert torch.equal(self.embed(tmp_path / "wrapped.pth", image), self.embed(tmp_path / "plain.pth", image))

    def test_of_another_suffix(self, tmp_path, weights, image):
        torch.save(weights, tmp_path / "a.pth")
        torch.save(weights, tmp_path / "b.safetensors")
        save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "c.pth")
        one, two, three = (self.embed(tmp_path / name, image) for name in ("a.pth", "b.safetensors", "c.pth"))
        assert torch.equal(one, two)
        assert torch.equal(one, three)

    def test_in_the_home_folder(self, tmp_path, weights, image, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        torch.save(weights, tmp_path / "a.pth")
        assert torch.equal(self.embed("~/a.pth", image), self.embed(tmp_path / "a.pth", image))

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (
                {"student": {"a": torch.ones(1)}, "teacher": {"a": torch.ones(1)}},
                r"tensors, got a dict with student, teacher\.$",
            ),
            (
                {"conv1.weight": torch.ones(1), "epoch": 5},
                r"tensors, got also 'epoch', of type int, among 1 tensors\.$",
            ),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                r"is a pointer of Git LFS, not the weights; git lfs pull",
            ),
            (b"<!DOCTYPE html>\n<html>", r"is a web page, not the weights; fetch the file again\.$"),
        ],
    )
    def test_others_are_refused(self, tmp_path, content, sentence):
        path = tmp_path / "a.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(ValueError, match=sentence):
            ImageEncoder(str(path))

    def test_not_finite(self, tmp_path, weights):
        weights["layer1.0.conv1.weight"] = weights["layer1.0.conv1.weight"] * float("nan")
        torch.save(weights, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"not finite: 1 of \d+, the first for layer1\.0\.conv1\.weight\.$"):
            ImageEncoder(str(tmp_path / "a.pth"))
