"""Model folders of anybody: no code is run, nothing is asked, no network is reached."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

import medvl
from medvl.networks import DualEncoder, ImageEncoder, TextEncoder, load_tokenizer
from medvl.transforms import TokenizeText, train_tokenizer

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
RAN = "code of the folder was run"


@pytest.fixture(autouse=True)
def guards(monkeypatch):
    """Any question, and any use of the network, is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    def ask(*args):
        raise AssertionError("a question was asked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(builtins, "input", ask)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Sound folders of a text model with its tokenizer, and of a vision model."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["no edema ."], min_patients=1)
    BertModel(BertConfig(vocab_size=40, **SIZES)).save_pretrained(root / "text")
    tokenizer.save_pretrained(root / "text")
    ViTModel(ViTConfig(image_size=16, patch_size=8, **SIZES)).save_pretrained(root / "vision")
    text = TextEncoder(BertConfig(vocab_size=40, **SIZES))
    model = DualEncoder(ImageEncoder("resnet10", image_size=32, width=0.1), text, embed_dim=4)
    model.save_pretrained(root / "dual")
    tokenizer.save_pretrained(root / "dual")
    (root / "dual" / "SHA256SUMS").unlink()  # whoever changes a folder can write new ones
    return root


@pytest.fixture
def folder(folders, tmp_path):
    return lambda kind: Path(shutil.copytree(folders / kind, tmp_path / kind))


def change(folder, name="config.json", **values):
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))
    for module in ("evil", "configuration_evil"):
        (folder / f"{module}.py").write_text(
            f"open({str(folder / 'ran')!r}, 'w').write('x')\nraise SystemExit({RAN!r})\n"
        )
    return folder


def load(folder):
    """Load a folder in each way there is; True if it was taken."""
    taken = False
    if folder.name == "dual":
        DualEncoder.from_pretrained(folder)
        taken = True
    elif folder.name == "vision":
        ImageEncoder(str(folder))
        taken = True
    else:
        load_tokenizer(folder)
        TokenizeText(str(folder)).tokenizer  # noqa: B018
        TextEncoder(str(folder))
        taken = True
    assert not (folder / "ran").exists(), RAN
    return taken


@pytest.mark.parametrize("kind", ["text", "vision", "dual"])
def test_sound_folders_are_taken_without_network(folder, kind):
    assert load(folder(kind))


AUTO_MAP = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoModelForMaskedLM")}
REMOTE = {name: f"nobody/nothing--{value}" for name, value in AUTO_MAP.items()}


@pytest.mark.parametrize("auto_map", [AUTO_MAP, REMOTE])
@pytest.mark.parametrize("kind", ["text", "vision"])
def test_code_beside_a_known_kind_of_model_is_left_alone(folder, kind, auto_map):
    assert load(change(folder(kind), auto_map=auto_map))


@pytest.mark.parametrize("auto_map", [AUTO_MAP, REMOTE])
@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_model_that_is_nothing_but_code_is_refused(folder, kind, auto_map):
    path = change(folder(kind), auto_map=auto_map, model_type="evil", architectures=["Evil"])
    with pytest.raises(
        ValueError, match=rf"^the (model folder|tokenizer in) {path}.*code of its own, which is not run\.$"
    ):
        load(path)
    assert not (path / "ran").exists()


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizerFast", "Evil", "EvilFast"])
@pytest.mark.parametrize("auto_map", [["evil.Evil", "evil.Evil"], ["nobody/x--evil.Evil", None], "evil.Evil"])
def test_the_code_of_a_tokenizer_is_not_run(folder, tokenizer_class, auto_map):
    path = change(
        folder("text"), "tokenizer_config.json", tokenizer_class=tokenizer_class, auto_map={"AutoTokenizer": auto_map}
    )
    for read in (load_tokenizer, lambda path: TokenizeText(str(path)).tokenizer):
        try:
            read(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error)  # noqa: PT017
            assert str(error).endswith(".")  # noqa: PT017
        assert not (path / "ran").exists()


HUB = "nobody/kernel"
REFUSED = [
    ({"use_pretrained_backbone": True, "backbone": "resnet50"}, "use_pretrained_backbone of .* must be false"),
    ({"backbone_config": {"model_type": "resnet", "use_pretrained_backbone": True}}, "use_pretrained_backbone of"),
    ({"attn_implementation": HUB}, "attn_implementation of .* must be one of eager, sdpa, flex_attention, got 'nobody/kernel'"),
    ({"_attn_implementation": f"{HUB}@main:flash"}, "_attn_implementation of .* must be one of"),
    ({"attn_implementation": "flash_attention_2"}, "attn_implementation of .* must be one of"),
    ({"attn_implementation": {"": "sdpa", "text_config": HUB}}, "attn_implementation of .* must be one of"),
    ({"text_config": {"attn_implementation": HUB}}, "attn_implementation of .* must be one of"),
    ({"experts_implementation": HUB}, "experts_implementation of .* must be one of"),
    ({"quantization_config": {"quant_method": "bitsandbytes"}}, "must not be quantized, got a quantization_config"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), REFUSED)
