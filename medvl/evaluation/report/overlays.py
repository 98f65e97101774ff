"""Pictures with heat maps and outlines, as data URLs for the report."""

from __future__ import annotations

import base64
import io

import numpy as np

from medvl.evaluation.thumbnails import check_picture

WIDTH = 224
"""Longest side of an overlay in pixels, for two in a row on the screen of a phone."""

OPACITY = 0.55
"""Opacity of a heat map where it is highest; a quarter of it where it is lowest."""

TRUE_COLOR, PREDICTED_COLOR = (255, 255, 255), (230, 159, 0)


def overlay(
    pixels: np.ndarray,
    heat: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
) -> str:
    """A gray picture with a heat map in cividis and with outlines, as the data URL of a JPEG.

    The heat map is scaled between its own lowest and highest value. The true region is outlined in a solid white line, the
    predicted one in a dashed orange line, both on black, so that the two can be told apart without color.

    Args:
        pixels: (H, W), uint8.
        heat: (h, w), interpolated to the picture.
        truth: (h', w'), boolean.
        predicted: (h', w'), boolean.

    Returns:
        ``data:image/jpeg;base64,...``

    Raises:
        ValueError: If ``pixels`` is not a matrix of uint8.

    Example:
        >>> overlay(np.zeros((8, 6), np.uint8), heat=np.eye(2))[:27]
        'data:image/jpeg;base64,/9j/'
    """
    from PIL import Image

    check_picture(pixels)
    scale = WIDTH / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    gray = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), float)
    picture = np.repeat(gray[:, :, None], 3, axis=2)
    if heat is not None:
        picture = _tinted(picture, heat, size)
    if truth is not None:
        picture = _outlined(picture, truth, TRUE_COLOR, dashed=False)
    if predicted is not None:
        picture = _outlined(picture, predicted, PREDICTED_COLOR, dashed=True)
    buffer = io.BytesIO()
    Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _tinted(picture: np.ndarray, heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import matplotlib
    from PIL import Image

    low, high = float(heat.min()), float(heat.max())
    share = (heat - low) / (high - low) if high > low else np.zeros_like(heat, float)
    enlarged = Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    share = np.asarray(enlarged, float).clip(0, 1)
    colors = matplotlib.colormaps["cividis"](share)[:, :, :3] * 255
    weight = OPACITY * (0.25 + 0.75 * share)[:, :, None]
    return picture * (1 - weight) + colors * weight


def _outlined(picture: np.ndarray, region: np.ndarray, color: tuple[int, int, int], dashed: bool) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    region = np.asarray(region, bool)
    image = Image.fromarray(region * np.uint8(255))
    inside = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) >= 128
    if not inside.any():
        # A region smaller than a pixel is drawn as one.
        rows, columns = np.nonzero(region)
        inside = np.zeros((height, width), bool)
        inside[rows * height // region.shape[0], columns * width // region.shape[1]] = True
    edge = inside & ~_shrunk(inside)
    halo = _grown(edge) & ~edge
    if dashed:
        rows, columns = np.indices(edge.shape)
        shown = (rows + columns) // 5 % 2 == 0
        edge, halo = edge & shown, halo & shown
    picture = picture.copy()
    picture[halo] = picture[halo] * 0.25
    picture[edge] = color
    return picture


def _shrunk(inside: np.ndarray) -> np.ndarray:
    """The pixels whose four neighbors are all inside; the border of the picture counts as outside."""
    padded = np.pad(inside, 2)
    kept = padded.copy()
    # Two pixels wide, to be visible on a phone.
    for _ in range(2):
        kept[1:-1, 1:-1] = kept[1:-1, 1:-1] & kept[:-2, 1:-1] & kept[2:, 1:-1] & kept[1:-1, :-2] & kept[1:-1, 2:]
        kept[[0, -1]] = kept[:, [0, -1]] = False
    return kept[2:-2, 2:-2]


def _grown(edge: np.ndarray) -> np.ndarray:
    padded = np.pad(edge, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:] | edge
