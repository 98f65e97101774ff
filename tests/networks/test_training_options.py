"""What training scripts ask of a model: checkpointing, token types, ids as strings, a bias of the logits, other backbones."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import DenseNet, ResNetFeatures, SwinUNETR, ViT, resnet10
from torch import nn

from medvl.losses import CombinedLoss, SigmoidContrastiveLoss
from medvl.networks import DualEncoder, ImageEncoder, MaskedDualEncoder, TextEncoder, TextProcessor, convirt
from medvl.transforms import train_tokenizer

BERT = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
BERT |= {"vocab_size": 30, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
IDS = torch.tensor([[2, 7, 9, 3], [2, 5, 3, 0]])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


BACKBONES = {
    "resnet18": {"width": 0.125},
    "densenet121": {"init_features": 8, "growth_rate": 4, "block_config": (1, 2)},
    "vit": VIT,
    "swin": {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2), "window_size": 3, "patch_size": 2},
}


class TestGradientCheckpointing:
    @pytest.mark.parametrize("name", BACKBONES)
    def test_gradients_and_statistics_are_the_same(self, name):
        plain = ImageEncoder(name, **{"image_size": 32, **BACKBONES[name]}).train()
        checkpointed = copy.deepcopy(plain)
        checkpointed.gradient_checkpointing_enable()
        image = torch.rand(3, 1, 32, 32)
        for encoder in (plain, checkpointed):
            encoder(image)["embed"].square().sum().backward()
        for (key, value), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
            torch.testing.assert_close(value.grad, other.grad, msg=key)
        for (key, value), other in zip(plain.state_dict().items(), checkpointed.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, msg=key)

    def test_fewer_tensors_are_kept(self):
        encoder, kept = ImageEncoder("vit", **VIT).train(), []

        def keep(value):
            kept.append(value.numel())
            return value

        def count():
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
                encoder(torch.rand(2, 1, 32, 32))
            total, kept[:] = sum(kept), []
            return total

        whole = count()
        encoder.gradient_checkpointing_enable()
        assert count() < whole / 2
        encoder.gradient_checkpointing_enable(False)
        assert count() == whole

    def test_both_encoders_of_a_model_and_its_copies(self):
        model = DualEncoder(
            ImageEncoder({**BERT, "model_type": "vit", "image_size": 32, "patch_size": 8}), TextEncoder(BERT)
        )
        model.gradient_checkpointing_enable()
        assert model.image_encoder.backbone.model.is_gradient_checkpointing
        assert model.text_encoder.model.is_gradient_checkpointing
        model.gradient_checkpointing_enable(False)
        assert not model.text_encoder.model.is_gradient_checkpointing
        encoder = ImageEncoder("vit", **VIT)
        encoder.gradient_checkpointing_enable()
        twin = copy.deepcopy(encoder)
        with torch.no_grad():
            twin.backbone.blocks[0].mlp.linear1.weight.zero_()
        image = torch.rand(1, 1, 32, 32)
        assert not torch.equal(twin.train()(image)["embed"], encoder.train()(image)["embed"])

    def test_a_module_without_blocks(self):
        encoder = ImageEncoder(nn.Conv2d(1, 4, 3), out_features=4)
        with pytest.raises(ValueError, match=r"^backbone must have a list of blocks to be checkpointed, got Conv2d\.$"):
            encoder.gradient_checkpointing_enable()


class TestTokenTypes:
    def test_they_reach_the_model(self):
        encoder = TextEncoder(BERT).eval()
        types = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
        expected = encoder.model(input_ids=IDS, attention_mask=(IDS > 0).long(), token_type_ids=types).last_hidden_state
        torch.testing.assert_close(encoder(IDS, IDS > 0, token_type_ids=types)["embed"], expected[:, 0])
        left = encoder(IDS.roll(1, 1)[1:], (IDS > 0).roll(1, 1)[1:], token_type_ids=types.roll(1, 1)[1:])
        torch.testing.assert_close(left["embed"], expected[1:, 0])
        model = DualEncoder(ImageEncoder("resnet10", width=0.125), encoder, embed_dim=4).eval()
        plain, typed = model(input_ids=IDS), model(input_ids=IDS, token_type_ids=types)
        assert not torch.equal(plain["text_embeds"], typed["text_embeds"])

    def test_a_model_without_token_types(self):
        encoder = TextEncoder({**BERT, "model_type": "roberta", "type_vocab_size": 1}).eval()
        zeros = torch.zeros_like(IDS)
        assert torch.equal(encoder(IDS, token_type_ids=zeros)["embed"], encoder(IDS)["embed"])
        with pytest.raises(ValueError, match=r"^token_type_ids must be 0 for a RobertaModel, .*, got 1\.$"):
            encoder(IDS, token_type_ids=zeros + 1)

    def test_another_shape(self):
        with pytest.raises(ValueError, match=r"^input_ids and token_type_ids must share one shape \(M, L\), got"):
            TextEncoder(BERT)(IDS, token_type_ids=IDS[:, :2])


def test_studies_of_a_masked_model_may_be_strings():
    model = MaskedDualEncoder(
        ImageEncoder("vit", **VIT), TextEncoder(BERT), semantic_integrity="report", embed_dim=4, local_projections=True
    ).eval()
    arguments = {
        "image": torch.rand(2, 1, 32, 32),
        "input_ids": IDS,
        "sentence_ids": torch.tensor([[-1, 0, 1, -1], [-1, 0, -1, -1]]),
        "visible_indices": torch.tensor([[0, 5], [3, 2]]),
    }
    by_number = model(**arguments, image_ids=torch.tensor([8, 9]), text_ids=torch.tensor([9, 8]))
    by_name = model(**arguments, image_ids=["a", "b"], text_ids=["b", "a"])
    torch.testing.assert_close(by_name["semantic_integrity"], by_number["semantic_integrity"])
    other = model(**arguments, image_ids=["a", "b"], text_ids=["a", "b"])
    assert not torch.equal(other["semantic_integrity"], by_number["semantic_integrity"])


class TestLogitBias:
    def test_it_is_learned_by_the_sigmoid_loss_and_saved(self, tmp_path):
        model = convirt("small", image_size=32, embed_dim=8, logit_bias=-10.0)
        output = model(torch.rand(2, 1, 32, 32), IDS)
        assert output["logit_bias"].item() == -10
        loss = CombinedLoss({"global": SigmoidContrastiveLoss()})(
            output, {"image_ids": ["a", "b"], "text_ids": ["a", "b"]}
        )
        loss.backward()
        assert model.logit_bias.grad.abs() > 0
        with torch.no_grad():
            model.logit_bias.fill_(-3.5)
        model.save_pretrained(tmp_path)
        assert DualEncoder.from_pretrained(tmp_path).logit_bias.item() == -3.5

    def test_none_by_default(self):
        model = convirt("small", image_size=32, embed_dim=8)
        assert "logit_bias" not in model.state_dict()
        assert "logit_bias" not in model.to_config()
        assert "logit_bias" not in model(input_ids=IDS)


def test_padding_that_the_text_encoder_sees():
    """As SigLIP's: every text has the same number of tokens, all of which attention sees."""
    tokenizer = train_tokenizer(["no effusion . heart is normal ."], min_patients=1)
    processor = TextProcessor(tokenizer, pad_to=9)
    tokens = processor.tokenize(["No effusion.", "Heart is normal. No effusion."], max_length=32)
    assert tokens["input_ids"].shape == (2, 9)
    assert bool(tokens["attention_mask"].all())
    assert tokens["input_ids"][0, 5:].tolist() == [tokenizer.pad_token_id] * 4
    assert tokens["sentence_ids"][0].tolist() == [-1, 0, 0, 0, -1, -1, -1, -1, -1]
    assert processor.to_config()["pad_to"] == 9
    assert "pad_to" not in TextProcessor(tokenizer).to_config()


