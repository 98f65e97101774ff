"""The documentation's own parts. That it builds without a warning is a step of CI of its own."""

from __future__ import annotations

import ast
import re
import shlex
import zlib
from pathlib import Path

import pytest
import typer

from medvl.cli import app
from medvl.cli.options import parse_settings
from medvl.utils import limits
from medvl.workflows import config_text

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def make_inventories(docs_script):
    return docs_script("make_inventories")


def test_inventories_are_those_that_the_script_writes(make_inventories):
    assert {path.stem for path in make_inventories.FOLDER.iterdir()} == set(make_inventories.PAGES)
    for project in make_inventories.PAGES:
        new, stored = make_inventories.inventory(project), (DOCS / "inventories" / f"{project}.inv").read_bytes()
        head, body = stored.split(b"zlib.\n", 1)
        assert new.startswith(head)
        assert zlib.decompress(new.split(b"zlib.\n", 1)[1]) == zlib.decompress(body), "run docs/make_inventories.py"


def test_an_alias_leads_to_the_page_of_the_public_name(make_inventories):
    lines = list(make_inventories.entries({"generated/{name}.html": "torch.nn.modules.module.Module=torch.nn.Module"}))
    assert lines == ["torch.nn.modules.module.Module py:class 1 generated/torch.nn.Module.html#torch.nn.Module -"]


def test_every_inventory_has_an_address(make_inventories):
    names = re.search(r"_PROJECTS = \{(.*?)\}", (DOCS / "conf.py").read_text(), re.S).group(1)
    assert re.findall(r'^ *"(\w+)": "https://', names, re.M) == list(make_inventories.PAGES)


def test_every_package_has_an_api_page():
    packages = {path.parent.name for path in (DOCS.parent / "medvl").glob("*/__init__.py")} - {"bundles", "cli"}
    pages = {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"}
    assert pages == packages
    index = (DOCS / "api" / "index.md").read_text()
    assert sorted(re.findall(r"^(\w+)$", index, re.M)) == sorted(pages)
    assert sorted(re.findall(r"^\| \[medvl\.(\w+)\]\(\1\.md\)", index, re.M)) == sorted(pages)


# Without the gallery, which a build of the site makes of the tutorials, whose imports need not all be installed.
OF_SITE = [page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "gallery"]
PAGES = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *OF_SITE]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """Page and arguments of every ``medvl`` command in the blocks of the pages and in their text."""
    found = []
    for page in PAGES:
        text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
        lines = [line.partition("  #")[0] for part in text.split("\n") for line in part.split("&&")]
        lines += re.findall(r"`((?:torchrun [^`]*-m )?medvl [a-z]+ (?:[a-z]+ )?[->][^`]*)`", page.read_text())
        for line in lines:
            if command := re.match(r"(?:torchrun .* -m )?medvl (\S.*?)\s*(?:>.*)?$", line.strip()):
                found.append((page.name, command[1]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_has_these_options(page, line):
    name, *arguments = shlex.split(line)
    group = typer.main.get_command(app)
    if name.startswith("--"):
        assert name in {option for parameter in group.params for option in parameter.opts}
        return
    command = group.commands[name]
    if {"...", "--help"} & {*arguments} or {argument for argument in arguments if argument.isupper()}:
        return  # a form to be filled in
    with command.make_context(name, arguments) as context:
        if context.params.get("settings"):
            config_text(context.params["recipe"], parse_settings(list(context.params["settings"])))


def test_commands_fit_a_page_of_1280_pixels():
    """95 characters beside both sidebars; the README is not a page of the site."""
    long = {
        page.name: lines
        for page in PAGES
        if page.name != "README.md"
        and (lines := [line for block in blocks(page, "bash") for line in block.splitlines() if len(line) > 95])
    }
    assert long == {}


def test_the_commands_are_found():
    assert len(commands()) >= 30
    assert ("README.md", "evaluate runs/first --protocol zero-shot retrieval linear-probe") in commands()
    assert ("README.md", "train convirt --data cases.csv") in commands()  # behind torchrun


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_snippets_are_python_and_their_imports_are_there(page):
    for block in blocks(page, "python"):
        # A session of the interpreter: its lines without prompts and results.
        lines = [line[4:] for line in block.splitlines() if line.startswith((">>> ", "... "))]
        tree = ast.parse("\n".join(lines) if block.startswith(">>> ") else block)
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})


def test_every_guide_is_in_the_table_of_guides():
    text = (DOCS / "guides.md").read_text()
    table, tree = text.split("```{toctree}")
    assert sorted(re.findall(r"\]\((\w+)\.md\) \|$", table, re.M)) == sorted(re.findall(r"^(\w+)$", tree, re.M))


def test_a_word_of_the_index_leads_to_one_page(docs_script):
    """A search lists these words first; with two pages, the first hit would be decided by their names."""
    pages: dict[str, list[str]] = {}
    for page in OF_SITE:
        for words in re.findall(r"^```\{index\} (.*)$", page.read_text(), re.M):
            for word in words.split(", "):
                assert word.startswith("! "), f"{page.name}: {word}"
                pages.setdefault(word[2:].lower(), []).append(page.relative_to(DOCS).with_suffix("").as_posix())
    assert {word: found for word, found in pages.items() if len(found) > 1} == {}
    searches = docs_script("check_site").SEARCHES
    assert {query: pages.get(query.lower()) for query in searches} == {
        query: [page] for query, page in searches.items()
    }


def test_every_line_of_the_threat_table_names_a_test_that_exists():
    page = (DOCS / "security.md").read_text()
    known = {
        name
        for path in Path(__file__).parent.rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)\(", path.read_text(), re.M)
    }
    lines = [line for line in page.splitlines() if line.startswith("|") and not line.startswith("|---")]
    lines = [line for line in lines if "Test |" not in line and "MEDVL_MAX" not in line and "Environment" not in line]
    assert len(lines) > 15
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line.rstrip("|").rpartition("|")[2])
        assert named, f"no test: {line}"
        assert set(named) <= known, f"no such test: {set(named) - known}"


def test_the_limits_of_the_page_are_those_of_the_code():
    page = (DOCS / "security.md").read_text()
    stated = dict(re.findall(r"^\| `(MEDVL_\w+)` \| ([\w ]+) \|", page, re.M))
    units = {"GiB": 2**30, "MiB": 2**20, "": 1}
    values = {name: int(text.split()[0]) * units[text.partition(" ")[2]] for name, text in stated.items()}
    assert values == limits.DEFAULTS
