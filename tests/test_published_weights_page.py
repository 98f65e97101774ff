"""Every command and snippet of "Start from published weights" runs as it stands, on small files in the published layouts."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from published_models import BERT, MGCA, BioViLImage, CTClip, CXRBert, CXRClip, Gloria
from safetensors.torch import save_file
from source_models import ConvNeXt, DenseNet, ResNet, TimmViT, TorchvisionViT, randomized
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    SwinModel,
)

from medvl.inferers import ZeroShotInferer
from medvl.networks import ImageEncoder
from medvl.transforms import train_tokenizer

PAGE = (Path(__file__).parents[1] / "docs" / "published_weights.md").read_text()
TINY = ["--epochs", "1", "--set", "embed_dim=8", "--set", "progress=false", "--image-size"]
TEXTS = ("The heart is enlarged. No edema.", "Lungs are clear.", "Pulmonary edema. No fracture.", "Rib fracture.")
CT_VIT = {
    "image_size": 16, "patch_size": 4, "slab_size": 2, "hidden_size": 16, "num_heads": 2, "head_size": 6, "num_layers": 2,
    "codebook_size": 30,
}  # fmt: skip
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def cache(folder: Path, name: str) -> Path:
    """The folder of a model in a cache of the Hub, as ``hf download NAME`` makes it."""
    place = folder / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123")
    (place / "snapshots" / "0123").mkdir(parents=True)
    return place / "snapshots" / "0123"


def tokenizer():
    return train_tokenizer([*TEXTS, "no pneumothorax", "a chest radiograph with pneumothorax"], min_patients=1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the page speaks of."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def towers(here):
    for name in ("RadImageNet_pytorch", "timm_vit", "models"):
        (here / name).mkdir()
    resnet50 = randomized(ResNet((3, 4, 6, 3), basic=False, width=4))
    torch.save(resnet50.state_dict(), "resnet50-11ad3fa6.pth")
    parts = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    pairs = ((name.split(".", 1), value) for name, value in resnet50.state_dict().items())
    numbered = {f"backbone.{parts[part]}.{rest}": value for (part, rest), value in pairs if part in parts}
    torch.save(numbered, "RadImageNet_pytorch/ResNet50.pt")
    torch.save(randomized(TorchvisionViT()).state_dict(), "vit_b_16-c867db91.pth")
    torch.save(randomized(TimmViT()).state_dict(), "timm_vit/pytorch_model.bin")
    torch.save(randomized(ConvNeXt()).state_dict(), "convnext_tiny.pth")
    dense = randomized(DenseNet(blocks=(6, 12, 24, 16), channels=1, classes=18, growth=2, width=4))
    torch.save(dense.state_dict(), "xrv_all.pt")
    medicalnet = randomized(ResNet((1, 1, 1, 1), basic=True, width=4, channels=1, dims=3, classes=0))
    weights = {f"module.{name}": value for name, value in medicalnet.state_dict().items()}
    torch.save({"state_dict": weights}, "resnet_10_23dataset.pth")
    swin = SwinModel(SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=7))
    torch.save(microsoft(swin), "swin_t-704ceda3.pth")
    dino = Dinov2Model(Dinov2Config(**TRANSFORMER, image_size=32, patch_size=8))
    for folder in (cache(here / "hub", "microsoft/rad-dino"), here / "models" / "dinov2"):
        dino.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text('{"image_mean": [0.53], "image_std": [0.26]}')
    bert, words = here / "models" / "Bio_ClinicalBERT", tokenizer()
    BertModel(BertConfig(**TRANSFORMER, vocab_size=len(words))).save_pretrained(bert)
    words.save_pretrained(bert)
    return here


def microsoft(swin: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of transformers' Swin under Microsoft's names."""
    names = {
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.norm": "patch_embed.norm",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.relative_position_bias.": "attn.",
        "attention.o_proj": "attn.proj",
        "attention.q_proj": "attn.qkv",
        "attention.k_proj": "attn.qkv",
        "attention.v_proj": "attn.qkv",
    }
    joined: dict[str, torch.Tensor] = {}
    for name, value in swin.state_dict().items():
        name = re.sub(r"^encoder\.", "", re.sub(r"^layernorm\.", "norm.", name))
        for old, new in names.items():
            name = name.replace(old, new)
        joined[name] = torch.cat([joined[name], value]) if name in joined else value
    return joined


