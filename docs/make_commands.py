"""Writes the command reference, docs/commands, from the commands themselves: ``python docs/make_commands.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from medvl.cli import app
from medvl.utils.io import write_text

FOLDER = Path(__file__).parent / "commands"
NOTE = "<!-- Made by python docs/make_commands.py from medvl/cli. Do not edit. -->"
GUIDES = {
    "demo": "get_started/tour",
    "train": "training",
    "pack": "scale",
    "config": "recipes/index",
    "evaluate": "evaluation/index",
    "compare": "evaluation/compare",
    "card": "training",
    "predict": "predictions",
    "explain": "predictions",
    "embed": "scale",
    "nearest": "scale",
    "label": "report_language",
    "audit": "audit",
}
"""The page that explains what a command is for."""

WIDTH = 88
TYPES = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}

INTRODUCTION = """# Command reference

`medvl COMMAND --help` prints what these pages say. A command that fails because of its input ends with the exit code 2 and
one sentence, a defect with 1, and a signal with 128 and its number.

"""
END = """
`medvl --version` prints the version, and `--debug`, anywhere on the line, the traceback of an error.
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command.

    Args:
        name: of the function's parameter.
        kind: its type without None: ``str``, ``bool``, ``list[Path]``, ...
        default: its value where it is not given; ``inspect.Parameter.empty`` for none.
        info: what Typer knows of it.
    """

    name: str
    kind: Any
    default: Any
    info: ArgumentInfo | OptionInfo

    @property
    def is_argument(self) -> bool:
        return isinstance(self.info, ArgumentInfo)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def multiple(self) -> bool:
        return get_origin(self.kind) is list

    @property
    def heading(self) -> str:
        return self.info.rich_help_panel or ("Arguments" if self.is_argument else "Options")

    @property
    def names(self) -> list[str]:
        """Of an option; the first name in ``typer.Option("--a", "-b")`` is what Typer first takes for the default."""
        first = [self.info.default] if isinstance(self.info.default, str) else []
        return [*first, *(self.info.param_decls or ())] or [f"--{self.name.replace('_', '-')}"]

    @property
    def signature(self) -> str:
        """As it is typed: ``--epochs INTEGER``, ``--resume``, ``RUN``, ``[IMAGES]...``."""
        if self.is_argument:
            name = self.info.metavar or self.name.upper()
            return (name if self.required else f"[{name}]") + "..." * (self.multiple and " " not in name)
        names = self.names
        if self.kind is bool:
            return ", ".join(names)
        kind = get_args(self.kind)[0] if self.multiple else self.kind
        values = get_args(kind) if get_origin(kind) is tuple else (kind,)
        return f"{', '.join(names)} {self.info.metavar or ' '.join(TYPES[value] for value in values)}"

    @property
    def stated_default(self) -> str:
        """The default where the help shows it: not of a flag, and not where the help itself says it."""
        if self.required or self.default is None or self.kind is bool or not self.info.show_default:
            return ""
        return " ".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)


def parameters_of(command: Callable[..., None]) -> list[Parameter]:
    """The arguments and options of a command that its help shows, in order."""
    found = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, info = get_args(parameter.annotation)
        if type(None) in get_args(kind):
            kind = next(part for part in get_args(kind) if part is not type(None))
        if not info.hidden:
            found.append(Parameter(parameter.name, kind, parameter.default, info))
    return found


def pages() -> dict[str, str]:
    """The text of every page by its name."""
    commands = {info.name or info.callback.__name__: info.callback for info in app.registered_commands}
    table = [["Command", "What it does"], ["---", "---"]]
    table += [[f"[medvl {name}]({name}.md)", prose(_docstring(command)[0][0])] for name, command in commands.items()]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in table)
    tree = ["```{toctree}", ":hidden:", "", *commands, "```"]
    index = "\n".join([NOTE, INTRODUCTION + rows, END, *tree, ""])
    return {"index": index} | {name: page(name, command) for name, command in commands.items()}


def page(name: str, command: Callable[..., None]) -> str:
    """The page of a command."""
    parameters = parameters_of(command)
    texts, examples = _docstring(command)
    usage = " ".join([f"medvl {name}", "[OPTIONS]", *(p.signature for p in parameters if p.is_argument)])
    lines = [NOTE, f"# medvl {name}", "", *(line for text in texts for line in (prose(text), ""))]
    lines += ["```text", usage, "```", ""]
    lines += ["```bash", *examples, "```", ""] if examples else []
    lines += [f"Guide: [](../{GUIDES[name]}.md).", ""] if name in GUIDES else []
    lines += [f"```{{program}} medvl {name}", "```", ""]
    own = [heading for heading in ("Arguments", "Options") if any(p.heading == heading for p in parameters)]
    for heading in dict.fromkeys([*own, *(parameter.heading for parameter in parameters)]):
        lines += [f"## {heading}", ""]
        for parameter in parameters:
            lines += entry(parameter) if parameter.heading == heading else []
    return "\n".join(lines)


def entry(parameter: Parameter) -> list[str]:
    """An option or argument with its help and default."""
    default = parameter.stated_default
    text = [prose(parameter.info.help or "")] + ([f"Default: `{default}`."] if default else [])
    return [f":::{{option}} {parameter.signature}", " ".join(filter(None, text)), ":::", ""]


def _docstring(command: Callable[..., None]) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring, and the commands of its examples."""
    parts = [" ".join(part.split()) for part in (inspect.getdoc(command) or "").split("\n\n")]
    examples = [part.removeprefix("Example: ") for part in parts if part.startswith("Example: ")]
    commands = [_wrapped(line.strip()) for example in examples for line in example.split(", then:")]
    return [part for part in parts if not part.startswith("Example: ")], commands


