"""The four architectures: the papers' choices, 2D and 3D, replacement, and folders that are all one needs."""

from __future__ import annotations

import inspect
import json

import pytest
import torch

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, convirt, medclip, mlip, umcl
from medvl.transforms import train_tokenizer

FACTORIES = {"convirt": convirt, "medclip": medclip, "umcl": umcl, "mlip": mlip}
TEXTS = ["No effusion.", "There is a large left pneumothorax. The heart is normal."]
TOKENIZER = train_tokenizer(TEXTS, 150, min_patients=1)
TINY_TEXT = {
    "model_type": "bert",
    "vocab_size": len(TOKENIZER),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dropout_prob": 0.0,
}
TINY_IMAGE = {
    "convirt": {"backbone": "resnet10", "width": 0.125},
    "medclip": {"backbone": "resnet10", "width": 0.125},
    "umcl": {"backbone": "resnet10", "width": 0.125},
    "mlip": {"backbone": "vit", "patch_size": 16, "hidden_size": 12, "num_layers": 1, "num_heads": 2},
}


def tiny(name: str, dims: int = 2, **options) -> DualEncoder:
    torch.manual_seed(0)
    encoder = ImageEncoder(**TINY_IMAGE[name], spatial_dims=dims, image_size=32)
    options = {"embed_dim": 6, "tokenizer": TOKENIZER, **options}
    return FACTORIES[name]("small", image_encoder=encoder, text_encoder=TINY_TEXT, **options)


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("dims", [2, 3])
def test_both_encoders_learn_and_a_folder_is_all_one_needs(name, dims, tmp_path):
    model = tiny(name, dims)
    image = torch.rand(2, 1, *(32,) * dims)
    patches = model.encode_patches(image)[0].shape[1]
    tokens = model.tokenize(TEXTS)
    visible = {"visible_indices": torch.tensor([[0, 1], [1, 2]])} if name == "mlip" else {}
    output = model.train()(image, **tokens, **visible)
    sum(value.square().sum() for value in output.values() if value.requires_grad).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.eval().save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    assert not again.training
    for first, second in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert first[0] == second[0]
        assert torch.equal(first[1], second[1])
    before, after = (m(image, **m.tokenize(TEXTS), **visible) for m in (model, again))
    assert set(before) == set(after) > {"image_embeds", "text_embeds"}
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    assert torch.equal(model.encode_reports(TEXTS), again.encode_reports(TEXTS))
    if name == "umcl":
        assert torch.equal(model.encode_with_prompt_tokens(TEXTS), again.encode_with_prompt_tokens(TEXTS))
    assert patches == (4 if dims == 2 else 8) if name == "mlip" else patches == 1


def test_papers_choices():
    models = {name: tiny(name) for name in FACTORIES}
    assert {n: m.text_encoder.pooling for n, m in models.items()} == {
        "convirt": "max", "medclip": "last_layers", "umcl": "last_layers", "mlip": "last_layers"
    }  # fmt: skip
    assert {n: len(list(m.image_projection)) for n, m in models.items()} == {
        "convirt": 3, "medclip": 1, "umcl": 1, "mlip": 1
    }  # fmt: skip
    assert models["medclip"].image_projection[0].bias is None
    assert models["medclip"].text_projection[0].bias is None
    for name, temperature in {"convirt": 0.1, "medclip": 0.07, "umcl": 0.07, "mlip": 0.07}.items():
        assert models[name].logit_scale().item() == pytest.approx(1 / temperature)
        assert bool(list(models[name].logit_scale.parameters())) == (name != "convirt"), "ConVIRT's is fixed"
    assert models["mlip"].patch_projection is not None
    assert models["mlip"].patch_decoder.out_features == 256
    assert models["umcl"].text_encoder.prompt_embedding.num_tokens == 16
    assert tiny("umcl", num_prompt_tokens=0).text_encoder.prompt_embedding is None
    assert {n: m.text_processor.report_encoding for n, m in models.items()} == {
        "convirt": "sentences", "medclip": "sentences", "umcl": "sentences", "mlip": "sentences"
    }  # fmt: skip


