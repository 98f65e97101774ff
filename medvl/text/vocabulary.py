"""Vocabularies: which words stand for which finding, read from YAML, checked, and compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from medvl.text.phrases import Phrases

_FOLDER = Path(__file__).parent / "vocabularies"
_ASSERTION = "assertion"


class Kind(IntEnum):
    """What a phrase does in a sentence."""

    TERM = 0
    ONLY_ABSENT = 1
    NORMAL_STATEMENT = 2
    DISEASE = 3
    BLOCKER = 4
    STRUCTURE = 5
    PREDICATE = 6
    NEGATION = 7
    NEGATION_BOTH = 8
    NEGATION_AFTER = 9
    UNCERTAINTY = 10
    UNCERTAINTY_AFTER = 11
    HISTORY = 12
    HISTORY_AFTER = 13
    PSEUDO = 14
    STOP = 15
    VERB = 16
    LINKER = 17
    ALTERNATIVE = 18
    CONTINUING = 19
    MODIFIER = 20
    SEVERITY = 21
    SIDE = 22
    COMMA = 23
    COLON = 24
    IGNORE = 25
    FORMER = 26
    VERSUS = 27


_CUES = {
    kind.name.lower(): kind
    for kind in (
        Kind.NEGATION,
        Kind.NEGATION_BOTH,
        Kind.NEGATION_AFTER,
        Kind.UNCERTAINTY,
        Kind.UNCERTAINTY_AFTER,
        Kind.HISTORY,
        Kind.FORMER,
        Kind.VERSUS,
        Kind.HISTORY_AFTER,
        Kind.PSEUDO,
        Kind.STOP,
        Kind.VERB,
        Kind.LINKER,
        Kind.ALTERNATIVE,
        Kind.CONTINUING,
        Kind.MODIFIER,
    )
}
_SCALES = {"severity": Kind.SEVERITY, "side": Kind.SIDE}
_PUNCTUATION = {",": Kind.COMMA, ":": Kind.COLON, ";": Kind.STOP, "?": Kind.UNCERTAINTY}
_PUNCTUATION |= dict.fromkeys(("-", "--", "---", "\u2013", "\u2014"), Kind.COLON)
_ENTRY_KEYS = {"terms", "synonyms", "only_absent", "ignore", "chronic", "derived", "blocked_by", "besides"}
_FILE_KEYS = {"version", "name", "findings", "structures", "predicates", "normal", "disease", "misspellings", "cues"}
_STATES = ("present", "absent", "uncertain")


class Vocabulary:
    """Findings and the words for them.

    Made by :func:`load_vocabulary`; the format is described in the documentation of report language.

    Attributes:
        names: the findings, in the order that :func:`medvl.text.label_report` gives their states in.
        derived: names of findings that follow from the others ("No Finding").
    """

    def __init__(self, data: Mapping[str, Any], source: str = "vocabulary") -> None:
        _check_file(data, source)
        self.source = source
        self.name = str(data.get("name", source))
        self.names: tuple[str, ...] = tuple(data["findings"])
        self.phrases = Phrases()
        self.chronic: set[str] = set()
        self._synonyms: dict[str, list[str]] = {}
        self.derived: dict[str, frozenset[str]] = {}
        self.structures: list[Mapping[str, Mapping[str, str]]] = []
        for sign, kind in _PUNCTUATION.items():
            self.phrases.add_sign(sign, (kind, None))
        self._add_cues(_assertion_cues(), _ASSERTION)
        self._add_cues(data.get("cues") or {}, f"{source}: cues")
        for name, entry in data["findings"].items():
            self._add_finding(name, entry, f"{source}: findings.{name}")
        self._add_structures(data, source)
        self._add_all(data.get("normal"), (Kind.NORMAL_STATEMENT, None), f"{source}: normal")
        self._add_all(data.get("disease"), (Kind.DISEASE, None), f"{source}: disease")
        for word, variants in (data.get("misspellings") or {}).items():
            self.phrases.spell(str(word), _texts(variants, f"{source}: misspellings.{word}"))
        self.phrases.finish()

    def __repr__(self) -> str:
        return f"Vocabulary(name={self.name!r}, findings={len(self.names)})"

    def synonyms_of(self, phrase: str) -> list[str]:
        """Phrases that may stand in the place of ``phrase``; none for one that the vocabulary lists no synonyms of."""
        return self._synonyms.get(" ".join(phrase.lower().split()), [])

    def _add_all(self, texts: Any, meaning: Any, where: str, inflect: bool = True) -> None:
        for text in _texts(texts, where) if texts is not None else ():
            try:
                self.phrases.add(text, meaning, inflect)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None

    def _add_cues(self, data: Mapping[str, Any], where: str) -> None:
        for key, texts in data.items():
            if key in _CUES:
                self._add_all(texts, (_CUES[key], None), f"{where}.{key}", inflect=False)
            elif key in _SCALES and isinstance(texts, Mapping):
                for value, words in texts.items():
                    self._add_all(words, (_SCALES[key], value), f"{where}.{key}.{value}", inflect=False)
            else:
                raise ValueError(f"{where}.{key}: expected one of {sorted([*_CUES, *_SCALES])}")

    def _add_finding(self, name: str, entry: Mapping[str, Any], where: str) -> None:
        self._add_all(entry.get("terms"), (Kind.TERM, name), f"{where}.terms")
        self._add_all(entry.get("only_absent"), (Kind.ONLY_ABSENT, name), f"{where}.only_absent")
        self._add_all(entry.get("ignore"), (Kind.IGNORE, None), f"{where}.ignore")
        self._add_all(entry.get("blocked_by"), (Kind.BLOCKER, None), f"{where}.blocked_by")
        for index, group in enumerate(entry.get("synonyms") or []):
            words = _texts(group, f"{where}.synonyms[{index}]")
            self._synonyms.update({word: [other for other in words if other != word] for word in words})
        if entry.get("chronic"):
            self.chronic.add(name)
        if entry.get("derived"):
            besides = _texts(entry.get("besides") or [], f"{where}.besides")
            for other in besides:
                if other not in self.names:
                    raise ValueError(f"{where}.besides: {other!r} is not one of the findings")
            self.derived[name] = frozenset(besides)

    def _add_structures(self, data: Mapping[str, Any], source: str) -> None:
        predicates = data.get("predicates") or {}
        for kind, texts in predicates.items():
            self._add_all(texts, (Kind.PREDICATE, kind), f"{source}: predicates.{kind}")
        for name, entry in (data.get("structures") or {}).items():
            where = f"{source}: structures.{name}"
            if not isinstance(entry, Mapping) or "names" not in entry:
                raise ValueError(f"{where} must be a mapping with names")
            self._add_all(entry["names"], (Kind.STRUCTURE, len(self.structures)), f"{where}.names")
            effects: dict[str, Mapping[str, str]] = {}
            for kind, states in entry.items():
                if kind == "names":
                    continue
                if kind not in predicates:
                    raise ValueError(f"{where}.{kind}: expected one of the predicates {sorted(predicates)}")
                for finding, state in states.items():
                    if finding not in self.names or state not in _STATES:
                        raise ValueError(
                            f"{where}.{kind}: expected findings with one of {_STATES}, got {finding}: {state}"
                        )
                effects[kind] = states
            self.structures.append(effects)


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where} must be a list of strings (quote words such as 'no' and 'off'), got {value!r}")
    return value


def _check_file(data: Any, source: str) -> None:
    if not isinstance(data, Mapping) or "findings" not in data:
        raise ValueError(f"{source}: a vocabulary must be a mapping with version and findings")
    if data.get("version") != 1:
        raise ValueError(f"{source}: version must be 1, got {data.get('version')!r}")
    unknown = sorted(set(data) - _FILE_KEYS)
    if unknown:
        raise ValueError(f"{source}: unknown keys {unknown}, expected some of {sorted(_FILE_KEYS)}")
    if not isinstance(data["findings"], Mapping) or not data["findings"]:
        raise ValueError(f"{source}: findings must map names of findings to their entries")
    for name, entry in data["findings"].items():
        where = f"{source}: findings.{name}"
        if not isinstance(name, str) or not isinstance(entry, Mapping):
            raise ValueError(f"{where} must map a name to an entry with terms")
        if set(entry) - _ENTRY_KEYS:
            raise ValueError(
                f"{where}: unknown keys {sorted(set(entry) - _ENTRY_KEYS)}, expected {sorted(_ENTRY_KEYS)}"
            )
        if not entry.get("terms") and not entry.get("derived"):
            raise ValueError(f"{where} must have terms, or be derived")
    for key in ("structures", "predicates", "misspellings", "cues"):
        if not isinstance(data.get(key) or {}, Mapping):
            raise ValueError(f"{source}: {key} must be a mapping, got {type(data[key]).__name__}")


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; a file that is no YAML is a ``ValueError`` that names it."""
    try:
        # Bare words stay strings: the "no" of a list of negations is a word, not a truth value.
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_WordLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not valid YAML: {error}") from error


