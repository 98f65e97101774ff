"""The recipes' configuration files, and the layers that a file builds on."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from medvl.utils.checks import error_message
from medvl.utils.limits import check_regular_file, read_small_text
from medvl.utils.yaml_text import load_yaml

BUNDLES = Path(__file__).parent.parent / "bundles"
PAPERS = BUNDLES / "papers"
"""A file a recipe, with the settings of its paper: what ``preset: paper`` stands for."""
PAPER = "paper"
LAYERS = "layers"
"""The key by which a file names the layers it builds on, lowest first."""
_NOT_SETTINGS = (LAYERS, "imports", "bundle_root", "dataset_dir", "recorded_config", "initialize", "run", "finalize")
ConfigFile = str | Path | Sequence[str | Path]


def recipe_names() -> list[str]:
    """The names of the recipes: the files of :mod:`medvl.bundles` that name their layers.

    Example:
        >>> recipe_names()
        ['convirt', 'medclip', 'medvl', 'mlip', 'umcl']
    """
    return sorted(path.stem for path in BUNDLES.glob("*.yaml") if re.search(rf"^{LAYERS}:", path.read_text(), re.M))


def config_files(config_file: ConfigFile) -> list[Path]:
    """The files that a configuration is merged from, lowest layer first, as MONAI takes them in ``config_file``.

    Args:
        config_file: the name of a recipe, the path of a YAML or JSON file, or several of them, of which later ones override
            earlier ones; in a list, the name of any file of :mod:`medvl.bundles` will do. The layers that a file names under
            the key ``layers`` come before it, once each: names of files in :mod:`medvl.bundles` or beside it, or paths
            relative to it.

    Raises:
        ValueError: If a name is unknown, or a file is among its own layers.
        FileNotFoundError: If a path does not exist.

    Example:
        >>> [path.name for path in config_files("convirt")]
        ['base.yaml', 'paired.yaml', 'convirt.yaml']
    """
    if isinstance(config_file, str | Path):
        names = recipe_names()
        if not _is_path(config_file) and config_file not in names:
            raise ValueError(
                error_message("recipe", f"be one of {', '.join(names)}, or a YAML file", repr(config_file))
            )
        config_file = [config_file]
    files: list[Path] = []
    for name in config_file:
        _add(_find(name, Path.cwd()), files, ())
    return files


def with_paper_settings(config_file: ConfigFile, overrides: Mapping[str, Any]) -> tuple[ConfigFile, dict[str, Any]]:
    """A configuration and overrides in which ``preset=paper`` is a layer of its own, above the recipe and below the overrides.

    Args:
        config_file: as for :func:`config_files`.
        overrides: values by key.

    Raises:
        ValueError: If there are no settings of a paper for this recipe.

    Example:
        >>> files, overrides = with_paper_settings("convirt", {"preset": "paper", "epochs": 3})
        >>> [path.parent.name for path in config_files(files)], overrides
        (['bundles', 'bundles', 'bundles', 'papers'], {'epochs': 3})
    """
    if overrides.get("preset") != PAPER:
        return config_file, dict(overrides)
    known = {path.stem: path for path in PAPERS.glob("*.yaml")}
    recipes = [
        path.stem for path in config_files(config_file) if path.parent == BUNDLES.resolve() and path.stem in known
    ]
    if not recipes:
        expected = f"be small or base, or for {', '.join(sorted(known))} also paper"
        raise ValueError(error_message("preset", expected, repr(PAPER)))
    below = [config_file] if isinstance(config_file, str | Path) else list(config_file)
    if not _is_path(below[0]):
        below = [*config_files(below)]
    return [*below, known[recipes[-1]]], {key: value for key, value in overrides.items() if key != "preset"}


def _add(path: Path, files: list[Path], above: tuple[Path, ...]) -> None:
    if path in above:
        raise ValueError(f"{path} is among its own layers.")
    text = read_small_text(path)
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}.") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(error_message(str(path), "hold the settings of a recipe", found))
    layers = content.get(LAYERS)
    if not isinstance(layers, list | None):
        raise ValueError(error_message(f"{LAYERS} of {path}", "be a list of names", type(layers).__name__))
    for name in layers or ():
        if not isinstance(name, str):
            raise ValueError(error_message(f"{LAYERS} of {path}", "be a list of names", type(name).__name__))
        _add(_find(name, path.parent, f"{LAYERS} of {path}"), files, (*above, path))
    if path not in files:
        files.append(path)


def _find(name: str | Path, folder: Path, what: str = LAYERS) -> Path:
    """The file of a layer: a path relative to ``folder``, or a name without a suffix; ``what`` names the list, for errors."""
    if _is_path(name):
        check_regular_file(folder / name)
        path = (folder / name).resolve()
        if not os.path.isfile(path):
            of = "" if what == LAYERS else f", which is among {what}"
            raise FileNotFoundError(f"{path} does not exist{of}.")
        return path
    for path in (BUNDLES / f"{name}.yaml", folder / f"{name}.yaml"):
        if os.path.isfile(path):
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in BUNDLES.glob("*.yaml")))
    raise ValueError(error_message(what, f"be among {known}, or files beside the recipe", repr(str(name))))


def _is_path(name: str | Path) -> bool:
    return Path(name).suffix.lower() in (".yaml", ".yml", ".json")


def split_key(key: str) -> list[str]:
    """The keys from the outermost to the innermost of ``outer#inner`` or ``outer::inner``.

    Example:
        >>> split_key("train#trainer#amp")
        ['train', 'trainer', 'amp']
    """
    return key.replace("#", "::").split("::")


def find_key(config: Any, key: str) -> tuple[bool, Any]:
    """Whether a configuration has a key, and its value."""
    for part in split_key(key):
        if isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, dict) and part in config:
            config = config[part]
        else:
            return False, None
    return True, config


def check_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any], name: str) -> None:
    """Raise where an override names a key that a configuration does not have, or is of another kind than what it replaces.

    Args:
        config: the merged configuration.
        overrides: values by key; a key inside another is written ``outer#inner``.
        name: of the configuration, for the messages.

    Raises:
        ValueError: If a key is unknown, if ``sources`` is given where the configuration reads one table, or if a value is not
            a number (true or false, a component) in place of one.
    """
    if "sources" in overrides and "sources" not in config:
        names = _recipes_of_sources()
        raise ValueError(
            f"{name} learns from images paired with their reports, one table given as --data; --source is for "
            f"{', '.join(names[:-1])} and {names[-1]}."
        )
    for key, value in overrides.items():
        found, default = find_key(config, key)
        outer = "#".join(split_key(key)[:-1])  # a component takes arguments that its file does not mention
        if not found and not (outer and find_key(config, outer)[0]):
            near = " or ".join(map(repr, near_keys(key, config)))
            raise ValueError(
                f"{name} has no setting {key!r}{f', did you mean {near}?' if near else '.'} "
                f"medvl train {name} --settings lists them all."
            )
        _check_kind(key, value, default)


def near_keys(key: str, config: Mapping[str, Any], count: int = 3) -> list[str]:
    """Keys of a configuration that may be meant by a name that is none, the likeliest first.

    Points in place of ``#``, a name that stands deeper inside, the initials of a name, its words in another form or order, and
    similar spelling.

    Example:
        >>> near_keys("lr", {"learning_rate": 0.1, "lr_multipliers": {}, "train": {"trainer": {"amp": True}}})
        ['learning_rate', 'lr_multipliers']
        >>> near_keys("amp", {"learning_rate": 0.1, "train": {"trainer": {"amp": True}}})
        ['train#trainer#amp']
        >>> near_keys("train.trainer.amp", {"train": {"trainer": {"amp": True}}})
        ['train#trainer#amp']
    """
    if "." in key and find_key(config, key.replace(".", "#"))[0]:
        return [key.replace(".", "#")]
    asked = _words(split_key(key)[-1])
    joined = "".join(asked)

    def score(path: str) -> float:
        words = _words(split_key(path)[-1])
        deeper = 0.05 * path.count("#")
        if words == asked:
            return 1.0 - deeper
        if "#" in path:  # arguments of components only by their exact name
            return 0.0
        if sorted(words) == sorted(asked) or "".join(words) == joined:
            return 0.95
        if len(joined) > 1 and "".join(word[0] for word in words) == joined:
            return 0.9
        shared = set(words) & set(asked)
        similar = difflib.SequenceMatcher(None, "".join(words), joined).ratio()
        starts = len(joined) > 2 and any(word.startswith(joined) for word in words)
        return max(similar if similar >= 0.6 else 0.0, 0.9 if shared else 0.7 if starts else 0.0)

    scores = {path: score(path) for path in _paths(config)}
    ranked = sorted((path for path in scores if scores[path]), key=lambda path: -scores[path])
    return ranked[:count]


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a configuration, those inside another as ``outer#inner``, but for what describes a component."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if not str(key).startswith("_") and (prefix or key not in _NOT_SETTINGS):
                if not (prefix and isinstance(value, str) and value.startswith("@")):  # a setting under another name
                    yield f"{prefix}{key}"
                yield from _paths(value, f"{prefix}{key}#")


def _words(name: str) -> list[str]:
    """The words of a name, whatever separates them."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)]


