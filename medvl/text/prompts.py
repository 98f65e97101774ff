"""Prompt sentences for classes: present, absent and uncertain phrasings, listed for evaluation or sampled for training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from medvl.text.vocabulary import read_yaml

STATES = ("present", "absent", "uncertain")
_STATE_OF_NUMBER = {1: "present", 0: "absent", -1: "uncertain"}
_ENTRY_KEYS = {
    "severity",
    "subtype",
    "location",
    *(f"{state}{part}" for state in STATES for part in ("", "_extra", "_subtype")),
}
_FOLDER = Path(__file__).parent / "prompts"


class RandomSource(Protocol):
    """What sampling needs: ``numpy.random.RandomState``, ``numpy.random.Generator`` and ``random.Random`` all fit."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


class PromptTemplates:
    """Prompt phrasings by class name and state.

    A phrase is ``severity + subtype + location``; each template of a state puts a phrase into a sentence. Listing
    (:meth:`present`, :meth:`absent`, :meth:`uncertain`) walks that product in a fixed order that changes every part from
    one prompt to the next, so a short list is a varied one; :meth:`sample` draws from the whole product. Absence is said
    of the finding itself, never of one severity of it. A name that the file does not know gets its generic templates,
    so ``"COVID-19"`` works. Names are matched without regard to case; ``_`` is a space.

    Args:
        data: what a prompt file holds: ``version``, ``generic`` templates for each state, and ``findings``, each with
            lists under ``severity``, ``subtype``, ``location``, optional templates (``present``, ``absent``,
            ``uncertain``) of its own, whole sentences to add (``present_extra`` ...) and subtypes for one state only
            (``absent_subtype`` ...).
        source: where ``data`` came from, for errors.

    Raises:
        ValueError: for data that is not of this form; the message names the entry.

    Example:
        >>> templates = load_prompt_templates("chexpert14")
        >>> templates.present("pneumothorax")[:2]
        ['Pneumothorax.', 'There is small apical pneumothorax on the right.']
        >>> templates.absent("COVID-19")[:2]
        ['No COVID-19.', 'There is no COVID-19.']
        >>> templates.absent("No Finding")[0]
        'There is an abnormality.'
    """

    def __init__(self, data: Mapping[str, Any], source: str = "prompts") -> None:
        _validate(data, source)
        self.version: int = data["version"]
        self.names: tuple[str, ...] = tuple(data["findings"])
        self._generic = {state: tuple(data["generic"][state]) for state in STATES}
        self._entries = {name.lower(): (name, dict(entry or {})) for name, entry in data["findings"].items()}

    def __repr__(self) -> str:
        return f"PromptTemplates(names={len(self.names)}, version={self.version})"

    def present(self, name: str, limit: int = 16) -> list[str]:
        """List up to ``limit`` different prompts that say that ``name`` is there, always the same ones."""
        return self._list(name, "present", limit)

    def absent(self, name: str, limit: int = 8) -> list[str]:
        """List up to ``limit`` different prompts that say that ``name`` is not there, always the same ones."""
        return self._list(name, "absent", limit)

    def uncertain(self, name: str, limit: int = 8) -> list[str]:
        """List up to ``limit`` different prompts that leave ``name`` open, always the same ones."""
        return self._list(name, "uncertain", limit)

    def count(self, name: str, state: str = "present") -> int:
        """Number of sentences that :meth:`sample` draws from, before equal ones are counted once."""
        templates, parts, extra = self._parts(name, state)
        return len(templates) * len(parts[0]) * len(parts[1]) * len(parts[2]) + len(extra)

    def sample(self, name: str, state: str | float, rng: RandomSource) -> str:
        """Draw one prompt.

        Args:
            name: the class.
            state: ``"present"``, ``"absent"`` or ``"uncertain"``, or a finding state 1, 0 or -1.
            rng: source of randomness with a ``random()`` method; MONAI's ``self.R``, for one.

        Returns:
            A sentence.

        Raises:
            ValueError: for a state that is none of these.

        Example:
            >>> import random
            >>> load_prompt_templates("chexpert14").sample("Fracture", "absent", random.Random(1))
            'There is no fracture.'
        """
        templates, parts, extra = self._parts(name, _state_name(state))
        index = int(rng.random() * self.count(name, _state_name(state)))
        if index < len(extra):
            return extra[index]
        index -= len(extra)
        words = []
        for choices in (templates, *parts):
            index, choice = divmod(index, len(choices))
            words.append(choices[choice])
        return _fill(words[0], words[1:])

    def _parts(self, name: str, state: str) -> tuple[Sequence[str], tuple[Sequence[str], ...], Sequence[str]]:
        """Templates, (severity, subtype, location) choices and extra sentences of one class and state."""
        words = name.replace("_", " ").split() if isinstance(name, str) else []
        if not words:
            raise ValueError(f"name must be a non-empty class name, got {name!r}")
        state = _state_name(state)
        name = " ".join(words)
        shown, entry = self._entries.get(name.lower(), (name, {}))
        own = entry.get(state)
        if own is not None and not any("{" in template for template in own):
            return (), ((), (), ()), tuple(own)
        subtypes = entry.get(f"{state}_subtype") or entry.get("subtype") or [_phrase_of_name(shown)]
        # "No mild edema" would leave room for severe edema, and "No edema in the left lung" for the right one.
        graded = state != "absent"
        severity = (entry.get("severity") or [""]) if graded else [""]
        location = (entry.get("location") or [""]) if graded else [""]
        return own or self._generic[state], (severity, subtypes, location), entry.get(f"{state}_extra") or ()

    def _list(self, name: str, state: str, limit: int) -> list[str]:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        templates, (severity, subtype, location), extra = self._parts(name, state)
        found: dict[str, None] = {}
        if templates:
            # Each part advances at its own pace, so neighbours differ in all of them.
            walk = (
                (templates[i % len(templates)], severity[i % len(severity)], subtype[i % len(subtype)],
                 location[i % len(location)])
                for i in range(limit)
            )  # fmt: skip
            for template, *words in itertools.islice(walk, max(1, limit - len(extra))):
                found.setdefault(_fill(template, words))
        for sentence in extra:
            found.setdefault(sentence)
        for template, *words in itertools.product(templates, severity, subtype, location):
            if len(found) >= limit:
                break
            found.setdefault(_fill(template, words))
        return list(found)[:limit]


