"""Published weights: the reference architectures, small and random, in their published layout, give the same embeddings."""

from __future__ import annotations

import os
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published_models import older
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    SwinModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, load_reference_weights, medclip

BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}
SWIN = {"image_size": 64, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4, "patch_size": 4}
WIDTH = 8
PARTS = ("", "text_model.model.")  # everything is named as before, and the text model has position ids


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomized(module: nn.Module) -> nn.Module:
    """Every weight random, so that one in the wrong place shows; running statistics too."""
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                value.normal_(std=0.2)
                if "running_var" in name or name.endswith(("bn1.weight", "bn2.weight", "bn3.weight")):
                    value.abs_().add_(0.5)
    return module.eval()


def tokens():
    return torch.randint(4, 40, (3, 7)), torch.ones(3, 7, dtype=torch.long)


def assert_same(model, image, reference_image, reference_text, ids, mask):
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(image), F.normalize(reference_image, dim=1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            model.encode_text(ids, mask), F.normalize(reference_text, dim=1), atol=1e-5, rtol=1e-5
        )


class Bottleneck(nn.Module):
    """A block of the ResNet that is meant: stride in the 3 x 3 convolution."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, planes * 4, 1, bias=False), nn.BatchNorm2d(planes * 4)
        if stride != 1 or inputs != planes * 4:
            shortcut = nn.Conv2d(inputs, planes * 4, 1, stride, bias=False), nn.BatchNorm2d(planes * 4)
            self.downsample = nn.Sequential(*shortcut)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet50(nn.Module):
    """ResNet-50 with torchvision's names, an eighth as wide."""

    def __init__(self, width, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, blocks in enumerate((3, 4, 6, 3), 1):
            planes, made = width * 2 ** (stage - 1), []
            for block in range(blocks):
                made.append(Bottleneck(inputs, planes, 2 if block == 0 and stage > 1 else 1))
                inputs = planes * 4
            setattr(self, f"layer{stage}", nn.Sequential(*made))
        self.fc = nn.Linear(inputs, classes, bias=False)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class MedCLIPText(nn.Module):
    """MedCLIP's text encoder: the mean of hidden layers 1, 2 and last."""

    def __init__(self):
        super().__init__()
        self.model = BertModel(BertConfig(**BERT))
        self.projection_head = nn.Linear(16, WIDTH, bias=False)

    def forward(self, ids, mask):
        states = self.model(ids, mask, output_hidden_states=True).hidden_states
        return self.projection_head((states[1] + states[2] + states[-1]).div(3).mean(1))


class Reference(nn.Module):
    """A published model's two encoders and scale under their published names."""

    def __init__(self, vision, text):
        super().__init__()
        self.vision_model, self.text_model = vision, text
        self.logit_scale = nn.Parameter(torch.tensor(2.5))


def medclip_swin() -> Reference:
    vision = nn.Module()
    vision.model = SwinModel(SwinConfig(**SWIN))
    vision.projection_head = nn.Linear(16, WIDTH, bias=False)
    return randomized(Reference(vision, MedCLIPText()))


def medclip_resnet() -> Reference:
    vision = nn.Module()
    vision.model = ResNet50(8, WIDTH)
    return randomized(Reference(vision, MedCLIPText()))


def our_medclip(image_encoder, **options) -> DualEncoder:
    return medclip(image_encoder=image_encoder, text_encoder={"model_type": "bert", **BERT}, embed_dim=WIDTH, **options)


class TestMedCLIP:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_resnet(self, tmp_path, channels):
        reference = medclip_resnet()
        torch.save(older(reference.state_dict(), PARTS), tmp_path / "pytorch_model.bin")
        encoder = ImageEncoder("resnet50", in_channels=channels, image_size=64, width=0.125)
        model = our_medclip(encoder)
        report = load_reference_weights(model, tmp_path)
        image, (ids, mask) = torch.rand(2, channels, 64, 64), tokens()
        with torch.no_grad():
            expected = reference.vision_model.model(image.expand(-1, 3, -1, -1)), reference.text_model(ids, mask)
        assert_same(model, image, *expected, ids, mask)
        assert model.logit_scale().item() == pytest.approx(reference.logit_scale.exp().item())
        assert report.missing == ()
        assert set(report.unused) == {
            "text_model.model.embeddings.position_ids",
            "text_model.model.pooler.dense.weight",
            "text_model.model.pooler.dense.bias",
        }
        assert report.renamed["vision_model.model.fc.weight"] == ("image_projection.0.weight",)
        assert len(report.used) + len(report.unused) == len(older(reference.state_dict(), PARTS))

    @pytest.mark.parametrize("layout", ["older", "newer"])
    def test_swin(self, tmp_path, layout):
        reference = medclip_swin()
        weights = older(reference.state_dict(), PARTS) if layout == "older" else reference.state_dict()
        weights["vision_model.model.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(
            16, 16
        )
        save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "weights.safetensors")
        model = our_medclip(ImageEncoder({"model_type": "swin", "num_channels": 3, **SWIN}, in_channels=1))
        load_reference_weights(model, tmp_path / "weights.safetensors", source="medclip")
        image, (ids, mask) = torch.rand(2, 1, 64, 64), tokens()
        with torch.no_grad():
            pooled = reference.vision_model.model(image.expand(-1, 3, -1, -1)).pooler_output
            expected = reference.vision_model.projection_head(pooled), reference.text_model(ids, mask)
        assert_same(model, image, *expected, ids, mask)