def _recipes_of_sources() -> list[str]:
    """The recipes that have the setting ``sources``, in one of their layers."""
    return [
        recipe
        for recipe in recipe_names()
        if any(re.search(r"^sources:", path.read_text(), re.M) for path in config_files(recipe))
    ]


_NEVER_NULL = frozenset({"epochs", "batch_size", "image_size", "learning_rate"})


def _check_kind(key: str, value: Any, default: Any) -> None:
    """A number in place of a number, a component in place of a component, yes or no in place of yes or no.

    An expression may replace anything, and null most.
    """
    if value is None and key in _NEVER_NULL:
        raise ValueError(error_message(key, "be a number", "null"))
    if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        return
    if _is_component(default) and not _is_component(value):
        arguments = ", ".join(f"{key}#{name}" for name in default if not str(name).startswith("_"))
        what = f"be a component (a dictionary with _target_); its arguments are set as {arguments}"
        raise ValueError(error_message(key, what, repr(value)))
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(error_message(key, "be true or false", repr(value)))
    whole = isinstance(default, int)
    if _is_number(default) and not (_is_number(value) and (not whole or float(value).is_integer())):
        raise ValueError(error_message(key, f"be {'an integer' if whole else 'a number'}, as {default}", repr(value)))


def _is_component(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
