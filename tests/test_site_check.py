"""The check of the built documentation finds what it looks for. That the documentation passes it is a step of CI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "check_site.py"
NAVIGATION = '<nav class="bd-links"><a href="index.html">Guides</a> <a href="data.html">API</a></nav>'
GOOD = f'<html><body>{NAVIGATION}<h1 id="top">A page</h1><br>TEXT</body></html>'


@pytest.fixture(scope="module")
def check_site(docs_script):
    return docs_script("check_site")


@pytest.fixture
def site(tmp_path):
    """Two pages, of which the second is found by "resume"."""
    for name in ("index", "data"):
        (tmp_path / f"{name}.html").write_text(GOOD.replace("TEXT", '<a href="data.html#top">data</a>'))
    write_index(tmp_path, {"resume": [[1, "index-0", True]], "resume()": [[0, "index-1", False]]})
    return tmp_path


def write_index(folder: Path, entries: dict) -> None:
    index = {"docnames": ["index", "data"], "indexentries": entries}
    (folder / "searchindex.js").write_text(f"Search.setIndex({json.dumps(index)})")


def found(check_site, site: Path) -> list[str]:
    return check_site.problems(site, {"Resume": "data"}, ("Guides", "API"))


def test_a_good_site_has_no_problem(check_site, site):
    assert found(check_site, site) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"--- {SCRIPT.parents[1]}/tutorials/a.py", "a path or address of this machine"),
        ("saved in /home/alice/runs/first", "a path or address of this machine"),
        ("<pre>default=&lt;function f at 0x7f2a4c3b&gt;</pre>", "a path or address of this machine"),
        (r"the loss \frac{1}{N} of", "LaTeX that is not rendered"),
        ("with $$x$$", "LaTeX that is not rendered"),
        ('<a href="missing.html">x</a>', "missing.html leads to no file."),
        ('<img src="_images/missing.png">', "_images/missing.png leads to no file."),
        ('<a href="data.html#nowhere">x</a>', "data.html#nowhere leads to no place of its page."),
        ('<a href="#nowhere">x</a>', "#nowhere leads to no place of its page."),
    ],
)
def test_what_is_wrong_in_a_page_is_found(check_site, site, text, problem):
    (site / "index.html").write_text(GOOD.replace("TEXT", text))
    (line,) = found(check_site, site)
    assert line.startswith(f"index.html: {problem}")


@pytest.mark.parametrize(
    "text",
    [
        r'<span class="math notranslate">\(\frac{1}{N}\)</span>',
        "<script>const a = '/home/alice/runs/'</script>",
        '<a href="https://example.org/missing.html#x">x</a><a href="mailto:a@example.org">x</a>',
        "data/home/images/a.png",
    ],
)
def test_what_is_right_in_a_page_is_not(check_site, site, text):
    (site / "index.html").write_text(GOOD.replace("TEXT", text))
    assert found(check_site, site) == []


def test_a_page_without_navigation_is_found_but_not_those_of_sphinx(check_site, site):
    for name in ("data", "search", "genindex"):
        (site / f"{name}.html").write_text('<html><h1 id="top">Guides, API</h1></html>')
    assert found(check_site, site) == ["data.html: the navigation lacks Guides, API."]


@pytest.mark.parametrize(
    ("entries", "hits"),
    [
        ({}, "what has it by chance"),
        ({"resume": [[1, "index-0", False]]}, "what has it by chance"),
        ({"resume": [[0, "index-0", True]]}, "index"),
        ({"resume": [[0, "index-0", True], [1, "index-1", True]]}, "index and data"),
    ],
)
def test_a_search_that_finds_another_page_first_is_found(check_site, site, entries, hits):
    write_index(site, entries)
    assert found(check_site, site) == [f"search: 'Resume' must find data first, and finds {hits}."]


def test_an_empty_folder_is_no_site(check_site, tmp_path):
    write_index(tmp_path, {"resume": [[1, "index-0", True]]})
    assert found(check_site, tmp_path) == [f"{tmp_path} has no page."]
