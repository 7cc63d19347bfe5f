"""Synthetic chest X-rays: a body drawn from smooth fields, the signs of disease, and the film's accidents."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from datasets.synthetic.patients import Strengths, stream

SIGNS = (
    "heart", "oedema", "consolidation", "effusion", "devices", "chronic", "atelectasis", "pneumothorax",
    "lesion", "other",
)  # fmt: skip
FIELD_SIDE = 128  # pixels of the shorter side on which the smooth fields are drawn, before they are enlarged
ASPECT = 1.2  # longer side / shorter side, as on a film


@dataclass(frozen=True)
class Film:
    """One image to draw: whose, in which view, and the score of each of SIGNS (about standard normal)."""

    subject_id: int
    study_id: int
    number: int  # within the study
    view: str
    rows: int
    columns: int
    signs: np.ndarray


@dataclass(frozen=True)
class Body:
    """A patient's own shape, in units of half the film's shorter side: private, and blind to disease."""

    width: float
    lung_width: float
    lung_height: float
    lung_offset: float
    lung_tilt: float
    diaphragm: float
    rib_spacing: float
    rib_strength: float
    soft_tissue: float
    heart: float
    zoom: float


def film_size(side: int, portrait: bool) -> tuple[int, int]:
    """Rows and columns of a film whose shorter side is `side` pixels.

    >>> film_size(512, True)
    (614, 512)
    """
    long = int(side * ASPECT)
    return (long, side) if portrait else (side, long)


def write_film(film: Film, path: Path, seed: int, strengths: Strengths) -> None:
    """Draw a film and write it as a grey JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_film(film, seed, strengths)).save(path, quality=85)


def draw_film(film: Film, seed: int, strengths: Strengths) -> np.ndarray:
    """The film as uint8 [rows, columns]; a function of the film and the seed alone."""
    rng = stream(seed, film.study_id, film.number)
    body = _body(stream(seed, film.subject_id), strengths.image_geometry)
    x, y = _place(rng, film, body, strengths.image_geometry)
    if film.view in ("LATERAL", "LL"):
        field = _lateral(x, y, film, body, strengths)
    else:
        field = _frontal(rng, x, y, film, body, strengths)
    field = _expose(rng, field, strengths)
    image = Image.fromarray((field * 255).astype(np.uint8))
    image = image.resize((film.columns, film.rows), Image.Resampling.BILINEAR)
    if film.view in ("AP", "PA"):
        _draw_lines(rng, image, film)
    pixels = np.asarray(image) + _grain(rng, film.rows, film.columns, strengths.image_noise)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _body(rng: np.random.Generator, amount: float) -> Body:
    middle = (0.95, 0.36, 0.74, 0.43, 0.06, 0.52, 0.2, 0.06, 0.58, 0.29, 1.0)
    spread = (0.06, 0.03, 0.05, 0.03, 0.05, 0.06, 0.025, 0.025, 0.07, 0.025, 0.07)
    return Body(*(m + amount * s * float(rng.standard_normal()) for m, s in zip(middle, spread, strict=True)))


