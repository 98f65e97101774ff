"""The pages of the gallery, from the executed notebooks in tutorials/: conf.py calls :func:`write_gallery` before each build.

A notebook is JSON: its text is Markdown already, and its code, printed text and pictures become blocks of the page. Nothing is
executed here, and no package of Jupyter is needed.
"""

from __future__ import annotations

import base64
import io
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

SOURCES = "https://github.com/medvl/medvl/blob/main/tutorials"
THUMBNAIL = (480, 230)
"""Sides of a thumbnail, at most, in pixels."""
LONGEST = 122
"""Characters of a printed line that a page shows at 1280 pixels; a longer one is continued on the next."""


def write_gallery(folder: Path, notebooks: list[Path]) -> str:
    """Write a page for each notebook and its pictures; return the cards of docs/gallery.md, one for each."""
    folder.mkdir(exist_ok=True)
    cards = []
    for path in notebooks:
        cells = json.loads(path.read_text())["cells"]
        *_, thumbnail = write_pictures(folder, path.stem, cells)
        write(folder / f"{path.stem}.md", page(path.stem, cells))
        cards.append(card(cells, f"{folder.name}/{thumbnail.name}", f"{folder.name}/{path.stem}.md"))
    return "\n\n".join(["::::::{container} gallery", *cards, "::::::"])


def write(path: Path, text: str) -> None:
    """Write a page if it has changed, so that Sphinx does not read the others again."""
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def source(cell: dict[str, Any]) -> str:
    """The text of a cell; a notebook may hold it in lines."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def pictures_of(cells: list[dict[str, Any]]) -> Iterator[bytes]:
    for cell in cells:
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                yield base64.b64decode(png)


def write_pictures(folder: Path, stem: str, cells: list[dict[str, Any]]) -> list[Path]:
    """The pictures as ``STEM_1.png``, ..., and the last of them as a thumbnail."""
    found = []
    for number, png in enumerate(pictures_of(cells), start=1):
        found.append(folder / f"{stem}_{number}.png")
        found[-1].write_bytes(png)
    small = Image.open(io.BytesIO(found[-1].read_bytes())).convert("RGB")
    small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    found.append(folder / f"{stem}_thumbnail.png")
    small.save(found[-1], optimize=True)
    return found


def page(stem: str, cells: list[dict[str, Any]]) -> str:
    """A notebook as a page of MyST Markdown; without the second sidebar, lines of 120 characters fit at 1280 pixels."""
    parts: list[str] = []
    headings = [
        found
        for cell in cells
        if cell["cell_type"] == "markdown"
        for found in re.findall(r"^## (.*)$", source(cell), re.M)
    ]
    number, heading = 0, ""
    for cell in cells:
        if cell["cell_type"] == "markdown":
            heading = "".join(re.findall(r"^#+ (.*)$", source(cell), re.M)[-1:]) or heading
            parts.append(source(cell).replace("](../docs/", "](../"))
            if len(parts) == 1:
                links = f"[{stem}.ipynb]({SOURCES}/{stem}.ipynb), [{stem}.py]({SOURCES}/{stem}.py)"
                parts.append(f"The notebook and its source: {links}.")
                if headings:
                    parts.append(f"On this page: {' · '.join(f'[{name}](#{anchor(name)})' for name in headings)}.")
            continue
        parts.append(f"```python\n{source(cell)}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                text = wrapped("".join(output["text"]).rstrip())
                parts.append(f"```{{code-block}} text\n:class: output\n\n{text}\n```")
            else:
                number += 1
                parts.append(f"![{heading}]({stem}_{number}.png)")
    return "---\nhtml_theme.sidebar_secondary.remove: true\n---\n\n" + "\n\n".join(parts) + "\n"


def anchor(heading: str) -> str:
    """The id that MyST gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def wrapped(text: str) -> str:
    """Printed text whose long lines are broken at spaces; what follows a break is indented."""
    lines = text.split("\n")
    options = {"break_long_words": False, "break_on_hyphens": False, "drop_whitespace": False}
    broken = [textwrap.wrap(line, LONGEST, subsequent_indent="    ", **options) or [""] for line in lines]
    return "\n".join(part.rstrip() for parts in broken for part in parts)


def card(cells: list[dict[str, Any]], thumbnail: str, page: str) -> str:
    """The thumbnail, the title as a link, and the first sentence of a notebook."""
    title, _, rest = source(cells[0]).partition("\n")
    first = re.split(r"(?<=[.?!])\s", " ".join(rest.strip().split("\n\n")[0].split()))[0]
    title = title.removeprefix("# ")
    lines = [f":::::{{container}} card\n[![{title}]({thumbnail})]({page})", f"**[{title}]({page})**", first]
    return "\n\n".join([*lines, ":::::"])
