"""Prompts for classes: present, absent and uncertain phrasings, listed for evaluation or sampled for training."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from medvl.text.yaml_files import Version, check_keys, read_yaml, version_of
from medvl.utils.checks import check_integer, check_text_list, error_message

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
    """A source of random numbers: ``numpy.random.RandomState``, ``numpy.random.Generator`` or ``random.Random``."""

    def random(self) -> float:
        """Draw a number in [0, 1)."""
        ...


class PromptTemplates:
    """Templates that turn a class name and a state into prompts.

    A phrase is ``severity + subtype + location``; each template of a state makes a sentence of a phrase. The lists
    (:meth:`present`, :meth:`absent`, :meth:`uncertain`) traverse that product in a fixed order in which every part changes
    from one prompt to the next, so that a short list is varied; :meth:`sample` draws from the whole product. Prompts of
    absence have no severity or location: "no mild edema" would not exclude severe edema. A class that the file does not
    know, such as ``"COVID-19"``, gets the generic templates. Names are case-insensitive, and ``_`` is a space.

    Args:
        data: content of a prompt file: ``version``, ``generic`` templates for each state, and ``findings``, each with
            lists under ``severity``, ``subtype``, ``location``, optional templates (``present``, ``absent``,
            ``uncertain``) of its own, additional whole sentences (``present_extra`` ...) and subtypes for one state only
            (``absent_subtype`` ...).
        source: name of the file, for errors.

    Raises:
        ValueError: If ``data`` does not have this layout; the message names the entry.

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
        _check_file(data, source)
        self.version: int = data["version"]
        self.names: tuple[str, ...] = tuple(data["findings"])
        self._generic = {state: tuple(data["generic"][state]) for state in STATES}
        self._entries = {name.lower(): (name, dict(entry or {})) for name, entry in data["findings"].items()}

    def __repr__(self) -> str:
        return f"PromptTemplates(names={len(self.names)}, version={self.version})"

    def present(self, name: str, limit: int = 16) -> list[str]:
        """List the first ``limit`` distinct prompts that state the presence of class ``name``."""
        return self._list(name, "present", limit)

    def absent(self, name: str, limit: int = 8) -> list[str]:
        """List the first ``limit`` distinct prompts that state the absence of class ``name``."""
        return self._list(name, "absent", limit)

    def uncertain(self, name: str, limit: int = 8) -> list[str]:
        """List the first ``limit`` distinct prompts that leave class ``name`` uncertain."""
        return self._list(name, "uncertain", limit)

    def count(self, name: str, state: str = "present") -> int:
        """The number of combinations that :meth:`sample` draws from; some give equal sentences."""
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
            ValueError: If ``state`` is none of these, or ``name`` is empty.

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
            raise ValueError(error_message("name", "be a non-empty class name", repr(name)))
        state = _state_name(state)
        name = " ".join(words)
        shown, entry = self._entries.get(name.lower(), (name, {}))
        own = entry.get(state)
        if own is not None and not any("{" in template for template in own):
            return (), ((), (), ()), tuple(own)
        subtypes = entry.get(f"{state}_subtype") or entry.get("subtype") or [_phrase_of_name(shown)]
        # "No mild edema" would not exclude severe edema, nor "No edema in the left lung" the right lung.
        specific = state != "absent"
        severity = (entry.get("severity") or [""]) if specific else [""]
        location = (entry.get("location") or [""]) if specific else [""]
        return own or self._generic[state], (severity, subtypes, location), entry.get(f"{state}_extra") or ()

    def _list(self, name: str, state: str, limit: int) -> list[str]:
        check_integer(limit, "limit", minimum=1)
        templates, (severity, subtype, location), extra = self._parts(name, state)
        found: dict[str, None] = {}
        if templates:
            # All parts advance together, so that neighbors differ in every part.
            diagonal = (
                (templates[i % len(templates)], severity[i % len(severity)], subtype[i % len(subtype)],
                 location[i % len(location)])
                for i in range(limit)
            )  # fmt: skip
            for template, *words in itertools.islice(diagonal, max(1, limit - len(extra))):
                found.setdefault(_fill(template, words))
        for sentence in extra:
            found.setdefault(sentence)
        for template, *words in itertools.product(templates, severity, subtype, location):
            if len(found) >= limit:
                break
            found.setdefault(_fill(template, words))
        return list(found)[:limit]


