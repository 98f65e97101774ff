"""Encoders, projections, scale, and the dual encoder made of them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from medvl.networks import DualEncoder, ImageEncoder, LogitScale, ProjectionHead, TextEncoder, convirt

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


class TestImageEncoder:
    @pytest.mark.parametrize(("dims", "shape", "grid"), [(2, (64, 96), (2, 3)), (3, (32, 32, 64), (1, 1, 2))])
    def test_shapes(self, dims, shape, grid):
        encoder = ImageEncoder("resnet10", spatial_dims=dims, in_channels=2, width=0.125)
        output = encoder(torch.rand(1, 2, *shape))
        assert output["grid"] == grid
        assert output["patches"].shape == (1, math.prod(grid), encoder.out_features)
        torch.testing.assert_close(output["embed"], output["patches"].mean(1))

    def test_patches_are_in_row_major_order(self):
        encoder = ImageEncoder(nn.Identity(), out_features=1)
        image = torch.arange(6.0).reshape(1, 1, 2, 3)
        assert encoder(image)["patches"].flatten().tolist() == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("shape", [(1, 64, 64), (1, 3, 64, 64), (1, 1, 64, 64, 64)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"image must have the shape \(N, 1, H, W\), received"):
            ImageEncoder("resnet10", width=0.125)(torch.zeros(shape))

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match=r"backbone must be one of resnet10, .* received 'resnet9'"):
            ImageEncoder("resnet9")
        with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, received 4"):
            ImageEncoder("resnet10", spatial_dims=4)
        with pytest.raises(ValueError, match="out_features"):
            ImageEncoder(nn.Identity())


class TestTextEncoder:
    @pytest.mark.parametrize("pooling", ["cls", "mean", "max", "last_layers"])
    def test_padding_changes_nothing(self, pooling):
        encoder = TextEncoder(BERT, pooling).eval()
        ids, mask = tokens()
        padded = encoder(ids, mask)["embed"]
        for row in range(len(ids)):
            kept = mask[row].bool()
            alone = encoder(ids[row : row + 1, kept], mask[row : row + 1, kept])["embed"]
            torch.testing.assert_close(padded[row : row + 1], alone, atol=1e-5, rtol=1e-5)

    def test_poolings_are_what_they_say(self):
        ids, mask = tokens()
        encoders = {}
        for name in ("cls", "mean", "max", "last_layers"):
            torch.manual_seed(3)
            encoders[name] = TextEncoder(BERT, name).eval()
        states = encoders["cls"].model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        row, kept = 2, mask[2].bool()
        expected = {
            "cls": states[-1][row, 0],
            "mean": states[-1][row, kept].mean(0),
            "max": states[-1][row, kept].amax(0),
            "last_layers": ((states[1] + states[2] + states[3]) / 3)[row, kept].mean(0),
        }
        for name, value in expected.items():
            torch.testing.assert_close(encoders[name](ids, mask)["embed"][row], value)

    @pytest.mark.parametrize("pooling", ["mean", "max", "last_layers"])
    def test_a_text_without_tokens_is_zero(self, pooling):
        ids, mask = tokens()
        mask[0] = 0
        embed = TextEncoder(BERT, pooling)(ids, mask)["embed"]
        assert embed[0].abs().max() == 0
        assert torch.isfinite(embed).all()

    def test_freeze(self):
        encoder = TextEncoder(BERT)
        encoder.freeze(2)
        trained = {name.split(".")[2] for name, p in encoder.model.named_parameters() if p.requires_grad}
        assert trained == {"2"}
        encoder.freeze()
        assert not any(p.requires_grad for p in encoder.parameters())
        with pytest.raises(ValueError, match="between 0 and the model's 3, received 4"):
            encoder.freeze(4)

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match=r"pooling must be one of cls, mean, max, last_layers.* received 'sum'"):
            TextEncoder(BERT, "sum")
        with pytest.raises(ValueError, match="13 tokens a text, more than the model's 12 positions"):
            TextEncoder(BERT)(torch.ones(1, 13, dtype=torch.long))
        with pytest.raises(ValueError, match="local folder, received"):
            TextEncoder(str(tmp_path / "nowhere"))
        with pytest.raises(ValueError, match="at least 2 hidden layers, the model has 1"):
            TextEncoder({**BERT, "num_hidden_layers": 1}, "last_layers")
        with pytest.raises(ValueError, match=r"share one shape \(M, L\), received \(2, 3\) and \(2, 4\)"):
            TextEncoder(BERT)(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 4))

    def test_reads_a_local_folder(self, tmp_path):
        encoder = TextEncoder(BERT, "mean").eval()
        encoder.model.save_pretrained(tmp_path)
        ids, mask = tokens()
        torch.testing.assert_close(
            TextEncoder(tmp_path, "mean").eval()(ids, mask)["embed"], encoder(ids, mask)["embed"]
        )


class TestBlocks:
    def test_projection(self):
        head = ProjectionHead(4, 3, layers=2, hidden_features=5)
        x = torch.rand(2, 4)
        first, _, second = head
        torch.testing.assert_close(head(x), second(torch.relu(first(x))))
        with pytest.raises(ValueError, match="layers must be 1 or 2, received 3"):
            ProjectionHead(4, 3, layers=3)
        with pytest.raises(ValueError, match="hidden_features needs layers=2"):
            ProjectionHead(4, 3, hidden_features=5)

    def test_scale_is_bounded_but_can_come_down(self):
        scale = LogitScale(0.01)
        with torch.no_grad():
            scale.log_scale += 1
        assert scale().item() == pytest.approx(100, rel=1e-5)
        scale().backward()
        assert scale.log_scale.grad.item() == pytest.approx(100, rel=1e-5)
        with torch.no_grad():
            scale.log_scale -= 3
        assert scale().item() == pytest.approx(100 * math.exp(-2), rel=1e-5)

    def test_fixed_scale_is_no_parameter_but_is_saved(self):
        scale = LogitScale(0.1, learnable=False)
        assert not list(scale.parameters())
        assert "log_scale" in scale.state_dict()
        for wrong in (0, -1, 0.001, math.nan):
            with pytest.raises(ValueError, match="temperature must be at least"):
                LogitScale(wrong)


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
        with pytest.raises(ValueError, match="received neither"):
            model()

    def test_gradient_reaches_every_parameter_of_both_towers(self):
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

    def test_folder_is_all_one_needs(self, tmp_path):
        model = small_model(projection_layers=2, temperature=0.2).eval()
        model.save_pretrained(tmp_path)
        again = DualEncoder.from_pretrained(tmp_path)
        ids, mask = tokens()
        image = torch.rand(2, 1, 64, 64)
        for name, value in model(image, ids, mask).items():
            assert torch.equal(value, again(image, ids, mask)[name]), name
        assert not again.training
        assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
        assert json.loads((tmp_path / "config.json").read_text())["image_encoder"]["image_size"] == 64

    def test_loading_is_never_partial(self, tmp_path):
        small_model().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "projection_layers": 2}))
        with pytest.raises(RuntimeError, match="image_projection"):
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
        with pytest.raises(ValueError, match="given as a Conv2d module"):
            model.save_pretrained(tmp_path)


class TestConVIRT:
    def test_paper_choices(self):
        model = convirt("small", image_size=64, embed_dim=32)
        assert model.text_encoder.pooling == "max"
        assert len(list(model.image_projection)) == 3
        assert model.logit_scale().item() == pytest.approx(10)
        assert not list(model.logit_scale.parameters())
        assert model.image_size == 64

    def test_given_encoders_replace_the_preset(self):
        image, text = ImageEncoder("resnet10", width=0.125), TextEncoder(BERT, "mean")
        model = convirt(image_encoder=image, text_encoder=text, embed_dim=4)
        assert model.image_encoder is image
        assert model.text_encoder is text
        assert convirt("small", text_encoder=BERT).text_encoder.out_features == 16

    def test_three_dimensions(self):
        model = convirt("small", spatial_dims=3, image_size=32, embed_dim=4, text_encoder=BERT)
        assert model.encode_image(torch.rand(2, 1, 32, 32, 32)).shape == (2, 4)

    def test_unknown_preset(self):
        with pytest.raises(ValueError, match="preset must be one of base, small, received 'huge'"):
            convirt("huge")
