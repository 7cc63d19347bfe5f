"""Grey images of any shape, one after another in flat bytes, as a store holds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class PackedImages:
    """n images: `pixels` is uint8 [sum of height x width], row by row; height, width: int64 [n]."""

    pixels: np.ndarray
    height: np.ndarray
    width: np.ndarray
    side: int  # shorter side of an image that is not extremely long

    @cached_property
    def size(self) -> np.ndarray:
        """Pixels of each image, int64 [n]."""
        size: np.ndarray = self.height * self.width
        return size

    @cached_property
    def offset(self) -> np.ndarray:
        """First pixel of each image, int64 [n]."""
        offset: np.ndarray = np.cumsum(self.size) - self.size
        return offset

    def __len__(self) -> int:
        return len(self.height)

    def __getitem__(self, row: int | np.integer) -> np.ndarray:
        """Return an image [height, width]."""
        start = self.offset[row]
        pixels: np.ndarray = self.pixels[start : start + self.size[row]]
        return pixels.reshape(self.height[row], self.width[row])

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy some images one after another into `out`, uint8 [sum of their pixels]."""
        end = 0
        for start, size in zip(self.offset[rows].tolist(), self.size[rows].tolist(), strict=True):
            out[end : end + size] = self.pixels[start : start + size]
            end += size
