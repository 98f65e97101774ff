"""What the commands say on standard error: messages, warnings, errors in one sentence, skipped studies."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import typer

from medvl.utils.counts import count_of
from medvl.utils.extras import MissingExtraError

# MONAI's bundle and transforms put these words before the error that matters
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")

# Arguments of the readers of tables, which are options of the commands
_COLUMN = re.compile(r"(?<![\w'])(image|report|label|split|patient|study)_column(?![\w'])")

# Control characters but for line breaks and tabs, marks that change the direction of writing, and what is no Unicode
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_saying = threading.Lock()
_said: set[str] = set()
"""What this process has said; the thread that ends a blocked process speaks too."""


def printable(text: str) -> str:
    """A text as a terminal may show it: what would control the terminal, or cannot be encoded, as an escape sequence in ASCII.

    Names of files, ids and columns may hold anything. Line breaks and tabs stay.

    Example:
        >>> printable("scan\x1b[2J.png")
        'scan\\\\x1b[2J.png'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(text: str, err: bool = False) -> None:
    """Print a text that may hold names from files, see :func:`printable`."""
    typer.echo(printable(text), err=err)


def error_sentence(error: BaseException) -> tuple[str, bool]:
    """One sentence for the user, and whether the error is one of input (or a defect of the program)."""
    while error.__cause__ is not None and str(error).startswith(WRAPPERS):
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror and error.filename:
        return " ".join(f"{error.filename}: {error.strerror}".split()), True
    expected = isinstance(error, ValueError | TypeError | OSError | KeyError | MissingExtraError)
    text = " ".join((str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)).split())
    text = _COLUMN.sub(r"--\1-column", text)
    return (text or type(error).__name__) if expected else f"{type(error).__name__}: {text}", expected


class _EchoHandler(logging.Handler):
    """Our own messages, as they are, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno < logging.WARNING or not several_processes() or _is_first_to_say(text):
            echo(text, err=True)


def set_up_messages() -> None:
    """Our messages and warnings as plain lines on standard error.

    The logs of MONAI and Ignite are left out, for what matters in them is raised and said once.
    """
    own = logging.getLogger("medvl")
    own.handlers, own.propagate = [_EchoHandler()], False
    own.setLevel(logging.INFO)
    for name in ("monai", "ignite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _said.clear()
    warned: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if str(message) not in warned and not issubclass(category, DeprecationWarning | FutureWarning):
            warned.add(str(message))
            if _is_first_to_say(f"warning: {message}"):
                echo(f"Warning: {message}", err=True)

    warnings.showwarning = show


def say_stopped(number: int, arguments: Sequence[str]) -> int:
    """Says that a signal stopped the command, and how to go on; returns the exit code.

    Args:
        number: of the signal.
        arguments: of the command line.
    """
    if _is_first_to_say("end"):
        with suppress(OSError):  # after SIGHUP there may be no terminal
            start = "\n" if sys.stderr.isatty() else ""  # below a progress bar
            typer.echo(f"{start}Stopped by {signal.Signals(number).name}. {how_to_go_on(arguments)}", err=True)
    return 128 + number


def say_process_lost(error: Exception, arguments: Sequence[str]) -> int | None:
    """Says, once for all processes that are left, that another was lost, and how to go on.

    Args:
        error: what ended the command.
        arguments: of the command line.

    Returns:
        The exit code; None where no process was lost.
    """
    if "torch" not in sys.modules:
        return None
    from medvl.utils.distributed import lost_process

    lost = lost_process(error)
    if lost is None:
        return None
    if _is_first_to_say("end"):  # torchrun itself names the process that has ended
        typer.secho(f"Error: {printable(str(lost))} {how_to_go_on(arguments)}", fg=typer.colors.RED, err=True)
    return 1


def say_error(text: str, expected: bool) -> None:
    """Says what was wrong; once where several processes say the same, which then need not say that this one has ended.

    Args:
        text: one sentence.
        expected: whether it is an error of input, and not a defect of the program.
    """
    if not _is_first_to_say(text):
        return
    _is_first_to_say("end")  # not that another process has ended, nor how to go on, which would end the same way
    typer.secho(f"Error: {printable(text)}", fg=typer.colors.RED, err=True)
    if not expected:
        typer.echo("This looks like a defect; run again with --debug for the traceback.", err=True)


def several_processes() -> bool:
    """Whether this is one of several processes of one command, as ``torchrun`` starts them."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def _is_first_to_say(what: str) -> bool:
    """Whether neither this process nor another has said something, so that it is said once."""
    with _saying:
        if what in _said:
            return False
        _said.add(what)
    if not several_processes():
        return True
    if "torch" not in sys.modules:
        return os.environ.get("RANK", "0") == "0"
    from medvl.utils.distributed import is_first_to

    return is_first_to(f"say {what}")


def end_at_once(code: int | str | None) -> NoReturn:
    """End the process without waiting for its threads; what is registered with ``atexit`` is called."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def how_to_go_on(arguments: Sequence[str]) -> str:
    """How to go on with a command that was stopped, as a sentence.

    Example:
        >>> how_to_go_on(["train", "convirt", "--data", "cases.csv"])
        'Go on by the same command with --resume.'
        >>> how_to_go_on(["evaluate", "runs/first"])
        'Nothing is left half written; give the same command again.'
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command == "demo" or (command in ("train", "label", "pack", "embed") and "--resume" in arguments):
        return "Go on by the same command."
    if command in ("train", "pack", "embed"):
        return "Go on by the same command with --resume."
    return "Nothing is left half written; give the same command again."


def print_skipped(errors: Sequence[Any]) -> None:
    """Counts the studies that were left out for an error, and shows the first."""
    if errors:
        counted = count_of(len(errors), "study was", "studies were")
        echo(f"{counted} skipped for an error, the first: {errors[0]}", err=True)
