"""Image views: affine, crop, resize and flip of a batch in one warp on its device, then colour jitter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.image_batch import ImageBatch
from datasets.schema import Transforms

CROP = 224 / 256  # part of an image's shorter side that an evaluation view shows, as published
# Images per warp. On a CPU, few images stay in its cache, which is three times as fast; on a GPU, the places
# of their pixels take eight times their memory.
CHUNK_SIZES = {"cpu": 8}
DEFAULT_CHUNK_SIZE = 64


@dataclass(frozen=True)
class ParameterRanges:
    """Bounds of a training view's random parameters, from torchvision's transforms as published."""

    degrees: float  # rotation, from -value to value
    translate: float  # shift along each axis, from -value to value, as a fraction of the side
    scale: tuple[float, float]
    shear: float  # along x in degrees, from -value to value
    crop: tuple[float, float]  # side of the crop, as a fraction of the image's shorter one
    jitter: float  # brightness and contrast factors, from 1 - value to 1 + value
    jitter_probability: float
    flip_probability: float = 0.5


RANGES: dict[str, ParameterRanges] = {
    "simclrv2": ParameterRanges(45, 0.1, (0.7, 1.5), 25, (0.6, 1.0), 0.8, 0.8),
    "supervised": ParameterRanges(45, 0.15, (0.85, 1.15), 0, (CROP, CROP), 0, 0),
}


class Geometry(NamedTuple):
    """Geometric parameters of n views, the same for images of any shape."""

    angle: np.ndarray  # [n], in radians
    shear: np.ndarray  # [n], along x, in radians
    scale: np.ndarray  # [n]
    shift: np.ndarray  # [n, 2], along (x, y); 2 is the side of the image along it
    crop: np.ndarray  # [n], side of the crop, as a fraction of the image's shorter one
    place: np.ndarray  # [n, 2], of the crop along (x, y), from -1 (left, top) to 1 (right, bottom)
    flip: np.ndarray  # [n], -1 (left and right swapped) or 1


class Views(NamedTuple):
    """What is done to each of n images; points are (x, y) from -1 to 1 between an image's outer edges."""

    matrix: np.ndarray  # float32 [n, 2, 3], from a point of the view to the point of the image that it shows
    brightness: np.ndarray  # float32 factors [n]; 1 changes nothing
    contrast: np.ndarray  # float32 factors [n]; 1 changes nothing
    brightness_first: np.ndarray  # bool [n]

    def take(self, index: np.ndarray | slice) -> Views:
        """Return the views of some of the images."""
        return Views(*(array[index] for array in self))


def draw_geometry(rng: np.random.Generator, count: int, ranges: ParameterRanges) -> Geometry:
    """Draw the geometric parameters of `count` training views."""
    angle = np.radians(rng.uniform(-ranges.degrees, ranges.degrees, count))
    shear = np.radians(rng.uniform(-ranges.shear, ranges.shear, count))
    scale = rng.uniform(*ranges.scale, count)
    shift = rng.uniform(-2 * ranges.translate, 2 * ranges.translate, (count, 2))
    crop = rng.uniform(*ranges.crop, count)
    # A crop of fixed size ("supervised") is taken at the centre, one of random size ("simclrv2") anywhere.
    is_random_crop = ranges.crop[0] < ranges.crop[1]
    place = rng.uniform(-1, 1, (count, 2)) * is_random_crop
    flip = np.where(rng.random(count) < ranges.flip_probability, -1.0, 1.0)
    return Geometry(angle, shear, scale, shift, crop, place, flip)


def random_views(rng: np.random.Generator, aspect: np.ndarray, transforms: Transforms) -> Views:
    """Draw a training view for each image.

    aspect: [n, 2], width and height as multiples of the shorter of both; ones squeeze an image to a square.
    """
    ranges, count = RANGES[transforms], len(aspect)
    geometry = draw_geometry(rng, count, ranges)
    jittered = rng.random(count) < ranges.jitter_probability
    factors = rng.uniform(1 - ranges.jitter, 1 + ranges.jitter, (2, count))
    brightness, contrast = np.where(jittered, factors, 1.0).astype(np.float32)
    return Views(compose(geometry, aspect), brightness, contrast, rng.random(count) < 0.5)


def compose(geometry: Geometry, aspect: np.ndarray) -> np.ndarray:
    """Return view -> image matrices, float32 [n, 2, 3], of torchvision's affine, crop, resize and flip.

    aspect: as in `random_views`.
    """
    cosine, sine, tangent = np.cos(geometry.angle), np.sin(geometry.angle), np.tan(geometry.shear)
    # The inverse of scale * rotation * [[1, -tan(shear)], [0, 1]], as torchvision composes them.
    entries = np.stack([cosine - tangent * sine, sine + tangent * cosine, -sine, cosine], axis=1)
    inverse = entries.reshape(-1, 2, 2) / geometry.scale[:, None, None]
    zoom = np.stack([geometry.crop * geometry.flip, geometry.crop], axis=1)
    # Lengths count in halves of the shorter side until the last line, so that turns keep the shape.
    centre = geometry.place * (aspect - geometry.crop[:, None])
    offset = np.einsum("nij,nj->ni", inverse, centre - geometry.shift * aspect)
    matrix = np.concatenate([inverse * zoom[:, None, :], offset[:, :, None]], axis=2)
    scaled: np.ndarray = matrix / aspect[:, :, None]
    return scaled.astype(np.float32)


