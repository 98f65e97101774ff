"""Learned prompt tokens: look-up, initialization, re-parameterisation, saving, tied weights."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM
from transformers.models.bart.modeling_bart import BartScaledWordEmbedding

from medvl.networks import ContinuousPromptEmbedding

SIZES = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def seeded(**options) -> ContinuousPromptEmbedding:
    torch.manual_seed(0)
    return ContinuousPromptEmbedding(nn.Embedding(10, 6), **options)


@pytest.mark.parametrize("classes", [None, 3])
def test_every_id_is_looked_up_where_it_belongs(classes):
    prompted = seeded(num_tokens=4, num_classes=classes)
    ids = torch.randint(10 + prompted.num_prompt_ids, (2, 3, 5))
    out = prompted(ids)
    assert out.shape == (2, 3, 5, 6)
    for place in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        i = int(ids[tuple(place)])
        expected = prompted.weight[i] if i < 10 else prompted.prompt_tokens.vectors[(i - 10) // 4, (i - 10) % 4]
        assert torch.equal(out[tuple(place)], expected)


@pytest.mark.parametrize("wrong", [12, -1])
def test_ids_that_neither_table_nor_prompts_have_are_an_error(wrong):
    with pytest.raises(ValueError, match=rf"^input_ids must be from 0 to 11, the last prompt token, got {wrong}\.$"):
        seeded(num_tokens=2)(torch.tensor([3, wrong]))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([7, 8], [[7, 8, 7]]), ([1, 2, 3, 4], [[1, 2, 3]]), (torch.tensor([5]), [[5, 5, 5]])],
)
def test_a_text_repeated_or_cut_is_the_start(ids, expected):
    prompted = seeded(num_tokens=3, initial_ids=ids)
    assert torch.equal(prompted.prompt_tokens(), prompted.weight[torch.tensor(expected)])


def test_each_class_may_start_from_a_text_of_its_own():
    prompted = seeded(num_tokens=2, num_classes=2, initial_ids=[[1], [4, 5]])
    assert torch.equal(prompted.prompt_tokens(), prompted.weight[torch.tensor([[1, 1], [4, 5]])])


def test_random_start_has_the_tables_scale():
    table = nn.Embedding(2000, 32)
    nn.init.normal_(table.weight, mean=0.5, std=0.02)
    vectors = ContinuousPromptEmbedding(table, 200).prompt_tokens()
    assert vectors.mean().item() == pytest.approx(0.5, abs=0.002)
    assert vectors.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("kind", ["none", "mlp", "lstm"])
@pytest.mark.parametrize("classes", [None, 3])
def test_training_starts_from_the_text_and_reaches_every_parameter(kind, classes):
    prompted = seeded(
        num_tokens=3, num_classes=classes, initial_ids=[2, 4, 6], reparameterization=kind, hidden_features=5
    )
    start = prompted.weight[torch.tensor([2, 4, 6])].expand(classes or 1, -1, -1)
    assert (prompted.prompt_tokens() - start).abs().max() < 0.02
    ids = torch.arange(10, 10 + prompted.num_prompt_ids)
    (prompted(ids) * torch.randn(len(ids), 6)).sum().backward()
    for name, value in prompted.prompt_tokens.named_parameters():
        assert value.grad is not None, name
        # relu may be shut for a hidden unit, and the first LSTM layer's initial state has no weight to learn
        assert value.grad.abs().sum() > 0, name
    assert prompted.weight.grad is None or prompted.weight.grad.abs().sum() == 0


def test_lstm_tokens_depend_on_each_other_and_mlp_tokens_do_not():
    for kind, depend in (("mlp", False), ("lstm", True)):
        prompted = seeded(num_tokens=3, reparameterization=kind)
        jacobian = torch.autograd.functional.jacobian(
            lambda v, m=prompted.prompt_tokens: functional(m, v), vectors(prompted)
        )
        assert bool(jacobian[0, 0, :, 0, 2].abs().sum() > 0) is depend


def vectors(prompted):
    return prompted.prompt_tokens.vectors.detach()


def functional(module, value):
    return torch.func.functional_call(module, {"vectors": value}, ())


def test_no_step_moves_the_table_where_it_is_frozen():
    prompted = seeded(num_tokens=2)
    prompted.weight.requires_grad_(False)
    before = prompted.weight.clone()
    optimizer = torch.optim.AdamW([p for p in prompted.parameters() if p.requires_grad], lr=0.1)
    prompted(torch.tensor([1, 10, 11])).square().sum().backward()
    optimizer.step()
    assert torch.equal(prompted.weight, before)
    assert optimizer.param_groups[0]["params"] == [prompted.prompt_tokens.vectors]


def test_weights_saved_before_the_tokens_came_load_into_the_table(tmp_path):
    table = nn.Embedding(10, 6)
    save_file(table.state_dict(), tmp_path / "plain.safetensors")
    prompted = seeded(num_tokens=2)
    report = prompted.load_state_dict(load_file(tmp_path / "plain.safetensors"), strict=False)
    assert report.missing_keys == ["prompt_tokens.vectors"]
    assert report.unexpected_keys == []
    assert torch.equal(prompted.weight, table.weight)


@pytest.mark.parametrize("kind", ["none", "mlp", "lstm"])
def test_configuration_and_safetensors_give_the_same_embedding(tmp_path, kind):
    prompted = seeded(num_tokens=2, num_classes=2, reparameterization=kind)
    save_file(prompted.state_dict(), tmp_path / "prompted.safetensors")
    again = ContinuousPromptEmbedding.from_config(nn.Embedding(10, 6), prompted.to_config())
    again.load_state_dict(load_file(tmp_path / "prompted.safetensors"))
    ids = torch.arange(14)
    assert torch.equal(again(ids), prompted(ids))
    assert torch.equal(copy.deepcopy(prompted)(ids), prompted(ids))


def test_a_tied_output_stays_tied():
    model = BertForMaskedLM(BertConfig(**SIZES))
    table = model.get_input_embeddings()
    model.set_input_embeddings(ContinuousPromptEmbedding(table, 3))
    model.tie_weights()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight is table.weight
    assert model(input_ids=torch.tensor([[2, 20, 21, 22, 5]])).logits.shape == (1, 5, 20)


def test_resizing_keeps_the_tokens_and_moves_their_ids():
    model = BertForMaskedLM(BertConfig(**SIZES))
    model.set_input_embeddings(ContinuousPromptEmbedding(model.get_input_embeddings(), 3))
    vectors = model.get_input_embeddings().prompt_tokens().clone()
    model.resize_token_embeddings(26)
    prompted = model.get_input_embeddings()
    assert prompted.num_embeddings == 26
    assert torch.equal(prompted(torch.tensor([26, 27, 28])), vectors[0])
    assert model.get_output_embeddings().weight is prompted.weight


def test_a_table_of_another_kind_is_looked_up_its_own_way():
    table = BartScaledWordEmbedding(10, 4, padding_idx=1, embed_scale=3.0)
    prompted = ContinuousPromptEmbedding(table, 2, initial_ids=[5])
    out = prompted(torch.tensor([4, 10]))
    assert torch.equal(out[0], 3 * table.weight[4])
    assert torch.equal(out[1], 3 * table.weight[5])
    assert prompted.padding_idx == 1


def test_new_tokens_take_the_place_of_the_old():
    first = seeded(num_tokens=2)
    second = ContinuousPromptEmbedding(first, 5, initial_ids=[3])
    assert second.weight is first.weight
    assert [name for name, _ in second.named_parameters()] == ["weight", "prompt_tokens.vectors"]
    assert torch.equal(second(torch.tensor([2, 14])), first.weight[[2, 3]])


def test_it_compiles_whole_and_keeps_the_tables_dtype():
    prompted = seeded(num_tokens=2)
    ids = torch.tensor([[1, 10, 11]])
    assert torch.equal(torch.compile(prompted, backend="eager", fullgraph=True)(ids), prompted(ids))
    assert prompted.to(torch.bfloat16)(ids).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, "num_tokens must be at least 1, got 0."),
        ({"num_tokens": 1, "num_classes": 0}, "num_classes must be at least 1, got 0."),
        (
            {"num_tokens": 1, "reparameterization": "gru"},
            "reparameterization must be one of 'none', 'mlp', 'lstm', got 'gru'.",
        ),
        ({"num_tokens": 1, "initial_ids": [3, 10]}, "initial_ids must be from 0 to 9, got 10."),
        (
            {"num_tokens": 1, "num_classes": 2, "initial_ids": [[1], []]},
            "initial_ids must be one list of ids or 2 lists, none of them empty, got lists of lengths [1, 0].",
        ),
        (
            {"num_tokens": 1, "initial_ids": []},
            "initial_ids must be one list of ids or 1 lists, none of them empty, got lists of lengths [0].",
        ),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match="^" + message.replace("[", r"\[").replace("]", r"\]") + "$"):
        seeded(**options)


def test_what_is_no_table_is_named():
    with pytest.raises(TypeError, match=r"^embedding must be of type Embedding, got Identity\.$"):
        ContinuousPromptEmbedding(nn.Identity(), 2)
