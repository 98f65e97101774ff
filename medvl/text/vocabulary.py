"""Vocabularies: the phrases for each finding and cue, read from YAML, checked and compiled once.

1. :func:`load_vocabulary` finds the file and reads it with :func:`read_yaml`; one file is compiled once in a process.
2. :func:`_check_file` checks the layout, so that what follows only meets entries of the right kind.
3. :class:`Vocabulary` adds every phrase to one :class:`medvl.text.phrases.PhraseMatcher`: punctuation, the cues of
   ``vocabularies/assertion.yaml``, the file's own cues, then findings, structures and statements of a normal study.
   Each phrase carries a pair: its kind of :mod:`medvl.text.phrase_kinds`, and a value such as the name of a finding.

How the phrases of a sentence are interpreted is in :mod:`medvl.text.assertion`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvl.text.languages import ENGLISH, RULE_WORDS, sentence_conventions, word_groups
from medvl.text.phrase_kinds import (
    ALTERNATIVE,
    BLOCKER,
    COLON,
    COMMA,
    CONTINUING,
    DISEASE,
    FORMER,
    HISTORY,
    HISTORY_AFTER,
    IGNORE,
    KIND_NAMES,
    LINKER,
    MODIFIER,
    NEGATION,
    NEGATION_AFTER,
    NEGATION_BOTH,
    NEUTRAL,
    NORMAL_STATEMENT,
    ONLY_ABSENT,
    PERSISTENCE,
    PREDICATE,
    PSEUDO,
    SEVERITY,
    SIDE,
    STOP,
    STRUCTURE,
    TERM,
    UNCERTAINTY,
    UNCERTAINTY_AFTER,
    VERB,
    VERSUS,
    WITH_PLACE,
    Meaning,
)
from medvl.text.phrases import PhraseMatcher
from medvl.text.yaml_files import Version, as_strings, check_keys, extended_files, read_extended, read_yaml, version_of
from medvl.utils.checks import check_option, error_message
from medvl.utils.limits import check_regular_file

_FOLDER = Path(__file__).parent / "vocabularies"
_ASSERTION = "assertion"

_CUE_KINDS = {
    KIND_NAMES[kind]: kind
    for kind in (
        *(NEGATION, NEGATION_BOTH, NEGATION_AFTER, UNCERTAINTY, UNCERTAINTY_AFTER, HISTORY, FORMER, VERSUS),
        *(HISTORY_AFTER, PSEUDO, STOP, VERB, LINKER, ALTERNATIVE, CONTINUING, MODIFIER, PERSISTENCE, NEUTRAL),
    )
}
# A phrase of these kinds gives way to a phrase that begins inside it and ends behind it: "is negative" to "negative for".
YIELDING_KINDS = (
    (NEGATION_AFTER | NEGATION_BOTH | UNCERTAINTY_AFTER | HISTORY_AFTER) | PERSISTENCE | VERB | NORMAL_STATEMENT
)
_ATTRIBUTE_KINDS = {"severity": SEVERITY, "side": SIDE}
_PUNCTUATION_KINDS = {
    ",": COMMA,
    ":": COLON,
    ";": STOP,
    "|": STOP,
    "comma": COMMA,
    "?": UNCERTAINTY,
}
_PUNCTUATION_KINDS |= dict.fromkeys(("-", "--", "---", "\u2013", "\u2014"), COLON)
_ENTRY_KEYS = {
    *(
        "terms",
        "synonyms",
        "only_absent",
        "with_place",
        "ignore",
        "chronic",
        "derived",
        "blocked_by",
        "compatible_with",
    ),
}
_FILE_KEYS = {
    *("version", "name", "extends", "language", "findings", "structures", "predicates", "normal", "disease"),
    *("misspellings", "cues", "sections", "abbreviations", "units", "endings", "letters", "words"),
}
_STATES = ("present", "absent", "uncertain")


class Vocabulary:
    """Findings and the words for them.

    Use :func:`load_vocabulary` to make one. The page "Report language" of the documentation describes the format.

    Args:
        data: the content of a vocabulary file.
        source: the name of the file, for errors.

    Attributes:
        source: the name of the file.
        name: the name that the file gives itself.
        names: the findings, in the order in which :func:`medvl.text.label_report` returns their states.
        indices: the place of each name in ``names``.
        matcher: all phrases, each with pairs of kind and value.
        chronic: findings that persist when they are called former.
        derived: findings that follow from the others ("No Finding"), each with the findings that it is compatible with.
        readings: what sentences in lower case say that were read before; not pickled.
        findings: the findings of sentences in lower case that were read before; not pickled.
        language: the language of the file; the built-in cues, words and headers are those of ``"english"``.
        conventions: the headers, abbreviations and units of the language, for :func:`medvl.text.split_sentences`.
        words: the words that the rules of assertions look at, in groups.
        structures: for each body part, the states of findings that a predicate implies: ``{predicate: {finding: state}}``.

    Raises:
        ValueError: If ``data`` is not a vocabulary; the message names the entry.
    """

    def __init__(self, data: Mapping[str, Any], source: str = "vocabulary") -> None:
        _check_file(data, source)
        self.source = source
        self.name = str(data.get("name", source))
        self.names: tuple[str, ...] = tuple(data["findings"])
        self.indices: dict[str, int] = {name: index for index, name in enumerate(self.names)}
        self.language = str(data.get("language", ENGLISH))
        is_english = self.language == ENGLISH
        self.conventions = sentence_conventions(data, source, is_english)
        endings = data.get("endings")
        self.matcher = PhraseMatcher(
            None if endings is None else as_strings(endings, f"{source}: endings"), data.get("letters") or {}
        )
        self.readings: dict[str, Any] = {}
        self.findings: dict[str, Any] = {}
        self.chronic: set[str] = set()
        self._synonyms: dict[str, list[str]] = {}
        self.derived: dict[str, frozenset[str]] = {}
        self.structures: list[Mapping[str, Mapping[str, str]]] = []
        for mark, kind in _PUNCTUATION_KINDS.items():
            self.matcher.add_punctuation(mark, (kind, None))
        if is_english:
            self._add_cues(_assertion_cues(), _ASSERTION)
        self._add_cues(data.get("cues") or {}, f"{source}: cues")
        for name, entry in data["findings"].items():
            self._add_finding(name, entry, f"{source}: findings.{name}")
        self._add_structures(data, source)
        self._add_phrases(data.get("normal"), (NORMAL_STATEMENT, None), f"{source}: normal")
        self._add_phrases(data.get("disease"), (DISEASE, None), f"{source}: disease")
        words = word_groups(data, source, is_english)
        self.matcher.keep_words(words["kept_words"])
        self._other_language = words["other_languages"] - self._own_words()
        self._function_words = words["function_words"]
        self.words = {group: words[group] for group in RULE_WORDS}
        self.matcher.know_words(word for group in self.words.values() for word in group)
        for word, misspellings in (data.get("misspellings") or {}).items():
            self.matcher.add_misspellings(str(word), as_strings(misspellings, f"{source}: misspellings.{word}"))
        self.matcher.compile()

    def __repr__(self) -> str:
        return f"Vocabulary(name={self.name!r}, findings={len(self.names)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "readings": {}, "findings": {}}  # the sentences of patients stay in their process

    def _own_words(self) -> set[str]:
        return set(self.matcher.words)

    def is_other_language(self, words: list[str]) -> bool:
        """Whether the words of a sentence are mostly of another language than the vocabulary's."""
        if self._other_language.isdisjoint(words):
            return False
        foreign = sum(word in self._other_language for word in words)
        return foreign > sum(word in self._function_words for word in words)

    def synonyms_of(self, phrase: str) -> list[str]:
        """The phrases that may replace ``phrase``; an empty list if the vocabulary has none."""
        return self._synonyms.get(" ".join(phrase.lower().split()), [])

    def _add_phrases(self, phrases: Any, meaning: Meaning, entry_path: str, inflect: bool = True) -> None:
        """Add a list of phrases with one meaning; ``entry_path`` is their place in the file, for errors."""
        for phrase in as_strings(phrases, entry_path) if phrases is not None else ():
            try:
                self.matcher.add(phrase, meaning, inflect, yielding=bool(meaning[0] & YIELDING_KINDS))
            except ValueError as error:
                raise ValueError(f"{entry_path}: {error}") from None

    def _add_cues(self, data: Mapping[str, Any], entry_path: str) -> None:
        for key, phrases in data.items():
            path = f"{entry_path}.{key}"
            if key in _CUE_KINDS:
                self._add_phrases(phrases, (_CUE_KINDS[key], None), path, inflect=False)
            elif key in _ATTRIBUTE_KINDS and isinstance(phrases, Mapping):
                for value, words in phrases.items():
                    self._add_phrases(words, (_ATTRIBUTE_KINDS[key], value), f"{path}.{value}", inflect=False)
            else:
                raise ValueError(f"{path} must be one of the cues {sorted([*_CUE_KINDS, *_ATTRIBUTE_KINDS])}.")

    def _add_finding(self, name: str, entry: Mapping[str, Any], entry_path: str) -> None:
        self._add_phrases(entry.get("terms"), (TERM, name), f"{entry_path}.terms")
        self._add_phrases(entry.get("only_absent"), (ONLY_ABSENT, name), f"{entry_path}.only_absent")
        self._add_phrases(entry.get("with_place"), (WITH_PLACE, name), f"{entry_path}.with_place")
        self._add_phrases(entry.get("ignore"), (IGNORE, None), f"{entry_path}.ignore")
        self._add_phrases(entry.get("blocked_by"), (BLOCKER, None), f"{entry_path}.blocked_by")
        for index, group in enumerate(entry.get("synonyms") or []):
            phrases = as_strings(group, f"{entry_path}.synonyms[{index}]")
            self._synonyms.update({phrase: [other for other in phrases if other != phrase] for phrase in phrases})
        if entry.get("chronic"):
            self.chronic.add(name)
        if entry.get("derived"):
            compatible = as_strings(entry.get("compatible_with") or [], f"{entry_path}.compatible_with")
            for other in compatible:
                check_option(other, f"{entry_path}.compatible_with", self.names)
            self.derived[name] = frozenset(compatible)

    def _add_structures(self, data: Mapping[str, Any], source: str) -> None:
        predicates = data.get("predicates") or {}
        for name, phrases in predicates.items():
            self._add_phrases(phrases, (PREDICATE, name), f"{source}: predicates.{name}")
        for name, entry in (data.get("structures") or {}).items():
            entry_path = f"{source}: structures.{name}"
            if not isinstance(entry, Mapping) or "names" not in entry:
                raise ValueError(f"{entry_path} must be a mapping with names.")
            self._add_phrases(entry["names"], (STRUCTURE, len(self.structures)), f"{entry_path}.names")
            implied = {predicate: states for predicate, states in entry.items() if predicate != "names"}
            for predicate, states in implied.items():
                self._check_implied(predicate, states, predicates, f"{entry_path}.{predicate}")
            self.structures.append(implied)

    def _check_implied(self, predicate: str, states: Any, predicates: Mapping[str, Any], entry_path: str) -> None:
        """Check the states of findings that a predicate implies for a body part."""
        if predicate not in predicates:
            raise ValueError(f"{entry_path} must be one of the predicates {sorted(predicates)}.")
        if not isinstance(states, Mapping):
            raise ValueError(error_message(entry_path, f"map findings to one of {_STATES}", repr(states)))
        for finding, state in states.items():
            if finding not in self.names or state not in _STATES:
                raise ValueError(error_message(entry_path, f"map findings to one of {_STATES}", f"{finding}: {state}"))


