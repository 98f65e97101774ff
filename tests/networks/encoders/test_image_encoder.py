"""What each backbone of the image encoder promises: MONAI's own values, hidden patches, sizes, Hugging Face sources."""

from __future__ import annotations

import re

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DenseNet, EfficientNetBN, ResNet, ViT
from monai.networks.nets.resnet import resnet_params
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import nn
from transformers import (
    BertConfig,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from medvl.networks import ImageEncoder
from medvl.utils.layers import layer_positions

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
HF_VIT = {**TRANSFORMER, "image_size": 32, "patch_size": 8}
VIT = {"patch_size": 8, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
DENSENET = {"init_features": 8, "growth_rate": 4, "block_config": (1, 2, 1)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def load(reference: nn.Module, encoder: ImageEncoder) -> nn.Module:
    """MONAI's own network with the encoder's weights, ready to compare; only its heads may stay as they were."""
    report = reference.load_state_dict(encoder.backbone.state_dict(), strict=False)
    assert not report.unexpected_keys
    heads = ("fc.", "_fc.", "class_layers.", "norm_cross_attn.", "layers4.0.downsample.")
    assert all(any(head in f"{name}." for head in heads) for name in report.missing_keys), report.missing_keys
    encoder.eval()
    return reference.eval()


class TestValuesAreMonais:
    """With the same weights the backbones give what MONAI's networks give before their heads."""

    @pytest.mark.parametrize("name", ["resnet10", "resnet18"])
    def test_resnet(self, name):
        encoder = ImageEncoder(name, image_size=64, width=0.125)
        block, layers, shortcut, bias, _ = resnet_params[name]
        options = {"shortcut_type": shortcut, "bias_downsample": bias, "feed_forward": False, "conv1_t_stride": 2}
        planes = [8, 16, 32, 64]
        reference = load(ResNet(block, layers, planes, spatial_dims=2, n_input_channels=1, **options), encoder)
        image = torch.rand(2, 1, 64, 64)
        torch.testing.assert_close(encoder(image)["embed"], reference(image))

    @pytest.mark.parametrize("name", ["resnet10", "resnet50"])
    def test_the_norm_of_a_resnet_is_that_of_all_its_layers(self, name):
        backbone = ImageEncoder(name, width=0.125, norm=("group", {"num_groups": 2})).backbone
        kinds = {type(part) for part in backbone.modules() if "Norm" in type(part).__name__}
        assert kinds == {nn.GroupNorm}

    def test_densenet(self):
        encoder = ImageEncoder("densenet121", **DENSENET)
        reference = load(DenseNet(spatial_dims=2, in_channels=1, out_channels=1, **DENSENET), encoder)
        reference.class_layers.out = nn.Identity()
        image = torch.rand(2, 1, 40, 40)
        torch.testing.assert_close(encoder(image)["embed"], reference(image))

    def test_efficientnet_at_a_size_that_needs_no_other_padding(self):
        # Running statistics of this very image: fresh ones let so little of it through that any padding would do.
        image, norm = torch.rand(2, 1, 64, 64), ("batch", {"eps": 1e-3, "momentum": 1.0})
        encoder = ImageEncoder("efficientnet-b0", norm=norm)
        encoder.train()(image)
        reference = load(EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1, norm=norm), encoder)
        reference._fc = nn.Identity()
        torch.testing.assert_close(encoder(image)["embed"], reference(image))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_vit(self, dims):
        encoder = ImageEncoder("vit", spatial_dims=dims, image_size=16, mlp_dim=32, **VIT)
        reference = load(ViT(1, (16,) * dims, (8,) * dims, 16, 32, 2, 2, spatial_dims=dims), encoder)
        image = torch.rand(2, 1, *(16,) * dims)
        torch.testing.assert_close(encoder(image)["patches"], reference(image)[0])

    def test_swin_ends_before_the_merging_that_only_a_unet_needs(self):
        sizes = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}
        encoder = ImageEncoder("swin", window_size=3, patch_size=2, **sizes)
        encoder.backbone.norm = nn.Identity()
        reference = SwinTransformer(1, window_size=(3, 3), patch_size=(2, 2), patch_norm=True, spatial_dims=2, **sizes)
        load(reference, encoder)
        image = torch.rand(1, 1, 32, 32)
        merging = reference.layers4[0].downsample
        patches = encoder(image)["patches"].unflatten(1, (2, 2))
        torch.testing.assert_close(merging(patches).movedim(-1, 1), reference(image, normalize=False)[-1])

    def test_shortcut_of_resnet18_keeps_its_gradient(self):
        """MONAI's detaches it; then the input's gradient passes the first stage's weights only by the other branch."""
        encoder = ImageEncoder("resnet18", width=0.125).eval()
        block = encoder.backbone.layer2[0]
        nn.init.zeros_(block.conv2.weight)
        x = torch.rand(1, 8, 8, 8, requires_grad=True)
        block(x).sum().backward()
        assert x.grad[..., ::2, ::2].min() == 1

    @pytest.mark.parametrize(
        ("name", "millions", "width"),
        [("resnet50", 23.5, 2048), ("densenet121", 6.95, 1024), ("efficientnet-b0", 4.01, 1280), ("vit_base", 85.4, 768),
         ("vit_small", 21.5, 384), ("swin_tiny", 27.5, 768)],
    )  # fmt: skip
    def test_sizes_of_the_papers(self, name, millions, width):
        with torch.device("cpu" if name == "swin_tiny" else "meta"):  # MONAI's Swin reads numbers while it is built
            encoder = ImageEncoder(name)
        assert encoder.out_features == width
        assert sum(value.numel() for value in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


VISIBLE = {
    "vit": {"backbone": "vit", **VIT},
    "vit-cls": {"backbone": "vit", "pooling": "cls", **VIT},
    "vit-sincos": {"backbone": "vit", "pos_embed_type": "sincos", **VIT},
    "vit-perceptron": {"backbone": "vit", "proj_type": "perceptron", **VIT},
    **{
        f"hf-{kind}": {"backbone": {"model_type": kind, **HF_VIT}}
        for kind in ("vit", "deit", "clip_vision_model", "siglip_vision_model", "dinov2", "dinov2_with_registers")
    },
}


@pytest.mark.parametrize("options", VISIBLE.values(), ids=VISIBLE)
class TestVisiblePatches:
    def test_all_of_them_are_the_whole_image(self, options):
        encoder = ImageEncoder(image_size=32, **options).eval()
        image = torch.rand(2, 1, 32, 32)
        whole, kept = encoder(image), encoder(image, visible_indices=torch.arange(16).expand(2, -1))
        torch.testing.assert_close(kept["patches"], whole["patches"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(kept["embed"], whole["embed"], atol=1e-5, rtol=1e-5)

    def test_hidden_pixels_do_not_matter_and_visible_ones_do(self, options):
        encoder = ImageEncoder(image_size=32, **options).eval()
        image, other = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
        other[..., 8:16, 16:24] = image[..., 8:16, 16:24]  # row 1, column 2 of the grid: patch 6
        visible = torch.tensor([[6]])
        assert torch.equal(encoder(image, visible)["embed"], encoder(other, visible)["embed"])
        other[..., 8, 16] += 1
        assert not torch.equal(encoder(image, visible)["embed"], encoder(other, visible)["embed"])

    def test_order_and_positions_are_kept(self, options):
        encoder = ImageEncoder(image_size=32, **options).eval()
        for name, value in encoder.named_parameters():
            if "position" in name and value.requires_grad:
                nn.init.normal_(value)  # DeiT's start at zero
        image = torch.rand(2, 1, 32, 32)
        one = encoder(image, torch.tensor([[1, 7, 4], [0, 2, 15]], dtype=torch.int32))
        two = encoder(image, torch.tensor([[4, 1, 7], [15, 0, 2]]))
        assert one["patches"].shape == (2, 3, encoder.out_features)
        assert one["grid"] == (4, 4)
        torch.testing.assert_close(one["patches"], two["patches"][:, [1, 2, 0]], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one["embed"], two["embed"], atol=1e-5, rtol=1e-4)
        blank = torch.zeros(1, 1, 32, 32)  # only the position tells its patches apart
        assert not torch.allclose(
            encoder(blank, torch.tensor([[0]]))["embed"], encoder(blank, torch.tensor([[9]]))["embed"]
        )


@pytest.mark.parametrize("kind", ["vit-cls", "hf-clip_vision_model"])
def test_visible_patches_compile(kind):
    torch._dynamo.reset()
    encoder = ImageEncoder(image_size=32, **VISIBLE[kind]).eval()
    image, visible = torch.rand(2, 1, 32, 32), torch.tensor([[1, 7, 4], [0, 2, 15]])
    expected = encoder(image, visible)["embed"]
    embed = torch.compile(encoder, backend="eager")(image, visible)["embed"]
    torch.testing.assert_close(embed, expected, atol=1e-5, rtol=1e-4)
    embed.sum().backward()
    assert all(value.grad is not None for value in encoder.parameters() if value.requires_grad)


@pytest.mark.parametrize(("dims", "stride"), [(2, 8), (2, 16), (3, 8)])
class TestMaskedResNet:
    def encoder(self, dims: int, stride: int) -> ImageEncoder:
        torch.manual_seed(0)
        return ImageEncoder(
            "resnet10",
            spatial_dims=dims,
            image_size=32,
            width=0.125,
            output_stride=stride,
            norm=("group", {"num_groups": 4}),
        ).eval()

    def test_all_visible_is_the_whole_image(self, dims, stride):
        encoder, cells = self.encoder(dims, stride), (32 // stride) ** dims
        image = torch.rand(2, 1, *(32,) * dims)
        whole = encoder(image)
        order = torch.stack([torch.randperm(cells), torch.arange(cells)])
        masked = encoder(image, visible_indices=order)
        torch.testing.assert_close(masked["embed"], whole["embed"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(masked["patches"][0], whole["patches"][0, order[0]])
        assert masked["grid"] == whole["grid"] == (32 // stride,) * dims
        assert encoder.patch_size == (stride,) * dims

    def test_masked_pixels_are_black(self, dims, stride):
        encoder = self.encoder(dims, stride)
        image = torch.rand(1, 1, *(32,) * dims)
        black = image.clone()
        black[..., :stride] = 0  # the first column of cells, along the last axis
        places = torch.arange((32 // stride) ** dims).reshape((32 // stride,) * dims)
        visible = places[..., 1:].flatten()[None]
        masked = encoder(image, visible_indices=visible)
        torch.testing.assert_close(masked["patches"], encoder(black)["patches"][:, visible[0]])
        torch.testing.assert_close(masked["embed"], masked["patches"].mean(1))


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_cells_of_a_finer_map_are_centered_on_their_pixels(stride):
    """With equal weights, the pixels that a cell sees have their center of mass in the cell's own center."""
    encoder = ImageEncoder("resnet10", image_size=256, width=0.125, output_stride=stride, no_max_pool=True).eval()
    for weights in encoder.parameters():
        torch.nn.init.constant_(weights, 0.01)
    image = torch.ones(1, 1, 256, 256, requires_grad=True)
    side = 256 // stride
    middle = side // 2
    cells = encoder(image)["patches"].sum(2).reshape(side, side)
    cells[middle, middle].backward()
    seen = image.grad[0, 0].double().sum(0)
    center = float((seen * torch.arange(256)).sum() / seen.sum())
    assert center == pytest.approx(middle * stride + (stride - 1) / 2, abs=0.51)


def test_masked_resnet_needs_whole_cells():
    encoder = ImageEncoder("resnet10", image_size=36, width=0.125, output_stride=8)
    assert encoder(torch.zeros(1, 1, 36, 36))["grid"] == (5, 5)
    with pytest.raises(
        ValueError, match=r"^image must have sides that are multiples of 8, the cells of the feature map"
    ):
        encoder(torch.zeros(1, 1, 36, 36), visible_indices=torch.tensor([[0]]))


class TestVisibleErrors:
    def test_others_do_not_take_it(self):
        visible = torch.zeros(1, 1, dtype=torch.long)
        for backbone, name in (("densenet121", "DenseNetBackbone"), ({"model_type": "swin"}, "HuggingFaceBackbone")):
            encoder = ImageEncoder(backbone)
            assert not encoder.supports_masking
            assert encoder.patch_size is None
            with pytest.raises(
                ValueError, match=f"^visible_indices must be None for a backbone without masking, got a {name}"
            ):
                encoder(torch.zeros(1, 1, 32, 32), visible_indices=visible)

    @pytest.mark.parametrize(
        "visible",
        [torch.ones(2, 4, dtype=torch.bool), torch.zeros(3, 4).long(), torch.zeros(4).long(), torch.zeros(2, 0).long()],
    )
    def test_shape_and_type(self, visible):
        encoder = ImageEncoder("vit", image_size=32, **VIT)
        assert encoder.patch_size == (8, 8)
        with pytest.raises(
            ValueError, match=r"visible_indices must hold integer patch indices of shape \(2, P'\), got torch"
        ):
            encoder(torch.zeros(2, 1, 32, 32), visible_indices=visible)

    @pytest.mark.parametrize("wrong", [16, -1])
    @pytest.mark.parametrize("backbone", ["vit", "hugging_face"])
    def test_patches_that_the_image_does_not_have(self, backbone, wrong):
        if backbone == "vit":
            encoder = ImageEncoder("vit", image_size=32, **VIT)
        else:
            sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
            encoder = ImageEncoder({"model_type": "vit", "image_size": 32, "patch_size": 8, **sizes})
        with pytest.raises(
            ValueError,
            match=rf"visible_indices must hold indices from 0 to 15 for images of \(32, 32\) pixels, got {wrong}\.",
        ):
            encoder(torch.zeros(1, 1, 32, 32), visible_indices=torch.tensor([[3, wrong]]))

    def test_three_dimensions(self):
        encoder = ImageEncoder("vit", spatial_dims=3, image_size=16, **VIT).eval()
        image = torch.rand(1, 1, 16, 16, 16)
        kept = encoder(image, torch.tensor([[5]]))
        other = torch.zeros_like(image)
        other[..., 8:, :8, 8:] = image[..., 8:, :8, 8:]  # place (1, 0, 1) of a grid of 2 x 2 x 2: patch 5
        assert kept["grid"] == (2, 2, 2)
        assert torch.equal(kept["patches"], encoder(other, torch.tensor([[5]]))["patches"])


class TestSizesThatDoNotFit:
    def test_vit(self):
        with pytest.raises(ValueError, match=r"image_size must be a multiple of patch_size 16, got 100\."):
            ImageEncoder("vit", image_size=100)
        with pytest.raises(ValueError, match=r"sides of 32 pixels, as the ViT's position table has, got \(32, 40\)"):
            ImageEncoder("vit", image_size=32, **VIT)(torch.zeros(1, 1, 32, 40))
        with pytest.raises(ValueError, match=r"hidden_size must be a multiple of num_heads 3, got 16\."):
            ImageEncoder("vit", image_size=32, **{**VIT, "num_heads": 3})
        with pytest.raises(ValueError, match=r"hidden_size must be a multiple of 6, .* is 'sincos', got 16\."):
            ImageEncoder("vit", spatial_dims=3, image_size=32, pos_embed_type="sincos", **VIT)
        with pytest.raises(ValueError, match="pooling must be one of 'mean', 'cls', got 'max'"):
            ImageEncoder("vit", image_size=32, pooling="max", **VIT)

    def test_swin(self):
        with pytest.raises(ValueError, match="depths must have a number for each of 4 stages, got 3"):
            ImageEncoder("swin", depths=(1, 1, 1))
        with pytest.raises(ValueError, match="num_heads of stage 1 must divide its 8 channels, got 3"):
            ImageEncoder("swin", embed_dim=8)

    def test_densenet(self):
        with pytest.raises(ValueError, match=r"at least 13 pixels for this DenseNet, got \(12, 30\)"):
            ImageEncoder("densenet121", **DENSENET)(torch.zeros(1, 1, 12, 30))
        assert ImageEncoder("densenet121", **DENSENET).eval()(torch.zeros(1, 1, 13, 30))["grid"] == (1, 2)

    @pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 1, 32, 32, 32)])
    def test_axes_and_channels(self, shape):
        for encoder in (ImageEncoder("resnet10", width=0.125), ImageEncoder({"model_type": "vit", **HF_VIT})):
            with pytest.raises(ValueError, match=rf"shape \(N, 1, H, W\), got {re.escape(str(shape))}"):
                encoder(torch.zeros(shape))

    def test_whole_numbers(self):
        with pytest.raises(ValueError, match=r"^image must hold floating point values, got torch\.uint8\.$"):
            ImageEncoder("resnet10", width=0.125)(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))

    def test_numbers_that_are_none(self):
        with pytest.raises(ValueError, match=r"^image_size must be an integer of at least 1, got \(32, 40\)\.$"):
            ImageEncoder("vit", image_size=(32, 40))
        with pytest.raises(ValueError, match=r"^in_channels must be an integer of at least 1, got 0\.$"):
            ImageEncoder("resnet10", in_channels=0)
        with pytest.raises(
            ValueError,
            match=r"^patch_size must be a number of at least 1, or 2 of them, one for each axis, got \(8, 8, 8\)\.$",
        ):
            ImageEncoder("vit", image_size=32, patch_size=(8, 8, 8))
        with pytest.raises(ValueError, match=r"^window_size must be a number of at least 1, .* got 0\.$"):
            ImageEncoder("swin", window_size=0)

    @pytest.mark.parametrize(
        "backbone", ["resnet10", {"model_type": "resnet", "embedding_size": 8, "depths": [1], "hidden_sizes": [8]}]
    )
    def test_too_few_pixels_for_batch_norm(self, backbone):
        encoder, side = ImageEncoder(backbone), 32 if backbone == "resnet10" else 4
        image = torch.rand(1, 1, side, side)
        with pytest.raises(
            ValueError, match=rf"left with one value of each channel, got 1 of \({side}, {side}\) pixels\.$"
        ):
            encoder.train()(image)
        assert encoder.eval()(image)["grid"] == (1, 1)
        assert encoder.train()(image.expand(2, -1, -1, -1))["grid"] == (1, 1)

    def test_hugging_face(self):
        with pytest.raises(ValueError, match=r"sides of 32 pixels, as the model's position table has, got \(40, 40\)"):
            ImageEncoder({"model_type": "vit", **HF_VIT})(torch.zeros(1, 1, 40, 40))
        with pytest.raises(ValueError, match=r"multiples of patch_size \(8, 8\), got \(36, 32\)"):
            ImageEncoder({"model_type": "dinov2", **HF_VIT})(torch.zeros(1, 1, 36, 32))
        with pytest.raises(ValueError, match=r"image_size must be 32, as the model's position table has, got 64"):
            ImageEncoder({"model_type": "vit", **HF_VIT}, image_size=64)
        with pytest.raises(ValueError, match=r"spatial_dims must be 2 with a Hugging Face model, got 3"):
            ImageEncoder({"model_type": "vit", **HF_VIT}, spatial_dims=3)
        with pytest.raises(ValueError, match=r"in_channels must be 1 or the model's 3, got 2"):
            ImageEncoder(ViTConfig(**HF_VIT), in_channels=2)


class TestHuggingFaceSources:
    def test_dictionary_takes_the_channels_and_the_size_asked_for(self):
        encoder = ImageEncoder({"model_type": "vit", **TRANSFORMER, "patch_size": 8}, in_channels=2, image_size=48)
        assert encoder.backbone.model.config.num_channels == 2
        assert encoder(torch.rand(1, 2, 48, 48))["grid"] == (6, 6)

    def test_one_channel_is_repeated_over_a_models_three(self):
        encoder = ImageEncoder(ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2)).eval()
        assert (encoder.in_channels, encoder.backbone.model.config.num_channels) == (1, 3)
        image = torch.rand(1, 1, 32, 32)
        expected = encoder.backbone.model(image.repeat(1, 3, 1, 1))
        torch.testing.assert_close(encoder(image)["embed"], expected.pooler_output)
        torch.testing.assert_close(encoder(image)["patches"], expected.last_hidden_state.flatten(2).mT)

    def test_size_is_the_models_own(self):
        assert ImageEncoder(ViTConfig(**HF_VIT)).image_size == 32
        assert ImageEncoder(ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2)).image_size == 224

    def test_local_folder(self, tmp_path):
        model = ViTModel(ViTConfig(**HF_VIT), add_pooling_layer=False).eval()
        model.save_pretrained(tmp_path)
        encoder = ImageEncoder(str(tmp_path), in_channels=3).eval()
        image = torch.rand(2, 3, 32, 32)
        states = model(image).last_hidden_state
        torch.testing.assert_close(encoder(image)["embed"], states[:, 0])
        torch.testing.assert_close(encoder(image)["patches"], states[:, 1:])
        assert str(tmp_path) not in str(encoder.to_config())

    def test_local_folder_in_half_precision_is_ready_to_train(self, tmp_path):
        ViTModel(ViTConfig(**HF_VIT, dtype="float16"), add_pooling_layer=False).half().save_pretrained(tmp_path)
        encoder = ImageEncoder(tmp_path)
        assert all(module.training for module in encoder.modules())
        assert {value.dtype for value in encoder.parameters()} == {torch.float32}
        assert {value.dtype for value in ImageEncoder.from_config(encoder.to_config()).parameters()} == {torch.float32}

    def test_vision_encoder_of_a_clip_folder(self, tmp_path):
        model = CLIPModel(CLIPConfig(vision_config=HF_VIT, text_config={**TRANSFORMER, "vocab_size": 50})).eval()
        model.save_pretrained(tmp_path)
        encoder = ImageEncoder(tmp_path, in_channels=3).eval()
        image = torch.rand(2, 3, 32, 32)
        expected = model.vision_model(image)
        torch.testing.assert_close(encoder(image)["embed"], expected.pooler_output)
        normed = model.vision_model.post_layernorm(expected.last_hidden_state[:, 1:])
        torch.testing.assert_close(encoder(image)["patches"], normed)

    def test_encoder_that_transformers_table_lacks_is_built_anew(self):
        encoder = ImageEncoder(BlipVisionModel(BlipVisionConfig(**HF_VIT))).eval()
        again = ImageEncoder.from_config(encoder.to_config()).eval()
        again.load_state_dict(encoder.state_dict())
        image = torch.rand(1, 1, 32, 32)
        assert torch.equal(again(image)["patches"], encoder(image)["patches"])

    def test_width_is_that_of_the_last_map_whatever_the_configuration_calls_it(self):
        widths = {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [4, 4, 4, 4, 8, 8, 24], "num_attention_heads": 2}
        encoder = ImageEncoder({"model_type": "mobilevit", **widths}, image_size=64).eval()
        assert encoder.out_features == 24
        assert encoder(torch.rand(1, 1, 64, 64))["patches"].shape == (1, 4, 24)

    def test_classifier_without_its_head(self):
        model = ViTForImageClassification(ViTConfig(**HF_VIT))
        assert ImageEncoder(model).backbone.model is model.vit

    def test_folder_without_all_weights(self, tmp_path):
        model = ViTModel(ViTConfig(**HF_VIT), add_pooling_layer=False)
        weights = {name: value for name, value in model.state_dict().items() if name != "layernorm.bias"}
        model.save_pretrained(tmp_path, state_dict=weights)
        with pytest.raises(ValueError, match=r"lacks the weights layernorm.bias of its ViTModel"):
            ImageEncoder(tmp_path)

    def test_what_is_no_image_encoder(self):
        with pytest.raises(ValueError, match="must be a vision model, got BertModel, which takes input_ids"):
            ImageEncoder(BertConfig(vocab_size=30, **TRANSFORMER))
        with pytest.raises(ValueError, match="got a ViTMAEModel, which hides and shuffles them itself"):
            ImageEncoder({"model_type": "vit_mae", **HF_VIT})
        with pytest.raises(ValueError, match="must have a model_type, got num_channels, hidden_size"):
            ImageEncoder({"hidden_size": 8})


class TestModules:
    def test_cells_are_patches_in_row_major_order_and_their_mean_the_embedding(self):
        encoder = ImageEncoder(nn.Identity(), out_features=1)
        output = encoder(torch.arange(6.0).reshape(1, 1, 2, 3))
        assert output["patches"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
        assert output["embed"].tolist() == [[2.5]]
        assert output["grid"] == (2, 3)

    def test_what_is_no_backbone(self):
        with pytest.raises(ValueError, match=r"backbone must be one of resnet10, .* got 'resnet9'"):
            ImageEncoder("resnet9")
        with pytest.raises(ValueError, match="spatial_dims must be one of 2, 3, got 4"):
            ImageEncoder("resnet10", spatial_dims=4)
        with pytest.raises(ValueError, match=r"^out_features must be given if backbone is a torch module, got None\.$"):
            ImageEncoder(nn.Identity())

    def test_monais_tensor_is_left_behind(self):
        encoder = ImageEncoder("resnet10", width=0.125).eval()
        image = torch.rand(1, 1, 32, 32)
        embed = encoder(MetaTensor(image))["embed"]
        assert type(embed) is torch.Tensor
        assert torch.equal(embed, encoder(image)["embed"])

    def test_module_that_gives_no_feature_map(self):
        encoder = ImageEncoder(nn.Flatten(), out_features=5)
        with pytest.raises(
            ValueError, match=r"feature map \(N, 5, h, w\), tokens .* a vector \(N, 5\), got \(1, 4\)\.$"
        ):
            encoder(torch.zeros(1, 1, 2, 2))

    def test_options_belong_to_names(self):
        with pytest.raises(ValueError, match=r"^backbone must be named to have the options width, got a Identity\.$"):
            ImageEncoder(nn.Identity(), out_features=1, width=2)

    def test_configuration_of_an_earlier_release(self):
        """What models saved by version 0.1 hold in their config.json."""
        config = {"backbone": "resnet10", "width": 0.5, "spatial_dims": 2, "in_channels": 1, "image_size": 64}
        assert ImageEncoder.from_config(config).to_config() == config


FREEZABLE = {
    "resnet10": ({"width": 0.125}, 4),
    "densenet121": ({"init_features": 4, "growth_rate": 2, "block_config": (2, 2, 2)}, 3),
    "efficientnet-b0": ({}, 7),
    "vit": ({"patch_size": 16, "hidden_size": 16, "num_layers": 3, "num_heads": 2}, 3),
    "swin": ({"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_size": 4}, 4),
}


@pytest.mark.parametrize("backbone", FREEZABLE)
@pytest.mark.parametrize("layers", [0, 1, "most", None])
def test_what_is_frozen_stays_as_it_is_statistics_too(backbone, layers):
    torch.manual_seed(0)
    options, count = FREEZABLE[backbone]
    encoder = ImageEncoder(backbone, image_size=64, **options).train()
    layers = 2 if layers == "most" else layers
    encoder.freeze(layers)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    frozen = {name for name, value in encoder.named_parameters() if not value.requires_grad}
    optimizer = torch.optim.SGD(
        [value for value in encoder.parameters() if value.requires_grad] or [torch.zeros(1)], lr=0.1
    )
    encoder.train()
    for _ in range(2):
        loss = (
            encoder(torch.rand(4, 1, 64, 64))["embed"].square().sum()
            + encoder(torch.rand(4, 1, 64, 64))["patches"].sum()
        )
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert not changed & frozen
    positions, found = layer_positions(list(encoder.backbone.state_dict()))
    assert found == count
    kept = {f"backbone.{name}" for name, place in positions.items() if layers is None or place < layers}
    assert not changed & kept
    assert (changed == set()) == (layers is None)
    assert kept


def test_batch_norm_of_what_is_not_frozen_still_learns():
    encoder = ImageEncoder("resnet10", image_size=32, width=0.125)
    encoder.freeze(1)
    encoder.eval().train()
    modes = {name: part.training for name, part in encoder.backbone.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert not modes["bn1"]
    assert not modes["layer1.0.bn1"]
    assert modes["layer2.0.bn1"]


@pytest.mark.parametrize("layers", [-1, 5])
def test_only_layers_that_are_there_are_frozen(layers):
    with pytest.raises(ValueError, match=rf"^layers must be between 0 and the backbone's 4, or None, got {layers}\.$"):
        ImageEncoder("resnet10", image_size=32, width=0.125).freeze(layers)


@pytest.mark.parametrize("layers", ["all", 2.5, True])
def test_layers_to_freeze_are_an_integer(layers):
    with pytest.raises(TypeError, match=rf"^layers must be an integer, got {layers!r}\.$"):
        ImageEncoder("resnet10", image_size=32, width=0.125).freeze(layers)


@pytest.mark.parametrize("image", [None, [[1.0]], torch.zeros(1, 1, 32, 32).numpy()])
def test_an_image_is_a_tensor(image):
    with pytest.raises(TypeError, match=r"^image must be of type Tensor, got (NoneType|list|ndarray)\.$"):
        ImageEncoder("resnet10", image_size=32, width=0.125)(image)


class TestOutputStride:
    """A ResNet whose later stages keep the resolution: finer maps of the same weights."""

    @pytest.mark.parametrize("name", sorted(resnet_params))
    def test_every_resnet_loads_the_weights_of_the_full_stride(self, name):
        coarse, fine = (ImageEncoder(name, image_size=64, width=0.0625, output_stride=stride) for stride in (32, 8))
        assert coarse.state_dict().keys() == fine.state_dict().keys()
        fine.load_state_dict(coarse.state_dict())
        outputs = [encoder.eval()(torch.rand(1, 1, 64, 64)) for encoder in (coarse, fine)]
        assert [output["grid"] for output in outputs] == [(2, 2), (8, 8)]
        assert torch.isfinite(outputs[1]["patches"]).all()

    @pytest.mark.parametrize(("stride", "cells"), [(4, 16), (8, 8), (16, 4), (32, 2)])
    def test_cells_of_the_map(self, stride, cells):
        encoder = ImageEncoder("resnet10", image_size=64, width=0.125, output_stride=stride)
        assert encoder(torch.rand(2, 1, 64, 64))["grid"] == (cells, cells)

    def test_volumes_and_odd_sizes(self):
        encoder = ImageEncoder("resnet10", spatial_dims=3, image_size=32, width=0.125, output_stride=8)
        assert encoder(torch.rand(2, 1, 33, 40, 17))["grid"] == (5, 5, 3)

    @pytest.mark.parametrize(
        ("options", "stride", "cells"),
        [
            ({"no_max_pool": True}, 32, 4),  # 16: the stages halve three times
            ({"no_max_pool": True}, 8, 8),
            ({"no_max_pool": True, "conv1_t_stride": 1}, 32, 8),
            ({"no_max_pool": True, "conv1_t_stride": 1}, 4, 16),
            ({"conv1_t_stride": (1, 1)}, 8, 8),
        ],
    )
    def test_the_stem_counts(self, options, stride, cells):
        encoder = ImageEncoder("resnet10", image_size=64, width=0.125, output_stride=stride, **options)
        assert encoder(torch.rand(2, 1, 64, 64))["grid"] == (cells, cells)

    def test_the_default_is_the_full_stride(self):
        states = []
        for options in ({}, {"output_stride": 32}):
            torch.manual_seed(0)
            states.append(ImageEncoder("resnet18", image_size=64, width=0.125, **options).eval())
        image = torch.rand(1, 1, 64, 64)
        assert torch.equal(states[0](image)["patches"], states[1](image)["patches"])

    @pytest.mark.parametrize("stride", [2, 12, 64, "8"])
    def test_unknown_strides(self, stride):
        message = re.escape(f"output_stride must be one of 4, 8, 16, 32, got {stride!r}.")
        with pytest.raises(ValueError, match=f"^{message}$"):
            ImageEncoder("resnet10", image_size=64, output_stride=stride)

    def test_a_stem_that_is_coarser(self):
        message = r"^output_stride must be at least 8, the stride of the first layers, got 4\.$"
        with pytest.raises(ValueError, match=message):
            ImageEncoder("resnet10", image_size=64, output_stride=4, conv1_t_stride=4)
