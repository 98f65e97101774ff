"""What a vocabulary file says of its language: headers, abbreviations, units, and the words that rules look at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvl.text.headers import Headers
from medvl.text.sentences import ENGLISH_CONVENTIONS, SentenceConventions
from medvl.text.yaml_files import as_strings, check_keys, read_yaml

ENGLISH = "english"
_ABBREVIATION_KEYS = {"inside", "closing"}
_UNIT_KEYS = {"measures", "counted"}
# The groups of words that the rules of assertions look at.
RULE_WORDS = (
    *("prepositions", "forward", "cause", "accompanying", "ellipsis", "exception", "auxiliary", "pronouns"),
    *("hedged_place", "remarks", "artifacts", "occasion"),
)
_WORD_GROUPS = (*RULE_WORDS, "function_words", "other_languages", "kept_words")


def _flatten(parts: Any, entry_path: str) -> list[str]:
    """A list of strings, of which some may be in lists of their own."""
    if not isinstance(parts, list):
        return as_strings(parts, entry_path)
    return as_strings([w for part in parts for w in (part if isinstance(part, list) else [part])], entry_path)


@lru_cache(maxsize=1)
def _english_words() -> dict[str, frozenset[str]]:
    """The groups of words in ``words/english.yaml``."""
    data = read_yaml(Path(__file__).parent / "words" / "english.yaml")
    return {group: frozenset(_flatten(words, group)) for group, words in data.items()}


def word_groups(data: Mapping[str, Any], source: str, is_english: bool) -> dict[str, frozenset[str]]:
    """The groups of words of a file, in addition to the English ones where it is English."""
    given = data.get("words") or {}
    check_keys(given, set(_WORD_GROUPS), f"{source}: words")
    own = {group: frozenset(_flatten(words, f"{source}: words.{group}")) for group, words in given.items()}
    base = _english_words() if is_english else {}
    return {group: base.get(group, frozenset()) | own.get(group, frozenset()) for group in _WORD_GROUPS}


def sentence_conventions(data: Mapping[str, Any], source: str, is_english: bool) -> SentenceConventions:
    """The headers, abbreviations and units of a file, in addition to the English ones where it is English."""
    sections = data.get("sections") or {}
    own = {name: [a.lower() for a in as_strings(v, f"{source}: sections.{name}")] for name, v in sections.items()}
    abbreviations, units = data.get("abbreviations") or {}, data.get("units") or {}
    check_keys(abbreviations, _ABBREVIATION_KEYS, f"{source}: abbreviations")
    check_keys(units, _UNIT_KEYS, f"{source}: units")
    lists = {
        key: as_strings(values, f"{source}: {entry}.{key}")
        for entry, mapping in (("abbreviations", abbreviations), ("units", units))
        for key, values in mapping.items()
    }
    base = ENGLISH_CONVENTIONS if is_english else SentenceConventions(Headers({}), frozenset(), frozenset())
    if not own and not lists and is_english:
        return base
    headers = base.headers
    if own:
        names = {name: [*headers.aliases.get(name, ()), *own.get(name, ())] for name in {**headers.aliases, **own}}
        headers = headers.with_aliases(names)
    return SentenceConventions(
        headers,
        base.abbreviations | frozenset(lists.get("inside", ())),
        base.closing_abbreviations | frozenset(lists.get("closing", ())),
        (*base.units, *lists.get("measures", ())),
        tuple(lists.get("counted", ())),
    )
