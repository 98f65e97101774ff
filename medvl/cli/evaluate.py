"""``medvl evaluate``: results and a report of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from medvl.cli.messages import echo, print_skipped
from medvl.cli.options import (
    BatchSize,
    Classes,
    Data,
    Device,
    MaskColumn,
    NoText,
    OnError,
    TrustPackage,
    checked_on_error,
    column_options,
    resolve_device,
)
from medvl.utils.extras import MissingExtraError


def _protocol_list() -> str:
    """The names of the registered protocols, for the help text."""
    try:
        from medvl.evaluation.registry import protocol_names
    except MissingExtraError:
        return "one of the registered protocols"
    return ", ".join(protocol_names())


def _benchmark_list() -> str:
    """The names of the benchmarks, for the help text."""
    try:
        from medvl.evaluation.registry import BENCHMARK_NAMES
    except MissingExtraError:
        return "one of the benchmarks"
    return ", ".join(BENCHMARK_NAMES)


@column_options
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="PROTOCOL")] = None,
    data: Data = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What to measure: {_protocol_list()}. Several may follow, or the option be repeated. By default what the "
            "data permit.",
            show_default=False,
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:PATH",
            help=f"One of the field's evaluation sets, from a public data set as it is published: {_benchmark_list()}. "
            "Instead of --data and --split.",
            show_default=False,
        ),
    ] = None,
    mask_column: MaskColumn = None,
    classes: Classes = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; the run folder by default.", show_default=False)
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="train, val, test or all. Without a split column, studies of the training have the splits they had there, "
            "new ones beside them are test, and a table that has none of them is taken whole."
        ),
    ] = "test",
    batch_size: BatchSize = 64,
    device: Device = None,
    on_error: OnError = "raise",
    no_text: NoText = False,
    trust_package: TrustPackage = None,
    columns: dict[str, Any] | None = None,
) -> None:
    """Evaluate a trained model by one or several protocols, such as zero-shot classification and retrieval.

    Prints the results beside those of the same model with random weights, and writes evaluation.json, evaluation.csv and
    report.html; what other protocols found on the same studies stays there. Without --data it evaluates the test split of the
    table that the model was trained on. Where no column of labels is named, the findings are those that the reports state.
    report.html shows images and the text of reports; --no-text leaves the text out.

    Example:  medvl evaluate runs/first --data cases.csv --protocol zero-shot retrieval

    Example:  medvl evaluate runs/first --benchmark rsna:data/rsna
    """
    evaluate_and_report(
        run,
        data,
        output or run,
        split,
        columns,
        checked_on_error(on_error),
        batch_size,
        device,
        protocols=_protocols(protocol, more or []),
        benchmark=benchmark,
        mask_columns=mask_column or [],
        classes=classes,
        show_text=not no_text,
        trusted_packages=trust_package or [],
    )


def _protocols(named: list[str] | None, more: list[str]) -> list[str] | None:
    """The protocols named by the option, and those that follow it without repeating it."""
    if more and not named:
        raise ValueError(f"{more[0]!r} is not expected here; name protocols by --protocol.")
    return [name for entry in [*(named or []), *more] for name in entry.split(",")] or None


def evaluate_and_report(
    run: Path,
    data: str | None,
    output: Path,
    split: str = "test",
    columns: dict[str, Any] | None = None,
    on_error: str = "raise",
    batch_size: int = 64,
    device: str | None = None,
    title: str | None = None,
    protocols: Sequence[str] | None = None,
    benchmark: str | None = None,
    mask_columns: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    show_text: bool = True,
    trusted_packages: Sequence[str] = (),
) -> None:
    """Evaluate a run, print the tables and write the report."""
    from medvl.evaluation.benchmarks import parse_benchmark
    from medvl.utils.io import check_writable
    from medvl.workflows import TrainedRun, evaluate_run

    check_writable(output / "evaluation.json")
    if benchmark is not None and (data is not None or columns):
        raise ValueError("--benchmark names its own data and columns; leave --data and the options of columns out.")
    named, place = (None, "") if benchmark is None else parse_benchmark(benchmark)
    trained = TrainedRun(run, resolve_device(device), trusted_packages=trusted_packages)
    if named is None:
        manifest, whole = trained.studies(data, split, columns, on_error, label_reports=True), None
    else:
        echo(f"{named.name}: {named.rule}\n")
        manifest, whole = named.read(place, on_error)
    loader = trained.loader(manifest, batch_size=batch_size, on_error=on_error)
    result = evaluate_run(
        trained,
        manifest,
        loader,
        output,
        protocols=protocols,
        data=data,
        columns=columns,
        mask_columns=mask_columns,
        classes=classes,
        benchmark=named,
        whole=whole,
        title=title,
        show_text=show_text,
        progress=True,
    )
    for said in trained.cautions(manifest.studies).values():
        echo(f"{said}\n")
    echo(result.table())
    print_skipped([*manifest.skipped, *loader.skipped.values()])
    echo(f"\nReport: {output / 'report.html'}")
