"""Synthetic chest X-rays: a body drawn from smooth fields, signs of disease, and variations of exposure."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from datasets.synthetic.common import random_stream
from datasets.synthetic.latents import Simulation

SIGNS = (
    "heart", "oedema", "consolidation", "effusion", "devices", "chronic", "atelectasis", "pneumothorax",
    "lesion", "other",
)  # fmt: skip
FIELD_SIDE = 128  # pixels of the shorter side on which the smooth fields are drawn, before they are enlarged
ASPECT = 1.2  # longer side / shorter side, as of real X-rays


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
    """What an image shows: body coordinates x, y of a field's pixels, anatomy, and scores of the signs."""

    x: np.ndarray
    y: np.ndarray
    body: dict[str, float]
    sign: dict[str, float]
    signal: float

    def opacity(self, sign: str) -> float:
        """Return a sign's density, 0-0.9: near 0.1 for a score of -1, 0.3 for 0, 0.6 for 1, 0.8 for 2."""
        return 0.9 / (1 + float(np.exp(0.7 - self.signal * self.sign[sign])))


def xray_size(side: int, portrait: bool) -> tuple[int, int]:
    """Return rows and columns of an X-ray whose shorter side is `side` pixels.

    >>> xray_size(512, True)
    (614, 512)
    """
    long = int(side * ASPECT)
    return (long, side) if portrait else (side, long)


def write_xray(xray: XRay, path: Path, seed: int, simulation: Simulation) -> None:
    """Draw an X-ray and write it as a greyscale JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_xray(xray, seed, simulation)).save(path, quality=85)


def draw_xray(xray: XRay, seed: int, simulation: Simulation) -> np.ndarray:
    """Draw an X-ray, uint8 [rows, columns], from its fields, the seed and the settings alone."""
    rng = random_stream(seed, xray.study_id, xray.number)
    scene = _arrange(rng, xray, seed, simulation)
    is_lateral = xray.view in ("LATERAL", "LL")
    field = _lateral(scene) if is_lateral else _frontal(rng, scene, xray.view)
    field = _expose(rng, field, simulation)
    image = Image.fromarray((field * 255).astype(np.uint8))
    image = image.resize((xray.columns, xray.rows), Image.Resampling.BILINEAR)
    if xray.view in ("AP", "PA"):
        _draw_devices(rng, image, xray)
    pixels: np.ndarray = np.asarray(image) + _grain(rng, xray.rows, xray.columns, simulation.image_noise)
    return pixels.clip(0, 255).astype(np.uint8)


@cache
def _coordinates(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of a field's pixels, float32; the shorter side runs from -1 to 1, y downwards."""
    short = min(rows, columns)
    across = (np.arange(columns, dtype=np.float32) * 2 + 1 - columns) / short
    down = (np.arange(rows, dtype=np.float32) * 2 + 1 - rows) / short
    x, y = np.meshgrid(across, down)
    return x, y


def _arrange(rng: Generator, xray: XRay, seed: int, simulation: Simulation) -> _Scene:
    """Draw the patient's anatomy, and rotate, shift and scale the body by chance."""
    amount, patient = simulation.image_geometry, random_stream(seed, xray.subject_id)
    body = {name: mean + amount * sd * float(patient.standard_normal()) for name, (mean, sd) in BODY.items()}
    scale = min(FIELD_SIDE / min(xray.rows, xray.columns), 1)
    x, y = _coordinates(round(xray.rows * scale), round(xray.columns * scale))
    turn, right, down, zoom = amount * rng.standard_normal(4) * (0.06, 0.05, 0.05, 0.05)
    zoom = np.float32(np.clip(body["zoom"] + zoom, 0.7, 1.4))
    turn = np.float32(turn)
    x, y = (x - np.float32(right)) / zoom, (y - np.float32(down)) / zoom
    sign = dict(zip(SIGNS, xray.signs.tolist(), strict=True))
    return _Scene(x + turn * y, y - turn * x, body, sign, simulation.image_signal)


