"""Runs the tutorials and writes them as notebooks with what they print and draw: tutorials/NAME.ipynb beside NAME.py.

python docs/make_notebooks.py            # all of them
python docs/make_notebooks.py 03 10      # those whose names begin so

NAME.py, in jupytext's percent format, is the source: change that one, and run this script. It needs the extra "notebooks". What
goes to the standard error (progress bars, logs) is left out. ``jupytext --sync`` goes both ways between the two files.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
TIMEOUT = 1800  # seconds of a cell


def tutorials(beginnings: list[str]) -> list[Path]:
    """The tutorials, all or those whose names begin so."""
    return [path for path in sorted(TUTORIALS.glob("[0-9]*.py")) if path.name.startswith(tuple(beginnings) or "")]


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook of a tutorial, executed in an empty folder."""
    notebook = jupytext.read(path)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources).execute()
    return tidy(notebook, folder)


def tidy(notebook: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """Keep printed text and pictures; drop what differs from one run to the next, such as the folder of the run."""
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = list(kept_outputs(cell.outputs, folder))
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return notebook


def kept_outputs(outputs: list[Any], folder: str) -> Iterator[Any]:
    """Standard output as one text, then the pictures."""
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    if text:
        yield nbformat.v4.new_output("stream", name="stdout", text=text.replace(f"{folder}/", ""))
    for output in outputs:
        if png := output.get("data", {}).get("image/png"):
            yield nbformat.v4.new_output("display_data", data={"image/png": small_png(png)})


def small_png(encoded: str) -> str:
    """A picture without transparency, in 256 colors."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; all tutorials without them")
    for path in tutorials(parser.parse_args().names):
        start = time.monotonic()
        notebook = run(path)
        nbformat.write(notebook, path.with_suffix(".ipynb"))
        size = path.with_suffix(".ipynb").stat().st_size
        print(f"{path.stem}: {time.monotonic() - start:.0f} s, {size / 1000:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
