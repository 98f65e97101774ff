"""Insertion of learned prompt tokens' placeholder ids into a token sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from medvl.utils.checks import check_option, error_message

POSITIONS = ("front", "middle", "end")


def insert_prompt_tokens(
    input_ids: Tensor, attention_mask: Tensor, sentence_ids: Tensor, prompt_ids: Tensor, position: str = "front"
) -> tuple[Tensor, Tensor, Tensor]:
    """Insert prompt tokens beside the text of every sequence, inside its special tokens.

    Args:
        input_ids: (M, L).
        attention_mask: (M, L), 0 for padding.
        sentence_ids: (M, L), the sentence of each token, -1 for special and padding tokens.
        prompt_ids: (M, T) or (T,), the ids to insert.
        position: ``"front"`` before the text, ``"end"`` after it, ``"middle"`` half before and half after.

    Returns:
        The three, (M, L + T). Prompt tokens are kept by the mask and belong to the sentence beside them; in a sequence
        without text they follow its opening token, as sentence 0.

    Raises:
        ValueError: If the position is unknown, or the shapes are inconsistent.

    Example:
        >>> ids, mask, sentences = torch.tensor([[2, 50, 3]]), torch.ones(1, 3, dtype=torch.long), torch.tensor([[-1, 0, -1]])
        >>> [out.tolist() for out in insert_prompt_tokens(ids, mask, sentences, torch.tensor([100, 101]), "middle")]
        [[[2, 100, 50, 101, 3]], [[1, 1, 1, 1, 1]], [[-1, 0, 0, 0, -1]]]
    """
    check_option(position, "position", POSITIONS)
    count, length = input_ids.shape
    if attention_mask.shape != input_ids.shape or sentence_ids.shape != input_ids.shape:
        expected = f"have the shape {tuple(input_ids.shape)} of input_ids"
        received = f"{tuple(attention_mask.shape)} and {tuple(sentence_ids.shape)}"
        raise ValueError(error_message("attention_mask and sentence_ids", expected, received))
    if prompt_ids.ndim not in (1, 2) or prompt_ids.shape[:-1] not in ((), (count,)):
        raise ValueError(error_message("prompt_ids", f"have shape (T,) or ({count}, T)", tuple(prompt_ids.shape)))
    prompt_ids = prompt_ids.expand(count, prompt_ids.shape[-1]).to(input_ids)
    added = prompt_ids.shape[1]
    before = {"front": added, "end": 0, "middle": (added + 1) // 2}[position]

    place = torch.arange(length, device=input_ids.device)
    start, stop = text_span(attention_mask, sentence_ids)  # (M, 1) each
    moved = place + before * (place >= start) + (added - before) * (place >= stop)  # (M, L), new place of each token
    order = torch.arange(added, device=input_ids.device)
    free = torch.where(order < before, start, stop) + order  # (M, T), place of each prompt token
    first = sentence_ids.gather(1, start.clamp(max=length - 1)).clamp(min=0)
    last = sentence_ids.gather(1, (stop - 1).clamp(min=0)).clamp(min=0)
    beside = torch.where(order < before, first, last)

    def merge(own: Tensor, new: Tensor) -> Tensor:
        return own.new_zeros(count, length + added).scatter(1, moved, own).scatter(1, free, new.to(own))

    return (
        merge(input_ids, prompt_ids),
        merge(attention_mask, torch.ones_like(prompt_ids)),
        merge(sentence_ids, beside),
    )


def text_span(attention_mask: Tensor, sentence_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where the text of each sequence begins and ends, (M, 1) each; after the opening special token where there is none.

    Example:
        >>> start, stop = text_span(torch.ones(1, 4), torch.tensor([[-1, 0, 1, -1]]))
        >>> start.item(), stop.item()
        (1, 3)
    """
    is_text = (sentence_ids >= 0).int()
    length = is_text.shape[1]
    opening = ((attention_mask[:, :1] != 0) & (sentence_ids[:, :1] < 0)).long()
    has_text = is_text.any(1, keepdim=True)
    start = is_text.argmax(1, keepdim=True).where(has_text, opening)
    stop = (length - is_text.flip(1).argmax(1, keepdim=True)).where(has_text, opening)
    return start, stop
