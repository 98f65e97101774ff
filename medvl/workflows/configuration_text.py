"""The text of a configuration whose layers are merged, with the comments of its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from medvl.workflows.layers import LAYERS, ConfigFile, check_overrides, config_files, split_key, with_paper_settings

USAGE = (
    "# The whole configuration, to copy and edit. It runs by `medvl train FILE` and by\n"
    "# `python -m monai.bundle run --config_file FILE`; the settings come first.\n"
)
WIDTH = 100  # after which a dictionary in braces goes on in the next line


def config_text(recipe: ConfigFile, overrides: Mapping[str, Any] | None = None) -> str:
    """One YAML file that does what a recipe does with these overrides.

    Top-level keys are in the order of the lowest layer; a key that a layer adds follows the one before it in that layer's
    file. A comment on the line of a value stays unless a layer has its own.

    Args:
        recipe: a recipe's name, a configuration file, or several (:func:`~medvl.workflows.config_files`).
        overrides: values by key; a key inside another is written ``outer#inner``.

    Returns:
        The file's text; what MONAI reads from it equals what it reads from the layers.

    Raises:
        ValueError: If a recipe, layer or key is unknown, or an override is of another kind than the value it replaces.

    Example:
        >>> print(config_text("convirt", {"epochs": 3}).splitlines()[0])
        # ConVIRT: contrast each image with one random sentence of its report.
    """
    text = _merged(recipe, overrides)
    text.remove_layers()
    return text.dump()


def settings_text(recipe: ConfigFile, overrides: Mapping[str, Any] | None = None) -> str:
    """The settings of a recipe with their values and comments: its configuration without the components made from them.

    Args:
        recipe: see :func:`config_text`.
        overrides: see :func:`config_text`.

    Raises:
        ValueError: As :func:`config_text`.

    Example:
        >>> [line for line in settings_text("convirt").splitlines() if line.startswith("learning_rate")]
        ['learning_rate: 0.0005']
    """
    text = _merged(recipe, overrides)
    config = yaml.safe_load(text.dump())
    recorded = config.get("recorded_config") or {key for key, value in config.items() if not _is_made(value)}
    text.blocks = {key: block for key, block in text.blocks.items() if key in recorded and key != LAYERS}
    body = "".join(block.above + block.body for block in text.blocks.values())
    return f"{text.title.rstrip()}\n\n{body.lstrip()}".lstrip()


def _merged(recipe: ConfigFile, overrides: Mapping[str, Any] | None) -> _Text:
    """The layers of a configuration in one text, with overrides."""
    recipe, overrides = with_paper_settings(recipe, overrides or {})
    text = _Text()
    for path in config_files(recipe):
        try:
            text.add_layer(path.read_text())
        except YAMLError as error:
            reason = " ".join(str(getattr(error, "problem", None) or error).split())
            raise ValueError(f"{path} is no valid YAML: {reason}.") from error
    if overrides:
        check_overrides(yaml.safe_load(text.dump()), overrides, str(recipe))
        for key, value in overrides.items():
            text.set(key, _flow(value))
    return text


def _is_made(value: Any) -> bool:
    """Whether a value contains a component, an expression or a reference."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_is_made, value.values()))
    if isinstance(value, list):
        return any(map(_is_made, value))
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


@dataclass
class _Block:
    """A top-level key with its value as they stand in the file, and the blank lines and comments above it."""

    above: str
    body: str

    def load(self) -> CommentedMap:
        return _yaml(WIDTH).load(self.body)

    def store(self, content: CommentedMap) -> None:
        # Long expressions stay on their line; a dictionary in braces, whose lines end in commas, is broken anew.
        width = max(WIDTH, *(len(line) for line in self.body.splitlines() if not line.endswith((",", "{"))))
        stream = StringIO()
        _yaml(width).dump(content, stream)
        self.body = re.sub(r", +\n", ",\n", stream.getvalue())


