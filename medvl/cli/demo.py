"""``medvl demo``: the main job on generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvl.cli.evaluate import evaluate_and_report
from medvl.cli.options import NoText, Output, Seed


def demo(
    output: Output = Path("medvl-demo"),
    recipe: Annotated[str, typer.Option(help="What to train: convirt, medclip, umcl, mlip or medvl.")] = "medvl",
    seed: Seed = 0,
    no_text: NoText = False,
) -> None:
    """Generate chest X-rays with reports, train and evaluate a model on them, write a report; a few minutes on a CPU.

    The images are drawn and the reports composed by the library itself; no data is downloaded and no patient is in it.
    A demo that was interrupted continues where it stopped.
    """
    from medvl.workflows import literal, train
    from medvl.workflows.layers import config_files

    config_files(recipe)  # in a list, any layer would do
    run = train([recipe, "demo"], {"output": literal(str(output)), "seed": seed, "resume": True})
    title = f"medvl demo: {recipe} on synthetic chest X-rays"
    protocols = ("zero-shot", "label-agreement", "retrieval", "label-retrieval", "grounding")
    evaluate_and_report(run, None, output, title=title, protocols=protocols, show_text=not no_text)
