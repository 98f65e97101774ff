"""GLoRIA, MGCA, BioViL, BioViL-T, CXR-CLIP and CT-CLIP: small models in their published layouts give the same embeddings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from published_models import (
    BERT,
    HIDDEN,
    MGCA,
    SWIN,
    WIDTH,
    BioViLImage,
    CTClip,
    CXRBert,
    CXRClip,
    Gloria,
    older,
    texts,
)
from safetensors.torch import save_file
from source_models import randomized
from torch.nn import functional as F

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, export_encoders, load_reference_weights

RESNET = {"backbone": "resnet50", "width": 0.0625}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def dual_encoder(image, pooling, **options):
    text = TextEncoder({"model_type": "bert", **BERT}, pooling=pooling)
    return DualEncoder(ImageEncoder(**image), text, **{"embed_dim": WIDTH, **options}).eval()


def same(ours, reference):
    torch.testing.assert_close(ours, F.normalize(reference, dim=-1), atol=1e-5, rtol=1e-5)


def lightning(weights, prefix=""):
    """A checkpoint of PyTorch Lightning: the weights with a prefix, and objects beside them."""
    state = {f"{prefix}{name}": value for name, value in weights.items()}
    objects = SimpleNamespace(model=SimpleNamespace(vision="resnet_50"), sizes={"width": torch.tensor(3)})
    return {"epoch": 3, "state_dict": state, "hyper_parameters": objects, "hparams_type": SimpleNamespace}


def gloria(local=True):
    image = {**RESNET, "image_size": 40, "patch_stage": 3, "input_size": 64, "input_mean": 0.5, "input_std": 0.5}
    options = {"embed_dim": HIDDEN, "text_projection": {"bias": False}, "local_projections": local}
    return dual_encoder(image, "last_four_layers", logit_scale={"learnable": False}, **options)


class TestGLoRIA:
    def test_embeddings_and_patches_of_the_published_checkpoint(self, tmp_path):
        reference = randomized(Gloria())
        weights = older(reference.state_dict(), ("text_encoder.model.",))
        torch.save(lightning(weights, "gloria."), tmp_path / "chexpert_resnet50.ckpt")
        model = gloria()
        report = load_reference_weights(model, tmp_path / "chexpert_resnet50.ckpt", source="gloria")
        assert report.missing == ()
        assert all("pooler" in name or "position_ids" in name for name in report.unused)
        assert report.renamed["gloria.img_encoder.local_embedder.weight"] == ("patch_projection.0.weight",)
        assert set(report.adapted) == {
            "kernels of 3 input channels summed for 1",
            "a projection is the identity, as the published model has none",
            "the scale of the logits is 10, which is no weight of the published model",
        }
        image, (ids, mask) = torch.rand(2, 1, 40, 40), texts()
        with torch.no_grad():
            whole, local = reference.img_encoder((image.expand(-1, 3, -1, -1) - 0.5) / 0.5)
            same(model.encode_image(image), whole)
            patches, grid = model.encode_patches(image)
            assert grid == (4, 4)
            same(patches, local.flatten(2).mT)
            same(model.encode_text(ids, mask), reference.text_encoder(ids, mask))
        assert model.logit_scale().item() == pytest.approx(10)

    def test_a_model_without_local_projections(self, tmp_path):
        reference = randomized(Gloria())
        torch.save(reference.state_dict(), tmp_path / "gloria.pt")
        model = gloria(local=False)
        report = load_reference_weights(model, tmp_path / "gloria.pt", source="gloria")
        assert "the model lacks (local_projections)" in report.unused["img_encoder.local_embedder.weight"]
        image = torch.rand(1, 1, 40, 40)
        with torch.no_grad():
            same(model.encode_image(image), reference.img_encoder((image.expand(-1, 3, -1, -1) - 0.5) / 0.5)[0])

    def test_is_saved_and_exported(self, tmp_path):
        torch.save(randomized(Gloria()).state_dict(), tmp_path / "gloria.pt")
        model = gloria()
        load_reference_weights(model, tmp_path / "gloria.pt", source="gloria")
        model.save_pretrained(tmp_path / "model")
        again, image = DualEncoder.from_pretrained(tmp_path / "model"), torch.rand(1, 1, 40, 40)
        with torch.no_grad():
            assert torch.equal(again.encode_patches(image)[0], model.encode_patches(image)[0])
            assert torch.equal(again.encode_image(image), model.encode_image(image))


def mgca(vit):
    image = {**RESNET, "in_channels": 3, "image_size": 40, "patch_stage": 3, "input_size": 64}
    if vit:
        backbone = {"model_type": "vit", "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 1}
        sizes = {"intermediate_size": 24, "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}
        image = {"backbone": {**backbone, **sizes}, "in_channels": 3}
    head = {"layers": 2, "hidden_features": 20}
    return dual_encoder(image, "cls", image_projection=head, text_projection=head, local_projections=True)


@pytest.mark.parametrize("vit", [False, True])
def test_mgca(tmp_path, vit):
    reference = randomized(MGCA(vit))
    torch.save(lightning(reference.published()), tmp_path / "mgca.ckpt")
    model = mgca(vit)
    report = load_reference_weights(model, tmp_path / "mgca.ckpt", source="mgca")
    assert report.missing == ()
    assert {name.split(".")[0] for name in report.unused} == {
        "patch_local_atten_layer",
        "prototype_layer",
        "text_encoder_q",
    }
    assert report.renamed["img_encoder_q.global_embed.head.4.running_var"] == ("image_projection.2.weight",)
    assert report.adapted == (
        "batch norm of the projections folded into their linear layers, as it is in evaluation",
        "every token has the first position, as in the released code",
        "token types are zero, as the published model has none",
        "the scale of the logits is 14.2857, which is no weight of the published model",
    )
    image, (ids, mask) = torch.rand(2, 3, model.image_size, model.image_size), texts()
    with torch.no_grad():
        whole, local = reference.img_encoder_q(image)
        same(model.encode_image(image), whole)
        same(model.encode_patches(image)[0], local)
        whole, words = reference.text_encoder_q(ids, mask)
        same(model.encode_text(ids, mask), whole)
        one = torch.full_like(ids, -1)
        one[:, 4] = 0
        same(model.encode_sentences(ids, mask, one)[0][:, 0], words[:, 4])


@pytest.mark.parametrize("earlier", [False, True])
def test_biovil(tmp_path, earlier):
    image_model, text_model = randomized(BioViLImage(earlier)), randomized(CXRBert())
    name = "biovil_t_image_model_proj_size_128.pt" if earlier else "biovil_image_resnet50_proj_size_128.pt"
    torch.save(image_model.state_dict(), tmp_path / name)
    weights = {name: value.contiguous() for name, value in older(text_model.state_dict(), ("bert.",)).items()}
    save_file(weights, tmp_path / "model.safetensors")
    head = {"layers": 2, "activation": "gelu", "layer_norm": True}
    model = dual_encoder(
        {**RESNET, "image_size": 64},
        "cls",
        image_projection={"layers": 2},
        text_projection=head,
        image_pooling="projected_patches",
        logit_scale={"learnable": False},
    )
    report = load_reference_weights(model, tmp_path, source="biovil")
    assert report.missing == ()
    assert report.renamed["projector.model.1.running_mean"] == ("image_projection.0.weight",)
    if earlier:
        assert report.renamed["encoder.missing_previous_emb"] == ("image_projection.0.weight",)
        assert "an earlier image" in report.unused["encoder.vit_pooler.weight"]
    assert len(report.used) + len(report.unused) == len(image_model.state_dict()) + len(weights)
    image, (ids, mask) = torch.rand(2, 1, 64, 64), texts()
    with torch.no_grad():
        whole, cells = image_model(image.expand(-1, 3, -1, -1))
        same(model.encode_image(image), whole)
        same(model.encode_patches(image)[0], cells.flatten(2).mT)
        same(model.encode_text(ids, mask), text_model(ids, mask))
    model.save_pretrained(tmp_path / "model")
    again = DualEncoder.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again.encode_image(image), model.encode_image(image))
        assert torch.equal(again(image)["image_embeds"], model.encode_image(image))


def test_biovil_is_exported_with_its_pooling(tmp_path):
    """The check of the exported file would fail if it projected the mean of the patches."""
    model = dual_encoder(
        {**RESNET, "image_size": 64}, "cls", image_projection={"layers": 2}, image_pooling="projected_patches"
    )
    with torch.no_grad():
        features = model.image_encoder(torch.rand(1, 1, 64, 64))
        other = F.normalize(model.image_projection(features["embed"]), dim=-1)
        assert not torch.allclose(model._embed_image(features), other, atol=1e-3)
    export_encoders(model, tmp_path, formats=["torch"])


def test_biovil_without_its_image_file(tmp_path):
    save_file(randomized(CXRBert()).state_dict(), tmp_path / "model.safetensors")
    model = dual_encoder({**RESNET, "image_size": 64}, "cls")
    with pytest.raises(ValueError, match=r"one file biovil\*_image_\*\.pt of the image model, got 0 such files in"):
        load_reference_weights(model, tmp_path, source="biovil")


@pytest.mark.parametrize("swin", [False, True])
def test_cxr_clip(tmp_path, swin):
    reference = randomized(CXRClip(swin))
    with torch.no_grad():
        reference.logit_scale.fill_(3.0)
    weights = older(reference.state_dict(), ("image_encoder.image_encoder.", "text_encoder.text_encoder."))
    config = {"model": {"temperature": 0.07}}
    torch.save({"model": weights, "optimizer": {}, "config": config, "epoch": 15}, tmp_path / "r50_mcc.tar")
    image = {"backbone": {"model_type": "swin", **SWIN}, "in_channels": 3} if swin else {**RESNET, "image_size": 64}
    options = {"image_pooling": "first_patch"} if swin else {}
    model = dual_encoder(image, "last", **options)
    report = load_reference_weights(model, tmp_path / "r50_mcc.tar", source="cxr_clip")
    assert report.missing == ()
    assert all("pooler" in name or "position_ids" in name for name in report.unused)
    x, (ids, mask) = torch.rand(2, 3 if swin else 1, 64, 64), texts()
    with torch.no_grad():
        same(model.encode_image(x), reference.encode_image(x.expand(-1, 3, -1, -1)))
        same(model.encode_text(ids, mask), reference.encode_text(ids, mask))
    assert model.logit_scale().item() == pytest.approx(reference.logit_scale.exp().item())


def ct_clip():
    sizes = {"patch_size": 4, "slab_size": 2, "hidden_size": HIDDEN, "num_heads": 2, "head_size": 6, "num_layers": 2}
    image = {"backbone": "ct_vit", "spatial_dims": 3, "image_size": 16, "codebook_size": 30, **sizes}
    bare = {"image_projection": {"bias": False}, "text_projection": {"bias": False}}
    return dual_encoder({**image, "input_mean": 0.5, "input_std": 0.5}, "cls", **bare)


class TestCTCLIP:
    def test_embeddings_and_tokens(self, tmp_path):
        reference = randomized(CTClip())
        volume, (ids, mask) = torch.rand(2, 1, 16, 16, 6), texts()
        video = ((volume - 0.5) / 0.5).permute(0, 1, 4, 2, 3)
        with torch.no_grad():
            reference.temperature.fill_(1.2)
            own = reference.visual_transformer.tokens(video).flatten(0, -2)
            reference.visual_transformer.vq._codebook.embed.copy_(1.5 * own[torch.randperm(len(own))[:30]])
        torch.save(older(reference.state_dict(), ("text_transformer.",)), tmp_path / "CT_CLIP_zeroshot.pt")
        model = ct_clip()
        report = load_reference_weights(model, tmp_path / "CT_CLIP_zeroshot.pt", source="ct_clip")
        assert report.missing == ()
        unused = {name for name in report.unused if name.startswith("visual_transformer.enc_")}
        assert {name.rpartition(".1.")[2] for name in unused} == {
            "context_norm.gamma",
            "context_norm.beta",
            "null_kv",
        }
        with torch.no_grad():
            embeds, tokens = reference.encode_image(video)
            assert len(tokens.flatten(0, -2).unique(dim=0)) > 20
            same(model.encode_image(volume), embeds)
            features = model.image_encoder(volume)
            assert features["grid"] == (4, 4, 3)
            torch.testing.assert_close(
                features["patches"].unflatten(1, (4, 4, 3)), tokens.permute(0, 2, 3, 1, 4), atol=1e-5, rtol=1e-5
            )
            same(model.encode_text(ids, mask), reference.encode_text(ids, mask))
        assert model.logit_scale().item() == pytest.approx(reference.temperature.exp().item())

    def test_gradient_and_sizes(self):
        model = ct_clip().train()
        model(torch.rand(2, 1, 16, 16, 4))["image_embeds"][:, 0].sum().backward()
        first = model.image_encoder.backbone.patch_embedding[1].weight.grad
        assert first is not None
        assert float(first.abs().sum()) > 0
        with pytest.raises(
            ValueError, match=r"^image must have the sides 16, 16 and a multiple of 2, got \(16, 16, 5\)"
        ):
            model.encode_image(torch.rand(1, 1, 16, 16, 5))
        with pytest.raises(ValueError, match=r"^spatial_dims must be 3 for ct_vit, got 2\.$"):
            ImageEncoder("ct_vit")
        with pytest.raises(ValueError, match=r"^image_size must be a multiple of the patch_size 20, got 64\.$"):
            ImageEncoder("ct_vit", spatial_dims=3, image_size=64)


@pytest.mark.parametrize("source", ["gloria", "mgca", "cxr_clip", "ct_clip"])
def test_another_model_is_refused(tmp_path, source):
    torch.save(randomized(Gloria()).state_dict() | {"other": torch.ones(1)}, tmp_path / "gloria.pt")
    expected = (
        "weights cannot be used, the first other" if source == "gloria" else "its names are those of source='gloria'"
    )
    with pytest.raises(ValueError, match=expected):
        load_reference_weights(gloria(), tmp_path / "gloria.pt", source=source)