class _WordLoader(yaml.SafeLoader):
    """YAML's safe loader with YAML 1.2's truth values, ``true`` and ``false`` alone."""


_WordLoader.yaml_implicit_resolvers = {
    letter: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@lru_cache(maxsize=1)
def _assertion_cues() -> dict[str, Any]:
    return dict(read_yaml(_FOLDER / f"{_ASSERTION}.yaml"))


@lru_cache(maxsize=32)
def _load(path: str, changed: int) -> Vocabulary:
    return Vocabulary(read_yaml(Path(path)), source=Path(path).name)


def vocabulary_names() -> list[str]:
    """Names of the vocabularies that come with the package.

    Example:
        >>> vocabulary_names()
        ['chest_ct', 'chexpert14']
    """
    return sorted(_built_in())


@lru_cache(maxsize=1)
def _built_in() -> dict[str, Path]:
    return {path.stem: path for path in _FOLDER.glob("*.yaml") if path.stem != _ASSERTION}


def load_vocabulary(name: str | Path | Vocabulary = "chexpert14") -> Vocabulary:
    """Load a vocabulary by name or from a YAML file of your own.

    Args:
        name: ``"chexpert14"``, ``"chest_ct"``, the path of a YAML file, or a vocabulary (returned as it is).

    Returns:
        The vocabulary, compiled once per file and process.

    Raises:
        FileNotFoundError: if there is neither such a name nor such a file.
        ValueError: if the file is not a vocabulary; the message names the entry.

    Example:
        >>> load_vocabulary("chexpert14").names[:3]
        ('No Finding', 'Enlarged Cardiomediastinum', 'Cardiomegaly')
    """
    if isinstance(name, Vocabulary):
        return name
    if (built_in := _built_in().get(str(name))) is not None:
        return _load(str(built_in), 0)
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"vocabulary {str(name)!r}: neither a file nor one of the built-in {vocabulary_names()}"
        )
    return _load(str(path), path.stat().st_mtime_ns)
