"""The texts that a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medvl.text import load_prompt_templates
from medvl.text.prompts import STATES


def text_corpus(
    studies: Iterable[Mapping[str, Any]], names: Sequence[str] = (), templates: str = "chexpert14", limit: int = 64
) -> list[str]:
    """Every text once, and prompts of every state of some findings, since those are read too.

    Args:
        studies: with ``sentences``, ``text`` or ``report``; those without give nothing.
        names: findings of which prompts are written.
        templates: name or path of prompt templates, see :func:`medvl.text.load_prompt_templates`.
        limit: most prompts of a finding and state.

    Example:
        >>> text_corpus([{"text": "Edema."}, {"label": [1.0]}, {"text": "Edema."}], ["COVID-19"], limit=1)
        ['Edema.', 'COVID-19.', 'No COVID-19.', 'Possible COVID-19.']
    """
    phrasings = load_prompt_templates(templates)
    texts = (study.get("sentences") or [study.get("text") or study.get("report") or ""] for study in studies)
    found = [text for group in texts for text in group if text.strip()]
    written = [prompt for name in names for state in STATES for prompt in getattr(phrasings, state)(name, limit=limit)]
    return list(dict.fromkeys([*found, *written]))
