"""``medvl pack``: studies in tar files, for training at scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvl.cli.messages import echo, print_skipped
from medvl.cli.options import Data, OnError, checked_on_error, column_options
from medvl.utils.checks import error_message
from medvl.utils.counts import count_of

if TYPE_CHECKING:
    from medvl.workflows import PackSummary


@column_options
def pack(
    data: Data = None,
    output: Annotated[Path | None, typer.Option(help="The folder to write.", show_default=False)] = None,
    shard_size: Annotated[int, typer.Option(help="Studies in a tar file.", min=1)] = 1000,
    num_workers: Annotated[
        int, typer.Option("--workers", "--num-workers", help="Processes that pack; 0 for none but this one.", min=0)
    ] = 0,
    image_size: Annotated[
        int, typer.Option(help="Longest side in pixels of the stored images: that of the training.", min=1)
    ] = 224,
    spatial_dims: Annotated[int, typer.Option(help="2 for radiographs, 3 for volumes.", min=2, max=3)] = 2,
    dtype: Annotated[
        str, typer.Option(help="Type of the stored pixels: uint8, uint16 (PNG, without loss), float16 or float32.")
    ] = "uint8",
    hu_range: Annotated[
        tuple[float, float], typer.Option(help="Hounsfield units that become 0 and 1 in CT volumes.")
    ] = (-1000.0, 1000.0),
    vocabulary: Annotated[
        str,
        typer.Option(help="The findings that reports are labeled with, as recipes do; 'none' leaves them unlabeled."),
    ] = "chexpert14",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an interrupted run stopped, to the same bytes."),
    ] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Examine a packed folder instead: name what is damaged, cut off or missing.",
            show_default=False,
        ),
    ] = None,
    on_error: OnError = "raise",
    columns: dict[str, Any] | None = None,
) -> None:
    """Pack the studies of a table into tar files (WebDataset's format), from which training reads them many times faster.

    Every image is read, scaled and resized once. The folder takes the table's place as shards:FOLDER in --data and --source, or
    as shards:https://HOST/FOLDER. It is whole once it holds index.json; its bytes do not depend on the number of workers or on
    interruptions.

    Example:  medvl pack --data cases.csv --output packed --image-size 224 --workers 8

    Example:  medvl pack --verify packed

    Example:  medvl train medvl --data shards:packed --image-size 224 --output runs/first
    """
    if verify is not None:
        _verify(verify)
        return
    if data is None or output is None:
        raise ValueError(
            "--data and --output are needed: a table of studies and the folder to write; or --verify FOLDER."
        )
    checked_on_error(on_error)
    from medvl.workflows import PackSettings, pack_studies

    settings = PackSettings(
        image_size, spatial_dims, dtype, hu_range, shard_size, None if vocabulary == "none" else vocabulary
    )
    with _Bar() as bar:
        summary = pack_studies(
            data,
            output,
            settings,
            columns=columns,
            on_error=on_error,
            num_workers=num_workers,
            resume=resume,
            progress=bar.show,
        )
    print_skipped(summary.skipped)
    for line in _summary_lines(summary, output):
        echo(line)


def _summary_lines(summary: PackSummary, output: Path) -> list[str]:
    lines = [
        f"{summary.studies} studies, {summary.images} with an image, in {summary.shards} tar files of "
        f"{summary.bytes / 1e6:.1f} MB together in {output}."
    ]
    if summary.kept:
        lines.append(f"{summary.kept} of the tar files were there already.")
    return [*lines, f"Next: medvl train medvl --data shards:{output}"]


def _verify(folder: Path) -> None:
    from medvl.data.shard_verification import verify_packed
    from medvl.transforms.packed_image import read_index

    problems = verify_packed(folder)
    for problem in problems:
        echo(problem, err=True)
    if problems:
        are = count_of(len(problems), "file is", "files are")
        raise ValueError(error_message(str(folder), "be as it was written", f"a folder of which {are} not"))
    index = read_index(str(folder))
    studies = sum(shard["studies"] for shard in index["shards"])
    files = count_of(len(index["shards"]), "tar file")
    echo(f"{folder} is whole: {count_of(studies, 'study', 'studies')} in {files}.")


class _Bar:
    """A progress bar that begins with the first shard."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def show(self, done: int, total: int) -> None:
        """Show how many studies are done."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc="pack", total=total, unit=" studies", delay=1)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