@pytest.mark.usefixtures("towers")
def test_first_snippet_and_every_line_of_the_table(caplog):
    names: dict = {}
    exec(blocks("python")[0], names)
    assert names["model"].image_encoder is names["encoder"]
    ending = blocks("text")[0].partition("; ")[2].strip()
    assert caplog.messages[0].endswith(ending)
    table = re.search(r"^\| Weights \|.*?\n\n", PAGE, re.M | re.S)[0]
    lines = re.findall(r"`(ImageEncoder\(.*?\))`", table)
    assert len(lines) == 10
    for line in lines:
        encoder = eval(line, {"ImageEncoder": ImageEncoder})
        size = min(encoder.image_size, 64)
        with torch.no_grad():
            output = encoder.eval()(torch.rand(1, 1, *[size] * encoder.spatial_dims))
        assert torch.isfinite(output["embed"]).all(), line
        assert encoder.load_report is None or encoder.load_report.used


def test_fetching(here):
    """The commands are those of huggingface_hub, whose options they use; nothing is fetched."""
    commands = blocks("bash")[0].splitlines()
    assert all(command.startswith("hf download ") for command in commands)
    program = Path(sys.executable).parent / "hf"
    text = subprocess.run(
        [program, "download", "--help"], capture_output=True, text=True, timeout=600, check=True
    ).stdout
    assert "--local-dir" in text


@pytest.mark.usefixtures("towers")
def test_recipes(medvl):
    Path("images").mkdir()
    rows = ["image,report,patient_id"]
    for i in range(40):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (36, 32), dtype=np.uint8)).save(f"images/{i}.png")
        rows.append(f'images/{i}.png,"{TEXTS[i % 4]}",p{i}')
    Path("cases.csv").write_text("\n".join(rows) + "\n")
    lines = blocks("bash")[1].replace("\\\n", " ").splitlines()
    assert [line.split()[2] for line in lines] == ["convirt", "convirt", "mlip"]
    for line in lines:
        code, out, err = medvl(*shlex.split(line)[1:], *TINY, "32")
        assert code == 0, f"{line}: {err}"
        assert "Trained model in" in out
    Path("resnet50-11ad3fa6.pth").unlink()
    code, _, err = medvl("evaluate", "runs/convirt", "--protocol", "retrieval")
    assert code == 0, err


