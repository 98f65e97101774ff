"""The options that several commands share, each defined once, and what turns them into arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.utils.checks import error_message
from medvl.utils.extras import MissingExtraError

Data = Annotated[
    str | None,
    typer.Option(
        help="A table of studies (CSV, TSV, JSONL or JSON, also as .gz, Parquet or Excel), image paths relative to it; "
        "an image folder with a table metadata.jsonl; NAME:PATH of a public data set, such as chexpert:FOLDER; "
        "shards:FOLDER of packed studies (medvl pack); or 'synthetic', the built-in set.",
        show_default=False,
    ),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="KIND=LOCATION",
        help="One source; may be repeated. KIND is image-text, image-label or text-label; LOCATION is a table, NAME:PATH "
        "of a public data set, such as openi:reports.tgz, or shards:FOLDER.",
        show_default=False,
    ),
]
Output = Annotated[Path, typer.Option(help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Of everything that is random.", min=0)]
Device = Annotated[
    str | None, typer.Option(help="'cpu' or 'cuda'; CUDA where there is one by default.", show_default=False)
]
OnError = Annotated[
    str, typer.Option(help="What a study that cannot be read does: 'raise' stops, 'skip' leaves it out and counts it.")
]
NoText = Annotated[
    bool,
    typer.Option(
        "--no-text", help="Leave the text of reports out of the page; it then names the studies by their ids."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other setting of the recipe (medvl train RECIPE --settings lists them) or key of its configuration (medvl "
        "config RECIPE), as --set learning_rate=0.001. A value that begins with $, @ or % is an expression of the "
        "configuration and is executed; no other option takes one.",
        show_default=False,
    ),
]

Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="A class of single-label, repeated for each. By default the five of "
        "CheXpert's competition (5x200) where the table has them, else every finding.",
        show_default=False,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Studies at once.", min=1)]
TrustPackage = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE",
        help="A package whose code the model's folder may run, for preprocessing or an image encoder of your own; may be "
        "repeated. None but medvl, MONAI and PyTorch by default.",
        show_default=False,
    ),
]

COLUMNS = "Columns of the table"
ImageColumn = Annotated[
    str | None, typer.Option(help="Paths of images; 'image' by default.", rich_help_panel=COLUMNS, show_default=False)
]
ReportColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="Report text; 'report' by default. Repeated, the texts of several columns are joined.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]
LabelColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="Findings: one column of class names, or the option repeated for a column of 1/0/-1 each. "
        "CheXpert's fourteen columns are found by themselves.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]
SplitColumn = Annotated[
    str | None,
    typer.Option(
        help="train, val or test; without it, split by patient, or by study if no patient is known.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]
PatientColumn = Annotated[str | None, typer.Option(help="Patient ids.", rich_help_panel=COLUMNS, show_default=False)]
StudyColumn = Annotated[
    str | None,
    typer.Option(
        help="Study ids; rows with one id are views of one study.", rich_help_panel=COLUMNS, show_default=False
    ),
]

MaskColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="A column with paths of masks for segmentation and grounding, as COLUMN or NAME=COLUMN; may be repeated.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]
ImageRoot = Annotated[
    str | None,
    typer.Option(
        help="The folder that image paths are relative to; the table's by default.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]
ImageSuffix = Annotated[
    str | None,
    typer.Option(
        help="What is added to image paths that do not end in it, as .png.", rich_help_panel=COLUMNS, show_default=False
    ),
]
ImageTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="The path of an image, made of columns in braces, as '{split}/{VolumeName}'; instead of --image-column.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]
Joins = Annotated[
    list[str] | None,
    typer.Option(
        "--join",
        metavar="TABLE:KEY",
        help="Another table whose columns are added to the rows of the same key, as labels.csv:VolumeName, or "
        "labels.csv:KEY=KEY_OF_TABLE where the names differ; may be repeated.",
        rich_help_panel=COLUMNS,
        show_default=False,
    ),
]

COLUMN_OPTIONS: dict[str, Any] = {
    "image_column": ImageColumn,
    "report_column": ReportColumn,
    "label_column": LabelColumn,
    "split_column": SplitColumn,
    "patient_column": PatientColumn,
    "study_column": StudyColumn,
    "image_root": ImageRoot,
    "image_suffix": ImageSuffix,
    "image_template": ImageTemplate,
    "join": Joins,
}


def recipe_list() -> str:
    """The names of the recipes, for a help text."""
    try:
        from medvl.workflows.layers import recipe_names
    except MissingExtraError:
        return "one of medvl's"
    return ", ".join(recipe_names())


def column_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that name the table's columns, in place of its parameter ``columns``.

    Args:
        command: a function with a parameter ``columns``: a dictionary of arguments of ``medvl.data.read_manifest``.

    Returns:
        The command, for Typer.
    """

    @functools.wraps(command)
    def with_columns(**values: Any) -> None:
        command(columns=column_arguments(**{name: values.pop(name) for name in COLUMN_OPTIONS}), **values)

    own = inspect.signature(command, eval_str=True).parameters
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in COLUMN_OPTIONS.items()
    ]
    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in own.items() if name != "columns"
    ]
    with_columns.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    return with_columns


