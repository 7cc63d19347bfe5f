"""Image views: affine, crop, resize and flip as one warp of a batch on its device, then jitter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.schema import IMAGE_SIZE

Transforms = Literal["simclrv2", "supervised"]
CROP = 224  # pixels of the stored 256 x 256 that an evaluation view shows; also the published size of a view
AT_ONCE = {"cpu": 8}  # images warped at once: few stay in a processor's cache, three times as fast; else 1024


@dataclass(frozen=True)
class Ranges:
    """Bounds of the random parameters of a training view, from torchvision's transforms as published.

    degrees and shear (along x): -value to value; translate: -value to value, as a share of the side; scale,
    crop: lowest and highest, crop as a share of the side; jitter: brightness and contrast factors of
    1 - value to 1 + value, with probability jitter_share.
    """

    degrees: float
    translate: float
    scale: tuple[float, float]
    shear: float
    crop: tuple[float, float]
    jitter: float
    jitter_share: float
    flip_share: float = 0.5


RANGES: dict[str, Ranges] = {
    "simclrv2": Ranges(45, 0.1, (0.7, 1.5), 25, (0.6, 1.0), 0.8, 0.8),
    "supervised": Ranges(45, 0.15, (0.85, 1.15), 0, (CROP / IMAGE_SIZE, CROP / IMAGE_SIZE), 0, 0),
}


class Views(NamedTuple):
    """What is done to each of n images, whatever their size.

    matrix: float32 [n, 2, 3], from a place in the view to the place in the image that it shows, both (x, y)
    from -1 to 1 between the outer edges; brightness, contrast: float32 [n], factors, 1 changes nothing;
    brightness_first: bool [n].
    """

    matrix: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    brightness_first: np.ndarray

    def take(self, index: np.ndarray | slice) -> Self:
        """The views of some of the images."""
        return type(self)(*(part[index] for part in self))


def random_views(rng: np.random.Generator, count: int, transforms: Transforms) -> Views:
    """Draw a training view for each of `count` images.

    >>> random_views(np.random.default_rng(0), 3, "simclrv2").matrix.shape
    (3, 2, 3)
    """
    ranges = RANGES[transforms]
    angle = np.radians(rng.uniform(-ranges.degrees, ranges.degrees, count))
    shear = np.radians(rng.uniform(-ranges.shear, ranges.shear, count))
    scale = rng.uniform(*ranges.scale, count)
    shift = rng.uniform(-2 * ranges.translate, 2 * ranges.translate, (count, 2))
    crop = rng.uniform(*ranges.crop, count)
    # A train view of "supervised" is cropped at the centre, one of "simclrv2" anywhere.
    anywhere = ranges.crop[0] < ranges.crop[1]
    centre = rng.uniform(-1, 1, (count, 2)) * (1 - crop)[:, None] * anywhere
    flip = np.where(rng.random(count) < ranges.flip_share, -1.0, 1.0)
    jittered = rng.random(count) < ranges.jitter_share
    factors = np.where(jittered, rng.uniform(1 - ranges.jitter, 1 + ranges.jitter, (2, count)), 1.0)
    matrix = compose(angle, shear, scale, shift, crop, centre, flip)
    return Views(matrix, *factors.astype(np.float32), rng.random(count) < 0.5)


def compose(
    angle: np.ndarray,
    shear: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    crop: np.ndarray,
    centre: np.ndarray,
    flip: np.ndarray,
) -> np.ndarray:
    """Affine about the image's centre, then crop, resize and flip: view -> image matrices, float32 [n, 2, 3].

    The affine is torchvision's: angle and shear along x in radians [n], scale [n], shift [n, 2] where 2 is
    the side of the image. crop: share of the side [n]; centre: middle of the crop [n, 2]; flip: -1 or 1 [n].

    >>> one, none = np.ones(1), np.zeros(1)
    >>> compose(none, none, one, np.zeros((1, 2)), one / 2, np.full((1, 2), 0.5), -one)[0].tolist()
    [[-0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    """
    cosine, sine, tangent = np.cos(angle), np.sin(angle), np.tan(shear)
    # The inverse of scale * rotation * [[1, -tan(shear)], [0, 1]], as torchvision composes them.
    inverse = (
        np.stack([cosine - tangent * sine, sine + tangent * cosine, -sine, cosine], axis=1).reshape(-1, 2, 2)
        / scale[:, None, None]
    )
    zoom = np.stack([crop * flip, crop], axis=1)
    offset = np.einsum("nij,nj->ni", inverse, centre - shift)
    return np.concatenate([inverse * zoom[:, None, :], offset[:, :, None]], axis=2).astype(np.float32)


def warp(images: Tensor, views: Views, size: int) -> Tensor:
    """uint8 [P, 256, 256] and their P views -> float32 [P, 1, size, size] in [0, 1], on the images' device.

    Bilinear; what lies outside an image is black. Images are first averaged over squares of pixels where the
    view is at most half as fine as the image, so that nothing aliases.
    """
    step = AT_ONCE.get(images.device.type, 1024)
    parts = (slice(start, start + step) for start in range(0, max(len(images), 1), step))
    return torch.cat([_warp(images[part], views.take(part), size) for part in parts])


def _warp(images: Tensor, views: Views, size: int) -> Tensor:
    pixels = _averaged(images, size)
    matrix = torch.from_numpy(views.matrix).to(images.device, non_blocking=True)
    seen = functional.grid_sample(pixels, _grid(matrix, size), "bilinear", "zeros", align_corners=False)
    return _jitter(seen.mul_(1 / 255).clamp_(0, 1), views)


def centre_view(images: Tensor, size: int) -> Tensor:
    """Evaluation view: uint8 [P, 256, 256] -> their central 224 x 224, float32 [P, 1, size, size] in [0, 1].

    Pixels as they are where size is 224, means of squares of them where it divides 224 by a power of two.
    """
    if size * _coarseness(size) == CROP:
        edge = (IMAGE_SIZE - CROP) // 2
        return _averaged(images[:, edge : edge + CROP, edge : edge + CROP], size) / 255
    count, share = len(images), CROP / IMAGE_SIZE
    matrix = np.broadcast_to(np.array([[share, 0, 0], [0, share, 0]], np.float32), (count, 2, 3)).copy()
    one = np.ones(count, np.float32)
    return warp(images, Views(matrix, one, one, one > 0), size)


def _coarseness(size: int) -> int:
    """Pixels of the image along a pixel of the view, as the power of two below; at least 1."""
    return 2 ** max(0, math.floor(math.log2(CROP / size)))


def _averaged(images: Tensor, size: int) -> Tensor:
    """uint8 [P, H, W] -> float32 [P, 1, H / k, W / k], 0 to 255: means of squares of k x k pixels."""
    pixels, k = images.unsqueeze(1).float(), _coarseness(size)
    return functional.avg_pool2d(pixels, k) if k > 1 else pixels


def _grid(matrix: Tensor, size: int) -> Tensor:
    """[P, 2, 3] -> [P, size, size, 2]: where in the image each pixel of the view lies.

    Not torch's affine_grid: that is a matrix product, which TF32 would round to a tenth of a pixel.
    """
    middle = (2 * torch.arange(size, device=matrix.device, dtype=torch.float32) + 1) / size - 1
    x, y = middle[None, None, :, None], middle[None, :, None, None]
    across, down, start = matrix[:, None, None, :, :].unbind(-1)
    return torch.addcmul(torch.addcmul(start, down, y), across, x)


def _jitter(pixels: Tensor, views: Views) -> Tensor:
    """Brightness and contrast of [P, 1, S, S] in each image's order, as torchvision's ColorJitter does it."""
    if np.all(views.brightness == 1) and np.all(views.contrast == 1):
        return pixels
    first = views.brightness_first
    for brightens in (first, ~first):
        # Both are factor * pixels + rest: brightness leaves black as it is, contrast the image's mean.
        factor = np.where(brightens, views.brightness, views.contrast)
        towards_mean = np.where(brightens, np.float32(0), 1 - views.contrast)
        told = torch.from_numpy(np.stack([factor, towards_mean])).to(pixels.device, non_blocking=True)
        factor, towards_mean = told[:, :, None, None, None]
        mean = pixels.mean(3, keepdim=True).mean(2, keepdim=True)
        pixels = torch.addcmul(towards_mean * mean, pixels, factor).clamp_(0, 1)
    return pixels
