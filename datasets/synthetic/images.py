"""Synthetic chest X-rays: a body drawn from smooth fields, signs of disease, and variations of exposure."""

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Self

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from datasets.synthetic.common import random_stream
from datasets.synthetic.simulation import Simulation

SIGNS = (
    "heart", "oedema", "consolidation", "effusion", "devices", "chronic", "atelectasis", "pneumothorax",
    "lesion", "other",
)  # fmt: skip
FIELD_SIDE = 128  # pixels of the shorter side on which the smooth fields are drawn, before they are enlarged
ASPECT = 1.2  # longer side / shorter side, as of real X-rays
PIXELS_AT_ONCE = 40_000  # of the fields of X-rays that are drawn together: they stay in a core's cache
ZONES, ZONE_CHANCES = (-0.45, 0.0, 0.25), (0.2, 0.5)  # heights of a consolidation; all chances but the last
EFFUSION_SIDES = ((1.0, 0.25), (0.25, 1.0), (0.9, 0.9))  # how much of an effusion is on the left and right


@dataclass(frozen=True)
class XRay:
    """One image to draw: its ids, view and size, and the score of each of SIGNS (about standard normal)."""

    subject_id: int
    study_id: int
    number: int  # within the study
    view: str
    rows: int
    columns: int
    signs: np.ndarray

    @property
    def is_lateral(self) -> bool:
        """Whether it shows the body from the side."""
        return self.view in ("LATERAL", "LL")


# A patient's anatomy, which does not depend on disease: mean and standard deviation of each measure, in units
# of half the image's shorter side.
BODY = {
    "width": (0.95, 0.06), "lung_width": (0.36, 0.03), "lung_height": (0.74, 0.05),
    "lung_offset": (0.43, 0.03), "lung_tilt": (0.06, 0.05), "diaphragm": (0.52, 0.06),
    "rib_spacing": (0.2, 0.025), "rib_strength": (0.06, 0.025), "soft_tissue": (0.58, 0.07),
    "heart": (0.29, 0.025), "zoom": (1.0, 0.07),
}  # fmt: skip


@dataclass(frozen=True)
class _Scene:
    """What n images show: body coordinates x, y of their fields' pixels, anatomy, and scores of the signs."""

    x: np.ndarray  # float32 [n, rows, columns]
    y: np.ndarray
    body: dict[str, np.ndarray]  # measure -> float64 [n]
    sign: dict[str, np.ndarray]  # sign -> float64 [n]
    signal: float

    def opacity(self, sign: str) -> np.ndarray:
        """Return a sign's density, 0-0.9: near 0.1 for a score of -1, 0.3 for 0, 0.6 for 1, 0.8 for 2."""
        return np.asarray(0.9 / (1 + np.exp(0.7 - self.signal * self.sign[sign])))


def xray_size(side: int, portrait: bool) -> tuple[int, int]:
    """Return rows and columns of an X-ray whose shorter side is `side` pixels.

    >>> xray_size(512, True)
    (614, 512)
    """
    long = int(side * ASPECT)
    return (long, side) if portrait else (side, long)


def write_xrays(xrays: Sequence[XRay], paths: Sequence[str], seed: int, simulation: Simulation) -> None:
    """Draw X-rays of one size and kind, and write each as a greyscale JPEG."""
    for pixels, path in zip(draw_xrays(xrays, seed, simulation), paths, strict=True):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.fromarray(pixels).save(path, quality=85)


