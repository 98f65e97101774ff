"""Heat maps of sentences over an image, by a trained run."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch.nn import functional as F

from medvl.evaluation import phrase_maps
from medvl.evaluation.thumbnails import axial_plane
from medvl.transforms import PadToSquared, ResizeLongestd
from medvl.utils.checks import check_unicode, error_message
from medvl.utils.io import atomic_write
from medvl.utils.modes import eval_mode
from medvl.workflows.predictions import check_suffix, image_manifest
from medvl.workflows.trained_run import TrainedRun

PICTURE_FILES = (".png", ".jpg", ".pdf", ".svg")


@dataclass
class Explanation:
    """Where a model sees what sentences say in an image.

    Args:
        texts: S sentences.
        picture: (H, W), or of a volume (X, Y, Z) in RAS order, in [0, 1], the image as it was before it was resized.
        heat: (S, H, W[, D]), the cosine of each place with each sentence.
        similarity: (S,), the cosine of the whole image with each sentence.
        grid: the cells of the model's own map, which ``heat`` is interpolated from.
    """

    texts: list[str]
    picture: np.ndarray
    heat: np.ndarray
    similarity: np.ndarray
    grid: tuple[int, ...]

    def peak(self, number: int) -> tuple[int, ...]:
        """The indices in ``picture`` of the highest place of a sentence's map: the center of the highest patch.

        An outermost patch has its value up to the border of the image; of such a strip the place farthest inside is taken.
        """
        heat = self.heat[number]
        places = np.argwhere(heat == heat.max())
        inside = np.square(places - (np.array(heat.shape) - 1) / 2).sum(axis=1)
        return tuple(int(i) for i in places[inside.argmin()])

    def save(self, path: str | Path) -> Path:
        """Draw the image and each map over it; of a volume, the axial slice in which a map is highest.

        A slice is drawn in radiological orientation: the patient's right on the left, anterior at the top. The file is written
        whole or not at all.

        Raises:
            ValueError: If the suffix is not that of a picture.
            DiskFullError: If there is no space left.
        """
        import matplotlib

        path = Path(path)
        check_suffix(path, PICTURE_FILES)
        # A sentence is drawn as it stands: dollar signs begin no formula.
        with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
            picture = io.BytesIO()
            self._figure().savefig(picture, format=path.suffix[1:].lower(), dpi=150, bbox_inches="tight")
        with atomic_write(path, "wb") as file:
            file.write(picture.getvalue())
        return path

    def _figure(self) -> Any:
        from matplotlib.figure import Figure

        panels = len(self.texts) + 1
        columns = panels if panels < 4 else 2 if panels == 4 else 3
        rows = -(-panels // columns)
        height, width = self._slice(self.picture, 0).shape
        figure = Figure(figsize=(3.6 * columns, (0.8 + min(3.0 * height / width, 6.0)) * rows))
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        self._draw(axes.flat[0], None)
        for number in range(len(self.texts)):
            self._draw(axes.flat[number + 1], number)
        grid = " x ".join(map(str, self.grid))
        figure.suptitle(
            f"Cosine of image and sentence, from a grid of {grid} cells; each map has its own colors", fontsize=9
        )
        figure.tight_layout()
        return figure

    @staticmethod
    def _slice(image: np.ndarray, depth: int) -> np.ndarray:
        """What is drawn of an image or a map: itself, or one slice of a volume."""
        return image if image.ndim == 2 else axial_plane(image, depth)

    def _draw(self, axis: Any, number: int | None) -> None:
        depth = self.peak(0 if number is None else number)[-1]
        title = "image" if self.picture.ndim == 2 else f"image, slice {depth}"
        axis.imshow(self._slice(self.picture, depth), cmap="gray", vmin=0, vmax=1)
        if number is not None:
            heat = self._slice(self.heat[number], depth)
            share = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
            drawn = axis.imshow(heat, cmap="cividis", alpha=0.55 * (0.25 + 0.75 * share))
            axis.figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.02).ax.tick_params(labelsize=7)
            title = "\n".join(textwrap.wrap(self.texts[number], 36)) + f"\nwhole image: {self.similarity[number]:.2f}"
        axis.set_title(title, fontsize=8)


def explain(run: TrainedRun, image: str | Path, texts: Sequence[str]) -> Explanation:
    """Heat maps of sentences over an image, mapped back from the resized and padded square to the image as it is.

    Args:
        run: the trained model with its preprocessing.
        image: an image file, or a folder with a DICOM series.
        texts: S sentences.

    Raises:
        ValueError: If there is no sentence.
        FileNotFoundError: If the image does not exist.
        StudyError: If the image cannot be read.
    """
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(error_message("texts", "hold at least one sentence, and no empty one", list(texts)))
    for text in texts:
        check_unicode(text, "each of texts")
    study = dict(image_manifest([image]).studies[0])
    whole, resized, prepared = _prepared(run.image_preprocessing(), study)
    batch = prepared[None].to(next(run.model.parameters()).device)
    with eval_mode(run.model), torch.inference_mode():
        maps = phrase_maps(run.model, batch, texts).float().cpu()  # (1, S, h, w[, d])
        image_embed = F.normalize(run.model.encode_image(batch).float(), dim=-1)
        text_embeds = F.normalize(run.model.encode_text(list(texts)).float(), dim=-1)
    heat = heat_on_image(maps, tuple(whole.shape[1:]), resized)[0]
    return Explanation(
        texts=list(texts),
        picture=whole[0].numpy(),
        heat=heat.numpy(),
        similarity=(text_embeds @ image_embed[0]).cpu().numpy(),
        grid=tuple(maps.shape[2:]),
    )


def _prepared(preprocessing: Compose, study: dict[str, Any]) -> tuple[torch.Tensor, tuple[int, ...], torch.Tensor]:
    """An image before it is resized, its sides after that, and the image as the model takes it.

    A preprocessing that does not end in resizing and padding cannot be inverted here: the image is then shown as prepared.
    """
    steps = list(preprocessing.transforms)
    number = next((i for i, step in enumerate(steps) if isinstance(step, ResizeLongestd)), None)
    if number is None or not all(isinstance(step, PadToSquared) for step in steps[number + 1 :]):
        prepared = torch.as_tensor(preprocessing(study)["image"]).float()
        return prepared, tuple(prepared.shape[1:]), prepared
    whole = Compose(steps[:number])(study)
    resized = steps[number](dict(whole))
    prepared = Compose(steps[number + 1 :])(dict(resized))["image"]
    sides = tuple(int(side) for side in resized["image"].shape[1:])
    return torch.as_tensor(whole["image"]).float(), sides, torch.as_tensor(prepared).float()


def heat_on_image(maps: torch.Tensor, sides: Sequence[int], resized: Sequence[int]) -> torch.Tensor:
    """Maps of a padded square, or cube, at every pixel of the image that it was made of.

    Args:
        maps: (N, S, h, w[, d]), on the model's grid over the square.
        sides: of the image.
        resized: sides of the resized image, which lies in the middle of the square as :class:`~medvl.transforms.PadToSquare`
            pads it.

    Returns:
        (N, S, H, W[, D]), interpolated; beyond the centers of the outermost cells their values.

    Example:
        >>> maps = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])  # left 0, right 1
        >>> heat_on_image(maps, (2, 4), (1, 2))[0, 0].tolist()  # rows 0 and 1 of the image are row 0 of a square of 2
        [[0.0, 0.25, 0.75, 1.0], [0.0, 0.25, 0.75, 1.0]]
    """
    longest = max(resized)
    axes = []
    for side, small in zip(sides, resized, strict=True):
        place = (torch.arange(side, dtype=torch.float32) + 0.5) * small / side + (longest - small) // 2
        axes.append(2 * place / longest - 1)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1)  # grid_sample has the last axis first
    return F.grid_sample(maps, grid.expand(len(maps), *grid.shape), padding_mode="border", align_corners=False)