class _Text:
    """The blocks of a file by key, in order."""

    def __init__(self) -> None:
        self.title = ""
        self.blocks: dict[str, _Block] = {}

    def add_layer(self, text: str) -> None:
        """Merge the text of a file as ``monai.bundle.ConfigParser`` merges its content."""
        is_lowest, before = not self.blocks, None
        title, blocks = _split(text, keep_above=is_lowest)
        self.title = title or self.title
        for key, block in blocks.items():
            top, *inner = split_key(key.removeprefix("+"))
            if top not in self.blocks:
                self._insert(top, block, before)
            elif not inner and not key.startswith("+"):
                self._replace(top, block)
            else:
                self._edit(top, inner, block, merge=key.startswith("+"))
            before = top

    def set(self, key: str, value: Any) -> None:
        """Set one value; the comment on its line stays."""
        top, *inner = split_key(key)
        content = self.blocks[top].load()
        parent, last = _parent(content, [top, *inner])
        parent[last] = value
        self.blocks[top].store(content)

    def remove_layers(self) -> None:
        """Drop the names of the layers, which a whole file does not have."""
        self.blocks.pop(LAYERS, None)
        for block in self.blocks.values():
            if re.match(r"recorded_config\b", block.body):
                content = block.load()
                if content["recorded_config"].pop(LAYERS, None) is not None:
                    block.store(content)

    def dump(self) -> str:
        """The text of the file."""
        body = "".join(block.above + block.body for block in self.blocks.values())
        return f"{self.title}#\n{USAGE}{body}" if self.title else f"{USAGE}{body}"

    def _insert(self, key: str, block: _Block, before: str | None) -> None:
        items = list(self.blocks.items())
        position = next((i + 1 for i, (name, _) in enumerate(items) if name == before), len(items))
        self.blocks = dict([*items[:position], (key, block), *items[position:]])

    def _replace(self, key: str, block: _Block) -> None:
        old = self.blocks[key]
        comment = re.search(r"\s+# .*\n?$", old.body)
        if comment and old.body.count("\n") == block.body.count("\n") == 1 and not re.search(r"\s# ", block.body):
            column = old.body.index("# ")
            block.body = f"{block.body.rstrip():<{column - 2}}  {old.body[column:]}"
        self.blocks[key] = _Block(old.above + block.above.lstrip("\n"), block.body)

    def _edit(self, top: str, inner: list[str], block: _Block, merge: bool) -> None:
        content, given = self.blocks[top].load(), block.load()
        ((given_key, value),) = given.items()
        parent, last = _parent(content, [top, *inner])
        if not merge:
            _assign(parent, last, value, given, given_key)
        elif isinstance(value, list):
            parent[last].extend(value)
        else:
            for key in value:
                _assign(parent[last], key, value[key], value, key)
            if given_key in given.ca.items:
                parent.ca.items[last] = given.ca.items[given_key]
        self.blocks[top].store(content)
        if block.above.strip():
            self.blocks[top].above += block.above.lstrip("\n")


def _split(text: str, keep_above: bool) -> tuple[str, dict[str, _Block]]:
    """The comment at a file's top, and its top-level blocks by key.

    Args:
        text: of a YAML file.
        keep_above: whether all comments and blank lines above a key are kept, or only those that touch it.
    """
    lines = [f"{line}\n" for line in text.splitlines()]
    content = YAML().load(text)
    keys = list(content)
    starts = [content.lc.key(key)[0] for key in keys]
    tops = []  # where the comments above each key begin
    for start in starts:
        top = start
        while top and (lines[top - 1].isspace() or lines[top - 1].startswith("#")):
            top -= 1
        tops.append(top)
    blocks, title = {}, ""
    for number, (key, start, top) in enumerate(zip(keys, starts, tops, strict=True)):
        end = tops[number + 1] if number + 1 < len(keys) else len(lines)
        above = "".join(lines[top:start])
        if number == 0:
            title, above = above.rstrip() + "\n" if above.strip() else "", "\n"
        elif not keep_above:
            blank, _, touching = above.rpartition("\n\n") if not above.startswith("\n") else ("", "", above[1:])
            above = ("\n" if "\n\n" in f"\n{above}" or blank else "") + touching.rpartition("\n\n")[2]
        blocks[str(key)] = _Block(above, "".join(lines[start:end]))
    return title, blocks


def _parent(content: CommentedMap, keys: list[str]) -> tuple[Any, Any]:
    """The container of a nested key, and the key or index in it."""
    node: Any = content
    for key in keys[:-1]:
        node = node[int(key)] if isinstance(node, list) else node[key]
    return node, int(keys[-1]) if isinstance(node, list) else keys[-1]


def _assign(target: Any, key: Any, value: Any, source: CommentedMap, source_key: Any) -> None:
    """Set ``target[key]`` with the comment that the value has in its source; what a component is comes first."""
    if key == "_target_" and key not in target:
        target.insert(0, key, value)
    else:
        target[key] = value
    if isinstance(target, CommentedMap) and source_key in source.ca.items:
        target.ca.items[key] = source.ca.items[source_key]


def _flow(value: Any) -> Any:
    """The value of an override: dictionaries and lists on one line, strings in quotes where YAML would not read a string."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w./-]+", value) and yaml.safe_load(value) == value
        return value if plain else DoubleQuotedScalarString(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    content: Any = CommentedSeq(map(_flow, value))
    if isinstance(value, Mapping):
        content = CommentedMap({key: _flow(inner) for key, inner in value.items()})
    content.fa.set_flow_style()
    return content


class _Representer(RoundTripRepresenter):
    """Writes what PyYAML reads: it takes 1e-05 for a string, and ruamel.yaml leaves a null out."""

    def represent_none(self, data: None) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_plain_float(self, data: float) -> Any:
        text = yaml.safe_dump(data).split("\n")[0]
        return self.represent_scalar("tag:yaml.org,2002:float", text)


_Representer.add_representer(type(None), _Representer.represent_none)
_Representer.add_representer(float, _Representer.represent_plain_float)


def _yaml(width: int) -> YAML:
    result = YAML()
    result.preserve_quotes, result.width, result.Representer = True, width, _Representer
    return result
