"""Prompt tokens and adapters inside a dual encoder: strings in, a folder that is all one needs."""

from __future__ import annotations

import pytest
import torch

from medvl.data import collate_studies
from medvl.networks import DualEncoder, convirt
from medvl.transforms import AddPromptTokens, TokenizeText, train_tokenizer

NAMES = ["Edema", "Pleural effusion", "Pneumothorax"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["no edema . pleural effusion . pneumothorax", "the heart is normal ."], min_patients=1)


def make(tokenizer, **prompts) -> DualEncoder:
    torch.manual_seed(0)
    model = convirt("small", image_size=32, image_encoder="resnet10", embed_dim=8, tokenizer=tokenizer)
    if prompts:
        model.text_encoder.add_prompt_tokens(**prompts)
    return model.eval()


@pytest.mark.parametrize("position", ["front", "middle", "end"])
@pytest.mark.parametrize("classes", [None, 3])
def test_strings_get_the_tokens_that_the_transform_would_give_them(tokenizer, position, classes):
    model = make(tokenizer, num_tokens=5, num_classes=classes, position=position)
    embeds = model.encode_with_prompt_tokens(NAMES, None if classes is None else [0, 1, 2])
    add = AddPromptTokens(5, model.text_encoder.vocab_size, position, per_class=classes is not None)
    batch = collate_studies([add(TokenizeText(tokenizer)(name), i) for i, name in enumerate(NAMES)])
    expected = model.encode_text(batch["input_ids"], batch["attention_mask"])
    assert torch.allclose(embeds, expected, atol=1e-6)
    assert (embeds - model.encode_text(NAMES)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["none", "lstm"])
def test_a_saved_folder_holds_the_tokens_and_their_place(tokenizer, tmp_path, kind):
    model = make(tokenizer, num_tokens=4, num_classes=3, reparameterization=kind, position="end")
    model.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    assert torch.equal(
        again.encode_with_prompt_tokens(NAMES, [2, 0, 1]), model.encode_with_prompt_tokens(NAMES, [2, 0, 1])
    )
    assert torch.equal(again.encode_text(NAMES), model.encode_text(NAMES))


def test_adapters_are_saved_with_it(tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    model = make(tokenizer)
    options = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    model.text_encoder.model = peft.get_peft_model(model.text_encoder.model, options)
    model.text_encoder.add_prompt_tokens(2)
    model.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path)
    assert torch.equal(again.encode_with_prompt_tokens(NAMES), model.encode_with_prompt_tokens(NAMES))


def test_long_texts_give_way_to_the_tokens(tokenizer):
    model = make(tokenizer, num_tokens=16)
    assert model.encode_with_prompt_tokens(["the heart is normal " * 400]).isfinite().all()


def test_learning_prompts_changes_them_alone_bit_for_bit(tokenizer):
    model = make(tokenizer).requires_grad_(False)
    prompts = model.text_encoder.add_prompt_tokens(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image_embeds = model.encode_image(torch.rand(6, 1, 32, 32))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.Adam(prompts.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        logits = image_embeds @ model.encode_with_prompt_tokens(NAMES).T * 10
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == [name for name in before if name.endswith("prompt_tokens.vectors")]


def test_the_prompted_text_encoder_exports(tokenizer):
    encoder = make(tokenizer, num_tokens=2).text_encoder
    ids = torch.tensor([[2, 5, encoder.vocab_size, encoder.vocab_size + 1, 3]] * 2)
    exported = torch.export.export(encoder, (ids, torch.ones_like(ids)), strict=False)
    assert torch.allclose(exported.module()(ids, torch.ones_like(ids))["embed"], encoder(ids)["embed"], atol=1e-5)