def _check_file(data: Any, source: str) -> None:
    """Check the layout of a vocabulary file, except for the phrases and the names that they refer to."""
    if not isinstance(data, Mapping) or "findings" not in data:
        raise ValueError(f"{source} must be a mapping with version and findings.")
    if data.get("version") != 1:
        raise ValueError(error_message(f"{source}: version", "be 1", repr(data.get("version"))))
    check_keys(data, _FILE_KEYS, source)
    if not isinstance(data["findings"], Mapping) or not data["findings"]:
        raise ValueError(f"{source}: findings must map names of findings to their entries.")
    for name, entry in data["findings"].items():
        entry_path = f"{source}: findings.{name}"
        if not isinstance(name, str) or not isinstance(entry, Mapping):
            raise ValueError(f"{entry_path} must map a name to an entry with terms.")
        check_keys(entry, _ENTRY_KEYS, entry_path)
        if not entry.get("terms") and not entry.get("derived"):
            raise ValueError(f"{entry_path} must have terms or be derived.")
    for key in (
        "structures",
        "predicates",
        "misspellings",
        "cues",
        "sections",
        "abbreviations",
        "units",
        "letters",
        "words",
    ):
        if not isinstance(data.get(key) or {}, Mapping):
            raise ValueError(error_message(f"{source}: {key}", "be a mapping", type(data[key]).__name__))


