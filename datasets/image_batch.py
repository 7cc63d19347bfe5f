"""Images of a batch on the model's device, whatever their shapes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from utils.device import to_device


class ImageBatch(NamedTuple):
    """P grey images and where each lies in flat bytes, which may hold other images too."""

    pixels: Tensor  # uint8 [bytes]
    offset: np.ndarray  # int64 [P], first pixel of an image
    height: np.ndarray  # int64 [P]
    width: np.ndarray  # int64 [P]
    side: int  # shorter side of an image that is not extremely long, as PackedImages.side

    @classmethod
    def of(cls, images: Tensor) -> ImageBatch:
        """Return images of one shape, uint8 [P, H, W]."""
        count, height, width = images.shape
        offset = np.arange(count) * height * width
        shape = np.full(count, height), np.full(count, width)
        return cls(images.reshape(-1), offset, *shape, min(height, width))

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: np.ndarray | slice) -> ImageBatch:
        """Return some of the images."""
        shape = self.height[index], self.width[index]
        return ImageBatch(self.pixels, self.offset[index], *shape, self.side)

    @property
    def aspect(self) -> np.ndarray:
        """Width and height as multiples of the shorter of both, float64 [P, 2]."""
        return aspect_of(self.height, self.width)

    def windows(self, top: np.ndarray, left: np.ndarray, rows: int, columns: int, mean_of: int) -> Tensor:
        """Return a window of each image, float32 [P, 1, rows / k, columns / k], 0 to 255.

        top, left: its corner in the image, int64 [P]; outside of the image is black. Each pixel is the mean
        of k x k, k being `mean_of`, a power of two.
        """
        cut = _gathered if self.pixels.is_cuda else _copied
        windows = cut(self, top, left, rows, columns)
        if windows.is_cuda and mean_of > 1:
            return functional.avg_pool2d(windows, mean_of)
        for _ in range(mean_of.bit_length() - 1):
            windows = _halved(windows)
        return windows


def _halved(windows: Tensor) -> Tensor:
    """[P, 1, R, C] -> [P, 1, R / 2, C / 2], the means of 2 x 2 pixels.

    They are those of avg_pool2d, to the bit for bytes, in a fifth of its time on a CPU.
    """
    rows = windows[:, :, 0::2] + windows[:, :, 1::2]
    return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)


def aspect_of(height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return width and height as multiples of the shorter of both, float64 [P, 2].

    >>> aspect_of(np.array([3056]), np.array([2037])).round(2).tolist()
    [[1.0, 1.5]]
    """
    aspect: np.ndarray = np.stack([width, height], axis=1) / np.minimum(width, height)[:, None]
    return aspect


def _copied(images: ImageBatch, top: np.ndarray, left: np.ndarray, rows: int, columns: int) -> Tensor:
    """Cut windows on a CPU, image by image."""
    windows = torch.zeros(len(images), 1, rows, columns)
    corners = zip(*(part.tolist() for part in (*images[1:4], top, left)), strict=True)
    for window, (start, height, width, up, across) in zip(windows, corners, strict=True):
        image = images.pixels[start : start + height * width].view(height, width)
        part = image[max(up, 0) : max(up + rows, 0), max(across, 0) : max(across + columns, 0)]
        down, right = max(-up, 0), max(-across, 0)
        window[0, down : down + part.shape[0], right : right + part.shape[1]] = part
    return windows


def _gathered(images: ImageBatch, top: np.ndarray, left: np.ndarray, rows: int, columns: int) -> Tensor:
    """Cut the windows of all images at once, as a GPU likes it."""
    device = images.pixels.device
    numbers = to_device(torch.from_numpy(np.stack([*images[1:4], top, left])), device)
    start, height, width, up, across = numbers[:, :, None, None]
    y = up + torch.arange(rows, device=device)[:, None]
    x = across + torch.arange(columns, device=device)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = torch.where(inside, start + y * width + x, start)
    windows: Tensor = (images.pixels[index] * inside)[:, None].float()
    return windows
