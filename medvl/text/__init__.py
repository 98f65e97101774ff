"""Report language on plain Python strings: sections, sentences, findings, prompts. No torch."""

from __future__ import annotations

from medvl.text.prompts import PromptTemplates, load_prompts
from medvl.text.sections import SECTION_ALIASES, extract_sections
from medvl.text.sentences import split_sentences
from medvl.text.spans import Span

__all__ = [
    "SECTION_ALIASES",
    "PromptTemplates",
    "Span",
    "extract_sections",
    "load_prompts",
    "split_sentences",
]
