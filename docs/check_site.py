"""Checks the built pages: ``sphinx-build -E -a docs site && python docs/check_site.py site``.

The pages must be built as a whole: Sphinx forgets the index entries of pages that a further build does not write.

Every page has the navigation with its groups and no link to nowhere; no page shows a path of this machine, an address in
memory or LaTeX that is not rendered; and the search finds each of :data:`SEARCHES` at the first hit.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
SEARCHES = {
    "negation": "report_language",
    "uncertainty": "report_language",
    "false negative": "audit",
    "heat map": "predictions",
    "resume": "training",
    "hub": "published_weights",
    "DICOM series": "data",
    "offline": "get_started/installation",
    "several GPUs": "recipes/index",
    "LoRA": "prompts",
    "privacy": "security",
    "notebook": "gallery",
    "false negatives": "audit",
    "heatmap": "predictions",
    "own table": "get_started/quick_start",
    "multi GPU": "recipes/index",
    "out of memory": "scale",
    "license": "limits",
    "citation": "methods/index",
    "frozen": "prompts",
    "bounding box": "evaluation/grounding",
    "zero-shot": "evaluation/zero_shot",
    "retrieval": "evaluation/retrieval",
    "linear probe": "evaluation/linear_probe",
    "segmentation": "evaluation/segmentation",
    "threshold": "evaluation/label_agreement",
    "loss": "losses/index",
    "3D": "recipes/index",
    "prompt": "prompts",
}
"""What people look for, and the page that must come first."""

GROUPS = (
    "Get started",
    "Gallery",
    "Guides",
    "Methods",
    "Losses",
    "Evaluation",
    "API",
    "Command reference",
    "FAQ",
    "Coming from ...",
    "Glossary",
    "Limits and intended use",
    "Contributing",
    "Changelog",
)
NOT_OURS = {"genindex.html", "py-modindex.html", "search.html"}  # Sphinx's own; they have no text of ours
LATEX = re.compile(r"\\(?:frac|tfrac|sum|log|exp|tau|langle|mathrm|mathbf|text|begin|left|cdot)\b|\$\$")
MACHINE = re.compile(rf"{re.escape(str(ROOT))}|(?<![\w./-])/(?:home|Users|root|tmp|work)/\w+/|\bat 0x[0-9a-f]{{6,}}")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What the checks need of a page: ids, links, pictures, the texts of the navigation, and the text outside of equations.

    Args:
        html: the page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.navigation: list[str] = []
        self.text: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        if tag not in VOID:
            self._open.append((tag, values.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        while self._open and tag in {name for name, _ in self._open}:
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        tags, classes = {tag for tag, _ in self._open}, " ".join(names for _, names in self._open).split()
        if "bd-links" in classes and data.strip():
            self.navigation.append(data.strip())
        if not tags & {"script", "style", "head"} and "math" not in classes:
            self.text.append(data)


def problems(site: Path, searches: dict[str, str] = SEARCHES, groups: Sequence[str] = GROUPS) -> list[str]:
    """One sentence for each thing that is wrong, with the page."""
    names = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    pages = {name: Page((site / name).read_text()) for name in names if not name.startswith(("_modules/", "_static/"))}
    found = [] if pages else [f"{site} has no page."]
    for name, page in pages.items():
        mistakes = [*_of_text(page, () if name in NOT_OURS else groups), *_of_links(site, name, pages)]
        found += [f"{name}: {mistake}" for mistake in mistakes]
    return found + list(_of_search(site / "searchindex.js", searches))


def _of_text(page: Page, groups: Sequence[str]) -> Iterator[str]:
    if missing := [group for group in groups if group not in page.navigation]:
        yield f"the navigation lacks {', '.join(missing)}."
    text = "".join(page.text)
    for kind, pattern in (("a path or address of this machine", MACHINE), ("LaTeX that is not rendered", LATEX)):
        if match := pattern.search(text):
            yield f"{kind}: {text[max(match.start() - 20, 0) : match.end() + 20]!r}."


def _of_links(site: Path, name: str, pages: dict[str, Page]) -> Iterator[str]:
    """A link within the site leads to a file and, in a page, to an id."""
    for link in dict.fromkeys(pages[name].links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (
            posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path))) if parts.path else name
        )
        if target not in pages and not (site / target).is_file():
            yield f"{link} leads to no file."
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"{link} leads to no place of its page."


def first_hits(index: dict[str, Any], query: str) -> list[str]:
    """The pages that the search lists first for a query.

    Sphinx's search gives an entry of the index that is marked by ``!`` and equals the query the score 100, and everything else
    (titles, names of the API, words of the text) at most 26. The terms of the glossary are such entries too;
    docs/search_scorer.js puts them behind those of other pages.
    """
    pages = [index["docnames"][page] for page, _, main in index["indexentries"].get(query.lower(), []) if main]
    return [page for page in pages if page != "glossary"] or pages


def _of_search(path: Path, searches: dict[str, str]) -> Iterator[str]:
    index = json.loads(path.read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    for query, page in searches.items():
        if (hits := first_hits(index, query)) != [page]:
            yield f"search: {query!r} must find {page} first, and finds {' and '.join(hits) or 'what has it by chance'}."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="the folder that sphinx-build wrote")
    found = problems(parser.parse_args().site)
    print("\n".join(found) or "Navigation, links, texts and searches are as they should be.")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
