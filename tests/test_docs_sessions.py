"""The interpreter sessions on the pages of the documentation print what the pages show.

``docs/explain_labels.md`` is run by ``tests/text/test_explanation.py``, which needs no torch.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def session(page: Path) -> str:
    """The blocks of a page that are sessions, one after the other: a block may use what those before it have defined."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
    return "\n".join(block for block in blocks if block.startswith(">>> "))


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if session(page) and page.stem != "explain_labels"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sessions_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(session(page), {}, page.name, str(page), 0)
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF)
    result = runner.run(examples, out=failures.append)
    assert not result.failed, "".join(failures)


def test_pages_with_sessions_are_found():
    assert {"medclip", "open_clip", "faq"} <= {page.stem for page in PAGES}