def openai(reference: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of transformers' CLIP under OpenAI's names."""
    state, joined = reference.state_dict(), {}
    for name, value in state.items():
        side = "visual." if name.startswith("vision_model.") else ""
        name = side + re.sub(r"^(vision|text)_model\.", "", name)
        for old, new in {
            "embeddings.patch_embedding.": "conv1.", "embeddings.class_embedding": "class_embedding",
            "embeddings.position_embedding.weight": "positional_embedding", "embeddings.token_embedding": "token_embedding",
            "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "final_layer_norm": "ln_final",
            "encoder.layers": "transformer.resblocks", "layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
            "self_attn.out_proj": "attn.out_proj", "visual_projection.weight": "visual.proj",
            "text_projection.weight": "text_projection",
        }.items():  # fmt: skip
            name = name.replace(old, new)
        if match := re.search(r"self_attn\.([qkv])_proj\.", name):
            joined[name.replace(match[0], "attn.in_proj_")] = torch.cat(
                [state[key] for key in (_in_place_of(match[1], name, reference))]
            )
        else:
            joined[name] = value.T if name in ("visual.proj", "text_projection") else value
    return joined


def _in_place_of(part: str, name: str, reference: nn.Module) -> list[str]:
    layer, suffix = re.search(r"resblocks\.(\d+)\.", name)[1], name.rpartition(".")[2]
    side = "vision" if name.startswith("visual.") else "text"
    return [f"{side}_model.encoder.layers.{layer}.self_attn.{key}_proj.{suffix}" for key in "qkv"]


def test_whole_models(here):
    """The published sizes are those of the snippet's defaults, so its configurations get the small ones here."""
    words = tokenizer()
    vision, text = (
        {**TRANSFORMER, "image_size": 32},
        {**TRANSFORMER, "vocab_size": len(words), "max_position_embeddings": 64},
    )
    clip = CLIPModel(CLIPConfig(vision_config={**vision, "patch_size": 32}, text_config=text, projection_dim=512))
    torch.save(openai(clip), "best_64_5e-05_original_22000_0.864.pt")
    words.save_pretrained(cache(here / "hub", "openai/clip-vit-base-patch32"))
    siglip = SiglipModel(
        SiglipConfig(vision_config={**vision, "patch_size": 16}, text_config={**text, "projection_size": 16})
    )
    siglip.save_pretrained(here / "models" / "medsiglip")
    words.save_pretrained(here / "models" / "medsiglip")
    code = blocks("python")
    small = code[1].replace('"patch_size": 32', f'"patch_size": 32, **{vision}')
    small = small.replace('"eos_token_id": 49407', f'"eos_token_id": 3, **{text}')
    assert small.count("hidden_size") == 2
    names: dict = {}
    exec(small, names)
    exec(code[2], names)
    assert names["chexzero"].encode_text(["Pneumothorax"]).shape == (1, 512)
    assert names["siglip"].encode_image(torch.rand(1, 1, 32, 32)).shape == (1, 16)
    tokens = names["siglip"].tokenize(["pneumothorax"])
    assert tokens["input_ids"].shape == (1, 64)
    assert bool(tokens["attention_mask"].all())


SMALL = {
    '"resnet50",': '"resnet50", width=0.0625,', "input_size=299": "input_size=64", "image_size=480)": "image_size=64)",
    '"num_hidden_layers": 6': '"num_hidden_layers": 5', '"vocab_size": 28996': "**bert",
    '{"model_type": "bert"}': '{"model_type": "bert", **bert}', "embed_dim=768": "embed_dim=16",
    "embed_dim=128": "embed_dim=8", '"hidden_features": 2048': '"hidden_features": 20', "embed_dim=512": "embed_dim=8",
    "max_length=": "max_length=10 + 0 *", '"ct_vit", spatial_dims=3, image_size=480': '"ct_vit", spatial_dims=3, **ct_vit',
}  # fmt: skip


def test_medical_models(here):
    """The same for GLoRIA, MGCA, BioViL, CXR-CLIP and CT-CLIP; their embeddings are compared in tests/networks/reference."""
    folder = here / "models" / "BiomedVLP-CXR-BERT-specialized"
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "no", "edema", "rib", "fracture"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CXRBertTokenizer", "auto_map": {}}')
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(here / "models" / "Bio_ClinicalBERT")
    torch.save(randomized(BioViLImage(False)).state_dict(), folder / "biovil_image_resnet50_proj_size_128.pt")
    save_file(randomized(CXRBert()).state_dict(), folder / "model.safetensors")
    gloria = {f"gloria.{name}": value for name, value in randomized(Gloria()).state_dict().items()}
    torch.save({"state_dict": gloria, "hyper_parameters": SimpleNamespace(a=1)}, "chexpert_resnet50.ckpt")
    torch.save({"state_dict": randomized(MGCA(vit=False)).published()}, "mgca_resnet50.ckpt")
    torch.save({"model": randomized(CXRClip(swin=False)).state_dict()}, "r50_mcc.tar")
    torch.save(randomized(CTClip()).state_dict(), "CT-CLIP_v2.pt")
    names: dict = {"bert": BERT, "ct_vit": CT_VIT}
    exec("from medvl.networks import *", names)
    for code in blocks("python")[3:]:
        for published, small in SMALL.items():
            code = code.replace(published, small)
        exec(code, names)
    for name in ("gloria", "mgca", "biovil", "cxr_clip", "ct_clip"):
        model = names[name].eval()
        shape = (1, 16, 16, 4) if name == "ct_clip" else (1, 64, 64)
        with torch.no_grad():
            images, reports = (
                model.encode_image(torch.rand(2, *shape)),
                model.encode_text(["no edema.", "rib fracture"]),
            )
        assert images.shape == (2, model.options["embed_dim"]) == reports.shape, name
        assert not torch.equal(reports[0], reports[1]), name
        prompts = {"Edema": {"present": ["edema."], "absent": ["no edema."]}}
        scores = ZeroShotInferer(prompts)(torch.rand(2, *shape), model)
        assert scores.shape == (2, 1), name
        assert ((scores > 0) & (scores < 1)).all(), name


def test_a_state_dict_of_torchxrayvision(here):
    """A stand-in for the package, which is not installed; its files hold whole objects."""

    def densenet(weights):
        assert weights == "densenet121-res224-all"
        return randomized(DenseNet(blocks=(6, 12, 24, 16), channels=1, classes=18, growth=2, width=4))

    (lines,) = (block for block in blocks("text") if "torchxrayvision" in block)
    package = SimpleNamespace(models=SimpleNamespace(DenseNet=densenet))
    exec(lines, {"torch": torch, "torchxrayvision": package})
    assert ImageEncoder("densenet121", weights="xrv_all.pt").to_config()["input_std"] == [1 / 2048]


def test_every_block_is_run():
    assert (len(blocks("bash")), len(blocks("python")), len(blocks("text"))) == (2, 6, 2)
