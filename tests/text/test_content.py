"""Sentences with content, and the sentence of every token."""

from __future__ import annotations

import numpy as np
import pytest

from medvl.text import content_sentences, split_sentences, tokenize_texts
from medvl.transforms import train_tokenizer

REPORT = "FINDINGS: 1. No effusion. The heart is normal in size. ___"
TOKENIZER = train_tokenizer([REPORT, "Clear lungs."], 200, min_patients=1)


def test_headers_numbers_and_marks_do_not_count():
    assert content_sentences(REPORT) == ["1. No effusion.", "The heart is normal in size."]
    assert content_sentences("FINDINGS:") == ["FINDINGS:"], "there is nothing else"
    assert content_sentences("1. 2. ___") == ["1. 2. ___"[start:end] for start, end in split_sentences("1. 2. ___")]
    assert content_sentences(" \n") == content_sentences([]) == content_sentences([" "]) == []


def test_the_sentences_with_the_most_words_where_none_has_enough():
    assert content_sentences(REPORT, min_words=3) == ["The heart is normal in size."]
    assert content_sentences(REPORT, min_words=99) == ["The heart is normal in size."]
    assert content_sentences(["No effusion.", "No edema.", "___"], min_words=3) == ["No effusion.", "No edema."]


def test_sentences_must_be_text():
    with pytest.raises(TypeError, match=r"^each sentence of report must be a string, got NoneType"):
        content_sentences(["No effusion.", None])


def test_tokens_of_a_batch_are_those_of_each_text():
    texts = [REPORT, "Clear lungs.", ["Clear lungs.", "No effusion."]]
    batch = tokenize_texts(TOKENIZER, texts, max_length=20)
    for row, text in enumerate(texts):
        alone = tokenize_texts(TOKENIZER, [text], max_length=20, padding=False)
        length = alone["input_ids"].shape[1]
        for name, values in alone.items():
            np.testing.assert_array_equal(batch[name][row, :length], values[0])
        assert (batch["sentence_ids"][row, length:] == -1).all()
        assert (batch["attention_mask"][row, length:] == 0).all()
    words = TOKENIZER.convert_ids_to_tokens(batch["input_ids"][2].tolist())
    assert [i for i, word in zip(batch["sentence_ids"][2], words, strict=True) if word == "."] == [0, 1]


def test_a_slow_tokenizer_gives_no_sentences():
    class Slow:
        is_fast = False

        def __call__(self, texts, return_offsets_mapping, **options):
            assert not return_offsets_mapping
            return TOKENIZER(texts, **options)

    assert set(tokenize_texts(Slow(), ["Clear lungs."], 8)) == {"input_ids", "attention_mask"}


def test_no_text_is_an_error():
    with pytest.raises(ValueError, match=r"^texts must hold at least one string, got none\.$"):
        tokenize_texts(TOKENIZER, [], 8)