def _wrapped(line: str) -> str:
    """A command, continued on a line of its own where it is longer than a page is wide."""
    if len(line) <= WIDTH:
        return line
    *_, place = (match.start() for match in re.finditer(" --", line) if match.start() < WIDTH)
    return f"{line[:place]} \\\n    {_wrapped(line[place + 1 :])}"


COMMAND = r"medvl (?:{})(?: [A-Z]+)?(?: --[a-z-]+)?"
INSTALL = r'pip install "[^"]+"'
QUOTED = r"'[^' ]+'(?=[\s,;.)]|$)"
OPTION = r"(?<![\w-])--[a-z][\w-]*(?: [\w#]+=[\w.]*\w)?"
# A word with a mark that prose does not have: a setting, a suffix or file, NAME:PATH, a folder, a mark itself.
WORD = r"(?<![\w'{{./])(?:{})".format(
    "|".join(
        (
            r"[\w/{}.-]+[_=][\w/{}:.=-]*\w",
            r"[\w/-]*\.[a-z]{2,}\d?(?::\w[\w=]*)?",
            r"[\w-]+:(?:https://)?[A-Za-z_][\w.=/]*\w",
            r"\w+/(?=[\s,)])",
            r"[$@%](?=[\s,]|$)",
        )
    )
)


def prose(text: str) -> str:
    """A help text in Markdown: commands, options, files, settings and quoted values as code, other marks escaped.

    Example:
        >>> prose("As --set rate=0.1, or 'cpu'; a value with $ is written to a.csv.")
        'As `--set rate=0.1`, or `cpu`; a value with `$` is written to `a.csv`.'
    """
    names = "|".join(info.name or info.callback.__name__ for info in app.registered_commands)
    pattern = "|".join((COMMAND.format(names), INSTALL, QUOTED, OPTION, WORD))
    text, parts, end = " ".join(text.split()), [], 0
    for match in re.finditer(pattern, text):
        parts += [_escaped(text[end : match.start()]), f"`{match[0].strip(chr(39))}`"]
        end = match.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>$`\\[\]{|])", r"\\\1", text)


def main() -> None:
    for name, text in pages().items():
        write_text(FOLDER / f"{name}.md", text)


if __name__ == "__main__":
    main()
