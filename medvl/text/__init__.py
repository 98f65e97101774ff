"""Report language on plain Python strings: sections, sentences, findings, prompts. No torch."""

from __future__ import annotations

from medvl.text.augment import augment_text
from medvl.text.content import content_sentences
from medvl.text.explanation import (
    FindingExplanation,
    PhraseExplanation,
    ScopeExplanation,
    SentenceExplanation,
    explain_findings,
)
from medvl.text.findings import Mention, find_findings, label_report, label_sentences, skipped_sentences
from medvl.text.headers import SECTION_ALIASES, Headers
from medvl.text.label_table import LabelSummary
from medvl.text.prompts import PromptTemplates, load_prompt_templates, make_class_prompts
from medvl.text.sections import extract_sections
from medvl.text.sentences import SentenceConventions, split_sentences
from medvl.text.spans import Span
from medvl.text.tokens import tokenize_texts
from medvl.text.vocabulary import Vocabulary, finding_names, load_vocabulary, vocabulary_names

__all__ = [
    "SECTION_ALIASES",
    "FindingExplanation",
    "Headers",
    "LabelSummary",
    "Mention",
    "PhraseExplanation",
    "PromptTemplates",
    "ScopeExplanation",
    "SentenceConventions",
    "SentenceExplanation",
    "Span",
    "Vocabulary",
    "augment_text",
    "content_sentences",
    "explain_findings",
    "extract_sections",
    "find_findings",
    "finding_names",
    "label_report",
    "label_sentences",
    "load_prompt_templates",
    "load_vocabulary",
    "make_class_prompts",
    "skipped_sentences",
    "split_sentences",
    "tokenize_texts",
    "vocabulary_names",
]
