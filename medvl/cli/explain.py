"""``medvl explain``: where a model sees what sentences say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvl.cli.messages import echo
from medvl.cli.options import Device, TrustPackage, resolve_device


def explain(
    run: Annotated[Path, typer.Argument(help="A run folder that medvl train has written.")],
    image: Annotated[Path, typer.Argument(help="An image file, or a folder with a DICOM series.")],
    text: Annotated[list[str], typer.Option(help="A sentence; may be repeated.", show_default=False)],
    output: Annotated[Path, typer.Option(help="The picture to write: .png, .jpg, .pdf or .svg.")] = Path(
        "explanation.png"
    ),
    device: Device = None,
    trust_package: TrustPackage = None,
) -> None:
    """Draw heat maps of sentences over an image, where its parts are closest to what a sentence says.

    A map shows cosines of the model's own grid, mapped back from the resized and padded square to the image as it is. It has a
    highest place for any sentence, also for one that is not true of the image.

    Example:  medvl explain runs/first image.png --text "There is a left pleural effusion." --output effusion.png
    """
    from medvl.utils.io import check_not_input, check_writable
    from medvl.workflows.explanations import PICTURE_FILES
    from medvl.workflows.predictions import check_suffix

    check_suffix(output, PICTURE_FILES)
    check_writable(output)
    check_not_input(output, [image], "--output")
    from medvl.workflows import TrainedRun
    from medvl.workflows import explain as draw

    trained = TrainedRun(run, resolve_device(device), trusted_packages=trust_package or [])
    found = draw(trained, image, text)
    for number, sentence in enumerate(found.texts):
        peak = found.peak(number)
        place = f"row {peak[0]}, column {peak[1]}" if len(peak) == 2 else f"voxel {peak}"
        echo(f"{sentence}  cosine with the whole image {found.similarity[number]:.3f}, highest at {place}")
    echo(f"Picture: {found.save(output)}")