@lru_cache(maxsize=1)
def _assertion_cues() -> dict[str, Any]:
    return dict(read_yaml(_FOLDER / f"{_ASSERTION}.yaml"))


@lru_cache(maxsize=32)
def _read(path: str, versions: tuple[Version, ...]) -> Mapping[str, Any]:
    data = read_extended(Path(path), _path_of)
    _check_file(data, Path(path).name)
    return dict(data)


@lru_cache(maxsize=32)
def _load(path: str, versions: tuple[Version, ...]) -> Vocabulary:
    return Vocabulary(_read(path, versions), source=Path(path).name)


def _path_of(name: str, folder: Path) -> Path | None:
    """The file of a built-in vocabulary, or of a path from ``folder``; None if there is none."""
    path = _built_in().get(name, folder / name)
    return path if os.path.isfile(path) else None


def vocabulary_names() -> list[str]:
    """List the names of the built-in vocabularies.

    Example:
        >>> vocabulary_names()
        ['chest_ct', 'chexpert14', 'chexpert14_de']
    """
    return sorted(_built_in())


@lru_cache(maxsize=1)
def _built_in() -> dict[str, Path]:
    return {path.stem: path for path in _FOLDER.glob("*.yaml") if path.stem != _ASSERTION}


def load_vocabulary(name: str | Path | Vocabulary = "chexpert14") -> Vocabulary:
    """Load a vocabulary by name or from a YAML file of your own.

    Args:
        name: ``"chexpert14"``, ``"chest_ct"``, the path of a YAML file, or a vocabulary, which is returned as it is.

    Returns:
        The vocabulary, compiled once per file and process.

    Raises:
        FileNotFoundError: If ``name`` is neither a built-in vocabulary nor a file.
        ValueError: If the file is not a vocabulary; the message names the entry.

    Example:
        >>> load_vocabulary("chexpert14").names[:3]
        ('No Finding', 'Enlarged Cardiomediastinum', 'Cardiomegaly')
    """
    return name if isinstance(name, Vocabulary) else _load(*_versions_of(name))


def finding_names(name: str | Path | Vocabulary = "chexpert14") -> tuple[str, ...]:
    """The findings of a vocabulary, in its order, without compiling its phrases.

    Args:
        name: as for :func:`load_vocabulary`.

    Raises:
        FileNotFoundError: If ``name`` is neither a built-in vocabulary nor a file.
        ValueError: If the file has not the layout of a vocabulary.

    Example:
        >>> finding_names()[:3]
        ('No Finding', 'Enlarged Cardiomediastinum', 'Cardiomegaly')
    """
    return name.names if isinstance(name, Vocabulary) else tuple(_read(*_versions_of(name))["findings"])


def _versions_of(name: str | Path) -> tuple[str, tuple[Version, ...]]:
    """The path of a vocabulary, and the versions of it and the files that it extends; built-in files stay as they are."""
    if (built_in := _built_in().get(str(name))) is not None:
        return str(built_in), ()
    path = Path(name)
    check_regular_file(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            error_message("vocabulary", f"be a file or one of the built-in {vocabulary_names()}", repr(str(name)))
        )
    path = path.absolute()
    return str(path), tuple(map(version_of, extended_files(path, _path_of)))
