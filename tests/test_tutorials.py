"""What the tutorials promise. That they run is a step of CI of its own."""

from __future__ import annotations

import base64
import difflib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

TUTORIALS = Path(__file__).parents[1] / "tutorials"


def code_of(name: str) -> list[str]:
    """The lines of a tutorial below its docstring."""
    return (TUTORIALS / name).read_text().split('"""', 2)[2].splitlines()


def changed_lines(before: list[str], after: list[str]) -> int:
    """Lines that one changes, adds or deletes to get from ``before`` to ``after``; a changed line counts once."""
    edits = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for kind, i1, i2, j1, j2 in edits if kind != "equal")


def test_changed_lines_are_counted():
    assert changed_lines(list("abc"), list("abc")) == 0
    assert changed_lines(list("abc"), list("axc")) == 1
    assert changed_lines(list("abc"), list("axybc")) == 2
    assert changed_lines(list("abc"), list("a")) == 2


def test_a_monai_trainer_learns_from_reports_by_at_most_fifteen_changed_lines():
    before, after = (code_of(f"monai_trainer_{which}.py") for which in ("before", "after"))
    assert 5 < changed_lines(before, after) <= 15
    uses = {
        which: set(re.findall(r"^from medvl\.(\w+)", "\n".join(lines), re.M))
        for which, lines in (("before", before), ("after", after))
    }
    assert uses["before"] == {"data"}, "before, only the stand-in for one's own data is ours"
    assert {"losses", "transforms", "networks", "engines"} <= uses["after"]


SCRIPTS = sorted(TUTORIALS.glob("[0-9]*.py"))
LARGEST = 400_000
"""Bytes of a notebook with its outputs."""


def notebook_of(script: Path) -> list[dict[str, Any]]:
    cells = json.loads(script.with_suffix(".ipynb").read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def cells_of(script: str) -> list[tuple[str, str]]:
    """Kind and text of each cell of a script in jupytext's percent format."""
    cells = []
    for part in re.split(r"^# %%", script, flags=re.M)[1:]:
        head, _, text = part.partition("\n")
        kind = "markdown" if head.strip() == "[markdown]" else "code"
        assert head.strip() in ("", "[markdown]")
        cells.append((kind, re.sub(r"^# ?", "", text, flags=re.M).strip() if kind == "markdown" else text.strip()))
    return cells


def test_cells_of_the_percent_format():
    assert cells_of("# %% [markdown]\n# # A\n#\n# b\n\n# %%\nx = 1  # c\n\n\n# d\n") == [
        ("markdown", "# A\n\nb"),
        ("code", "x = 1  # c\n\n\n# d"),
    ]


def test_there_are_twelve_tutorials_by_number():
    assert [script.name[:3] for script in SCRIPTS] == [f"{number:02}_" for number in range(1, 13)]
    assert {path.stem for path in TUTORIALS.glob("*.ipynb")} == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_is_its_script_run(script):
    cells = notebook_of(script)
    assert [(cell["cell_type"], cell["source"]) for cell in cells] == cells_of(script.read_text()), (
        f"python docs/make_notebooks.py {script.stem}"
    )
    assert script.with_suffix(".ipynb").stat().st_size < LARGEST
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}, "an error, or an unused value"
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    assert not re.search(r"/(?:home|tmp|root|work|Users)/|at 0x[0-9a-f]{6}", printed), "a path or address of a machine"
    assert cells[-1]["outputs"][-1]["data"]["image/png"], "a tutorial ends in a picture"


def test_a_page_of_the_gallery_has_text_code_and_output(docs_script, tmp_path):
    gallery_pages = docs_script("gallery_pages")
    picture = io.BytesIO()
    Image.new("RGB", (60, 30), "white").save(picture, "PNG")
    png = base64.b64encode(picture.getvalue()).decode()
    outputs = [{"output_type": "stream", "text": ["one\n", "two\n", "a  b\n", "long " * 30]}]
    outputs.append({"output_type": "display_data", "data": {"image/png": png}})
    first = "# A title\n\nWhat it *shows*. More [there](../docs/scale.md)."
    cells = [{"cell_type": "markdown", "source": first}, {"cell_type": "code", "source": "x = 1", "outputs": outputs}]
    (tmp_path / "01_a.ipynb").write_text(json.dumps({"cells": cells}))
    cards = gallery_pages.write_gallery(tmp_path / "gallery", [tmp_path / "01_a.ipynb"])
    page = (tmp_path / "gallery" / "01_a.md").read_text()
    assert "More [there](../scale.md)." in page
    long = ("long " * 24).rstrip() + "\n    long long long long long long"
    assert f"```python\nx = 1\n```\n\n```{{code-block}} text\n:class: output\n\none\ntwo\na  b\n{long}\n```" in page
    assert "![A title](01_a_1.png)" in page
    assert (tmp_path / "gallery" / "01_a_1.png").read_bytes() == picture.getvalue()
    assert "**[A title](gallery/01_a.md)**\n\nWhat it *shows*.\n\n:::::" in cards
    assert (tmp_path / "gallery" / "01_a_thumbnail.png").is_file()
