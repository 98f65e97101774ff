"""``medvl card``: the card of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvl.cli.messages import echo


def card(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    license: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model's license, by its name in the Hugging Face Hub, such as apache-2.0. By default that of the card "
            "that is there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Rewrite the card of a trained model: model/README.md in Hugging Face's layout.

    It states the data, the figures of the evaluation with intervals, intended use, limits, and how to load the model, from the
    records of the run. medvl train writes it and medvl evaluate adds the figures; this command sets a license, or starts over
    where the card was edited.

    Example:  medvl card runs/first --license apache-2.0
    """
    from medvl.workflows import write_model_card

    echo(f"Card: {write_model_card(run, license)}")