def in_groups(xrays: Sequence[XRay]) -> list[list[int]]:
    """Return the rows of X-rays that are best drawn together, of one size and kind."""
    kinds: dict[tuple[int, int, bool], list[int]] = {}
    for row, xray in enumerate(xrays):
        kinds.setdefault((xray.rows, xray.columns, xray.is_lateral), []).append(row)
    groups = []
    for (rows, columns, _), members in kinds.items():
        size = max(1, PIXELS_AT_ONCE // math.prod(_field_size(rows, columns)))
        groups += [members[start : start + size] for start in range(0, len(members), size)]
    return groups


def draw_xray(xray: XRay, seed: int, simulation: Simulation) -> np.ndarray:
    """Draw an X-ray, uint8 [rows, columns], from its fields, the seed and the settings alone."""
    return draw_xrays([xray], seed, simulation)[0]


def draw_xrays(xrays: Sequence[XRay], seed: int, simulation: Simulation) -> list[np.ndarray]:
    """Draw X-rays of one size, all or none of them lateral; each as `draw_xray` alone draws it."""
    rngs = [random_stream(seed, xray.study_id, xray.number) for xray in xrays]
    scene = _arrange(rngs, xrays, seed, simulation)
    is_pa = np.array([xray.view == "PA" for xray in xrays])
    fields = _lateral(scene) if xrays[0].is_lateral else _frontal(rngs, scene, is_pa)
    fields = (_expose(rngs, fields, simulation) * 255).astype(np.uint8)
    return [_finish(*drawing, simulation) for drawing in zip(rngs, xrays, fields, strict=True)]


def _finish(rng: Generator, xray: XRay, field: np.ndarray, simulation: Simulation) -> np.ndarray:
    """Enlarge a field to the size of its image, and add devices and grain."""
    image = Image.fromarray(field).resize((xray.columns, xray.rows), Image.Resampling.BILINEAR)
    if xray.view in ("AP", "PA"):
        _draw_devices(rng, image, xray)
    pixels: np.ndarray = np.asarray(image) + _grain(rng, xray.rows, xray.columns, simulation.image_noise)
    return pixels.clip(0, 255).astype(np.uint8)


def _field_size(rows: int, columns: int) -> tuple[int, int]:
    """Return rows and columns of the field of an X-ray."""
    scale = min(FIELD_SIDE / min(rows, columns), 1)
    return round(rows * scale), round(columns * scale)


@cache
def _coordinates(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of a field's pixels, float32; the shorter side runs from -1 to 1, y downwards."""
    short = min(rows, columns)
    across = (np.arange(columns, dtype=np.float32) * 2 + 1 - columns) / short
    down = (np.arange(rows, dtype=np.float32) * 2 + 1 - rows) / short
    x, y = np.meshgrid(across, down)
    return x, y


def _column(values: np.ndarray) -> np.ndarray:
    """[n] -> float32 [n, 1, 1]: a number for each of n fields. As float64 the fields took twice the time."""
    return values.astype(np.float32)[:, None, None]


@lru_cache(maxsize=1024)
def _anatomy(seed: int, subject_id: int) -> np.ndarray:
    """Return how far each of a patient's measures is from the mean, in standard deviations."""
    return random_stream(seed, subject_id).standard_normal(len(BODY))


def _arrange(rngs: Sequence[Generator], xrays: Sequence[XRay], seed: int, simulation: Simulation) -> _Scene:
    """Draw the patients' anatomy, and rotate, shift and scale the bodies by chance."""
    amount, mean_and_sd = simulation.image_geometry, np.array(list(BODY.values()))
    anatomy = np.array([_anatomy(seed, xray.subject_id) for xray in xrays])
    measures = mean_and_sd[:, 0] + amount * mean_and_sd[:, 1] * anatomy
    body = dict(zip(BODY, measures.T, strict=True))
    x, y = _coordinates(*_field_size(xrays[0].rows, xrays[0].columns))
    moves = amount * np.array([rng.standard_normal(4) for rng in rngs]) * (0.06, 0.05, 0.05, 0.05)
    turn, right, down, zoom = moves.T
    turn, zoom = _column(turn), _column(np.clip(body["zoom"] + zoom, 0.7, 1.4))
    x, y = (x - _column(right)) / zoom, (y - _column(down)) / zoom
    sign = dict(zip(SIGNS, np.array([xray.signs for xray in xrays]).T, strict=True))
    return _Scene(x + turn * y, y - turn * x, body, sign, simulation.image_signal)


def _smooth_step(value: np.ndarray) -> np.ndarray:
    """Return a smooth step from 0 to 1 around 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(value))


def _frontal(rngs: Sequence[Generator], scene: _Scene, is_pa: np.ndarray) -> np.ndarray:
    """Return AP or PA X-rays as brightness around 0-1."""
    x, y, body, sign = scene.x, scene.y, scene.body, scene.sign
    torso = _smooth_step((_column(body["width"]) - np.abs(x) * (1 + 0.06 * y)) * 9)
    air, diaphragm = _lungs(scene)
    spine = 0.22 * np.exp(-((x / 0.13) ** 2))
    bright: np.ndarray = 0.06 + torso * (_column(body["soft_tissue"]) - 0.05 * y + spine)
    bright -= 0.40 * air * torso
    ribs = np.cos((y + 0.35 * x * x) * _column(2 * np.pi / np.maximum(body["rib_spacing"], 0.08)))
    bright += _column(body["rib_strength"]) * np.maximum(ribs, 0) * torso * (np.abs(x) > 0.1)
    width = np.where(is_pa, 0.9, 1.0) * (body["heart"] + 0.07 * scene.signal * sign["heart"])
    side_to_side = ((x - 0.11) / _column(np.maximum(width, 0.12))) ** 2
    heart = _smooth_step((1 - side_to_side - ((y - 0.26) / 0.31) ** 2) * 3)
    bright += heart * (0.80 - bright) * 0.85
    chances = _SignChances.draw(rngs)
    for density in _sign_densities(chances, scene, diaphragm):
        bright += density * air * (0.78 - bright)
    if len(rows := np.flatnonzero(sign["lesion"] > 1.6)):
        bright[rows] += _nodule(chances, scene, rows) * air[rows] * (0.78 - bright[rows])
    if len(rows := np.flatnonzero(sign["pneumothorax"] > 1)):
        lowest = _column(0.05 + 0.12 * (sign["pneumothorax"][rows] - 1.5))
        apex = _smooth_step((lowest + (-0.5 - y[rows])) * 12)
        bright[rows] -= 0.12 * apex * air[rows] * (x[rows] > 0)
    return bright


def _lungs(scene: _Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the lungs' air in 0-1, and the diaphragm's y at each x, which chronic disease flattens."""
    x, y, body, chronic = scene.x, scene.y, scene.body, scene.sign["chronic"]
    side = np.copysign(np.float32(1), x)
    off = x - side * (_column(body["lung_offset"]) + _column(body["lung_tilt"]) * y)
    height = _column(np.maximum(body["lung_height"] + 0.09 * chronic, 0.3))
    level, curve = _column(body["diaphragm"] + 0.08 * chronic), _column(0.5 - 0.1 * chronic)
    diaphragm = level + 0.04 * side + curve * off * off
    width = _column(np.maximum(body["lung_width"], 0.15))
    ellipse = 1 - (off / width) ** 2 - ((y + 0.1) / height) ** 2
    return _smooth_step(ellipse * 3) * _smooth_step((diaphragm - y) * 14), diaphragm


@dataclass(frozen=True)
class _SignChances:
    """What is chance about the signs of n frontal images, each float64 [n]."""

    zone_x: np.ndarray
    zone_y: np.ndarray
    size: np.ndarray
    tilt: np.ndarray
    spot_x: np.ndarray
    spot_y: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def draw(cls, rngs: Sequence[Generator]) -> Self:
        """Draw those of each image from its own stream."""
        return cls(*np.array([cls._draw_one(rng) for rng in rngs]).T)

    @staticmethod
    def _draw_one(rng: Generator) -> tuple[float, ...]:
        zone_x = (-1, 1)[rng.integers(2)] * rng.uniform(0.3, 0.52)
        zone_y = ZONES[bisect_right(ZONE_CHANCES, rng.random())]
        size = rng.uniform(0.28, 0.34)
        return (zone_x, zone_y, size, *rng.uniform(-1, 1, 3).tolist(), *EFFUSION_SIDES[rng.integers(3)])


def _sign_densities(chances: _SignChances, scene: _Scene, diaphragm: np.ndarray) -> Iterator[np.ndarray]:
    """Yield densities (0-1) of oedema, consolidation, effusion and atelectasis."""
    x, y = scene.x, scene.y
    bat_wing = np.exp(-(((np.abs(x) - 0.3) / 0.28) ** 2) - ((y - 0.12) / 0.4) ** 2)
    yield _column(scene.opacity("oedema")) * bat_wing
    right, down = x - _column(chances.zone_x), y - _column(chances.zone_y)
    blob = (right**2 + down**2 + _column(0.4 * chances.tilt) * right * down) / _column(chances.size**2)
    yield np.minimum(_column(1.2 * scene.opacity("consolidation")) * np.exp(-blob), 0.95)
    of_right = _column(chances.right)
    sides = of_right + (_column(chances.left) - of_right) * (x < 0)
    height = _column(scene.opacity("effusion")) * sides
    level = diaphragm - 0.75 * height + 0.05 - 0.6 * height * np.maximum(np.abs(x) - 0.4, 0)
    yield np.minimum(2.5 * height, 0.95) * _smooth_step((y - level) * 12)
    bands = np.exp(-(((y - diaphragm + 0.12 + _column(0.1 * chances.tilt) * x) / 0.05) ** 2))
    yield bands * _column(scene.opacity("atelectasis"))


def _nodule(chances: _SignChances, scene: _Scene, rows: np.ndarray) -> np.ndarray:
    """Return the density of a nodule in some of the images."""
    right = scene.x[rows] - _column(0.5 * chances.spot_x[rows])
    down = scene.y[rows] - _column(0.3 * chances.spot_y[rows])
    return np.asarray(0.6 * np.exp(-(right**2 + down**2) / 0.002))


def _lateral(scene: _Scene) -> np.ndarray:
    """Return lateral X-rays as brightness around 0-1: lungs overlapping, heart in front, spine behind."""
    x, y, body = scene.x, scene.y, scene.body
    torso = _smooth_step((0.7 - np.abs(x)) * 9)
    height = _column(np.maximum(body["lung_height"], 0.3))
    air = _smooth_step((1 - ((x - 0.05) / 0.42) ** 2 - ((y + 0.05) / height) ** 2) * 3)
    tissue = _column(body["soft_tissue"]) + 0.2 * np.exp(-(((x - 0.5) / 0.1) ** 2))
    bright: np.ndarray = 0.06 + torso * tissue - 0.35 * air
    heart_width = _column(0.22 + 0.03 * scene.sign["heart"])
    bright += 0.3 * np.exp(-(((x + 0.2) / heart_width) ** 2) - ((y - 0.2) / 0.22) ** 2)
    effusion = _smooth_step((y - 0.45 + _column(0.4 * scene.opacity("effusion"))) * 12)
    bright += effusion * air * (0.75 - bright)
    return bright


def _expose(rngs: Sequence[Generator], bright: np.ndarray, simulation: Simulation) -> np.ndarray:
    """Apply texture, gamma, contrast and brightness, all by chance; return values in 0-1."""
    rows, columns = bright.shape[1:]
    textures, exposures = [], []
    for rng in rngs:
        patches = Image.fromarray(rng.standard_normal((14, 14)).astype(np.float32))
        textures.append(np.asarray(patches.resize((columns, rows), Image.Resampling.BICUBIC)))
        exposures.append(rng.standard_normal(3))
    gamma, contrast, offset = (simulation.image_exposure * np.array(exposures) * (0.25, 0.15, 0.05)).T
    bright = np.clip(bright + 0.03 * simulation.image_noise * np.array(textures), 0.001, 1)
    bright **= _column(np.exp(gamma))
    exposed: np.ndarray = (bright - 0.5) * _column(np.exp(contrast)) + _column(0.5 + offset)
    return exposed.clip(0, 1)


def _draw_devices(rng: Generator, image: Image.Image, xray: XRay) -> None:
    """Draw tube, central line and wires, the more of them the higher the score, and the side marker."""
    pen, side = ImageDraw.Draw(image), min(xray.rows, xray.columns)
    score, width = xray.signs[SIGNS.index("devices")], max(1, side // 140)
    middle, shift = xray.columns / 2, rng.normal(0, 0.03, 8) * side
    tube = [(middle + shift[0], 0), (middle + shift[1], 0.36 * xray.rows)]
    line = [
        (0.3 * side, 0.12 * xray.rows + shift[2]), (middle - 0.06 * side, 0.25 * xray.rows),
        (middle - 0.05 * side, 0.45 * xray.rows + shift[3]),
    ]  # fmt: skip
    wire = [
        (0, 0.5 * xray.rows + 4 * shift[4]), (0.4 * side + shift[5], 0.35 * xray.rows),
        (xray.columns, 0.6 * xray.rows + 4 * shift[6]),
    ]  # fmt: skip
    for threshold, points in ((0.5, tube), (-0.2, line), (-0.9, wire)):
        if score > threshold + rng.normal(0, 0.3):
            pen.line(points, fill=int(rng.integers(200, 250)), width=width)
    left, top, tall = 0.06 * xray.columns, rng.uniform(0.04, 0.2) * xray.rows, 0.05 * side
    pen.line([(left, top), (left, top + tall), (left + tall / 2, top + tall)], fill=245, width=2 * width)


@cache
def _noise_tile(rows: int, columns: int) -> np.ndarray:
    noise = random_stream(0, rows, columns).standard_normal((rows + 101, columns + 101))
    return (noise * 32).astype(np.int16)


def _grain(rng: Generator, rows: int, columns: int, amount: float) -> np.ndarray:
    """Return grain [rows, columns], int16: a window of one cached tile, as drawing noise costs the most."""
    down, right = rng.integers(0, 101, 2)
    window = _noise_tile(rows, columns)[down : down + rows, right : right + columns]
    return (window * np.int16(round(amount * rng.uniform(2, 7)))) >> 5
