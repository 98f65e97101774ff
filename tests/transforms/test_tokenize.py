"""Tokens that remember their sentence, and the tokenizer trained on reports."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch
from monai.bundle import ConfigParser
from transformers import AutoTokenizer

from medvl.text import tokenize_texts
from medvl.transforms import TokenizeText, TokenizeTextd, train_tokenizer
from medvl.utils.errors import StudyError

TEXTS = [
    "No pleural effusion. Heart is normal.",
    "Small left pneumothorax, 1.5 cm. No edema or consolidation.",
    "Bibasilar atelectasis. Cardiomegaly is stable. Normal.",
]
TOKENIZER = train_tokenizer(TEXTS * 3, vocab_size=300, min_patients=1)


def words_by_sentence(out):
    tokens = TOKENIZER.convert_ids_to_tokens(out["input_ids"].tolist())
    found = {}
    for token, sentence in zip(tokens, out["sentence_ids"].tolist(), strict=True):
        found.setdefault(sentence, []).append(token)
    return {k: TOKENIZER.convert_tokens_to_string(v) for k, v in found.items() if k >= 0}


@pytest.mark.parametrize("text", TEXTS)
def test_each_token_knows_its_sentence(text):
    out = TokenizeText(TOKENIZER)(text)
    assert {name: value.dtype for name, value in out.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "sentence_ids"), torch.int64
    )
    parts = text.split(". ")
    assert [" ".join(s.split()) for s in words_by_sentence(out).values()] == [
        " ".join(TOKENIZER.convert_tokens_to_string(TOKENIZER.tokenize(p + "." * (i < len(parts) - 1))).split())
        for i, p in enumerate(parts)
    ]
    special = [i for i, t in enumerate(out["input_ids"].tolist()) if t in TOKENIZER.all_special_ids]
    assert (out["sentence_ids"] == -1).nonzero().flatten().tolist() == special


def test_a_list_of_sentences_is_taken_as_it_is():
    out = TokenizeText(TOKENIZER)(["No effusion. Heart", "is normal."])
    assert out["sentence_ids"].max() == 1
    assert TokenizeText(TOKENIZER)([])["sentence_ids"].tolist() == [-1, -1]


def test_truncation_and_padding():
    long = " ".join(TEXTS * 20)
    cut = TokenizeText(TOKENIZER, max_length=16)(long)
    assert len(cut["input_ids"]) == 16
    assert cut["input_ids"][-1] == TOKENIZER.sep_token_id
    assert len(TokenizeText(TOKENIZER)("No edema.")["input_ids"]) < 16
    padded = TokenizeText(TOKENIZER, max_length=16, padding=True)("No edema.")
    n = int(padded["attention_mask"].sum())
    assert padded["input_ids"][n:].tolist() == [0] * (16 - n)
    assert padded["sentence_ids"][n:].tolist() == [-1] * (16 - n)
    assert TokenizeText(TOKENIZER)("")["sentence_ids"].tolist() == [-1, -1]


def test_byte_level_tokenizers_that_begin_a_token_with_a_space():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    inner.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    out = TokenizeText(tokenizer)("No edema. Heart is normal.")
    second = tokenizer.decode(out["input_ids"][out["sentence_ids"] == 1].tolist())
    assert second.strip() == "Heart is normal."
    with pytest.raises(ValueError, match=r"^tokenizer must have a padding token where padding is True, got \w+\.$"):
        TokenizeText(tokenizer, padding=True)


def test_dictionary_form(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    config = {"t": {"_target_": "medvl.transforms.TokenizeTextd", "tokenizer": str(tmp_path), "max_length": 20}}
    transform = pickle.loads(pickle.dumps(ConfigParser(config).get_parsed_content("t")))
    out = transform({"text": TEXTS[0], "study_id": "s1"})
    assert out["input_ids"].equal(TokenizeText(TOKENIZER)(TEXTS[0])["input_ids"])
    out = TokenizeTextd(keys="report", tokenizer=TOKENIZER, prefix="report_")({"report": TEXTS[0]})
    assert set(out) == {"report", "report_input_ids", "report_attention_mask", "report_sentence_ids"}
    with pytest.raises(StudyError, match="study 's1', text: text must be a string, got float"):
        transform({"text": float("nan"), "study_id": "s1"})
    with pytest.raises(OSError, match=r"^the folder '/no/such/folder' holds no tokenizer, or a damaged one\.$"):
        TokenizeText("/no/such/folder")("No effusion.")
    with pytest.raises(
        ValueError, match=r"^tokenizer must be a Hugging Face tokenizer or the folder of one, got None\.$"
    ):
        TokenizeTextd()
    with pytest.raises(ValueError, match="max_length must be at least 3, got 2"):
        TokenizeText(TOKENIZER, max_length=2)


def test_a_tokenizer_without_offsets_is_refused():
    class Slow(type(TOKENIZER)):
        is_fast = False

    slow = pickle.loads(pickle.dumps(TOKENIZER))
    slow.__class__ = Slow
    with pytest.raises(
        ValueError, match=r"^tokenizer must be a fast tokenizer \(with character offsets\), got Slow\.$"
    ):
        TokenizeText(slow)


def test_trained_tokenizer_is_a_bert_tokenizer(tmp_path):
    assert TOKENIZER.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert len(TOKENIZER) <= 300
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert again(TEXTS[1])["input_ids"] == TOKENIZER(TEXTS[1])["input_ids"]
    assert again("No EDEMA")["input_ids"] == again("no edema")["input_ids"]
    pair = again("no edema", "normal")["input_ids"]
    assert pair.count(3) == 2
    assert again.decode(again("No edema.")["input_ids"], skip_special_tokens=True) == "no edema."
    cased = train_tokenizer(TEXTS, lowercase=False, min_patients=1)
    assert cased("No")["input_ids"] != cased("no")["input_ids"]


def test_training_is_the_same_in_every_process(tmp_path):
    code = (
        "import sys\nfrom medvl.transforms import train_tokenizer\n"
        f"train_tokenizer({TEXTS * 3!r}, vocab_size=300, min_patients=1).save_pretrained(sys.argv[1])"
    )
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        subprocess.run([sys.executable, "-c", code, folder], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        files.append((folder / "tokenizer.json").read_bytes())
    train_tokenizer(TEXTS * 3, vocab_size=300, min_patients=1).save_pretrained(tmp_path / "here")
    assert files[0] == files[1] == (tmp_path / "here" / "tokenizer.json").read_bytes()


def test_training_needs_text_and_room():
    with pytest.raises(ValueError, match=r"^texts must hold at least one character, got none\.$"):
        train_tokenizer([" "])
    with pytest.raises(ValueError, match=r"^vocab_size must be at least \d+ for the characters of texts, got 10\.$"):
        train_tokenizer(TEXTS, vocab_size=10)
    with pytest.raises(TypeError, match="each of texts must be a string, got NoneType"):
        train_tokenizer([None])


def test_a_tokenizer_that_pads_on_the_left_pads_on_the_right_here():
    tokenizer = train_tokenizer(["no effusion . heart is normal ."])
    expected = tokenize_texts(tokenizer, ["No effusion.", "Heart is normal. No effusion."], 16)
    tokenizer.padding_side = "left"
    found = tokenize_texts(tokenizer, ["No effusion.", "Heart is normal. No effusion."], 16)
    assert all((found[name] == expected[name]).all() for name in expected)
    mask = TokenizeText(tokenizer, max_length=32, padding=True)("No effusion.")["attention_mask"].tolist()
    assert mask == sorted(mask, reverse=True)
    assert 0 in mask


def test_a_text_that_comes_again_has_tokens_of_its_own():
    transform = TokenizeText(TOKENIZER)
    first = transform("No effusion. Heart is normal.")
    expected = {name: values.clone() for name, values in first.items()}
    for values in first.values():
        values.zero_()
    again = transform("No effusion. Heart is normal.")
    assert all(torch.equal(again[name], values) for name, values in expected.items())


def test_remembered_texts_are_bounded_and_no_part_of_its_state(monkeypatch):
    monkeypatch.setattr("medvl.transforms.tokenize.REMEMBERED_TEXTS", 3)
    transform = TokenizeText(train_tokenizer(TEXTS * 3, vocab_size=300, min_patients=1))
    transform("no")  # sets the tokenizer's length, which is a part of its state
    state = pickle.dumps(transform)
    for number in range(20):
        assert torch.equal(transform("no " * number)["input_ids"], TokenizeText(TOKENIZER)("no " * number)["input_ids"])
        assert len(transform._remembered) <= 3
    assert pickle.dumps(transform) == state