def _smooth_step(value: np.ndarray) -> np.ndarray:
    """Return a smooth step from 0 to 1 around 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(value))


def _frontal(rng: Generator, scene: _Scene, view: str) -> np.ndarray:
    """Return an AP or PA X-ray as brightness around 0-1."""
    x, y, body, sign = scene.x, scene.y, scene.body, scene.sign
    torso = _smooth_step((body["width"] - np.abs(x) * (1 + 0.06 * y)) * 9)
    air, diaphragm = _lungs(scene)
    bright = 0.06 + torso * (body["soft_tissue"] - 0.05 * y + 0.22 * np.exp(-((x / 0.13) ** 2)))
    bright -= 0.40 * air * torso
    ribs = np.cos((y + 0.35 * x * x) * np.float32(2 * np.pi / max(body["rib_spacing"], 0.08)))
    bright += body["rib_strength"] * np.maximum(ribs, 0) * torso * (np.abs(x) > 0.1)
    width = (0.9 if view == "PA" else 1.0) * (body["heart"] + 0.07 * scene.signal * sign["heart"])
    heart = _smooth_step((1 - ((x - 0.11) / max(width, 0.12)) ** 2 - ((y - 0.26) / 0.31) ** 2) * 3)
    bright += heart * (0.80 - bright) * 0.85
    for density in _sign_densities(rng, scene, diaphragm):
        bright += density * air * (0.78 - bright)
    if sign["pneumothorax"] > 1:
        apex = _smooth_step((0.05 + 0.12 * (sign["pneumothorax"] - 1.5) + (-0.5 - y)) * 12)
        bright -= 0.12 * apex * air * (x > 0)
    return bright


def _lungs(scene: _Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the lungs' air in 0-1, and the diaphragm's y at each x, which chronic disease flattens."""
    x, y, body, chronic = scene.x, scene.y, scene.body, scene.sign["chronic"]
    side = np.where(x < 0, np.float32(-1), np.float32(1))
    off = x - side * (body["lung_offset"] + body["lung_tilt"] * y)
    height = max(body["lung_height"] + 0.09 * chronic, 0.3)
    diaphragm = body["diaphragm"] + 0.08 * chronic + 0.04 * side + (0.5 - 0.1 * chronic) * off * off
    ellipse = 1 - (off / max(body["lung_width"], 0.15)) ** 2 - ((y + 0.1) / height) ** 2
    return _smooth_step(ellipse * 3) * _smooth_step((diaphragm - y) * 14), diaphragm


def _sign_densities(rng: Generator, scene: _Scene, diaphragm: np.ndarray) -> list[np.ndarray]:
    """Return densities (0-1) of oedema, consolidation, effusion, atelectasis and any nodule, by chance."""
    x, y = scene.x, scene.y
    # Python's numbers, as NumPy's would make float64 of the fields, which take twice the time.
    zone_x = int(rng.choice([-1, 1])) * rng.uniform(0.3, 0.52)
    zone_y = float(rng.choice([-0.45, 0.0, 0.25], p=(0.2, 0.3, 0.5)))
    size = rng.uniform(0.28, 0.34)
    tilt, spot_x, spot_y = rng.uniform(-1, 1, 3).tolist()
    sides = ((1.0, 0.25), (0.25, 1.0), (0.9, 0.9))[rng.integers(3)]
    bat_wing = np.exp(-(((np.abs(x) - 0.3) / 0.28) ** 2) - ((y - 0.12) / 0.4) ** 2)
    blob = ((x - zone_x) ** 2 + (y - zone_y) ** 2 + 0.4 * tilt * (x - zone_x) * (y - zone_y)) / size**2
    consolidation = np.minimum(1.2 * scene.opacity("consolidation") * np.exp(-blob), 0.95)
    height = scene.opacity("effusion") * np.where(x < 0, *map(np.float32, sides))
    level = diaphragm - 0.75 * height + 0.05 - 0.6 * height * np.maximum(np.abs(x) - 0.4, 0)
    effusion = np.minimum(2.5 * height, 0.95) * _smooth_step((y - level) * 12)
    bands = np.exp(-(((y - diaphragm + 0.12 + 0.1 * tilt * x) / 0.05) ** 2))
    densities = [
        scene.opacity("oedema") * bat_wing,
        consolidation,
        effusion,
        bands * scene.opacity("atelectasis"),
    ]
    if scene.sign["lesion"] > 1.6:
        densities.append(0.6 * np.exp(-((x - 0.5 * spot_x) ** 2 + (y - 0.3 * spot_y) ** 2) / 0.002))
    return densities


def _lateral(scene: _Scene) -> np.ndarray:
    """Return a lateral X-ray as brightness around 0-1: lungs overlapping, heart in front, spine behind."""
    x, y, body = scene.x, scene.y, scene.body
    torso = _smooth_step((0.7 - np.abs(x)) * 9)
    air = _smooth_step((1 - ((x - 0.05) / 0.42) ** 2 - ((y + 0.05) / max(body["lung_height"], 0.3)) ** 2) * 3)
    tissue = body["soft_tissue"] + 0.2 * np.exp(-(((x - 0.5) / 0.1) ** 2))
    bright: np.ndarray = 0.06 + torso * tissue - 0.35 * air
    heart_width = 0.22 + 0.03 * scene.sign["heart"]
    bright += 0.3 * np.exp(-(((x + 0.2) / heart_width) ** 2) - ((y - 0.2) / 0.22) ** 2)
    effusion = _smooth_step((y - 0.45 + 0.4 * scene.opacity("effusion")) * 12)
    bright += effusion * air * (0.75 - bright)
    return bright


def _expose(rng: Generator, bright: np.ndarray, simulation: Simulation) -> np.ndarray:
    """Apply texture, gamma, contrast and brightness, all by chance; return values in 0-1."""
    rows, columns = bright.shape
    patches = Image.fromarray(rng.standard_normal((14, 14)).astype(np.float32))
    texture = np.asarray(patches.resize((columns, rows), Image.Resampling.BICUBIC))
    gamma, contrast, offset = simulation.image_exposure * rng.standard_normal(3) * (0.25, 0.15, 0.05)
    field = np.clip(bright + 0.03 * simulation.image_noise * texture, 0.001, 1) ** np.float32(np.exp(gamma))
    return np.clip((field - 0.5) * np.float32(np.exp(contrast)) + np.float32(0.5 + offset), 0, 1)


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
