"""The text encoder over many architectures: poolings, sentences, prompt tokens, freezing, saving."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertForMaskedLM, CLIPConfig, CLIPModel, T5Config, T5Model

from medvl.networks import ContinuousPromptEmbedding, TextEncoder

BERT = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SHAPE = {name: BERT[name] for name in list(BERT)[1:5]}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "bert": (BERT, "cls"),
    "roberta": ({**BERT, "max_position_embeddings": 14, "pad_token_id": 1}, "cls"),
    "distilbert": ({"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 12}, "mean"),
    "clip_text_model": ({**SHAPE, "max_position_embeddings": 12, **TOKENS}, "last"),
    "siglip_text_model": ({**SHAPE, "max_position_embeddings": 12, **TOKENS}, "last"),
    "gpt2": ({"n_embd": 8, "n_layer": 3, "n_head": 2, "n_positions": 12, **TOKENS}, "last"),
    "bart": (
        {
            "d_model": 8,
            "encoder_layers": 3,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "max_position_embeddings": 12,
            "scale_embedding": True,
        },
        "last_layers",
    ),
    "t5": ({"d_model": 8, "num_layers": 3, "num_heads": 2, "d_ff": 16, "d_kv": 4}, "mean"),
    "modernbert": ({**SHAPE, "cls_token_id": 1, "sep_token_id": 2, "max_position_embeddings": 12, **TOKENS}, "max"),
}
SENTENCES = torch.tensor([[-1, 0, 0, 1, -1, -1], [-1, 0, 2, 2, 2, -1], [-1, -1, -1, -1, -1, -1]])
IDS = torch.tensor([[3, 7, 8, 9, 4, 0], [3, 11, 12, 13, 14, 4], [3, 4, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])


def make(name: str = "bert", pooling: str | None = None, **options) -> TextEncoder:
    torch.manual_seed(0)
    config, default = MODELS[name]
    encoder = TextEncoder({"model_type": name, "vocab_size": 40, **config}, pooling or default, **options)
    return encoder.eval()


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_prompt_tokens_serve_beside_the_table_with_no_surgery(self, name):
        encoder = make(name)
        plain = encoder(IDS, MASK)["embed"]
        encoder.add_prompt_tokens(3, initial_ids=[7, 8, 9])
        assert torch.equal(encoder(IDS, MASK)["embed"], plain)
        prompted = IDS.clone()
        prompted[0, 1:4] = torch.arange(3) + encoder.vocab_size
        assert encoder.vocab_size == 40
        assert torch.allclose(encoder(prompted, MASK)["embed"], plain, atol=1e-6)
        with torch.no_grad():
            encoder.prompt_tokens.vectors.add_(torch.randn(1, 3, 8))
        moved = encoder(prompted, MASK)["embed"]
        assert (moved[0] - plain[0]).abs().max() > 1e-4
        assert torch.allclose(moved[1:], plain[1:], atol=1e-6)

    def test_configuration_and_weights_give_the_same_encoder(self, name):
        encoder = make(
            name, prompt_tokens={"num_tokens": 2, "num_classes": 2, "reparameterization": "mlp", "position": "end"}
        )
        config = json.loads(json.dumps(encoder.to_config()))
        again = TextEncoder.from_config(config).eval()
        again.load_state_dict(encoder.state_dict())
        ids = IDS.masked_fill(IDS == 8, 43)
        for key, value in encoder(ids, MASK, SENTENCES).items():
            assert torch.equal(value, again(ids, MASK, SENTENCES)[key]), key
        assert again.to_config() == encoder.to_config()

    def test_gradient_reaches_every_parameter_and_frozen_layers_get_none(self, name):
        encoder = make(name, prompt_tokens={"num_tokens": 2}).train()
        ids = torch.cat([IDS, torch.tensor([[3, 40, 41, 5, 6, 4]])])
        mask = torch.cat([MASK, torch.ones_like(MASK[:1])])

        def gradients() -> dict[str, bool]:
            encoder.zero_grad()
            output = encoder(ids, mask)
            (output["embed"] * torch.randn_like(output["embed"])).sum().backward()
            return {n: v.grad is not None and bool(v.grad.any()) for n, v in encoder.named_parameters()}

        # a key's bias moves all scores of a softmax alike; a type that no token has is never looked up
        never = [
            n for n, reached in gradients().items() if not reached and "k_proj.bias" not in n and "key.bias" not in n
        ]
        assert never == []
        encoder.freeze(2)
        trained = [n for n, reached in gradients().items() if reached]
        assert any("prompt_tokens" in n for n in trained)
        assert not [n for n in trained if "embed" in n and "prompt_tokens" not in n and "layernorm_embedding" not in n]
        layers = {int(found[1]) for n in trained if (found := re.search(r"\.(?:layers?|block|h)\.(\d)\.", n))}
        assert layers == {2}
        encoder.freeze()
        assert [n for n, v in encoder.named_parameters() if v.requires_grad] == [
            n for n in trained if "prompt_tokens" in n
        ]

    def test_texts_as_long_as_the_table_run_and_longer_ones_are_an_error(self, name):
        encoder = make(name)
        limit = encoder.max_length
        assert limit == (512 if name == "t5" else 12)
        long = torch.randint(5, 40, (1, limit + 1))
        assert encoder(long[:, :limit])["tokens"].shape == (1, limit, 8)
        with pytest.raises(ValueError, match=f"{limit + 1} tokens a text, more than the model's {limit} positions"):
            encoder(long)
        if name not in ("t5", "modernbert"):  # the others' own table ends there, which is why
            with pytest.raises((IndexError, RuntimeError, ValueError)):
                encoder.model(input_ids=long, attention_mask=torch.ones_like(long))

    def test_padding_changes_nothing_and_a_text_without_tokens_is_a_number(self, name):
        encoder = make(name)
        alone = encoder(IDS[:1, :5], MASK[:1, :5])
        assert torch.allclose(alone["embed"], encoder(IDS, MASK)["embed"][:1], atol=1e-5)
        nothing = encoder(IDS[:1], torch.zeros_like(MASK[:1]), SENTENCES[:1])
        assert nothing["embed"].isfinite().all()
        assert not nothing["embed"].any()
        assert not nothing["sentence_mask"].any()


def test_sentences_are_the_means_of_their_kept_tokens():
    encoder = make()
    mask = MASK.clone()
    mask[1, 4] = 0
    output = encoder(IDS, mask, SENTENCES)
    assert output["sentences"].shape == (3, 3, 8)
    for n in range(3):
        for s in range(3):
            tokens = [output["tokens"][n, i] for i in range(6) if SENTENCES[n, i] == s and mask[n, i]]
            assert bool(output["sentence_mask"][n, s]) == bool(tokens)
            expected = torch.stack(tokens).mean(0) if tokens else torch.zeros(8)
            assert torch.allclose(output["sentences"][n, s], expected, atol=1e-6)


def test_poolings_are_what_they_say():
    reference = make()
    states = reference.model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    last, kept = states[-1], [row.nonzero().flatten() for row in MASK]
    mean3 = (states[1] + states[2] + states[3]) / 3
    expected = {
        "cls": [last[n, 0] for n in range(3)],
        "last": [last[n, k[-1]] for n, k in enumerate(kept)],
        "mean": [last[n, k].mean(0) for n, k in enumerate(kept)],
        "max": [last[n, k].amax(0) for n, k in enumerate(kept)],
        "last_layers": [mean3[n, k].mean(0) for n, k in enumerate(kept)],
    }
    for pooling, values in expected.items():
        encoder = TextEncoder(reference.model, pooling).eval()
        assert torch.allclose(encoder(IDS, MASK)["embed"], torch.stack(values), atol=1e-6), pooling


def test_first_and_last_tokens_are_found_behind_padding_on_the_left():
    encoder = make("gpt2", "last")
    ids, mask = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    output = encoder(ids, mask)
    assert torch.equal(output["embed"], output["tokens"][:, -1])
    bert = make("bert", "cls")
    output = bert(ids, mask)
    assert torch.equal(output["embed"], torch.stack([output["tokens"][0, 2], output["tokens"][1, 0]]))


@pytest.mark.parametrize("name", ["gpt2", "clip_text_model"])
def test_the_first_token_of_a_causal_model_is_refused(name):
    with pytest.raises(ValueError, match="pooling='cls' reads the first token, which knows nothing of the text"):
        make(name, "cls")


def test_models_with_heads_poolers_decoders_or_image_encoders_give_their_text_part(tmp_path):
    assert type(TextEncoder(BertForMaskedLM(BertConfig(**BERT))).model).__name__ == "BertModel"
    assert not [
        n for n, _ in TextEncoder(AutoModel.from_config(BertConfig(**BERT))).named_parameters() if "pooler" in n
    ]
    seq2seq = T5Model(T5Config(vocab_size=40, **MODELS["t5"][0]))
    again = TextEncoder.from_config(TextEncoder(seq2seq, "mean").to_config())
    assert again.state_dict().keys() == TextEncoder(seq2seq, "mean").state_dict().keys()
    text, vision = {**SHAPE, "vocab_size": 40, **TOKENS}, {**SHAPE, "image_size": 8, "patch_size": 4}
    pair = CLIPModel(CLIPConfig(text_config=text, vision_config=vision))
    encoder = TextEncoder(pair, "last")
    assert encoder.out_features == 8
    assert TextEncoder.from_config(encoder.to_config()).state_dict().keys() == encoder.state_dict().keys()
    pair.save_pretrained(tmp_path)
    loaded = TextEncoder(tmp_path, "last").eval()
    assert torch.equal(loaded(IDS, MASK)["embed"], encoder.eval()(IDS, MASK)["embed"])


def test_a_folder_is_read_whole_in_float32_and_leaves_no_trace_of_its_place(tmp_path):
    model = AutoModel.from_config(BertConfig(**BERT)).half()
    model.save_pretrained(tmp_path / "half")
    encoder = TextEncoder(tmp_path / "half").eval()
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.model.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight.float())
    assert str(tmp_path) not in json.dumps(encoder.to_config())
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith(("encoder.layer.2", "pooler"))}
    model.save_pretrained(tmp_path / "partial", state_dict=weights)
    with pytest.raises(
        ValueError, match=r"must hold all 53 weights of a BertModel, 16 are missing, such as encoder\.layer\.2\."
    ):
        TextEncoder(tmp_path / "partial")


def test_prompt_tokens_find_their_place_and_class():
    encoder = make(prompt_tokens={"num_tokens": 2, "num_classes": 3, "position": "middle"})
    tokens = encoder.insert_prompt_tokens(IDS, MASK, SENTENCES, class_indices=[2, 0, 1])
    assert tokens["input_ids"].tolist() == [
        [3, 44, 7, 8, 9, 45, 4, 0],
        [3, 40, 11, 12, 13, 14, 41, 4],
        [3, 42, 43, 4, 0, 0, 0, 0],
    ]
    assert encoder(**tokens)["sentences"].shape == (3, 3, 8)
    with pytest.raises(ValueError, match=r"^class_indices must be given for prompt tokens of 3 classes\.$"):
        encoder.insert_prompt_tokens(IDS, MASK, SENTENCES)
    for wrong in ([0, 1, 3], [0, -1, 1], [0, 1], 2, [0.0, 1.0, 2.0]):
        expected = f"class_indices must be one class from 0 to 2 for each of 3 texts, got {wrong}."
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            encoder.insert_prompt_tokens(IDS, MASK, SENTENCES, wrong)
    encoder.add_prompt_tokens(2)
    with pytest.raises(ValueError, match=r"^class_indices must be None for prompt tokens shared by all classes\.$"):
        encoder.insert_prompt_tokens(IDS, MASK, SENTENCES, [0, 1, 2])
    with pytest.raises(ValueError, match="has no prompt tokens: call add_prompt_tokens first"):
        make().insert_prompt_tokens(IDS, MASK, SENTENCES)


def test_learning_moves_the_prompt_vectors_and_not_a_bit_of_anything_else():
    encoder = make().requires_grad_(False)
    prompts = encoder.add_prompt_tokens(2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        encoder(torch.tensor([[3, 40, 41, 4]]))["embed"].square().sum().backward()
        optimizer.step()
    changed = [name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["model.embeddings.word_embeddings.prompt_tokens.vectors"]
    assert isinstance(encoder.model.get_input_embeddings(), ContinuousPromptEmbedding)
    assert [p.data_ptr() for p in prompts.parameters()] == [prompts.vectors.data_ptr()]


def test_freezing_takes_every_list_that_a_models_layers_are_kept_in():
    encoder = TextEncoder({"model_type": "flaubert", "n_words": 40, "emb_dim": 8, "n_layers": 3, "n_heads": 2}, "mean")
    encoder.freeze(2)
    layers = [name for name, value in encoder.named_parameters() if value.requires_grad]
    assert layers
    assert all(".2." in name for name in layers), layers


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: make(pooling="sum"),
            "pooling must be one of 'cls', 'mean', 'max', 'last_layers', 'last_four_layers', 'last', got 'sum'.",
        ),
        (lambda: make()(IDS[0]), "input_ids must be integers of shape (M, L), got torch.int64 of shape (6,)."),
        (
            lambda: make()(IDS, MASK[:, :4]),
            "input_ids and attention_mask must share one shape (M, L), got (3, 6) and (3, 4).",
        ),
        (
            lambda: make()(IDS, MASK, SENTENCES[:2]),
            "input_ids and sentence_ids must share one shape (M, L), got (3, 6) and (2, 6).",
        ),
        (
            lambda: make()(IDS.float()),
            "input_ids must be integers of shape (M, L), got torch.float32 of shape (3, 6).",
        ),
        (lambda: make()(IDS - 1), "input_ids must be from 0 to 39, got -1."),
        (lambda: make()(IDS + 36), "input_ids must be from 0 to 39, got 50."),
        (lambda: make().freeze(4), "layers must be between 0 and the model's 3, got 4."),
        (
            lambda: TextEncoder({"model_type": "albert", **BERT, "embedding_size": 8}).freeze(1),
            "layers must be None for a AlbertModel, which has no list of 3 layers.",
        ),
        (
            lambda: make().add_prompt_tokens(2, position="left"),
            "position must be one of 'front', 'middle', 'end', got 'left'.",
        ),
        (
            lambda: TextEncoder({"hidden_size": 8}),
            "model, a configuration, must have a model_type, got hidden_size.",
        ),
        (
            lambda: TextEncoder({"model_type": "vit", **SHAPE, "image_size": 8, "patch_size": 4}),
            "model must be a text model, got a ViTModel, which takes pixel_values.",
        ),
        (
            lambda: TextEncoder("no-such-folder"),
            "model must be a Hugging Face model, a configuration or a local folder, got 'no-such-folder'; nothing is "
            "downloaded here: `hf download no-such-folder` fetches a model of the Hugging Face Hub of this name.",
        ),
        (
            lambda: TextEncoder(AutoConfig.for_model("bert", **{**BERT, "num_hidden_layers": 1}), "last_layers"),
            "pooling='last_layers' needs at least 2 hidden layers, the model has 1.",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert str(caught.value) == message


class TestAdapters:
    @pytest.fixture
    def encoder(self):
        peft = pytest.importorskip("peft")
        torch.manual_seed(0)
        base = AutoModel.from_config(BertConfig(**BERT))
        options = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
        return TextEncoder(peft.get_peft_model(base, options), "mean").eval()

    def test_they_are_saved_and_built_anew_with_prompt_tokens_beside_them(self, encoder):
        encoder.add_prompt_tokens(2)
        again = TextEncoder.from_config(json.loads(json.dumps(encoder.to_config()))).eval()
        again.load_state_dict(encoder.state_dict())
        ids = IDS.masked_fill(IDS == 8, 41)
        assert torch.equal(again(ids, MASK)["embed"], encoder(ids, MASK)["embed"])
        trainable = [[n for n, v in e.named_parameters() if v.requires_grad] for e in (encoder, again)]
        assert trainable[0] == trainable[1]
        assert all("lora_" in n or "prompt_tokens" in n for n in trainable[0])

    def test_freezing_leaves_them_to_learn(self, encoder):
        before = [n for n, v in encoder.named_parameters() if v.requires_grad]
        encoder.model.get_base_model().requires_grad_(True)
        encoder.freeze()
        assert [n for n, v in encoder.named_parameters() if v.requires_grad] == before
        encoder.train()(IDS, MASK)["embed"].square().sum().backward()
        assert all(v.grad.any() for v in encoder.parameters() if v.requires_grad)

    def test_merged_they_are_part_of_the_model(self, encoder):
        with_adapters = encoder(IDS, MASK)["embed"]
        encoder.merge_adapters()
        assert torch.allclose(encoder(IDS, MASK)["embed"], with_adapters, atol=1e-5)
        assert "adapters" not in encoder.to_config()
        assert TextEncoder.from_config(encoder.to_config()).state_dict().keys() == encoder.state_dict().keys()

    def test_prompt_tokens_of_peft_are_refused(self):
        peft = pytest.importorskip("peft")
        config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
        model = peft.get_peft_model(AutoModel.from_config(BertConfig(**BERT)), config)
        with pytest.raises(ValueError, match=r"prompt tokens of peft, .* use add_prompt_tokens"):
            TextEncoder(model)

    def test_a_head_under_them_is_refused(self):
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(BertForMaskedLM(BertConfig(**BERT)), peft.LoraConfig(target_modules=["query"]))
        with pytest.raises(
            ValueError, match=r"^model must be wrapped by peft without its head, got a BertForMaskedLM\.$"
        ):
            TextEncoder(model)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        *[({"model_type": "bert", **BERT}, pooling) for pooling in ("cls", "mean", "max", "last_layers", "last")],
        ({"model_type": "roberta", **BERT, "pad_token_id": 1}, "cls"),
        ({"model_type": "gpt2", "vocab_size": 40, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}, "last"),
        (
            {
                "model_type": "t5",
                "vocab_size": 40,
                "d_model": 8,
                "num_layers": 2,
                "num_heads": 2,
                "d_kv": 4,
                "d_ff": 16,
            },
            "mean",
        ),
    ],
)
def test_padding_on_the_left_makes_no_difference(config, pooling):
    torch.manual_seed(0)
    encoder = TextEncoder(config, pooling).eval()
    ids, sentences = torch.tensor([[2, 7, 9, 3]]), torch.tensor([[-1, 0, 1, -1]])
    alone = encoder(ids, torch.ones_like(ids), sentences)
    left = encoder(
        torch.tensor([[1, 1, 1, 2, 7, 9, 3], [2, 5, 6, 7, 8, 9, 3]]),
        torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7]),
        torch.tensor([[-1, -1, -1, -1, 0, 1, -1], [-1, 0, 0, 0, 1, 1, -1]]),
    )
    torch.testing.assert_close(left["embed"][:1], alone["embed"])
    torch.testing.assert_close(left["tokens"][:1, 3:], alone["tokens"])
    torch.testing.assert_close(left["sentences"][:1], alone["sentences"])


@pytest.mark.parametrize("layers", ["all", 1.5, True])
def test_layers_to_freeze_are_an_integer(layers):
    with pytest.raises(TypeError, match=rf"^layers must be an integer, got {layers!r}\.$"):
        make().freeze(layers)
