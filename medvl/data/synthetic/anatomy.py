"""The healthy chest: the shape of a patient's body, and its radiograph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medvl.data.synthetic.canvas import (
    ATLASES,
    Canvas,
    Pose,
    bump,
    profile_axis,
    smooth_noise,
    smoothstep,
    vessels,
)
from medvl.data.synthetic.random_stream import RandomStream

HILUM_Y = -0.1
COSTOPHRENIC_Y = 0.68
AIR, WATER = 0.42, 0.17
"""How much darker air is than soft tissue, and how much brighter fluid is, in gray levels from 0 to 1."""
RIB_SPACING = 0.17


@dataclass(frozen=True)
class Body:
    """The shape of one patient, shared by that patient's studies; lengths in body coordinates, pairs are (right, left)."""

    lung_width: tuple[float, float]
    apex: float
    dome: tuple[float, float]
    heart_width: float
    heart_y: float
    neck: float
    trunk: float
    breast: float
    mediastinum: float
    rib_slope: float
    rib_start: float
    rib_contrast: float
    vessel_atlas: tuple[int, int]
    gastric_bubble: float

    @classmethod
    def sample(cls, rng: RandomStream) -> Body:
        """A random patient."""
        width, dome = rng.uniform(0.68, 0.75), rng.uniform(0.38, 0.48)
        return cls(
            lung_width=(width + rng.uniform(0.0, 0.03), width - rng.uniform(0.0, 0.02)),
            apex=rng.uniform(-0.78, -0.7),
            dome=(dome, dome + rng.uniform(0.02, 0.07)),
            heart_width=rng.uniform(0.94, 1.04),
            heart_y=rng.uniform(0.25, 0.3),
            neck=rng.uniform(0.19, 0.25),
            trunk=width + rng.uniform(0.12, 0.24),
            breast=rng.uniform(0.02, 0.07) if rng.bernoulli(0.5) else 0.0,
            mediastinum=rng.uniform(0.115, 0.14),
            rib_slope=rng.uniform(0.9, 1.15),
            rib_start=rng.uniform(0, RIB_SPACING),
            rib_contrast=rng.uniform(0.08, 0.12),
            vessel_atlas=(rng.choice(range(ATLASES)), rng.choice(range(ATLASES))),
            gastric_bubble=rng.uniform(0.05, 0.12) if rng.bernoulli(0.5) else 0.0,
        )


@dataclass(frozen=True)
class Exposure:
    """How one image was taken: pose, brightness, contrast, gamma, noise, blur, breath and side marker."""

    pose: Pose
    brightness: float
    contrast: float
    gamma: float
    noise: float
    blur: float
    breath: float
    marker: str

    @classmethod
    def sample(cls, rng: RandomStream) -> Exposure:
        """A random exposure."""
        pose = Pose(
            scale=rng.uniform(0.94, 1.08),
            tan_half=rng.uniform(-0.03, 0.03),
            dx=rng.uniform(-0.05, 0.05),
            dy=rng.uniform(-0.05, 0.05),
        )
        return cls(
            pose=pose,
            brightness=rng.uniform(-0.05, 0.05),
            contrast=rng.uniform(0.85, 1.15),
            gamma=rng.uniform(-0.25, 0.25),
            noise=rng.uniform(0.01, 0.04),
            blur=rng.uniform(0.0, 1.0),
            breath=rng.uniform(-0.03, 0.04),
            marker=rng.weighted_choice([("L", 0.35), ("R", 0.35), ("", 0.3)]),
        )


@dataclass
class Changes:
    """Changes of the chest's shape by findings, applied before it is drawn."""

    heart: float = 1.0
    dome: list[float] = field(default_factory=lambda: [0.0, 0.0])
    shift: float = 0.0
    ribs: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Broken ribs: x, y, half width of the break's box, step across the break."""


