"""The command reference says what the commands' own parsers take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from medvl.cli import app

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def make_commands(docs_script):
    return docs_script("make_commands")


def test_the_pages_are_those_that_the_script_writes(make_commands):
    pages = {path.stem: path.read_text() for path in make_commands.FOLDER.glob("*.md")}
    assert pages == make_commands.pages(), "run python docs/make_commands.py"


def test_guides_are_pages_and_of_commands(make_commands):
    assert set(make_commands.GUIDES) <= set(COMMANDS)
    for page in make_commands.GUIDES.values():
        assert (DOCS / f"{page}.md").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_every_option_with_its_default_and_no_other(name):
    text = (DOCS / "commands" / f"{name}.md").read_text()
    entries = dict(re.findall(r"^:::\{option\} (.*)\n(.*)\n:::$", text, re.M))
    parsed = [parameter for parameter in COMMANDS[name].params if not parameter.hidden]
    assert len(entries) == len(parsed)
    for parameter in parsed:
        if parameter.param_type_name == "argument":
            shown = (parameter.metavar or parameter.name.upper()).strip("[].")
            (signature,) = [entry for entry in entries if entry.strip("[].").upper() == shown.upper()]
            assert signature.startswith("[") != parameter.required
        else:
            (signature,) = [entry for entry in entries if re.findall(r"--[\w-]+", entry) == parameter.opts]
            assert parameter.is_flag == (signature == ", ".join(parameter.opts))
        stated = re.search(r"Default: `(.*)`\.$", entries[signature])
        shown = parameter.show_default and not (
            parameter.required or parameter.default is None or parameter.default is False
        )
        default = parameter.default if isinstance(parameter.default, tuple) else [parameter.default]
        assert (stated[1] if stated else None) == (" ".join(map(str, default)) if shown else None), signature


def test_help_texts_become_markdown(make_commands):
    for text, expected in {
        "As --set rate=0.1, or 'cpu'.": "As `--set rate=0.1`, or `cpu`.",
        "(medvl train RECIPE --settings lists them)": "(`medvl train RECIPE --settings` lists them)",
        "what medvl train has written, none but medvl, MONAI": "what `medvl train` has written, none but medvl, MONAI",
        "begins with $, @ or %": "begins with `$`, `@` or `%`",
        "a_1 * b_2 <x> [y]": r"`a_1` \* `b_2` \<x\> \[y\]",
        "CheXpert's own; the table's": "CheXpert's own; the table's",
        "such as openi:reports.tgz.": "such as `openi:reports.tgz`.",
        "or as shards:https://HOST/FOLDER. It": "or as `shards:https://HOST/FOLDER`. It",
        "The end. Next: one. Then two": "The end. Next: one. Then two",
    }.items():
        assert make_commands.prose(text) == expected