class TestMonaiNetworksAsBackbones:
    """MONAI's networks give vectors, tokens with hidden states, or lists of maps."""

    @pytest.mark.parametrize(
        ("module", "width", "grid"),
        [
            (lambda: resnet10(spatial_dims=2, n_input_channels=1, feed_forward=False, widen_factor=0.125), 64, (1, 1)),
            (lambda: DenseNet(2, 1, 6, init_features=4, growth_rate=2, block_config=(1, 1)), 6, (1, 1)),
            (lambda: ViT(1, (32, 32), (8, 8), 16, 32, 1, 2, spatial_dims=2), 16, (4, 4)),
            (lambda: ResNetFeatures("resnet10", pretrained=False, spatial_dims=2, in_channels=1), 512, (2, 2)),
            (lambda: SwinUNETR(1, 2, feature_size=12, spatial_dims=2, window_size=4).swinViT, 192, (1, 1)),
        ],
        ids=["vector", "classes", "tokens", "list of maps", "tuple of maps"],
    )
    def test_values(self, module, width, grid):
        backbone = module().eval()
        encoder = ImageEncoder(backbone, out_features=width).eval()
        image = torch.rand(2, 1, 32, 32) if grid != (2, 2) else torch.rand(2, 1, 64, 64)
        output = encoder(image)
        assert output["grid"] == grid
        assert output["embed"].shape == (2, width)
        assert output["patches"].shape == (2, grid[0] * grid[1], width)
        with torch.no_grad():
            expected = backbone(image)
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(output["embed"], expected)
        elif isinstance(expected[1], list):
            torch.testing.assert_close(output["patches"], expected[0])
        else:
            torch.testing.assert_close(output["embed"], expected[-1].mean((2, 3)))
        model = DualEncoder(encoder, TextEncoder(BERT), embed_dim=4)
        assert model(image, IDS)["image_embeds"].shape == (2, 4)

    def test_what_is_none_of_these(self):
        class Odd(nn.Module):
            def forward(self, image):
                return {"map": image}

        message = r"^backbone must give a feature map \(N, 3, h, w\), tokens \(N, P, 3\) .* or a vector \(N, 3\), got a dict\.$"
        with pytest.raises(ValueError, match=message):
            ImageEncoder(Odd(), out_features=3)(torch.zeros(1, 1, 8, 8))


def test_options_of_an_image_encoder_in_a_factory():
    model = convirt("small", image_encoder={"backbone": "resnet10", "width": 0.125, "input_mean": 0.5}, image_size=64)
    assert (model.image_encoder.out_features, model.image_size) == (64, 64)
    assert model.image_encoder.to_config()["input_mean"] == [0.5]