class Chest:
    """One chest on a canvas, to which findings are added: maps of lung, heart, density and brightness.

    Args:
        canvas: the pixels.
        body: the patient.
        changes: of the shape, by findings.
        breath: how much lower than usual the diaphragm is.
        raw: random bytes for the smooth texture of soft tissue and findings.
    """

    def __init__(self, canvas: Canvas, body: Body, changes: Changes, breath: float, raw: np.ndarray) -> None:
        self.canvas, self.body, self.changes = canvas, body, changes
        self.edge = max(0.025, 1.5 * canvas.pixel)
        self.x, self.y = canvas.x, canvas.y
        self.across = np.abs(self.x)
        self.dome = [
            stand + breath + rise for stand, rise in zip(body.dome, (-change for change in changes.dome), strict=True)
        ]
        self.texture = smooth_noise(raw, 13, canvas.size)
        self._draw_lungs()
        self._draw_center()
        self.density = np.zeros_like(self.x)
        """Fraction of the lung that is filled, 0 (air) to 1 (water)."""
        self.bright = np.zeros_like(self.x)
        """Brightness added in front of everything: bone, metal, lines."""
        self.vessel_gain = np.full_like(self.x, 0.15)
        self.vessels = self._draw_vessels()

    def _draw_lungs(self) -> None:
        body, y = self.body, profile_axis()
        tables = []
        for width in body.lung_width:
            outer, inner = lung_profile(y, body.apex, width)
            tables.append((outer, inner))
        rows = self.canvas.rows()
        self.outer = np.concatenate([outer for outer, _ in tables]).take(rows, mode="clip")
        """Distance of the chest wall's inside from the midline, at each pixel's height and side."""
        inner = np.concatenate([inner for _, inner in tables]).take(rows, mode="clip")
        inside = self.outer - self.across
        np.subtract(self.across, inner, out=inner)
        np.minimum(inside, inner, out=inside)
        self.wall = inside
        self.floor = self._diaphragm()
        self.lung = smoothstep(np.minimum(inside, self.floor), self.edge)

    def _diaphragm(self) -> np.ndarray:
        """Height above the diaphragm, per pixel."""
        lateral = self.across - 0.38
        bend = lateral * lateral
        bend *= 1.2 + 1.3 * (lateral > 0)
        left = self.x > 0
        bend += np.where(left, np.float32(self.dome[1]), np.float32(self.dome[0]))
        bend -= self.y
        return bend

    def _draw_center(self) -> None:
        body, x, y = self.body, self.x, self.y
        shift = self.changes.shift
        grow = body.heart_width * self.changes.heart
        top = body.heart_y - 0.03 * (grow - 1)
        # The left ventricle points down and to the patient's left; the right atrium bulges over the spine.
        along = x - (0.12 + 0.13 * (grow - 1) + shift)
        tilt = y - top
        tilt -= along * 0.35
        wide, high = 0.315 * grow, 0.27 * (0.7 + 0.3 * grow)
        ventricle = along * (1 / wide)
        ventricle *= ventricle
        tilt *= 1 / high
        tilt *= tilt
        ventricle += tilt
        heart = smoothstep(1 - ventricle, 0.22)
        self.heart = heart
        # Mediastinum: narrow above the heart, with the aortic knob on the patient's left.
        middle = np.abs(x - shift * 0.6)
        half = body.mediastinum + 0.05 * bump(y - np.float32(HILUM_Y + 0.02), 0.35)
        center = smoothstep(half - middle, 0.05)
        knob = self.canvas.box(-0.02 + shift, 0.28 + shift, -0.5, -0.22)
        dx, dy = x[knob] - (0.1 + shift), y[knob] + 0.37
        np.maximum(center[knob], smoothstep(0.012 - (dx * dx + dy * dy), 0.012), out=center[knob])
        self.center = np.maximum(heart, center)

    def _draw_vessels(self) -> np.ndarray:
        """Vessels around both hila."""
        out = np.empty_like(self.x)
        for left, number in ((False, self.body.vessel_atlas[0]), (True, self.body.vessel_atlas[1])):
            # The patient's midline is nearly a column of pixels, which splits the image into halves.
            column = round(self.canvas.to_pixels(0, 0)[1])
            half = np.s_[:, column:] if left else np.s_[:, :column]
            out[half] = vessels(self.across[half] - 0.13, self.y[half] - (HILUM_Y + 0.03 * (not left)), number)
        return out

    def picture(self, exposure: Exposure, raw: np.ndarray) -> np.ndarray:
        """The radiograph as uint8 (size, size).

        Args:
            exposure: how it is taken.
            raw: two random bytes a pixel, for detector noise.
        """
        solid = np.maximum(self.center, smoothstep(-self.floor, 0.05))
        air = self.lung * (1 - self.center)
        water = air * self.density
        air -= water
        bones = self._bones(air)
        gray = self._tissue(solid)
        bubble = self.body.gastric_bubble
        if bubble:
            self._add_bubble(gray, bubble)
        branches = self.vessels * self.vessel_gain
        branches += 0.05 * self.texture
        branches -= AIR
        air *= branches
        gray += air
        water *= WATER
        gray += water
        gray += bones
        gray *= self._outline()
        gray += self.bright
        return expose(gray, exposure, raw, self.canvas)

    def _tissue(self, solid: np.ndarray) -> np.ndarray:
        """Soft tissue: chest wall, breasts, mediastinum, heart, abdomen, spine."""
        gray = solid * 0.22
        gray += 0.5
        gray += bump(self.x, 0.11) * 0.06
        if self.body.breast:
            dx, dy = self.across - 0.42, self.y - 0.3
            dx *= dx
            dy *= dy
            dx += dy
            gray += smoothstep(0.1 - dx, 0.09) * self.body.breast
        windpipe = self.canvas.box(-0.06, 0.06, -1.1, -0.28)
        gray[windpipe] -= bump(self.x[windpipe] + 0.005, 0.055) * 0.13 * smoothstep(-0.3 - self.y[windpipe], 0.1)
        return gray

    def _add_bubble(self, gray: np.ndarray, radius: float) -> None:
        """Gas in the stomach under the left dome."""
        x, y = 0.4, self.dome[1] + radius + 0.05
        box = self.canvas.box(x - 2 * radius, x + 2 * radius, y - radius, y + radius)
        dx, dy = (self.x[box] - x) * 0.55, self.y[box] - y
        gray[box] -= smoothstep(radius * radius - dx * dx - dy * dy, 0.7 * radius * radius) * 0.25

    def _outline(self) -> np.ndarray:
        """1 inside the body, 0 in the air around it."""
        body = self.body
        shoulder = smoothstep(self.y + 0.72, 0.44)
        shoulder *= body.trunk + 0.14 - body.neck
        shoulder -= smoothstep(self.y + 0.1, 0.8) * 0.12
        shoulder += body.neck
        shoulder -= self.across
        return smoothstep(shoulder, 0.06)

    def _bones(self, air: np.ndarray) -> np.ndarray:
        """Posterior and anterior ribs, brighter over air, and clavicles."""
        body, out = self.body, np.zeros_like(self.x)
        rows = self.canvas.box(-1.2, 1.2, body.apex - 0.05, 0.75)
        rows = (rows[0], slice(None))
        across, y = self.across[rows], self.y[rows]
        square = across - 0.12
        square *= square
        posterior = square * (0.62 * body.rib_slope)
        posterior -= across * 0.22
        np.subtract(y, posterior, out=posterior)
        for x, at, half, step in self.changes.ribs:
            box = self.canvas.box(x - half, x + half, at - half, at + half)
            box = (slice(max(box[0].start - rows[0].start, 0), max(box[0].stop - rows[0].start, 1)), box[1])
            near = bump(y[box] - at, half)
            posterior[box] += (
                step * near * np.where(np.abs(self.x[rows][box]) > abs(x), np.float32(1), np.float32(-0.4))
            )
        ribs = _stripes(posterior, body.rib_start, 0.27) * body.rib_contrast
        anterior = square * -0.75
        anterior += across * 0.95
        anterior += y
        front = _stripes(anterior, body.rib_start * 0.5, 0.3)
        front *= smoothstep(across - 0.32, 0.2)
        front *= 0.6 * body.rib_contrast
        ribs += front
        ribs *= smoothstep(self.outer[rows] + 0.03 - across, 0.05)
        ribs *= 0.2 + 0.8 * air[rows]  # faint over heart, abdomen or fluid
        out[rows] = ribs
        self._add_clavicles(out)
        return out

    def _add_clavicles(self, out: np.ndarray) -> None:
        start = self.body.apex + 0.22
        rows = self.canvas.box(-1.2, 1.2, start - 0.4, start + 0.1)
        rows = (rows[0], slice(None))
        across = self.across[rows]
        bend = across * (0.2 * across - 0.42)
        bend -= self.y[rows] - start
        bone = bump(bend, 0.05)
        bone *= smoothstep(across - 0.08, 0.06)
        bone *= smoothstep(0.85 - across, 0.1)
        bone *= 0.09
        out[rows] += bone


