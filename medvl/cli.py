"""The ``medvl`` command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="medvl",
    help="Medical vision-language learning: train and evaluate image-text models on images with reports.",
    epilog="Start with:  medvl demo   ·   then:  medvl train convirt --data cases.csv --output runs/first",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Data = Annotated[
    str | None,
    typer.Option(
        help="A table of studies (CSV, TSV or JSONL), image paths relative to it; or 'synthetic', the built-in set.",
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
COLUMNS = "Columns of the table"
ImageColumn = Annotated[
    str | None, typer.Option(help="Paths of images.  [default: image]", rich_help_panel=COLUMNS, show_default=False)
]
ReportColumn = Annotated[
    str | None, typer.Option(help="Report text.  [default: report]", rich_help_panel=COLUMNS, show_default=False)
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
    typer.Option(help="train, val or test; without it, split by patient.", rich_help_panel=COLUMNS, show_default=False),
]
PatientColumn = Annotated[str | None, typer.Option(help="Patient ids.", rich_help_panel=COLUMNS, show_default=False)]
StudyColumn = Annotated[
    str | None,
    typer.Option(
        help="Study ids; rows with one id are views of one study.", rich_help_panel=COLUMNS, show_default=False
    ),
]


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Options of every command; ``--debug`` is read in :func:`main`."""


@app.command()
def demo(
    output: Output = Path("medvl-demo"),
    seed: Seed = 0,
) -> None:
    """The main job in a few minutes on a CPU: generate chest X-rays with reports, pre-train, evaluate, write a report.

    The images are drawn and the reports composed by the library itself; no data is downloaded and no patient is in it.
    A demonstration that was interrupted goes on where it stopped.
    """
    from medvl.bundles import demo_overrides, train

    run = train("convirt", {**demo_overrides("convirt"), "output": str(output), "seed": seed, "resume": True})
    _evaluate(run, None, output, title="medvl demo: ConVIRT on synthetic chest X-rays")


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="The method: convirt.")],
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option(help="The run folder.  [default: runs/RECIPE]", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training split.", min=1, show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Studies in a step.", min=1, show_default=False)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels that images are scaled to.", min=16, show_default=False)
    ] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    device: Device = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load data.", min=0, show_default=False)] = None,
    on_error: OnError = "raise",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other key of the recipe's train.yaml, as --set learning_rate=0.001.",
            show_default=False,
        ),
    ] = None,
    image_column: ImageColumn = None,
    report_column: ReportColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    patient_column: PatientColumn = None,
    study_column: StudyColumn = None,
) -> None:
    """Train a recipe on a table of studies.

    Writes a run folder: model/ (what DualEncoder.from_pretrained reads), checkpoints/, config.yaml, metrics.jsonl,
    environment.json and skipped.jsonl. A run that was killed goes on with --resume, to the same weights.

    Example:  medvl train convirt --data cases.csv --report-column text --patient-column patient --output runs/first
    """
    from medvl.bundles import read_skipped, train

    if data is None:
        raise ValueError("--data is needed: a table of studies (CSV, TSV or JSONL), or 'synthetic'.")
    overrides: dict[str, Any] = {
        "data": data,
        "output": str(output or Path("runs") / recipe),
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "seed": seed,
        "resume": resume,
        "device": None if device is None else _device(device),
        "workers": workers,
        "on_error": _on_error(on_error),
        "columns": _columns(image_column, report_column, label_column, split_column, patient_column, study_column),
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    run = train(recipe, {**overrides, **_settings(settings or [])})
    _say_skipped(read_skipped(run))
    typer.echo(f"Trained model in {run / 'model'}. Next: medvl evaluate {run}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; the run folder by default.", show_default=False)
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="train, val, test or all. A table without splits other than the training's is taken whole."),
    ] = "test",
    batch_size: Annotated[int, typer.Option(help="Studies at once.", min=1)] = 64,
    device: Device = None,
    on_error: OnError = "raise",
    image_column: ImageColumn = None,
    report_column: ReportColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    patient_column: PatientColumn = None,
    study_column: StudyColumn = None,
) -> None:
    """Evaluate a trained model: zero-shot classification where there are labels, retrieval where there are reports.

    Prints the figures beside those of the same model with random weights, and writes evaluation.json and report.html.
    Without --data it evaluates the test split of the table that the model was trained on.
    """
    columns = _columns(image_column, report_column, label_column, split_column, patient_column, study_column)
    _evaluate(run, data, output or run, split, columns, _on_error(on_error), batch_size, device)


@app.command()
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    data: Data = None,
    output: Annotated[Path, typer.Option(help="The NumPy archive to write.")] = Path("embeddings.npz"),
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    batch_size: Annotated[int, typer.Option(help="Studies at once.", min=1)] = 64,
    device: Device = None,
    on_error: OnError = "raise",
    image_column: ImageColumn = None,
    report_column: ReportColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    patient_column: PatientColumn = None,
    study_column: StudyColumn = None,
) -> None:
    """Write image and text embeddings with ids: image_embeds (N, D), text_embeds (N, D), study_id, patient_id, label."""
    from medvl.bundles import TrainedRun
    from medvl.bundles import embed as embed_loader

    trained = TrainedRun(run, _device(device))
    columns = _columns(image_column, report_column, label_column, split_column, patient_column, study_column)
    manifest = trained.studies(data, split, columns, _on_error(on_error))
    loader = trained.loader(manifest, batch_size=batch_size, on_error=on_error)
    embeddings = embed_loader(trained.model, loader, progress=True)
    typer.echo(f"{len(embeddings)} studies in {embeddings.save_npz(output)}")
    _say_skipped([*manifest.skipped, *loader.skipped.values()])