class TestHuggingFace:
    def test_clip(self, tmp_path):
        text = {**BERT, "eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 0}
        reference = randomized(CLIPModel(CLIPConfig(text_config=text, vision_config=VIT, projection_dim=WIDTH)))
        reference.save_pretrained(tmp_path)
        model = DualEncoder(
            ImageEncoder({"model_type": "clip_vision_model", **VIT}, in_channels=3),
            TextEncoder({"model_type": "clip_text_model", **text}, pooling="last"),
            embed_dim=WIDTH,
            image_projection={"bias": False},
            text_projection={"bias": False},
        )
        report = load_reference_weights(model, tmp_path, source="huggingface")
        assert report.missing == ()
        image, (ids, mask) = torch.rand(2, 3, 32, 32), tokens()
        ids[:, -1] = 3  # the end of the text, where CLIP looks
        with torch.no_grad():
            output = reference(input_ids=ids, attention_mask=mask, pixel_values=image)
        assert_same(model, image, output.image_embeds, output.text_embeds, ids, mask)

    def test_vision_text_dual_encoder(self, tmp_path):
        configs = ViTConfig(**VIT), BertConfig(**BERT)
        config = VisionTextDualEncoderConfig.from_vision_text_configs(*configs, projection_dim=WIDTH)
        reference = randomized(VisionTextDualEncoderModel(config))
        reference.save_pretrained(tmp_path, max_shard_size="20KB")
        assert (tmp_path / "model.safetensors.index.json").is_file()
        head = {"layers": 2, "activation": "tanh", "bias": (True, False), "hidden_features": 16}
        model = DualEncoder(
            ImageEncoder({"model_type": "vit", **VIT}, in_channels=3),
            TextEncoder({"model_type": "bert", **BERT}, pooling="cls"),
            embed_dim=WIDTH,
            image_projection=head,
            text_projection=head,
        )
        report = load_reference_weights(model, tmp_path, source="huggingface")
        assert report.missing == ()
        assert report.unused == {}
        image, (ids, mask) = torch.rand(2, 3, 32, 32), tokens()
        with torch.no_grad():
            output = reference(input_ids=ids, attention_mask=mask, pixel_values=image)
        assert_same(model, image, output.image_embeds, output.text_embeds, ids, mask)
        with pytest.raises(ValueError, match=r"pooler.dense.* \(its shape .* is not that of (text|image)_projec"):
            load_reference_weights(
                DualEncoder(model.image_encoder, model.text_encoder, embed_dim=WIDTH), tmp_path, source="huggingface"
            )


class TimmBlock(nn.Module):
    """A block of timm's ViT."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        n, length, width = x.shape
        qkv = self.attn.qkv(self.norm1(x)).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(n, length, width)
        x = x + self.attn.proj(mixed)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class TimmViT(nn.Module):
    """timm's ViT with its class token as the embedding."""

    def __init__(self, width=16, size=32, patch=16):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(TimmBlock(width, 2), TimmBlock(width, 2))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


class OpenCLIP(nn.Module):
    """open_clip's layout of BiomedCLIP."""

    def __init__(self):
        super().__init__()
        self.visual, self.text = nn.Module(), nn.Module()
        self.visual.trunk, self.visual.head = TimmViT(), nn.Module()
        self.visual.head.proj = nn.Linear(16, WIDTH, bias=False)
        self.text.transformer = BertModel(BertConfig(**BERT), add_pooling_layer=False)
        self.text.proj = nn.Sequential(nn.Linear(16, 12, bias=False), nn.GELU(), nn.Linear(12, WIDTH, bias=False))
        self.logit_scale = nn.Parameter(torch.tensor(4.0))


class TestOpenCLIP:
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_biomedclip(self, tmp_path, wrapped):
        reference = randomized(OpenCLIP())
        weights = dict(reference.state_dict())
        weights["text.transformer.embeddings.position_ids"] = torch.arange(16).unsqueeze(0)
        if wrapped:  # as open_clip's training writes it
            weights = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}
        torch.save(weights, tmp_path / "open_clip_pytorch_model.bin")
        model = DualEncoder(
            ImageEncoder({"model_type": "vit", "num_channels": 3, "layer_norm_eps": 1e-6, **VIT}, in_channels=1),
            TextEncoder({"model_type": "bert", **BERT}, pooling="cls"),
            embed_dim=WIDTH,
            image_projection={"bias": False},
            text_projection={"layers": 2, "activation": "gelu", "hidden_features": 12, "bias": False},
        )
        report = load_reference_weights(model, tmp_path, source="open_clip")
        assert len(report.renamed["visual.trunk.blocks.0.attn.qkv.weight"]) == 3
        image, (ids, mask) = torch.rand(2, 1, 32, 32), tokens()
        with torch.no_grad():
            embeds = reference.visual.head.proj(reference.visual.trunk(image.expand(-1, 3, -1, -1)))
            text = reference.text.proj(reference.text.transformer(ids, mask).last_hidden_state[:, 0])
        assert_same(model, image, embeds, text, ids, mask)