def _fill(template: str, words: Sequence[str]) -> str:
    phrase = " ".join(word for word in words if word)
    return template.replace("{phrase}", phrase).replace("{Phrase}", phrase[:1].upper() + phrase[1:])


def _phrase_of_name(name: str) -> str:
    """A class name inside a sentence: ``Pleural Effusion`` is written small, ``COVID-19`` stays as it is."""
    return " ".join(word.lower() if word[:1].isupper() and word[1:].islower() else word for word in name.split())


def _state_name(state: str | float) -> str:
    if isinstance(state, str) and state in STATES:
        return state
    if not isinstance(state, str) and state in _STATE_OF_NUMBER:
        return _STATE_OF_NUMBER[int(state)]
    raise ValueError(f"state must be one of {', '.join(STATES)} or 1, 0, -1, got {state!r}")


def _validate(data: Any, source: str) -> None:
    if not isinstance(data, Mapping) or {"version", "generic", "findings"} - set(data):
        raise ValueError(f"{source}: a prompt file must hold version, generic and findings")
    if data["version"] != 1:
        raise ValueError(f"{source}: version must be 1, got {data['version']!r}")
    for state in STATES:
        _check_texts(data["generic"].get(state), f"{source}: generic.{state}", filled=True)
    if not isinstance(data["findings"], Mapping) or not data["findings"]:
        raise ValueError(f"{source}: findings must map class names to entries")
    for name, entry in data["findings"].items():
        where = f"{source}: findings.{name}"
        if not isinstance(name, str) or not isinstance(entry or {}, Mapping):
            raise ValueError(f"{where} must map a class name to lists")
        unknown = sorted(set(entry or {}) - _ENTRY_KEYS)
        if unknown:
            raise ValueError(f"{where} has unknown keys {unknown}, expected some of {sorted(_ENTRY_KEYS)}")
        for key, texts in (entry or {}).items():
            _check_texts(texts, f"{where}.{key}", filled=False)


def _check_texts(texts: Any, where: str, filled: bool) -> None:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} must be a list of strings, got {texts!r}")
    for text in texts:
        if filled and "{phrase}" not in text and "{Phrase}" not in text:
            raise ValueError(f"{where}: the template {text!r} has no {{phrase}} in it")


@lru_cache(maxsize=32)
def _load(path: str, changed: int) -> PromptTemplates:
    return PromptTemplates(read_yaml(Path(path)), source=Path(path).name)


def load_prompt_templates(name: str | Path | PromptTemplates = "chexpert14") -> PromptTemplates:
    """Load prompt templates by name or from a YAML file of your own.

    Args:
        name: ``"chexpert14"``, the path of a YAML file, or templates that are loaded already (returned as they are).

    Returns:
        The templates.

    Raises:
        FileNotFoundError: if there is neither such a name nor such a file.
        ValueError: if the file is not of the form that :class:`PromptTemplates` describes.

    Example:
        >>> load_prompt_templates("chexpert14").names[:2]
        ('No Finding', 'Enlarged Cardiomediastinum')
    """
    if isinstance(name, PromptTemplates):
        return name
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    path = _FOLDER / f"{name}.yaml" if str(name) in known else Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"prompts {str(name)!r}: neither a file nor one of the built-in {known}")
    return _load(str(path), path.stat().st_mtime_ns)


def make_class_prompts(
    names: Iterable[str], templates: str | Path | PromptTemplates = "chexpert14"
) -> dict[str, dict[str, list[str]]]:
    """List the present and the absent prompts of each class, as zero-shot classification takes them.

    Args:
        names: class names; one that the templates do not know gets their generic phrasings.
        templates: name, path, or loaded templates; see :func:`load_prompt_templates`.

    Returns:
        For each name ``{"present": [...], "absent": [...]}``.

    Example:
        >>> class_prompts = make_class_prompts(["Edema"])
        >>> list(class_prompts["Edema"]), class_prompts["Edema"]["absent"][0]
        (['present', 'absent'], 'No pulmonary edema.')
    """
    templates = load_prompt_templates(templates)
    return {name: {"present": templates.present(name), "absent": templates.absent(name)} for name in names}