def warp(images: ImageBatch, views: Views, size: int, crop: float = CROP) -> Tensor:
    """Render P views as float32 [P, 1, size, size] in [0, 1], on the images' device.

    Interpolation is bilinear, outside is black; a view at most half as fine as `crop` of an image's shorter
    side is of averaged pixels.
    """
    mean_of = _pixels_per_pixel(crop * images.side, size)
    rendered = torch.empty(len(images), 1, size, size, device=images.pixels.device)
    for chunk in _chunks(images):
        rendered[chunk] = _warp_chunk(images.take(chunk), views.take(chunk), size, mean_of)
    return rendered


def _chunks(images: ImageBatch) -> Iterator[np.ndarray | slice]:
    """Yield which images to warp at once.

    On a CPU they have one shape, so that a view does not depend, by rounding, on the images beside it.
    """
    device = images.pixels.device.type
    step = CHUNK_SIZES.get(device, DEFAULT_CHUNK_SIZE)
    if device not in CHUNK_SIZES:
        yield from (slice(start, start + step) for start in range(0, len(images), step))
        return
    shape = np.unique(np.stack([images.height, images.width]), axis=1, return_inverse=True)[1]
    order = np.argsort(shape, kind="stable")
    for alike in np.split(order, np.flatnonzero(np.diff(shape[order])) + 1):
        yield from (alike[start : start + step] for start in range(0, len(alike), step))


def _warp_chunk(images: ImageBatch, views: Views, size: int, mean_of: int) -> Tensor:
    device, corner = images.pixels.device, np.zeros(len(images), np.int64)
    rows, columns = (
        -(-int(side.max(initial=1)) // mean_of) * mean_of for side in (images.height, images.width)
    )
    pixels = images.windows(corner, corner, rows, columns, mean_of)
    # An image lies in the upper left corner of its window, which is that of the largest.
    part = np.stack([images.width / columns, images.height / rows], axis=1)[:, :, None]
    in_window = views.matrix * part
    in_window[:, :, 2] += part[:, :, 0] - 1
    matrix = torch.from_numpy(in_window.astype(np.float32)).to(device, non_blocking=pixels.is_cuda)
    warped = functional.grid_sample(pixels, _grid(matrix, size), "bilinear", "zeros", align_corners=False)
    return _jitter(warped.mul_(1 / 255).clamp_(0, 1), views)


def centre_view(images: ImageBatch, size: int, crop: float = CROP, square: bool = False) -> Tensor:
    """Render the central square of P images as float32 [P, 1, size, size] in [0, 1].

    Its side is `crop` of the image's shorter side; 0: it shows the whole image, on black. With `square`,
    images are squeezed to a square first.
    """
    side = round((crop or 1.0) * images.side)
    mean_of = _pixels_per_pixel(side, size)
    if side == size * mean_of:
        is_square = images.height == images.width
        keeps_pixels = is_square if square or crop == 0 else np.ones_like(is_square)
        if keeps_pixels.all():
            top, left = (np.rint((length - side) / 2).astype(np.int64) for length in images[2:4])
            return images.windows(top, left, side, side, mean_of) / 255
        if keeps_pixels.any() and images.pixels.device.type in CHUNK_SIZES:  # on a CPU, as in _chunks
            rendered = torch.empty(len(images), 1, size, size, device=images.pixels.device)
            for part in (np.flatnonzero(keeps_pixels), np.flatnonzero(~keeps_pixels)):
                rendered[part] = centre_view(images.take(part), size, crop, square)
            return rendered
    aspect = np.ones((len(images), 2)) if square else images.aspect
    shown = np.full(len(images), crop) if crop else aspect.max(axis=1, initial=1)
    matrix = (shown[:, None, None] * np.array([[1, 0, 0], [0, 1, 0]]) / aspect[:, :, None]).astype(np.float32)
    ones = np.ones(len(images), np.float32)
    return warp(images, Views(matrix, ones, ones, ones > 0), size, crop or 1.0)


def _pixels_per_pixel(side: float, size: int) -> int:
    """Return the image's pixels along one pixel of the view, rounded down to a power of two, at least 1."""
    return 1 << max(0, math.floor(math.log2(side / size)))


def _grid(matrix: Tensor, size: int) -> Tensor:
    """Return each pixel's point in the image [P, size, size, 2]; affine_grid would be inexact with TF32."""
    middle = (2 * torch.arange(size, device=matrix.device, dtype=torch.float32) + 1) / size - 1
    x, y = middle[None, None, :, None], middle[None, :, None, None]
    across, down, start = matrix[:, None, None, :, :].unbind(-1)
    return torch.addcmul(torch.addcmul(start, down, y), across, x)


def _jitter(pixels: Tensor, views: Views) -> Tensor:
    """Change brightness and contrast of [P, 1, S, S] in each image's order, as torchvision's ColorJitter."""
    if np.all(views.brightness == 1) and np.all(views.contrast == 1):
        return pixels
    first = views.brightness_first
    for is_brightness in (first, ~first):
        # Both are factor * pixels + rest: brightness keeps black as it is, contrast keeps the image's mean.
        factors = np.where(is_brightness, views.brightness, views.contrast)
        mean_weights = np.where(is_brightness, np.float32(0), 1 - views.contrast)
        weights = torch.from_numpy(np.stack([factors, mean_weights])).to(
            pixels.device, non_blocking=pixels.is_cuda
        )
        factor, mean_weight = weights[:, :, None, None, None]
        mean = pixels.mean(3, keepdim=True).mean(2, keepdim=True)
        pixels = torch.addcmul(mean_weight * mean, pixels, factor).clamp_(0, 1)
    return pixels