def column_arguments(**options: Any) -> dict[str, Any]:
    """The options of :data:`COLUMN_OPTIONS` that were given, as arguments of ``read_manifest``; paths are made absolute."""
    from medvl.data.column_selection import absolute_options

    given = {name: value for name, value in options.items() if value}
    for name in ("report_column", "label_column"):
        if len(given.get(name, ())) == 1:
            given[name] = given[name][0]
    return absolute_options(given)


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no option or argument of any command may be.

    Args:
        arguments: the words of the command line behind ``medvl``.

    Raises:
        ValueError: If one is empty, as by a variable of the shell that is not set: a path would be the working folder. If
            ``--output -`` is given to another command than ``label``, which alone writes to standard output.

    Example:
        >>> check_arguments(["train", "--output", ""])
        Traceback (most recent call last):
        ValueError: --output must not be empty, got ''.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, sign, value = argument.partition("=")
        if not argument or (sign and not value and option.startswith("--")):
            name = (option or before) if (option or before).startswith("-") else "an argument"
            raise ValueError(error_message(name, "not be empty", "''"))
        if "label" not in arguments[:1] and "--output -" in (f"{before} {argument}", f"{option} {value}"):
            raise ValueError(error_message("--output", "be a file or folder", "'-'"))


def require_input(data: str | None, source: list[str] | None) -> None:
    """Asks for something to read."""
    if data is None and not source:
        raise ValueError("--data is needed: a table of studies (CSV, TSV, JSONL or JSON), or 'synthetic'; or --source.")


def resolve_device(name: str | None) -> str:
    """The device's name; CUDA where there is one and none is named."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(error_message("--device", "be cpu or cuda", repr(name)))
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, but torch finds no CUDA device here.")
    return name


def checked_on_error(value: str) -> str:
    """``value``, if it is "raise" or "skip"."""
    if value not in ("raise", "skip"):
        raise ValueError(error_message("--on-error", "be raise or skip", repr(value)))
    return value


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs as a dictionary, values read as YAML; those that begin with ``$``, ``@`` or ``%`` are expressions."""
    from medvl.workflows.literals import literal

    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ValueError(error_message("--set", "be KEY=VALUE", repr(pair)))
        settings[key.strip()] = literal(_read_value(key, value), keep_expressions=True)
    return settings


def _read_value(key: str, value: str) -> Any:
    """The value of a setting as YAML has it, but for a reference (``@``, ``%``) and 1e-4, which YAML does not take as such."""
    from medvl.utils.yaml_text import load_yaml

    if value.strip().startswith(("@", "%")):
        return value.strip()
    try:
        content = load_yaml(value)
    except ValueError as error:
        shown = value if len(value) <= 100 else f"{value[:100]}..."
        raise ValueError(error_message(f"--set {key}", "be a value in YAML", f"{shown!r} ({error})")) from error
    try:
        return float(content) if isinstance(content, str) else content
    except ValueError:
        return content