@cache
def _coordinates(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y of a field of this shape, float32; the shorter side runs from -1 to 1, y downwards."""
    short = min(rows, columns)
    across = (np.arange(columns, dtype=np.float32) * 2 + 1 - columns) / short
    down = (np.arange(rows, dtype=np.float32) * 2 + 1 - rows) / short
    x, y = np.meshgrid(across, down)
    return x, y


def _place(rng: np.random.Generator, film: Film, body: Body, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Body coordinates of the field's pixels: the patient lies turned, shifted and nearer or farther."""
    scale = min(FIELD_SIDE / min(film.rows, film.columns), 1)
    x, y = _coordinates(round(film.rows * scale), round(film.columns * scale))
    turn, right, down, zoom = amount * rng.standard_normal(4) * (0.06, 0.05, 0.05, 0.05)
    zoom, turn = np.float32(np.clip(body.zoom + zoom, 0.7, 1.4)), np.float32(turn)
    x, y = (x - np.float32(right)) / zoom, (y - np.float32(down)) / zoom
    return x + turn * y, y - turn * x


def _soft(value: np.ndarray) -> np.ndarray:
    """A soft step from 0 to 1 around 0."""
    return 0.5 + 0.5 * np.tanh(value)


def _opacity(score: float, strengths: Strengths) -> float:
    """How dense a sign of this score is, 0-0.9: near 0.1 at -1, 0.3 at 0, 0.6 at 1, 0.8 at 2."""
    return 0.9 / (1 + float(np.exp(0.7 - strengths.image_signal * score)))


def _frontal(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, film: Film, body: Body, strengths: Strengths
) -> np.ndarray:
    """An AP or PA film as brightness around 0-1, at body coordinates x, y."""
    sign = dict(zip(SIGNS, film.signs.tolist(), strict=True))
    inside = _soft((body.width - np.abs(x) * (1 + 0.06 * y)) * 9)
    air, base = _lungs(x, y, sign, body)
    bright = 0.06 + inside * (body.soft_tissue - 0.05 * y + 0.22 * np.exp(-((x / 0.13) ** 2)))
    bright -= 0.40 * air * inside
    ribs = np.cos((y + 0.35 * x * x) * np.float32(2 * np.pi / max(body.rib_spacing, 0.08)))
    bright += body.rib_strength * np.maximum(ribs, 0) * inside * (np.abs(x) > 0.1)
    standing = 0.9 if film.view == "PA" else 1.0
    wide = standing * (body.heart + 0.07 * strengths.image_signal * sign["heart"])
    heart = _soft((1 - ((x - 0.11) / max(wide, 0.12)) ** 2 - ((y - 0.26) / 0.31) ** 2) * 3)
    bright += heart * (0.80 - bright) * 0.85
    for dense in _signs(rng, x, y, base, sign, strengths):
        bright += dense * air * (0.78 - bright)
    apex = _soft((0.05 + 0.12 * (sign["pneumothorax"] - 1.5) + (-0.5 - y)) * 12) * (sign["pneumothorax"] > 1)
    return bright - 0.12 * apex * air * (x > 0)


def _lungs(x: np.ndarray, y: np.ndarray, sign: dict[str, float], body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Air of both lungs in 0-1, and y of the diaphragm at each x; chronic disease inflates and flattens."""
    sides = np.where(x < 0, np.float32(-1), np.float32(1))
    off = x - sides * (body.lung_offset + body.lung_tilt * y)
    height = body.lung_height + 0.09 * sign["chronic"]
    base = body.diaphragm + 0.08 * sign["chronic"] + 0.04 * sides + (0.5 - 0.1 * sign["chronic"]) * off * off
    round_off = 1 - (off / max(body.lung_width, 0.15)) ** 2 - ((y + 0.1) / max(height, 0.3)) ** 2
    return _soft(round_off * 3) * _soft((base - y) * 14), base


def _signs(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, base: np.ndarray, sign: dict[str, float],
    strengths: Strengths,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Densities (0-1) of oedema, consolidation, effusion, atelectasis and a nodule; their place is chance."""
    zone_x = rng.choice([-1, 1]) * rng.uniform(0.3, 0.52)
    zone_y = rng.choice([-0.45, 0.0, 0.25], p=(0.2, 0.3, 0.5))
    size, tilt, spot_x, spot_y = rng.uniform(0.28, 0.34), *rng.uniform(-1, 1, 3)
    sides = ((1.0, 0.25), (0.25, 1.0), (0.9, 0.9))[rng.integers(3)]
    bat_wing = np.exp(-(((np.abs(x) - 0.3) / 0.28) ** 2) - ((y - 0.12) / 0.4) ** 2)
    oedema = _opacity(sign["oedema"], strengths) * bat_wing
    blob = ((x - zone_x) ** 2 + (y - zone_y) ** 2 + 0.4 * tilt * (x - zone_x) * (y - zone_y)) / size**2
    focal = 1.2 * _opacity(sign["consolidation"], strengths) * np.exp(-blob)
    height = _opacity(sign["effusion"], strengths) * np.where(x < 0, *map(np.float32, sides))
    level = base - 0.75 * height + 0.05 - 0.6 * height * np.maximum(np.abs(x) - 0.4, 0)
    fluid = np.minimum(2.5 * height, 0.95) * _soft((y - level) * 12)
    bands = np.exp(-(((y - base + 0.12 + 0.1 * tilt * x) / 0.05) ** 2)) * _opacity(
        sign["atelectasis"], strengths
    )
    nodule = (
        0.6 * (sign["lesion"] > 1.6) * np.exp(-((x - 0.5 * spot_x) ** 2 + (y - 0.3 * spot_y) ** 2) / 0.002)
    )
    return oedema, np.minimum(focal, 0.95), fluid, bands, nodule


def _lateral(x: np.ndarray, y: np.ndarray, film: Film, body: Body, strengths: Strengths) -> np.ndarray:
    """A lateral film as brightness around 0-1: both lungs over one another, heart in front, spine behind."""
    sign = dict(zip(SIGNS, film.signs.tolist(), strict=True))
    inside = _soft((0.7 - np.abs(x)) * 9)
    air = _soft((1 - ((x - 0.05) / 0.42) ** 2 - ((y + 0.05) / max(body.lung_height, 0.3)) ** 2) * 3)
    bright = 0.06 + inside * (body.soft_tissue + 0.2 * np.exp(-(((x - 0.5) / 0.1) ** 2))) - 0.35 * air
    bright += 0.3 * np.exp(-(((x + 0.2) / (0.22 + 0.03 * sign["heart"])) ** 2) - ((y - 0.2) / 0.22) ** 2)
    fluid = _soft((y - 0.45 + 0.4 * _opacity(sign["effusion"], strengths)) * 12)
    return bright + fluid * air * (0.75 - bright)


def _expose(rng: np.random.Generator, bright: np.ndarray, strengths: Strengths) -> np.ndarray:
    """Apply the film's texture, gamma, contrast and brightness, all by chance; result in 0-1."""
    rows, columns = bright.shape
    patches = Image.fromarray(rng.standard_normal((14, 14)).astype(np.float32))
    texture = np.asarray(patches.resize((columns, rows), Image.Resampling.BICUBIC))
    gamma, contrast, offset = strengths.image_exposure * rng.standard_normal(3) * (0.25, 0.15, 0.05)
    field = np.clip(bright + 0.03 * strengths.image_noise * texture, 0.001, 1) ** np.float32(np.exp(gamma))
    return np.clip((field - 0.5) * np.float32(np.exp(contrast)) + np.float32(0.5 + offset), 0, 1)


def _draw_lines(rng: np.random.Generator, image: Image.Image, film: Film) -> None:
    """Draw tube, central line and wires as the score of devices has them, and the side marker of the film."""
    pen, side = ImageDraw.Draw(image), min(film.rows, film.columns)
    score, width = film.signs[SIGNS.index("devices")], max(1, side // 140)
    middle, shift = film.columns / 2, rng.normal(0, 0.03, 8) * side
    tube = [(middle + shift[0], 0), (middle + shift[1], 0.36 * film.rows)]
    line = [
        (0.3 * side, 0.12 * film.rows + shift[2]), (middle - 0.06 * side, 0.25 * film.rows),
        (middle - 0.05 * side, 0.45 * film.rows + shift[3]),
    ]  # fmt: skip
    wire = [
        (0, 0.5 * film.rows + 4 * shift[4]), (0.4 * side + shift[5], 0.35 * film.rows),
        (film.columns, 0.6 * film.rows + 4 * shift[6]),
    ]  # fmt: skip
    for threshold, points in ((0.5, tube), (-0.2, line), (-0.9, wire)):
        if score > threshold + rng.normal(0, 0.3):
            pen.line(points, fill=int(rng.integers(200, 250)), width=width)
    left, top, tall = 0.06 * film.columns, rng.uniform(0.04, 0.2) * film.rows, 0.05 * side
    pen.line([(left, top), (left, top + tall), (left + tall / 2, top + tall)], fill=245, width=2 * width)


@cache
def _noise_tile(rows: int, columns: int) -> np.ndarray:
    return (stream(0, rows, columns).standard_normal((rows + 101, columns + 101)) * 32).astype(np.int16)


def _grain(rng: np.random.Generator, rows: int, columns: int, amount: float) -> np.ndarray:
    """Grain [rows, columns], int16 grey levels: a window of one tile, since fresh noise costs the most."""
    down, right = rng.integers(0, 101, 2)
    window = _noise_tile(rows, columns)[down : down + rows, right : right + columns]
    return (window * np.int16(round(amount * rng.uniform(2, 7)))) >> 5
