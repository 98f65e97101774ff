"""Prompt ids put into token sequences, against list slicing."""

from __future__ import annotations

import pytest
import torch

from medvl.functional import insert_prompt_tokens


def by_lists(ids, mask, sentences, prompt, position):
    text = [i for i, s in enumerate(sentences) if s >= 0]
    opening = 1 if mask[0] and sentences[0] < 0 else 0
    start, stop = (text[0], text[-1] + 1) if text else (opening, opening)
    before = {"front": len(prompt), "end": 0, "middle": -(-len(prompt) // 2)}[position]
    first, last = (sentences[start], sentences[stop - 1]) if text else (0, 0)
    own = [[first] * before, [last] * (len(prompt) - before)]
    out = []
    for values, new in ((ids, prompt), (mask, [1] * len(prompt)), (sentences, own[0] + own[1])):
        out.append(values[:start] + new[:before] + values[start:stop] + new[before:] + values[stop:])
    return out


ROWS = [
    ([2, 50, 51, 52, 3, 0], [1, 1, 1, 1, 1, 0], [-1, 0, 0, 1, -1, -1]),
    ([2, 3, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1]),  # no text
    ([50, 51, 52, 53, 54, 55], [1, 1, 1, 1, 1, 1], [0, 0, 0, 2, 2, 2]),  # no special tokens
    ([0, 0, 2, 50, 51, 3], [0, 0, 1, 1, 1, 1], [-1, -1, -1, 0, 0, -1]),  # padded on the left
    ([2, 50, 60, 51, 3, 0], [1, 1, 1, 1, 1, 0], [-1, 0, -1, 1, -1, -1]),  # a special token amid the text
    ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1]),  # nothing at all
]


@pytest.mark.parametrize("position", ["front", "middle", "end"])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_whole_batches_come_out_as_lists_would(position, count):
    ids, mask, sentences = (torch.tensor(column) for column in zip(*ROWS, strict=True))
    prompt = torch.arange(100, 100 + count * len(ROWS)).reshape(len(ROWS), count)
    out = insert_prompt_tokens(ids, mask, sentences, prompt, position)
    for n, row in enumerate(ROWS):
        expected = by_lists(*row, prompt[n].tolist(), position)
        assert [values[n].tolist() for values in out] == expected
    shared = insert_prompt_tokens(ids, mask, sentences, prompt[0], position)[0]
    assert shared[0].tolist() == out[0][0].tolist()


@pytest.mark.parametrize("kind", [torch.bool, torch.int32, torch.float32])
def test_each_of_the_three_keeps_its_dtype(kind):
    ids, sentences = torch.tensor([[2, 50, 3]]), torch.tensor([[-1, 4, -1]], dtype=torch.int16)
    out = insert_prompt_tokens(ids, torch.ones(1, 3).to(kind), sentences, torch.tensor([7], dtype=torch.int32), "end")
    assert [x.dtype for x in out] == [torch.int64, kind, torch.int16]
    assert [x.int().tolist() for x in out] == [[[2, 50, 7, 3]], [[1, 1, 1, 1]], [[-1, 4, 4, -1]]]


def test_prompt_tokens_are_made_on_the_device_of_the_ids():
    ids = torch.zeros(2, 3, dtype=torch.int32, device="meta")
    out = insert_prompt_tokens(ids, ids, ids, torch.zeros(2, dtype=torch.int64, device="meta"), "middle")
    assert [(x.device.type, x.shape, x.dtype) for x in out] == [("meta", (2, 5), torch.int32)] * 3


def test_what_does_not_fit_is_named():
    ids = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"^position must be one of 'front', 'middle', 'end', got 'left'\.$"):
        insert_prompt_tokens(ids, ids, ids, ids[0], "left")
    with pytest.raises(ValueError, match=r"^prompt_ids must have shape \(T,\) or \(2, T\), got \(3, 1\)\.$"):
        insert_prompt_tokens(ids, ids, ids, torch.zeros(3, 1))
    message = (
        r"^attention_mask and sentence_ids must have the shape \(2, 3\) of input_ids, got \(2, 3\) and \(2, 2\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        insert_prompt_tokens(ids, ids, ids[:, :2], ids[0])
