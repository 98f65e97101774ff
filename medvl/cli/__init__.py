"""The ``medvl`` command, one file a command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from medvl.cli.audit import audit
from medvl.cli.card import card
from medvl.cli.compare import compare
from medvl.cli.config import config
from medvl.cli.demo import demo
from medvl.cli.embed import embed
from medvl.cli.evaluate import evaluate
from medvl.cli.explain import explain
from medvl.cli.label import label
from medvl.cli.messages import error_sentence, say_process_lost, say_stopped, set_up_messages
from medvl.cli.nearest import nearest
from medvl.cli.pack import pack
from medvl.cli.predict import predict
from medvl.cli.train import train
from medvl.utils.signals import StopSignals

__all__ = ["app", "main"]

app = typer.Typer(
    name="medvl",
    help="Medical vision-language learning: train and evaluate image-text models on images with reports.",
    epilog="Start with:  medvl demo   ·   then:  medvl train medvl --data cases.csv --output runs/first",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


for command in (demo, train, config, evaluate, compare, predict, explain, embed, nearest, card, label, audit, pack):
    app.command()(command)


def _say_version(asked: bool) -> None:
    if asked:
        from medvl import __version__

        typer.echo(f"medvl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_say_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Options of every command; ``--debug`` is read in :func:`main`."""


def main() -> None:
    """Runs the command line: 0 where all went well, 2 for wrong input, 1 for a defect, 128 and its number after a signal."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    set_up_messages()
    with StopSignals() as stop:
        code = _run(arguments, debug, stop)
    sys.exit(code)


def _run(arguments: list[str], debug: bool, stop: StopSignals) -> int | str | None:
    """Runs the command line; its exit code."""
    code: int | str | None = 0
    failure: Exception | None = None
    try:
        app(args=arguments)
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        pass
    except Exception as error:
        failure = error
    if stop.received is not None or (failure and "DataLoader worker" in str(failure) and stop.wait()):
        return say_stopped(stop.received or signal.SIGINT, arguments)
    if failure is None:
        return code
    if debug:
        raise failure
    if (code := say_process_lost(failure, arguments)) is not None:
        return code
    text, expected = error_sentence(failure)
    typer.secho(f"Error: {text}", fg=typer.colors.RED, err=True)
    if not expected:
        typer.echo("This looks like a defect; run again with --debug for the traceback.", err=True)
    return 2 if expected else 1
