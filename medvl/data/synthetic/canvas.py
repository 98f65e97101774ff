"""Pixel grids in body coordinates, and the smooth shapes that everything is drawn with.

Body coordinates: x runs from -1 (patient's right, image left) to 1, y from -1 (top) to 1 (bottom), at any size in pixels.
Pixels are computed by addition, multiplication, division, square root and comparison only. IEEE arithmetic rounds these
identically everywhere, unlike exponentials and sines, so an image is bit-identical on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from medvl.data.synthetic.random_stream import RandomStream

TABLE = 1024
"""Entries of a profile over y, which spans -REACH to REACH."""
REACH = 1.4
ATLASES = 6
_POLAR = 256


@dataclass(frozen=True)
class Pose:
    """Similarity transform from body to image coordinates.

    Args:
        scale: magnification, about 1.
        tan_half: tangent of half the rotation angle, from which cosine and sine are computed without a sine function.
        dx: shift to the right, in half images.
        dy: shift down, in half images.
    """

    scale: float
    tan_half: float
    dx: float
    dy: float

    @property
    def rotation(self) -> tuple[float, float]:
        """Cosine and sine of the rotation angle."""
        square = self.tan_half * self.tan_half
        return (1 - square) / (1 + square), 2 * self.tan_half / (1 + square)


@lru_cache(maxsize=16)
def _axis(size: int) -> np.ndarray:
    return ((np.arange(size, dtype=np.float32) * 2 + 1) / size - 1).astype(np.float32)


@lru_cache(maxsize=64)
def _upsampling(cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Left cell and smoothed weight of the right cell for each pixel."""
    place = (_axis(size) + 1) * np.float32(0.5 * (cells - 1))
    left = np.minimum(place.astype(np.int64), cells - 2)
    part = place - left.astype(np.float32)
    return left, part * part * (3 - 2 * part)


def smooth_noise(raw: np.ndarray, cells: int, size: int) -> np.ndarray:
    """Smooth noise in [-1, 1] of shape (size, size) from ``cells ** 2`` random bytes."""
    grid = raw[: cells * cells].reshape(cells, cells).astype(np.float32) / 127.5 - 1
    left, weight = _upsampling(cells, size)
    rows = grid[left] + (grid[left + 1] - grid[left]) * weight[:, None]
    start = rows.take(left, axis=1)
    step = rows.take(left + 1, axis=1)
    step -= start
    step *= weight
    step += start
    return step


def smoothstep(distance: np.ndarray, width: float) -> np.ndarray:
    """A soft edge at 0: 0 if ``distance`` is below ``-width / 2``, 1 above ``width / 2``, a cubic in between.

    Example:
        >>> smoothstep(np.array([-1.0, 0.0, 1.0], dtype=np.float32), 0.5).tolist()
        [0.0, 0.5, 1.0]
    """
    t = distance * (1.0 / width)
    t += 0.5
    t.clip(0, 1, out=t)
    rest = t * -2
    rest += 3
    t *= t
    t *= rest
    return t


def bump(distance: np.ndarray, width: float) -> np.ndarray:
    """A ridge of height 1 at distance 0 that falls to 0 at ``width``: max(0, 1 - (d / w)^2)^2."""
    t = distance * (1.0 / width)
    t *= t
    np.subtract(1, t, out=t)
    np.maximum(t, 0, out=t)
    t *= t
    return t


def profile_axis() -> np.ndarray:
    """The y of each table entry."""
    return _profile_axis()


@lru_cache(maxsize=1)
def _profile_axis() -> np.ndarray:
    return ((np.arange(TABLE, dtype=np.float32) * 2 + 1) / TABLE - 1) * np.float32(REACH)


