"""How each finding changes a chest, and its mask.

A finding has two effects: :func:`change_shape` before the chest is drawn (a larger heart, a raised diaphragm, a broken rib),
and :func:`draw_finding` on the drawn chest (fluid, air, density, metal), which returns the finding's mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from medvl.data.synthetic.anatomy import HILUM_Y, Body, Changes, Chest
from medvl.data.synthetic.canvas import bump, smoothstep
from medvl.data.synthetic.findings import SEVERITIES, Finding
from medvl.data.synthetic.random_stream import RandomStream

ZONE_Y = {"upper": -0.4, "mid": -0.06, "lower": 0.22}
SIGNS = {"right": (-1,), "left": (1,), "bilateral": (-1, 1), "": ()}
"""Signs of x on a side: the patient's right is on the left of the picture."""

Box = tuple[slice, slice]


def graded(finding: Finding, mild: float, moderate: float, severe: float) -> float:
    """The value for the finding's severity."""
    return (mild, moderate, severe)[SEVERITIES.index(finding.severity)]


def change_shape(changes: Changes, finding: Finding, body: Body, rng: RandomStream) -> None:
    """Change the shape of the chest by a finding."""
    if finding.name == "Cardiomegaly":
        changes.heart = graded(finding, 1.24, 1.39, 1.54)
    elif finding.name == "Atelectasis":
        for sign in SIGNS[finding.side]:
            changes.dome[(sign + 1) // 2] += graded(finding, 0.05, 0.09, 0.14)
    elif finding.name == "Fracture":
        x, y = _fracture_point(finding, body, rng)
        changes.ribs.append((x, y, 0.13, graded(finding, 0.05, 0.07, 0.09)))


def draw_finding(chest: Chest, finding: Finding, rng: RandomStream) -> np.ndarray:
    """Draw a finding on the chest.

    Args:
        chest: changed in place.
        finding: the finding.
        rng: a stream with the same key as for :func:`change_shape`.

    Returns:
        The finding's mask, boolean (size, size), with at least one pixel.
    """
    mask = np.zeros(chest.x.shape, dtype=bool)
    EFFECTS[finding.name](chest, finding, rng, mask)
    return mask


def _cardiomegaly(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    np.greater(chest.heart, 0.5, out=mask)


def _effusion(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """Fluid at the base with a meniscus that climbs the chest wall; a little of it only blunts the angle."""
    for sign in SIGNS[finding.side]:
        level = graded(finding, 0.06, 0.22, 0.44) + rng.uniform(-0.02, 0.05)
        climb = graded(finding, 0.2, 0.22, 0.16)
        box = _half(chest, sign, level + climb)
        height = bump(chest.outer[box] - chest.across[box], 0.34)
        height *= climb
        height += level
        height -= chest.floor[box]
        fluid = smoothstep(height, 0.07)
        fluid *= sign * chest.x[box] > 0
        _fill(chest, box, fluid)
        _mark(mask, box, fluid * chest.lung[box])


def _pneumothorax(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """Air between chest wall and lung: darker, without vessels, inside a thin pleural line."""
    (sign,) = SIGNS[finding.side]
    gap = graded(finding, 0.12, 0.19, 0.3) + rng.uniform(0.0, 0.02)
    box = _half(chest, sign, 1.3)
    y = chest.y[box]
    # Wider at the apex, closing towards the base unless it is large.
    width = (graded(finding, 0.15, 0.3, 0.45) - y) * graded(finding, 1.3, 1.4, 1.3)
    np.clip(width, 0, 1.5, out=width)
    width *= gap
    # The smooth minimum of the depths below the chest wall and below the apex rounds the edge of the lung.
    lateral, apical = chest.outer[box] - chest.across[box], (y - np.float32(chest.body.apex)) * 0.75
    depth = lateral - apical
    depth *= depth
    depth += 0.03
    np.sqrt(depth, out=depth)
    depth -= lateral
    depth -= apical
    depth *= -0.5
    depth -= width
    inside = (sign * chest.x[box] > 0) & (width > 0)
    air = smoothstep(-depth, 0.02 + chest.canvas.pixel)
    air *= inside
    line = bump(depth, 0.016 + 0.8 * chest.canvas.pixel)
    line *= inside
    beside = chest.lung[box] * (1 - chest.center[box])  # hidden behind the mediastinum
    air *= beside
    chest.vessel_gain[box] *= 1 - air
    chest.bright[box] -= air * 0.19
    line *= beside
    line *= 0.22
    chest.bright[box] += line
    _mark(mask, box, air)


def _consolidation(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """A dense patch with ragged edges, in which the air-filled bronchi stay dark."""
    box, patch = _patch(chest, finding, rng, graded(finding, 0.17, 0.23, 0.3), 0.45)
    density = patch * graded(finding, 0.75, 0.88, 1.0)
    density *= 1 - 0.4 * np.minimum(chest.vessels[box] * 1.4, 1)
    _fill(chest, box, density)
    _mark(mask, box, patch * chest.lung[box])


def _opacity(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """A hazy patch through which vessels stay visible."""
    box, patch = _patch(chest, finding, rng, graded(finding, 0.24, 0.29, 0.34), 1.1)
    _fill(chest, box, patch * graded(finding, 0.38, 0.5, 0.62))
    _mark(mask, box, patch * chest.lung[box])


def _lesion(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """One round nodule, or a mass if severe; sometimes a second one in the same zone."""
    for _ in range(2 if rng.bernoulli(0.25) else 1):
        radius = max(graded(finding, 0.075, 0.11, 0.17), 1.3 * chest.canvas.pixel)
        x, y = _lung_point(finding, rng, 0.1, 0.07)
        box = chest.canvas.box(x - 1.3 * radius, x + 1.3 * radius, y - 1.3 * radius, y + 1.3 * radius)
        dx, dy = chest.x[box] - x, chest.y[box] - y
        ball = smoothstep(radius * radius - dx * dx - dy * dy, radius * radius)
        ball *= graded(finding, 0.8, 0.9, 1.0)
        _fill(chest, box, ball)
        _mark(mask, box, ball, chest.canvas.nearest(x, y))


def _atelectasis(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """Linear bands and haze above a raised diaphragm."""
    for sign in SIGNS[finding.side]:
        box = _half(chest, sign, 0.45)
        haze = smoothstep(graded(finding, 0.18, 0.25, 0.32) - chest.floor[box], 0.2)
        haze *= sign * chest.x[box] > 0
        _fill(chest, box, haze * graded(finding, 0.2, 0.3, 0.4))
        for band in range(int(graded(finding, 1, 2, 3))):
            start, reach = rng.uniform(0.22, 0.3), rng.uniform(0.3, 0.4)
            height = 0.1 + 0.095 * band + rng.uniform(0.0, 0.03)
            slope = rng.uniform(-0.25, 0.1)
            box = _half(chest, sign, height + 0.4)
            across = chest.across[box] - start
            path = chest.floor[box] - height
            path += across * slope
            line = bump(path, max(graded(finding, 0.026, 0.032, 0.04), 1.1 * chest.canvas.pixel))
            line *= (across > 0) & (across < reach) & (sign * chest.x[box] > 0)
            _fill(chest, box, line * graded(finding, 0.7, 0.9, 1.0))
            _mark(mask, box, line * chest.lung[box])


def _edema(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """Haze around both hila, prominent vessels, and short septal lines at the lateral bases."""
    reach = graded(finding, 0.42, 0.5, 0.6)
    dx, dy = chest.across - 0.2, chest.y - (HILUM_Y + 0.1)
    dx *= dx
    dy *= dy
    dy *= 0.7
    dx += dy
    haze = smoothstep(reach * reach - dx, reach * reach * 1.6)
    haze *= 1 + 0.35 * chest.texture
    _fill(chest, np.s_[:, :], haze * graded(finding, 0.3, 0.45, 0.62))
    chest.vessel_gain *= 1 + graded(finding, 0.4, 0.7, 0.9) * haze
    phase = chest.y * 9.0
    phase -= np.floor(phase)
    septa = bump(phase - 0.5, 0.17)
    septa *= bump(chest.outer - chest.across - 0.05, 0.06)
    septa *= bump(chest.floor - 0.22, 0.2)
    _fill(chest, np.s_[:, :], septa * graded(finding, 0.3, 0.45, 0.6))
    np.greater(haze * chest.lung, 0.5, out=mask)


def _fracture(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """A gap in the rib that :func:`change_shape` has broken, a fragment out of line, and a hematoma around them."""
    x, y = _fracture_point(finding, chest.body, rng)
    sign = 1 if x > 0 else -1
    length, gain = graded(finding, 0.07, 0.09, 0.12), graded(finding, 0.3, 0.38, 0.46)
    _line(chest, [(x - sign * 0.005, y - length), (x + sign * 0.03, y + length)], 0.04, -0.5 * gain)
    _line(chest, [(x + sign * 0.01, y - 0.2 * length), (x + sign * (0.02 + length), y - 1.2 * length)], 0.042, gain)
    radius = max(0.12 + length, 1.5 * chest.canvas.pixel)
    box = chest.canvas.box(x - radius, x + radius, y - radius, y + radius)
    dx, dy = chest.x[box] - x, chest.y[box] - y
    dx *= dx
    dy *= dy
    dx += dy
    chest.bright[box] += smoothstep(0.5 * radius * radius - dx, radius * radius) * (0.9 * gain)
    _mark(mask, box, radius * radius - dx + 0.5, chest.canvas.nearest(x, y))


def _devices(chest: Chest, finding: Finding, rng: RandomStream, mask: np.ndarray) -> None:
    """Tubes, lines and a pacemaker: thin, bright, sharp."""
    sign = SIGNS[finding.side][0] if finding.side else 1
    jitter = rng.uniform(-0.03, 0.03)
    if finding.location == "endotracheal tube":
        tip = -0.38 + jitter
        paths = [([(-0.025, -1.2), (-0.025, tip)], 0.018), ([(0.02, -1.2), (0.02, tip)], 0.018)]
    elif finding.location == "central venous catheter":
        inlet = [(sign * 0.62, -0.66 + jitter), (sign * 0.35, -0.64), (sign * 0.12 - 0.03, -0.5)]
        paths = [([*inlet, (-0.11, -0.3), (-0.12, 0.02 + jitter)], 0.026)]
    elif finding.location == "pacemaker":
        x, y = sign * 0.56, -0.5 + jitter
        lead = [(x, y), (sign * 0.3, -0.62), (sign * 0.06 - 0.05, -0.45), (-0.1, 0.05), (0.1, 0.38), (0.26, 0.4)]
        paths = [(lead, 0.024), ([(x - 0.035, y), (x + 0.035, y + 0.03)], 0.17)]
    else:
        paths = [([(sign * 0.86, 0.4 + jitter), (sign * 0.62, 0.12), (sign * 0.5, -0.3), (sign * 0.4, -0.52)], 0.038)]
    for path, width in paths:
        for box, ink in _line(chest, path, max(width, 1.2 * chest.canvas.pixel), 0.65):
            _mark(mask, box, ink * 1.6)


def draw_marker(chest: Chest, letter: str) -> None:
    """The side marker: an L or R on that side of the image."""
    x, y = (0.78, -0.82) if letter == "L" else (-0.84, -0.82)
    strokes = [[(x, y - 0.06), (x, y + 0.05)]]
    if letter == "L":
        strokes.append([(x, y + 0.05), (x + 0.06, y + 0.05)])
    else:
        strokes.append([(x, y - 0.06), (x + 0.05, y - 0.035), (x, y - 0.005), (x + 0.055, y + 0.05)])
    for stroke in strokes:
        _line(chest, stroke, 0.016, 0.6)


def _line(
    chest: Chest, points: Sequence[tuple[float, float]], width: float, gain: float
) -> list[tuple[Box, np.ndarray]]:
    """Add a polyline to ``chest.bright``; returns the box and the ink (0 to 1) of each segment."""
    inks = []
    width = max(width, 0.75 * chest.canvas.pixel)
    for (x0, y0), (x1, y1) in pairwise(points):
        box = chest.canvas.box(min(x0, x1) - width, max(x0, x1) + width, min(y0, y1) - width, max(y0, y1) + width)
        dx, dy = x1 - x0, y1 - y0
        px, py = chest.x[box] - x0, chest.y[box] - y0
        part = (px * dx + py * dy) / (dx * dx + dy * dy)
        np.clip(part, 0, 1, out=part)
        px -= part * dx
        py -= part * dy
        ink = bump(np.sqrt(px * px + py * py), width)
        # Where segments meet, their ink must not add up.
        if gain > 0:
            np.maximum(chest.bright[box], ink * gain, out=chest.bright[box])
        else:
            chest.bright[box] += ink * gain
        inks.append((box, ink))
    return inks


def _lung_point(finding: Finding, rng: RandomStream, spread_x: float, spread_y: float) -> tuple[float, float]:
    """A random point in the finding's zone, inside the lung and clear of the heart."""
    (sign,) = SIGNS[finding.side]
    middle = 0.5 if finding.location == "lower" else 0.4
    return (
        sign * (middle + rng.uniform(-spread_x, spread_x)),
        ZONE_Y[finding.location] + rng.uniform(-spread_y, spread_y),
    )


def _fracture_point(finding: Finding, body: Body, rng: RandomStream) -> tuple[float, float]:
    """The point of a rib fracture, on the lateral arc of the finding's zone."""
    (sign,) = SIGNS[finding.side]
    lateral = {"upper": 0.48, "mid": 0.58, "lower": 0.6}[finding.location]
    return sign * (lateral + rng.uniform(-0.03, 0.03)), ZONE_Y[finding.location] + rng.uniform(-0.06, 0.06)


def _patch(chest: Chest, finding: Finding, rng: RandomStream, radius: float, soft: float) -> tuple[Box, np.ndarray]:
    """An ellipse with a ragged outline in the finding's zone: its box, and its strength from 0 to 1."""
    x, y = _lung_point(finding, rng, 0.06, 0.05)
    stretch = rng.uniform(0.8, 1.25)
    reach = 1.45 * radius
    box = chest.canvas.box(x - reach / stretch, x + reach / stretch, y - reach * stretch, y + reach * stretch)
    dx, dy = (chest.x[box] - x) * stretch, (chest.y[box] - y) / stretch
    dx *= dx
    dy *= dy
    dx += dy
    shape = 1 - dx * (1 / (radius * radius))
    shape += 0.45 * chest.texture[box]
    patch = smoothstep(shape - 0.1, soft)
    patch *= (chest.x[box] > 0) == (x > 0)
    return box, patch


def _half(chest: Chest, sign: int, height: float) -> Box:
    """The box of one half of the chest, from the lung's lowest point to ``height`` above its diaphragm."""
    bottom = 1.0
    top = chest.dome[(sign + 1) // 2] - height
    return chest.canvas.box(*((0.0, 1.0) if sign > 0 else (-1.0, 0.0)), max(top, -1.0), bottom)


def _fill(chest: Chest, box: Box, density: np.ndarray) -> None:
    """Combine densities a and b as 1 - (1 - a) (1 - b)."""
    there = chest.density[box]
    there += density * (1 - there)


def _mark(mask: np.ndarray, box: Box, strength: np.ndarray, nearest: tuple[int, int] | None = None) -> None:
    """Set the mask where ``strength`` is above one half; if that is nowhere, at the pixel ``nearest``."""
    marked = strength > 0.5
    mask[box] |= marked
    if nearest is not None and not marked.any():
        mask[nearest] = True


EFFECTS: dict[str, Callable[[Chest, Finding, RandomStream, np.ndarray], None]] = {
    "Cardiomegaly": _cardiomegaly,
    "Pleural Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Lung Opacity": _opacity,
    "Lung Lesion": _lesion,
    "Atelectasis": _atelectasis,
    "Edema": _edema,
    "Fracture": _fracture,
    "Support Devices": _devices,
}
