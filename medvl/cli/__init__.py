"""The ``medvl`` command, one file a command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
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
from medvl.cli.messages import (
    end_at_once,
    error_sentence,
    say_error,
    say_process_lost,
    say_stopped,
    set_up_messages,
    several_processes,
)
from medvl.cli.nearest import nearest
from medvl.cli.options import check_arguments
from medvl.cli.pack import pack
from medvl.cli.predict import predict
from medvl.cli.train import train
from medvl.utils.signals import StopSignals

__all__ = ["app", "main"]

IN_SEVERAL_PROCESSES = ("train", "embed")
"""The commands that the processes of ``torchrun`` share. Of another command the first process does all the work."""

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
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_say_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Options of every command; ``--debug`` is read in :func:`main`."""
    if several_processes() and context.invoked_subcommand not in IN_SEVERAL_PROCESSES:
        if os.environ.get("RANK", "0") != "0":
            raise typer.Exit
        os.environ["WORLD_SIZE"] = "1"


def main() -> None:
    """Runs the command line: 0 where all went well, 2 for wrong input, 1 for a defect, 128 and its number after a signal."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    set_up_messages()
    with StopSignals(last_words=partial(say_stopped, arguments=arguments)) as stop:
        try:
            code, failure = _run(arguments)
            stop.hold()
        except KeyboardInterrupt:
            code, failure = 1, None
            stop.hold()
        code = _say_end(code, failure, arguments, debug, stop)
        if code and several_processes():
            # The interpreter would end the threads of the other processes' connections, which may wait or abort.
            end_at_once(code)
    sys.exit(code)


def _run(arguments: list[str]) -> tuple[int | str | None, Exception | None]:
    """Runs the command line; its exit code, and what made it fail."""
    try:
        check_arguments(arguments)
        app(args=arguments)
    except SystemExit as end:
        return end.code, None
    except Exception as error:
        return 1, error
    return 0, None


def _say_end(
    code: int | str | None, failure: Exception | None, arguments: list[str], debug: bool, stop: StopSignals
) -> int | str | None:
    """Says what ended the command, unless all went well; the exit code."""
    if stop.received is not None or (failure and "DataLoader worker" in str(failure) and stop.wait()):
        return say_stopped(stop.received or signal.SIGINT, arguments)
    if failure is None:
        return code
    if debug:
        raise failure
    if (lost := say_process_lost(failure, arguments)) is not None:
        return lost
    text, expected = error_sentence(failure)
    say_error(text, expected)
    return 2 if expected else 1