class Canvas:
    """The body coordinates of every pixel, and boxes of pixels around points of the body.

    Args:
        size: side of the square image in pixels.
        pose: position of the patient in the image.
    """

    def __init__(self, size: int, pose: Pose) -> None:
        self.size, self.pose = size, pose
        axis = _axis(size)
        cos, sin = pose.rotation
        a, b = cos / pose.scale, sin / pose.scale
        self.x = (axis * a - (pose.dx * a + pose.dy * b)) + (axis * b)[:, None]
        self.y = (axis * -b + (pose.dx * b - pose.dy * a)) + (axis * a)[:, None]
        self.pixel = 2 / size / pose.scale
        """Side of a pixel in body coordinates."""
        self._turn = (pose.scale * cos, pose.scale * sin)

    def rows(self) -> np.ndarray:
        """For each pixel, its index into a profile over y, plus TABLE on the patient's left."""
        place = self.y * np.float32(TABLE / (2 * REACH))
        place += TABLE / 2
        np.maximum(place, 0, out=place)
        np.minimum(place, TABLE - 1, out=place)
        index = place.astype(np.intp)
        index += (self.x > 0) * np.intp(TABLE)
        return index

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """Row and column of a point of the body, in fractions of a pixel."""
        cos, sin = self._turn
        u = x * cos - y * sin + self.pose.dx
        v = x * sin + y * cos + self.pose.dy
        return (v + 1) * self.size / 2 - 0.5, (u + 1) * self.size / 2 - 0.5

    def box(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """The box of pixels that contains the range x0 to x1, y0 to y1, clipped to the image; at least one pixel."""
        corners = [self.to_pixels(x, y) for x in (x0, x1) for y in (y0, y1)]
        out = []
        for places in zip(*corners, strict=True):
            low, high = int(min(places)), int(max(places)) + 2
            low = min(max(low, 0), self.size - 1)
            out.append(slice(low, max(min(high, self.size), low + 1)))
        return out[0], out[1]

    def nearest(self, x: float, y: float) -> tuple[int, int]:
        """The pixel of the image that is nearest to a point of the body."""
        row, column = self.to_pixels(x, y)
        last = self.size - 1
        return min(max(int(row + 0.5), 0), last), min(max(int(column + 0.5), 0), last)


@lru_cache(maxsize=1)
def vessel_atlas() -> np.ndarray:
    """Branching vessels in polar coordinates about a hilum: (ATLASES, angle, radius), 0 to 1; computed once."""
    radius = ((np.arange(_POLAR, dtype=np.float32) + 0.5) / _POLAR).astype(np.float32)
    angle = radius[:, None] * 2 - 1
    out = np.zeros((ATLASES, _POLAR, _POLAR), dtype=np.float32)
    for number in range(ATLASES):
        rng = RandomStream("vessels", number)
        for trunk in range(9):
            start = -0.95 + 1.9 * (trunk + rng.uniform(0.2, 0.8)) / 9
            _grow(out[number], angle, radius, rng, start, 0.0, rng.uniform(0.017, 0.028), 0)
    np.minimum(out, 1, out=out)
    out.setflags(write=False)
    return out


def _grow(
    texture: np.ndarray,
    angle: np.ndarray,
    radius: np.ndarray,
    rng: RandomStream,
    start: float,
    born: float,
    width: float,
    depth: int,
) -> None:
    """Draw one vessel outward from radius ``born``, and its branches."""
    bend, wave = rng.uniform(-0.4, 0.4), rng.uniform(-1.2, 1.2)
    end = min(1.0, born + rng.uniform(0.35, 0.75))
    along = radius - np.float32(born)
    path = start + bend * along + wave * along * (along - 0.25)
    taper = np.maximum(1 - along / (end - born), 0) * (along >= 0)
    half = (width * (0.35 + 0.65 * taper) / (radius + 0.04)).astype(np.float32)
    ridge = np.maximum(1 - np.square((angle - path) / half), 0)
    np.maximum(texture, ridge * np.minimum(taper * 2.5, 1) * np.float32(0.55 + 15 * width), out=texture)
    if depth < 3:
        for sign in (-1, 1):
            at = born + (end - born) * rng.uniform(0.25, 0.6)
            gone = at - born
            fork = start + bend * gone + wave * gone * (gone - 0.25)
            _grow(texture, angle, radius, rng, fork + sign * 0.015, at, width * rng.uniform(0.55, 0.8), depth + 1)


def vessels(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    """Vessels at the offsets (x, y) from a hilum in one of the atlases, 0 to 1."""
    across = np.abs(x)
    total = np.abs(y)
    total += across
    total += 1e-3
    row = y / total
    row += 1
    row *= 0.4999 * _POLAR
    across *= across
    square = y * y
    square += across
    np.sqrt(square, out=square)
    square *= _POLAR
    np.minimum(square, _POLAR - 1, out=square)
    index = row.astype(np.intp)
    index *= _POLAR
    index += square.astype(np.intp)
    return vessel_atlas()[number].ravel().take(index, mode="clip")