class OpenAIBlock(nn.Module):
    """A block of OpenAI's transformers."""

    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 2)
        self.ln_1, self.ln_2, self.mlp = nn.LayerNorm(width), nn.LayerNorm(width), nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(y * torch.sigmoid(1.702 * y))


class OpenAITransformer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.resblocks = nn.ModuleList([OpenAIBlock(width), OpenAIBlock(width)])

    def forward(self, x, mask=None):
        x = x.transpose(0, 1)
        for block in self.resblocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class OpenAICLIP(nn.Module):
    """OpenAI's CLIP with a ViT, and CheXzero, which is trained with the same code."""

    def __init__(self, width=16, size=32, patch=16, length=12, vocabulary=50):
        super().__init__()
        self.visual = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.visual.class_embedding = nn.Parameter(torch.zeros(width))
        self.visual.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, width))
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual.transformer, self.transformer = OpenAITransformer(width), OpenAITransformer(width)
        self.visual.proj, self.text_projection = (nn.Parameter(torch.zeros(width, WIDTH)) for _ in range(2))
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(length, width))
        self.ln_final, self.logit_scale = nn.LayerNorm(width), nn.Parameter(torch.tensor(3.0))

    def encode_image(self, image):
        x = self.visual.conv1(image).flatten(2).mT
        x = torch.cat([self.visual.class_embedding.expand(len(x), 1, -1), x], 1) + self.visual.positional_embedding
        return self.visual.ln_post(self.visual.transformer(self.visual.ln_pre(x))[:, 0]) @ self.visual.proj

    def encode_text(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((len(ids[0]),) * 2, float("-inf")).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection


class TestOpenAI:
    def model(self, channels=3, image_size=None, **options):
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        vision = {"model_type": "clip_vision_model", **sizes, "image_size": 32, "patch_size": 16, "num_channels": 3}
        if image_size:
            vision["image_size"] = image_size
        text = {"model_type": "clip_text_model", **sizes, "vocab_size": 50, "max_position_embeddings": 12}
        text |= {"eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 0}
        return DualEncoder(
            ImageEncoder(vision, in_channels=channels, **options),
            TextEncoder(text, pooling="last"),
            embed_dim=WIDTH,
            image_projection={"bias": False},
            text_projection={"bias": False},
        )

    def test_every_weight_and_padded_texts(self, tmp_path):
        reference = randomized(OpenAICLIP())
        weights = {**reference.state_dict(), "input_resolution": torch.tensor(32), "vocab_size": torch.tensor(50)}
        torch.save(weights, tmp_path / "clip.pt")
        model = self.model().eval()
        report = load_reference_weights(model, tmp_path / "clip.pt", source="openai_clip")
        assert report.missing == ()
        assert set(report.unused) == {"input_resolution", "vocab_size"}
        assert report.renamed["visual.proj"] == ("image_projection.0.weight",)
        assert len(report.renamed["transformer.resblocks.1.attn.in_proj_bias"]) == 3
        ids, mask = torch.zeros(2, 12, dtype=torch.long), torch.zeros(2, 12, dtype=torch.long)
        for row, length in enumerate((5, 9)):  # OpenAI pads with 0 and reads the largest id, the end of the text
            ids[row, :length] = torch.tensor([48, *range(7, 7 + length - 2), 49])
            mask[row, :length] = 1
        image = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            expected = reference.encode_image(image), reference.encode_text(ids)
        assert_same(model, image, *expected, ids, mask)
        assert model.logit_scale().item() == pytest.approx(reference.logit_scale.exp().item())

    def test_chexzero_of_a_gray_image(self, tmp_path):
        """Its mean and deviation, for values to 255, are a part of the image encoder."""
        reference = randomized(OpenAICLIP())
        torch.save(reference.state_dict(), tmp_path / "chexzero.pt")
        model = self.model(1, input_mean=101.48761 / 255, input_std=83.43944 / 255).eval()
        load_reference_weights(model, tmp_path / "chexzero.pt", source="openai_clip")
        image = torch.rand(2, 1, 32, 32)
        with torch.no_grad():
            expected = reference.encode_image((image.expand(-1, 3, -1, -1) * 255 - 101.48761) / 83.43944)
            torch.testing.assert_close(model.encode_image(image), F.normalize(expected), atol=1e-5, rtol=1e-5)

    def test_the_position_table_is_interpolated(self, tmp_path):
        torch.save(randomized(OpenAICLIP()).state_dict(), tmp_path / "clip.pt")
        model = self.model(image_size=64)
        report = load_reference_weights(model, tmp_path / "clip.pt", source="openai_clip")
        assert report.adapted == ("position table of 2 x 2 patches interpolated to 4 x 4",)
        assert "adapted: position table" in str(report)


class TestSigLIP:
    def model(self, **options):
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        vision = {"model_type": "siglip_vision_model", **sizes, "image_size": 32, "patch_size": 16, "num_channels": 3}
        text = {"model_type": "siglip_text_model", **sizes, "vocab_size": 50, "max_position_embeddings": 7}
        self.configs = {"vision_config": vision, "text_config": {**text, "projection_size": 16}}
        return DualEncoder(
            ImageEncoder(vision, in_channels=3),
            TextEncoder(text, pooling="last"),
            embed_dim=16,
            image_projection={"bias": False},
            **{"logit_bias": -10.0, "logit_scale": {"maximum": 200.0}, **options},
        )

    def reference(self, folder):
        self.model()
        reference = randomized(SiglipModel(SiglipConfig(**self.configs)))
        with torch.no_grad():
            reference.logit_scale.fill_(4.765)
            reference.logit_bias.fill_(-12.93)
        reference.save_pretrained(folder)
        return reference

    def test_pooling_bias_and_scale(self, tmp_path):
        reference, model = self.reference(tmp_path), self.model()
        report = load_reference_weights(model, tmp_path, source="huggingface")
        assert report.missing == ()
        assert report.unused == {}
        image, (ids, mask) = torch.rand(2, 3, 32, 32), tokens()
        with torch.no_grad():
            output = reference(input_ids=ids, pixel_values=image)
            assert_same(model, image, output.image_embeds, output.text_embeds, ids, mask)
            ours = model(image, ids)
            logits = ours["text_embeds"] @ ours["image_embeds"].T * ours["logit_scale"] + ours["logit_bias"]
        torch.testing.assert_close(logits, output.logits_per_text, atol=1e-4, rtol=1e-5)

    def test_a_scale_above_the_maximum(self, tmp_path):
        self.reference(tmp_path)
        model = self.model(logit_scale={})
        with pytest.raises(
            ValueError,
            match=r"^logit_scale must have a maximum of at least 117\.33\d*, the published scale, got 100\.$",
        ):
            load_reference_weights(model, tmp_path, source="huggingface")

    def test_a_model_without_a_bias(self, tmp_path):
        self.reference(tmp_path)
        with pytest.raises(ValueError, match=r"the first logit_bias \(the model has no logit_bias\)"):
            load_reference_weights(self.model(logit_bias=None), tmp_path, source="huggingface")


class TestNeverHalf:
    @pytest.fixture
    def weights(self):
        return older(medclip_resnet().state_dict(), PARTS)

    def ours(self):
        return our_medclip(ImageEncoder("resnet50", image_size=64, width=0.125))

    def refused(self, tmp_path, weights, match, **options):
        model = self.ours()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        torch.save(weights, tmp_path / "weights.bin")
        with pytest.raises(ValueError, match=match):
            load_reference_weights(model, tmp_path / "weights.bin", **options)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_one_too_few(self, tmp_path, weights):
        del weights["vision_model.model.layer3.2.conv1.weight"]
        self.refused(
            tmp_path, weights, "1 weights of the model are missing in it, the first image_encoder.backbone.layer3.2.c"
        )

    def test_one_too_many(self, tmp_path, weights):
        weights["vision_model.model.layer9.weight"] = torch.zeros(1)
        self.refused(tmp_path, weights, r"the first vision_model.model.layer9.weight \(the model has no image_encoder")

    def test_one_of_another_shape(self, tmp_path, weights):
        weights["text_model.projection_head.weight"] = torch.zeros(WIDTH, 17)
        self.refused(tmp_path, weights, r"its shape \(8, 17\) is not that of text_projection.0.weight, \(8, 16\)")

    def test_another_source(self, tmp_path, weights):
        self.refused(tmp_path, weights, "not a part of this layout", source="open_clip")

    def test_partly_where_asked_for(self, tmp_path, weights):
        only_text = {name: value for name, value in weights.items() if name.startswith("text_model")}
        only_text["other"] = torch.zeros(2)
        torch.save(only_text, tmp_path / "text.bin")
        model = self.ours()
        report = load_reference_weights(model, tmp_path / "text.bin", allow_partial=True)
        assert "image_encoder.backbone.conv1.weight" in report.missing
        assert report.unused["other"] == "not a part of this layout"
        name = "text_model.projection_head.weight"
        assert torch.equal(model.text_projection[0].weight, only_text[name])
        assert f"{len(report.missing)} missing" in str(report)
        assert "unused other: not a part of this layout" in str(report)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_wrappers_are_taken_off(self, tmp_path, weights, suffix):
        expected = self.ours()
        torch.save(weights, tmp_path / "plain.pt")
        load_reference_weights(expected, tmp_path / "plain.pt")
        wrapped = {f"module._orig_mod.model.{name}": value.contiguous() for name, value in weights.items()}
        path = tmp_path / f"wrapped{suffix}"
        if suffix == ".pt":
            torch.save({"model_state_dict": wrapped, "epoch": 3}, path)
        else:
            save_file(wrapped, path)
        model = self.ours()
        load_reference_weights(model, path)
        assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    @pytest.mark.parametrize("share", [0.0, 0.5])
    def test_files_that_are_cut_short(self, tmp_path, weights, suffix, share):
        path = tmp_path / f"weights{suffix}"
        save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=rf"weights{suffix} is not a complete file of weights \("):
            load_reference_weights(self.ours(), path)

    def test_nothing_is_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match="holds more than weights and is not loaded"):
            load_reference_weights(self.ours(), tmp_path)
        assert not (tmp_path / "ran").exists()

    def test_objects_beside_the_weights_are_passed_over_and_not_run(self, tmp_path, weights):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        class Blocked:
            def __reduce__(self):
                return (os.system, (f"touch {tmp_path / 'ran'}",))

        objects = {
            "hyper_parameters": SimpleNamespace(model=SimpleNamespace(name="resnet_50"), trap=Trap()),
            "attributes": defaultdict(list, {"sizes": [1, 2]}),
            "best": np.float64(0.5),
            "path": tmp_path,
            "kind": SimpleNamespace,
        }
        torch.save({"state_dict": weights, **objects}, tmp_path / "checkpoint.ckpt")
        assert load_reference_weights(self.ours(), tmp_path / "checkpoint.ckpt").missing == ()
        assert not (tmp_path / "ran").exists()
        for content in (
            {"state_dict": {"a": Trap()}},
            {"state_dict": weights, "blocked": Blocked()},
            weights | {"a": Trap()},
        ):
            torch.save(content, tmp_path / "checkpoint.ckpt")
            with pytest.raises(ValueError, match="holds more than weights and is not loaded"):
                load_reference_weights(self.ours(), tmp_path / "checkpoint.ckpt")
            assert not (tmp_path / "ran").exists()

    def test_wrong_paths_and_source(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no weights; expected one of model\.safetensors"):
            load_reference_weights(self.ours(), tmp_path)
        with pytest.raises(FileNotFoundError, match="which does not exist"):
            load_reference_weights(self.ours(), tmp_path / "nothing.bin")
        with pytest.raises(ValueError, match=r"source must be one of 'medclip', 'huggingface', .*, got 'convirt'"):
            load_reference_weights(self.ours(), tmp_path, source="convirt")
        torch.save([torch.zeros(1)], tmp_path / "list.bin")
        with pytest.raises(ValueError, match="must hold a state dict of tensors, got a list"):
            load_reference_weights(self.ours(), tmp_path / "list.bin")