@pytest.mark.parametrize("kind", ["text", "vision"])
def test_what_would_come_from_elsewhere_is_refused_by_name(folder, kind, values, message):
    path = change(folder(kind), **values)
    with pytest.raises(ValueError, match=rf"{message}.*\.$"):
        (TextEncoder if kind == "text" else ImageEncoder)(str(path))
    config = json.loads((path / "config.json").read_text())
    with pytest.raises(ValueError, match=message):
        (TextEncoder if kind == "text" else ImageEncoder)(config)


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_a_saved_model_cannot_name_it_either(folder, values, message):
    path = folder("dual")
    config = json.loads((path / "config.json").read_text())
    config["text_encoder"]["model"].update(values)
    change(path, **config)
    with pytest.raises(ValueError, match=message):
        DualEncoder.from_pretrained(path)


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "nobody/backbone", "model_type": "upernet", "backbone_config": None},
        {"_name_or_path": "nobody/model", "name_or_path": "nobody/model"},
        {"model_type": "timm_backbone", "backbone": "resnet18"},
        {"model_type": "timm_wrapper", "architecture": "resnet18"},
        {"model_type": "rag", "generator": {"model_type": "bert"}, "question_encoder": {"model_type": "bert"}},
        {"model_type": ["bert"]}, {"model_type": None}, {"hidden_size": "8"}, {"hidden_size": -1}, {"vocab_size": 10**15},
        {"num_attention_heads": 0}, {"architectures": "Evil"}, {"is_decoder": "yes"}, {"torch_dtype": "evil"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["text", "vision"])
def test_other_settings_end_in_a_sentence_or_a_model_without_network(folder, kind, values):
    path = change(folder(kind), **values)
    config = json.loads((path / "config.json").read_text())
    for source in (str(path), config):
        try:
            (TextEncoder if kind == "text" else ImageEncoder)(source)
        except (ValueError, FileNotFoundError) as error:
            assert str(error).endswith(".")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


def test_adapters_that_name_another_model_are_refused(folder):
    path = folder("text")
    (path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "nobody/base"})
    )
    with pytest.raises(ValueError, match=r"holds adapters of peft \(adapter_config\.json\): merge them"):
        TextEncoder(str(path))


@pytest.mark.parametrize(
    "adapter",
    [
        {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2, "prompt_tuning_init": "TEXT",
         "prompt_tuning_init_text": "x", "tokenizer_name_or_path": "nobody/x",
         "tokenizer_kwargs": {"trust_remote_code": True}},
        {"peft_type": "XLORA", "hidden_size": 8, "adapters": {"a": "nobody/adapter"}},
        {"peft_type": "LORA", "target_modules": "all-linear", "megatron_config": {"x": 1}, "megatron_core": "evil"},
    ],
)  # fmt: skip
def test_adapters_that_load_what_they_name_are_refused(adapter):
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match=r"^adapter 'a' must be one of weights alone, such as LORA, got "):
        TextEncoder(BertConfig(vocab_size=40, **SIZES), adapters={"a": adapter})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe\x00", b"{}", b'{"a": ' * 9999]
)
@pytest.mark.parametrize("kind", ["text", "vision", "dual"])
def test_damaged_files_end_in_one_sentence_that_names_the_folder(folder, kind, name, content):
    path = folder(kind)
    if not (path / name).exists():
        pytest.skip("has no such file")
    (path / name).write_bytes(content)
    try:
        load(path)
    except (ValueError, OSError) as error:
        assert str(path) in str(error), error  # noqa: PT017
        assert str(error).endswith(".")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert name.startswith("tokenizer")


def test_every_reader_refuses_remote_code():
    root = Path(medvl.__file__).parent
    calls = [
        (path.name, line.strip())
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if "Auto" in line and ".from_pretrained(" in line and "trust_remote_code=False" not in line
    ]
    assert calls == []
    assert "trust_remote_code=True" not in "".join(path.read_text() for path in root.rglob("*.py"))


def test_importing_and_building_reach_no_network(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "import medvl.networks as n, medvl.evaluation, medvl.workflows, medvl.data, medvl.transforms\n"
        "n.convirt(preset='small', image_size=32)\n"
    )
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    subprocess.run([sys.executable, "-c", code], check=True, env={**environment, "HF_HOME": str(tmp_path)})


def test_a_tokenizer_without_a_padding_token_is_refused_by_name(tmp_path):
    tokenizer = train_tokenizer(["no edema"], min_patients=1)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"^the tokenizer in {tmp_path} must have a padding token, which it lacks\.$"):
        load_tokenizer(tmp_path)