def _fill(template: str, words: Sequence[str]) -> str:
    """Put the words of a phrase into a template."""
    phrase = " ".join(word for word in words if word)
    return template.replace("{phrase}", phrase).replace("{Phrase}", phrase[:1].upper() + phrase[1:])


def _phrase_of_name(name: str) -> str:
    """A class name as it is written in a sentence: ``pleural effusion``, ``COVID-19``."""
    return " ".join(word.lower() if word[:1].isupper() and word[1:].islower() else word for word in name.split())


def _state_name(state: str | float) -> str:
    """The name of a state that is given as a name or a number."""
    if isinstance(state, str) and state in STATES:
        return state
    if not isinstance(state, str) and state in _STATE_OF_NUMBER:
        return _STATE_OF_NUMBER[int(state)]
    raise ValueError(error_message("state", f"be one of {', '.join(STATES)} or 1, 0, -1", repr(state)))


def _check_file(data: Any, source: str) -> None:
    """Check the layout of a prompt file."""
    if not isinstance(data, Mapping) or {"version", "generic", "findings"} - set(data):
        raise ValueError(f"{source} must be a mapping with version, generic and findings.")
    if data["version"] != 1:
        raise ValueError(error_message(f"{source}: version", "be 1", repr(data["version"])))
    for state in STATES:
        _check_templates(data["generic"].get(state), f"{source}: generic.{state}")
    if not isinstance(data["findings"], Mapping) or not data["findings"]:
        raise ValueError(f"{source}: findings must map class names to entries.")
    for name, entry in data["findings"].items():
        entry_path = f"{source}: findings.{name}"
        if not isinstance(name, str) or not isinstance(entry or {}, Mapping):
            raise ValueError(f"{entry_path} must map a class name to lists.")
        check_keys(entry or {}, _ENTRY_KEYS, entry_path)
        for key, texts in (entry or {}).items():
            _check_texts(texts, f"{entry_path}.{key}")


def _check_texts(texts: Any, entry_path: str) -> None:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(error_message(entry_path, "be a non-empty list of strings", repr(texts)))


def _check_templates(templates: Any, entry_path: str) -> None:
    _check_texts(templates, entry_path)
    for template in templates:
        if "{phrase}" not in template and "{Phrase}" not in template:
            raise ValueError(error_message(f"{entry_path}: a template", "contain {phrase} or {Phrase}", repr(template)))


@lru_cache(maxsize=32)
def _load(path: str, version: Version) -> PromptTemplates:
    return PromptTemplates(read_yaml(Path(path)), source=Path(path).name)


def load_prompt_templates(name: str | Path | PromptTemplates = "chexpert14") -> PromptTemplates:
    """Load prompt templates by name or from a YAML file of your own.

    Args:
        name: ``"chexpert14"``, the path of a YAML file, or loaded templates, which are returned as they are.

    Returns:
        The templates.

    Raises:
        FileNotFoundError: If ``name`` is neither built-in templates nor a file.
        ValueError: If the file does not have the layout that :class:`PromptTemplates` describes.

    Example:
        >>> load_prompt_templates("chexpert14").names[:2]
        ('No Finding', 'Enlarged Cardiomediastinum')
    """
    if isinstance(name, PromptTemplates):
        return name
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    path = _FOLDER / f"{name}.yaml" if str(name) in known else Path(name)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            error_message("prompt templates", f"be a file or one of the built-in {known}", repr(str(name)))
        )
    return _load(str(path.absolute()), version_of(path))


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


def check_class_prompts(class_prompts: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ``ValueError`` if ``class_prompts`` does not give present and absent prompts of findings among ``names``.

    Example:
        >>> check_class_prompts({"Edema": {"present": ["Edema."], "absent": "No edema."}}, ["Edema"])
        Traceback (most recent call last):
        ValueError: class_prompts['Edema']['absent'] must be a list of at least one string, got 'No edema.'.
    """
    unknown = [name for name in class_prompts if name not in names]
    if unknown or not class_prompts:
        raise ValueError(error_message("class_prompts", f"be of findings among {list(names)}", unknown or "none"))
    for name, sides in class_prompts.items():
        if not isinstance(sides, Mapping):
            expected = "be a dictionary of 'present' and 'absent' prompts"
            raise ValueError(error_message(f"class_prompts[{name!r}]", expected, repr(sides)))
        for side in ("present", "absent"):
            check_text_list(sides.get(side), f"class_prompts[{name!r}][{side!r}]")