def lung_profile(y: np.ndarray, apex: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Outer and inner edge of a lung at each height, as quarter ellipses that meet at the apex."""
    top = 0.24
    fall = (0.4 - y) / np.float32(0.4 - apex)
    np.maximum(fall, 0, out=fall)
    outer = top + (width - top) * np.sqrt(np.maximum(1 - fall * fall, 0))
    near = (apex + np.float32(0.3) - y) / np.float32(0.3)
    np.maximum(near, 0, out=near)
    inner = top - (top - 0.09) * np.sqrt(np.maximum(1 - near * near, 0))
    # Above the apex the edges cross, so that the lung is empty there.
    above = np.maximum(apex - y, 0)
    return outer - above, inner + above


def _stripes(height: np.ndarray, start: float, width: float) -> np.ndarray:
    """Evenly spaced ribs across ``height``, brighter along their edges."""
    phase = height * (1 / RIB_SPACING)
    phase -= start / RIB_SPACING - 16
    phase -= phase.astype(np.int32)
    phase -= 0.5
    ribs = bump(phase, width)
    np.abs(phase, out=phase)
    phase -= width * 0.6
    ribs += 0.5 * bump(phase, 0.1)
    return ribs


def expose(gray: np.ndarray, exposure: Exposure, raw: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Detector noise, blur, tone curve and eight bits."""
    gray = gray * exposure.contrast
    gray += 0.03 + exposure.brightness
    if exposure.blur > 0.5:
        gray = _blur(gray)
    pairs = raw.reshape(2, canvas.size, canvas.size)
    noise = pairs[0].astype(np.float32)
    noise += pairs[1]
    noise -= 255
    noise *= exposure.noise / 255
    gray += noise
    np.maximum(gray, 0, out=gray)
    np.minimum(gray, 1, out=gray)
    curve = gray * -exposure.gamma
    curve += 1 + exposure.gamma
    gray *= curve
    gray *= 255
    gray += 0.5
    return gray.astype(np.uint8)


def _blur(gray: np.ndarray) -> np.ndarray:
    """A 3 x 3 binomial filter; the border pixels are kept."""
    out = gray.copy()
    out[1:-1] += (gray[:-2] - 2 * gray[1:-1] + gray[2:]) * 0.25
    gray = out.copy()
    gray[:, 1:-1] += (out[:, :-2] - 2 * out[:, 1:-1] + out[:, 2:]) * 0.25
    return gray
