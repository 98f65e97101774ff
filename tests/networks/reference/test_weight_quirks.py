"""Files of weights as users have them: wrapped, of half precision, of another model, or no weights at all."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import warnings
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import test_load_reference_weights as whole
import torch
from published_models import MGCA, BioViLImage, CXRBert
from safetensors.torch import save_file
from source_models import DenseNet, ResNet, TimmViT, randomized
from test_load_reference_weights import BERT, VIT, OpenAICLIP, medclip_resnet, our_medclip
from test_medical_models import RESNET, dual_encoder, mgca
from torch import nn
from transformers import CLIPConfig, CLIPModel

from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, load_reference_weights
from medvl.networks.encoders.weight_files import read_weights

DENSE = {"block_config": (2, 1, 2)}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def clip():
    return randomized(OpenAICLIP()).state_dict() | {"logit_scale": torch.tensor(3.0)}


def openai():
    return whole.TestOpenAI().model()


def load(tmp_path, content, model=None, source="openai_clip", **options):
    torch.save(content, tmp_path / "weights.pt")
    model = model or openai()
    return model, load_reference_weights(model, tmp_path / "weights.pt", source=source, **options)


def same(model, other):
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def cast(weights, dtype):
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}


class TestWrapped:
    @pytest.mark.parametrize("wrap", [
        lambda weights: {f"net.clip.{name}": value for name, value in weights.items()},
        lambda weights: {"net": weights, "args": Namespace(lr=0.1)},
        lambda weights: {"state_dict": {"model": weights}, "args": Namespace(lr=0.1)},
        lambda weights: {"model": Namespace(name="ViT"), "weights": weights},
    ])  # fmt: skip
    def test_is_found(self, tmp_path, clip, wrap):
        assert same(load(tmp_path, wrap(clip))[0], load(tmp_path, clip)[0])

    def test_beside_a_head(self, tmp_path, clip):
        wrapped = {f"model.{name}": value for name, value in clip.items()} | {"fc.weight": torch.ones(5, 8)}
        with pytest.raises(ValueError, match=r"1 of its 63 weights cannot be used, the first fc\.weight \(not a part"):
            load(tmp_path, wrapped)
        model, report = load(tmp_path, wrapped, allow_partial=True)
        assert same(model, load(tmp_path, clip)[0])
        assert list(report.unused) == ["fc.weight"]

    def test_two_models_are_not_chosen_from(self, tmp_path, clip):
        both = {f"{kind}.{name}": value for name, value in clip.items() for kind in ("student", "teacher")}
        with pytest.raises(ValueError, match="none of its weights can be used"):
            load(tmp_path, both, allow_partial=True)

    def test_names_of_older_norms(self, tmp_path):
        weights = medclip_resnet().state_dict()
        old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
               for name, value in weights.items()}  # fmt: skip
        assert sum(name.endswith(".gamma") for name in old) == 7
        models = [our_medclip(ImageEncoder("resnet50", image_size=64, width=0.125)) for _ in range(2)]
        for model, content in zip(models, (weights, old), strict=True):
            load(tmp_path, content, model, "medclip")
        assert same(*models)


class TestNumbers:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_rounded_once(self, tmp_path, dtype):
        weights = cast(randomized(MGCA(False)).published(), dtype)
        half, whole = (
            load(tmp_path, content, mgca(False), "mgca")[0] for content in (weights, cast(weights, torch.float32))
        )
        assert same(half, whole)

    def test_half_precision_of_towers(self, tmp_path):
        for name, source, options in (
            ("resnet18", ResNet((2, 2, 2, 2), basic=True), {"input_mean": 0.5}),  # kernels are summed
            ("vit", TimmViT(), {}),  # the position of the class token is added
        ):
            weights = cast(randomized(source).state_dict(), torch.bfloat16)
            encoders = []
            for content in (weights, cast(weights, torch.float32)):
                torch.save(content, tmp_path / "weights.pt")
                encoders.append(ImageEncoder(name, weights=tmp_path / "weights.pt", **options))
            assert same(*encoders)

    def test_a_scale_of_100_in_float16(self, tmp_path, clip):
        model, _ = load(tmp_path, clip | {"logit_scale": torch.tensor(4.6052).half()})
        assert float(model.logit_scale()) == pytest.approx(100)
        with pytest.raises(ValueError, match=r"maximum of at least 101\.\d+, the published scale, got 100\.$"):
            load(tmp_path, clip | {"logit_scale": torch.tensor(4.62)})

    @pytest.mark.parametrize(("change", "message"), [
        (lambda value: value.to(torch.int8), r"integers in place of floating point .*: 1 of 78, the first for image_proj"),
        (lambda value: value.to(torch.float8_e4m3fn), r"^visual\.proj in .* at least 16 bits, got one that is float8_e4m3fn"),
        (lambda value: value.to(torch.complex64), r"got one that is complex\.$"),
        (lambda value: value.to_sparse(), r"got one that is sparse\.$"),
        (lambda value: value.to("meta"), r"got one that is without values \(meta\)\.$"),
    ])  # fmt: skip
    def test_others_are_refused(self, tmp_path, clip, change, message):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, clip | {"visual.proj": change(clip["visual.proj"])})

    def test_a_negative_variance(self, tmp_path):
        weights = randomized(DenseNet()).state_dict()
        weights["features.norm5.running_var"][0] = -1
        torch.save(weights, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"holds a variance below 0, for features\.norm5\.running_var\.$"):
            ImageEncoder("densenet121", weights=tmp_path / "a.pt", **DENSE)


class TestAnotherModel:
    @pytest.mark.parametrize("partial", [False, True])
    def test_names_the_source(self, tmp_path, clip, partial):
        model = our_medclip(ImageEncoder("resnet10", width=0.125))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(
            ValueError, match=r"not of the layout 'medclip': none .* are those of source='openai_clip'\.$"
        ):
            load(tmp_path, clip, model, "medclip", allow_partial=partial)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize("content", [{}, {"state_dict": {}}])
    def test_nothing(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"weights\.pt holds no weights\.$"):
            load(tmp_path, content, allow_partial=True)

    def test_keys_that_are_no_names(self, tmp_path):
        with pytest.raises(ValueError, match=r"must hold a state dict of tensors, got a dict with 1, 2\.$"):
            load(tmp_path, {1: torch.ones(1), 2: torch.ones(1)})

    def test_arguments(self, tmp_path):
        with pytest.raises(TypeError, match=r"^path must be of type str or Path, got int\.$"):
            load_reference_weights(openai(), 3)
        with pytest.raises(TypeError, match=r"^model must be of type DualEncoder, got Linear\.$"):
            load_reference_weights(nn.Linear(2, 2), tmp_path)
        with pytest.raises(
            FileNotFoundError, match=r"^path must be a file or folder of weights, got x+, which does not"
        ):
            load_reference_weights(openai(), "x" * 300)
        with pytest.raises(FileNotFoundError, match=r"got google/medsiglip-448, .*`hf download google/medsiglip-448`"):
            load_reference_weights(openai(), "google/medsiglip-448", source="huggingface")


def hugging_face(folder, **vision):
    text = {**BERT, "eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config={**VIT, **vision}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    model = DualEncoder(
        ImageEncoder({"model_type": "clip_vision_model", **VIT}, in_channels=3),
        TextEncoder({"model_type": "clip_text_model", **text, "max_position_embeddings": 16}, pooling="last"),
        embed_dim=8,
        image_projection={"bias": False},
        text_projection={"bias": False},
    )
    return model, text


@pytest.mark.parametrize(("vision", "message"), [
    ({"hidden_act": "gelu"}, r"^hidden_act of image_encoder must be 'gelu', as in .*, got 'quick_gelu'\.$"),
    ({"num_attention_heads": 4}, r"^num_attention_heads of image_encoder must be 4, as in .*, got 2\.$"),
    ({"layer_norm_eps": 1e-3}, r"^layer_norm_eps of image_encoder must be 0\.001, as in .*, got 1e-05\.$"),
])  # fmt: skip
def test_what_weights_do_not_tell(tmp_path, vision, message):
    model, _ = hugging_face(tmp_path, **vision)
    with pytest.raises(ValueError, match=message):
        load_reference_weights(model, tmp_path, source="huggingface")


def test_positions_of_texts_are_no_grid(tmp_path):
    model, text = hugging_face(tmp_path)
    longer = TextEncoder({"model_type": "clip_text_model", **text, "max_position_embeddings": 64}, pooling="last")
    bare = {"image_projection": {"bias": False}, "text_projection": {"bias": False}}
    model = DualEncoder(model.image_encoder, longer, embed_dim=8, **bare)
    with pytest.raises(
        ValueError, match=r"text_model\.embeddings\.position_embedding\.weight \(its shape \(16, 16\) is not"
    ):
        load_reference_weights(model, tmp_path, source="huggingface")


class TestNoWeights:
    def refused(self, path, message):
        with pytest.raises(ValueError, match=message):
            load_reference_weights(openai(), path, source="openai_clip")

    def test_archives(self, tmp_path):
        torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(tmp_path / "a.bin", "a.bin")
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(tmp_path / "a.bin", "a.bin")
        (tmp_path / "a.bin.gz").write_bytes(gzip.compress((tmp_path / "a.bin").read_bytes()))
        np.savez(tmp_path / "a.npz", x=np.ones(1))
        self.refused(tmp_path / "a.zip", r"is an archive with a\.bin, not the weights: unpack it first\.$")
        self.refused(tmp_path / "a.npz", r"is an archive with x\.npy, not the weights")
        for name in ("a.tar", "a.bin.gz"):
            self.refused(tmp_path / name, rf"{name} is an archive, not the weights: unpack it first\.$")

    def test_keras(self, tmp_path):
        (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        self.refused(tmp_path / "a.h5", r"is an HDF5 file, as Keras writes; only weights of PyTorch are read\.$")

    def test_a_list_of_files_that_is_damaged(self, tmp_path):
        torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
        content = bytearray((tmp_path / "a.pt").read_bytes())
        content[content.index(b"PK\x01\x02") + 2] ^= 1
        (tmp_path / "a.pt").write_bytes(content)
        self.refused(tmp_path / "a.pt", r"a\.pt is not a complete file of weights \(Bad magic number for .*\)\.$")

    def test_torchscript_as_openai_publishes_clip(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "ViT-B-32.pt"))
        self.refused(
            tmp_path / "ViT-B-32.pt", r"is a TorchScript program, not a state dict: .*state_dict\(\), NEW_PATH\)"
        )


@pytest.mark.parametrize("start", [b" <", b"<", b"\n<", b"\x1f\x8b"])
def test_safetensors_whose_length_of_header_begins_as_another_kind(tmp_path, start):
    """The first eight bytes are a number: 15392 is written as a blank and "<", as a web page may begin."""
    length = int.from_bytes(start.ljust(3, b"\1"), "little")
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + header + np.float32(3).tobytes())
    assert read_weights(tmp_path / "a.safetensors")["a"].item() == 3


def test_a_checkpoint_with_objects_of_another_suffix(tmp_path):
    for name in ("a.ckpt", "a.safetensors"):
        torch.save({"net": {"a": torch.ones(1)}, "args": Namespace(lr=0.1)}, tmp_path / name)
        assert list(read_weights(tmp_path / name)) == ["a"]


def test_biovil_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "b").mkdir()
    torch.save(randomized(BioViLImage(False)).state_dict(), tmp_path / "b" / "biovil_image_resnet50_proj_size_128.pt")
    save_file({n: v.contiguous() for n, v in CXRBert().state_dict().items()}, tmp_path / "b" / "model.safetensors")
    head = {"layers": 2, "activation": "gelu", "layer_norm": True}
    options = {"image_pooling": "projected_patches", "logit_scale": {"learnable": False}}
    image = {**RESNET, "image_size": 64}
    model = dual_encoder(image, "cls", image_projection={"layers": 2}, text_projection=head, **options)
    assert load_reference_weights(model, "~/b", source="biovil").missing == ()


class TestTowers:
    def test_heads_of_a_huge_vit(self, tmp_path):
        torch.save(TimmViT(width=1280, heads=16, depth=1, size=16).state_dict(), tmp_path / "vit.pt")
        assert ImageEncoder("vit", weights=tmp_path / "vit.pt").to_config()["num_heads"] == 16
        encoder = ImageEncoder({"model_type": "vit"}, weights=tmp_path / "vit.pt")
        assert encoder.to_config()["backbone"]["num_attention_heads"] == 16

    def test_heads_that_timm_states(self, tmp_path):
        torch.save(TimmViT().state_dict(), tmp_path / "vit.pt")
        (tmp_path / "config.json").write_text(json.dumps({"model_args": {"num_heads": 2}}))
        assert ImageEncoder("vit", weights=tmp_path / "vit.pt").to_config()["num_heads"] == 2

    @pytest.mark.parametrize("arguments", ["vit", [1], {"num_heads": True}, {"num_heads": 0}])
    def test_arguments_that_are_not_timms_are_passed_over(self, tmp_path, arguments):
        torch.save(TimmViT(width=64).state_dict(), tmp_path / "vit.pt")
        (tmp_path / "config.json").write_text(json.dumps({"model_args": arguments}))
        assert "num_heads" not in ImageEncoder("vit", weights=tmp_path / "vit.pt").to_config()  # one for 64 channels

    def test_the_configuration_in_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        torch.save(ResNet((1, 1, 1, 1), basic=True).state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.4] * 3, "std": [0.2] * 3}}))
        assert ImageEncoder("resnet10", weights="~/pytorch_model.bin").to_config()["input_mean"] == [0.4]
        (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.4,')
        with pytest.raises(ValueError, match=r"config\.json is damaged: Expecting value"):
            ImageEncoder("resnet10", weights="~/pytorch_model.bin")

    @pytest.mark.parametrize(("backbone", "names", "message"), [
        ({"model_type": "swin"}, ["layers.0.blocks.0.attn.qkv.weight", "patch_embed.proj.weight"],
         r"a Swin of .*, got weights without layers\.0\.blocks\.0\.attn\.relative_position_bias_table\.$"),  # Swin V2
        ("densenet121", ["features.denseblock1.denselayer1.conv2.weight"], r"got weights without features\.conv0\.weight\.$"),
        ("vit", ["blocks.0.attn.qkv.weight"], r"a ViT of .*, got weights without patch_embed\.proj\.weight\.$"),
        ({"model_type": "convnext"}, ["stages.0.0.dwconv.weight"], r"got weights without embeddings\.patch_embeddings"),
        ("vit", ["blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"], "with too few axes"),
    ])  # fmt: skip
    def test_weights_that_are_missing(self, tmp_path, backbone, names, message):
        torch.save({name: torch.ones(4) for name in names}, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=message):
            ImageEncoder(backbone, weights=tmp_path / "a.pt")

    def test_old_names_in_a_larger_model(self, tmp_path):
        weights = randomized(DenseNet()).state_dict()
        torch.save(weights, tmp_path / "plain.pt")
        layers = re.compile(r"(layer.*\.(?:norm|conv))([12])")
        old = {"encoder." + layers.sub(r"\1.\2", name): value for name, value in weights.items()}
        assert "encoder.features.denseblock1.denselayer1.norm.1.weight" in old
        torch.save(old | {"loss.weight": torch.ones(1)}, tmp_path / "old.pt")
        plain, wrapped = (ImageEncoder("densenet121", weights=tmp_path / f"{n}.pt", **DENSE) for n in ("plain", "old"))
        assert same(plain, wrapped)

    def test_a_swin_in_a_larger_model(self, tmp_path):
        """Each of its stages holds blocks that are named as those of a ViT."""
        names = [f"net.layers.{stage}.blocks.0.attn.qkv.weight" for stage in (0, 1)]
        torch.save(dict.fromkeys([*names, "loss.weight"], torch.ones(4)), tmp_path / "a.pt")
        with pytest.raises(
            ValueError, match=r"those of a Swin of .*, got weights without patch_embed\.proj\.weight\.$"
        ):
            ImageEncoder({"model_type": "swin"}, weights=tmp_path / "a.pt")