@app.command()
def label(
    file: Annotated[Path, typer.Argument(help="A table of reports (CSV or TSV).")],
    column: Annotated[str, typer.Option(help="The column that holds the reports.")] = "report",
    output: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("labels.csv"),
    vocabulary: Annotated[str, typer.Option(help="chexpert14, chest_ct, or a YAML file of your own.")] = "chexpert14",
    by: Annotated[str, typer.Option(help="A row a 'report' or a row a 'sentence'.")] = "report",
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the mention, the cue and the sentence behind each state.")
    ] = False,
) -> None:
    """Label a table of reports with findings: 1 present, 0 absent, -1 uncertain, blank not mentioned.

    The table is read as a stream, so its size does not matter. The output has the columns that CheXpert's users know.

    Example:  medvl label reports.csv --column text --output labels.csv --explain
    """
    from tqdm import tqdm

    from medvl.text import label_table

    with tqdm(desc="label", unit="report") as bar:
        summary = label_table(
            file, column, output, vocabulary, by, explain, progress=lambda done: bar.update(done - bar.n)
        )
    typer.echo(f"{summary.rows} reports, {summary.empty} of them empty; {summary.written} rows in {output}.")


def _evaluate(
    run: Path,
    data: str | None,
    output: Path,
    split: str = "test",
    columns: dict[str, Any] | None = None,
    on_error: str = "raise",
    batch_size: int = 64,
    device: str | None = None,
    title: str | None = None,
) -> None:
    from medvl.bundles import TrainedRun, evaluate_run

    trained = TrainedRun(run, _device(device))
    manifest = trained.studies(data, split, columns, on_error)
    loader = trained.loader(manifest, batch_size=batch_size, on_error=on_error)
    result = evaluate_run(trained, manifest, loader, output, title=title, progress=True)
    typer.echo(result.table())
    _say_skipped([*manifest.skipped, *loader.skipped.values()])
    typer.echo(f"\nReport: {output / 'report.html'}")


def _say_skipped(errors: Sequence[Any]) -> None:
    """Counts the studies that were left out for an error, and shows the first."""
    if errors:
        counted = f"{len(errors)} {'study was' if len(errors) == 1 else 'studies were'} skipped for an error"
        typer.echo(f"{counted}, the first: {errors[0]}", err=True)


def _device(name: str | None) -> str:
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, received {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, but torch finds no CUDA device here.")
    return name


def _on_error(value: str) -> str:
    if value not in ("raise", "skip"):
        raise ValueError(f"--on-error must be raise or skip, received {value!r}.")
    return value


def _columns(
    image: str | None,
    report: str | None,
    label: list[str] | None,
    split: str | None,
    patient: str | None,
    study: str | None,
) -> dict[str, Any]:
    """The columns that were named, as arguments of ``read_manifest``."""
    label_column = label[0] if label and len(label) == 1 else label or None
    named = {
        "image_column": image,
        "report_column": report,
        "label_column": label_column,
        "split_column": split,
        "patient_column": patient,
        "study_column": study,
    }
    return {name: value for name, value in named.items() if value is not None}


def _settings(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs as a dictionary, values read as YAML."""
    import yaml

    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ValueError(f"--set must be KEY=VALUE, received {pair!r}.")
        settings[key.strip()] = yaml.safe_load(value)
    return settings


# MONAI's bundle and transforms put these words before the error that matters
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")


def error_sentence(error: BaseException) -> tuple[str, bool]:
    """One sentence for the user, and whether the error is one of input (or a defect of the program)."""
    while error.__cause__ is not None and str(error).startswith(WRAPPERS):
        error = error.__cause__
    expected = isinstance(error, ValueError | TypeError | OSError | KeyError)
    text = " ".join((str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)).split())
    return (text or type(error).__name__) if expected else f"{type(error).__name__}: {text}", expected


class _EchoHandler(logging.Handler):
    """Our own messages, as they are, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


def _set_up_messages() -> None:
    """Messages and warnings as plain lines on standard error; MONAI's log is left out, for what matters in it is raised."""
    own = logging.getLogger("medvl")
    own.handlers, own.propagate = [_EchoHandler()], False
    own.setLevel(logging.INFO)
    logging.getLogger("monai").setLevel(logging.CRITICAL)
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if str(message) not in said and not issubclass(category, DeprecationWarning | FutureWarning):
            said.add(str(message))
            typer.echo(f"Warning: {message}", err=True)

    warnings.showwarning = show


def main() -> None:
    """Runs the command line: 0 where all went well, 2 for wrong input, 1 for a defect of the program."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    _set_up_messages()
    try:
        app(args=arguments)
    except Exception as error:
        if debug:
            raise
        text, expected = error_sentence(error)
        typer.secho(f"Error: {text}", fg=typer.colors.RED, err=True)
        if not expected:
            typer.echo("This looks like a defect; run again with --debug for the traceback.", err=True)
        sys.exit(2 if expected else 1)