@pytest.mark.parametrize("name", FACTORIES)
def test_small_presets(name):
    model = FACTORIES[name]("small", image_size=32, embed_dim=6, tokenizer=TOKENIZER).eval()
    assert model.text_encoder.vocab_size == len(TOKENIZER)
    assert sum(p.numel() for p in model.parameters()) < 8e6
    assert model.encode_image(torch.rand(1, 1, 32, 32)).shape == (1, 6)
    assert FACTORIES[name]("small", image_size=32).options["embed_dim"] == 512


def test_base_presets_have_the_papers_encoders():
    with torch.device("meta"):
        models = {name: factory(image_size=224) for name, factory in FACTORIES.items()}
    for model in models.values():
        assert model.text_encoder.model.config.num_hidden_layers == 12
        assert model.text_encoder.out_features == 768
    assert {n: m.image_encoder.out_features for n, m in models.items()} == {
        "convirt": 2048, "medclip": 2048, "umcl": 2048, "mlip": 768
    }  # fmt: skip


@pytest.mark.parametrize("name", FACTORIES)
def test_given_parts_replace_the_preset(name):
    image, text = ImageEncoder(**TINY_IMAGE["mlip"], image_size=32), TextEncoder(TINY_TEXT, "mean")
    model = FACTORIES[name](image_encoder=image, text_encoder=text, embed_dim=4, logit_scale={"temperature": 0.5})
    assert bool(list(model.logit_scale.parameters())) == (name != "convirt"), "only the entry that is given is replaced"
    assert model.image_encoder is image
    assert model.text_encoder is text
    assert model.logit_scale().item() == pytest.approx(2)
    assert FACTORIES[name]("small", image_size=32, text_encoder=TINY_TEXT).text_encoder.out_features == 8


def test_a_backbones_name_or_configuration():
    assert medclip("small", image_encoder="densenet121", image_size=32, embed_dim=4).image_encoder.out_features == 1024
    swin = {"model_type": "swin", "num_channels": 3, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1]}
    model = medclip("small", image_encoder=swin, image_size=64, embed_dim=4)
    assert model.encode_image(torch.rand(1, 1, 64, 64)).shape == (1, 4)


def test_text_folders_bring_their_tokenizer(tmp_path):
    encoder = TextEncoder(TINY_TEXT)
    encoder.model.save_pretrained(tmp_path)
    assert convirt("small", image_size=32, text_encoder=tmp_path).tokenizer is None
    TOKENIZER.save_pretrained(tmp_path)
    model = convirt("small", image_size=32, text_encoder=tmp_path, embed_dim=4)
    assert len(model.tokenizer) == len(TOKENIZER)
    assert model.encode_text(TEXTS).shape == (2, 4)


@pytest.mark.parametrize("name", FACTORIES)
def test_signatures_and_docstrings_are_whole(name):
    parameters = inspect.signature(FACTORIES[name]).parameters
    assert list(parameters)[:8] == [
        "preset", "spatial_dims", "in_channels", "image_size", "image_encoder", "text_encoder", "embed_dim", "tokenizer"
    ]  # fmt: skip
    assert ("num_prompt_tokens" in parameters) == (name == "umcl")
    documented = FACTORIES[name].__doc__
    for parameter in parameters:
        assert f"    {parameter}: " in documented or f"    **{parameter}: " in documented
    assert documented.index("Args:") < documented.index("Raises:") < documented.index("Example:")


def test_wrong_arguments():
    tiny_text = {**TINY_TEXT, "vocab_size": 9, "pad_token_id": 0}
    for name, factory in FACTORIES.items():
        with pytest.raises(ValueError, match="preset must be one of 'base', 'small', got 'huge'"):
            factory("huge")
        with pytest.raises(
            ValueError,
            match=rf"^tokenizer must have at most 9 tokens, as many as the text model, got {len(TOKENIZER)}\.$",
        ):
            factory("small", image_size=32, text_encoder=tiny_text, tokenizer=TOKENIZER)
        assert name == factory.__name__


def test_options_that_a_folder_lacks_have_their_defaults(tmp_path):
    """A folder saved before an option was known."""
    model = tiny("umcl", num_prompt_tokens=0)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    kept = {"image_encoder", "text_encoder", "embed_dim"}
    (tmp_path / "SHA256SUMS").unlink()  # changed on purpose
    (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in kept}))
    again = DualEncoder.from_pretrained(tmp_path)
    assert torch.equal(again.encode_text(TEXTS), model.eval().encode_text(TEXTS))
    assert again.text_processor.report_encoding == "whole"
