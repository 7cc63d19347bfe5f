"""Where the data of a run are held: in GPU memory, in memory or on disk; equal bits from each."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datasets.image_batch import ImageBatch
from datasets.pixels import PackedImages
from datasets.schema import channel_count
from datasets.store import Store
from utils.device import to_device
from utils.machine import free_memory

Placement = Literal["cuda", "cpu", "disk"]

TRIPLET_BYTES = 12
BYTES_AT_ONCE = 1 << 26  # brought into memory at once
GPU_SHARE, MEMORY_SHARE = 0.35, 0.5  # of the free memory that "auto" lets the data take


class Normalizer:
    """Computes (x - mean) / deviation in place and in float32: equal bits wherever it happens."""

    def __init__(self, store: Store) -> None:
        self.mean, self.deviation = store.normalizer()
        self.source = store.folder / "hourly.npy"

    def __call__(self, hours: np.ndarray) -> None:
        """Normalise hours [n, C]; refuse NaN and infinity, which an LSTM turns into plausible numbers."""
        np.subtract(hours, self.mean, out=hours)
        np.divide(hours, self.deviation, out=hours)
        if not np.isfinite(hours).all():
            raise ValueError(f"{self.source}: holds values that are no finite numbers; extract again")


class ResidentArray:
    """Rows of a stored array by index, from where they are held to the model's device.

    `read` copies stored rows [n] into an array [n, ...]; `like` has the shape of a row, and the type. Only
    `rows`, in rising order, are held: an index counts in these, but on disk in all rows. `normalize` changes
    rows in place after they are read.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray, np.ndarray], None],
        like: np.ndarray,
        rows: np.ndarray,
        placement: Placement,
        device: torch.device,
        normalize: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self.device, self.shape = device, like.shape[1:]
        self.dtype = torch.from_numpy(np.empty(0, like.dtype)).dtype
        self._read, self._normalize = read, normalize
        self.held: Tensor | None = None
        if placement != "disk":
            self.held = self._empty(len(rows), device=device if placement == "cuda" else "cpu")
            at_once = max(1, BYTES_AT_ONCE // (self.dtype.itemsize * int(np.prod(self.shape))))
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                self.held[part] = self._from_disk(rows[part], self._empty(len(rows[part])))

    def _empty(self, rows: int, **options: Any) -> Tensor:
        return torch.empty((rows, *self.shape), dtype=self.dtype, **options)

    def _from_disk(self, rows: np.ndarray, out: Tensor) -> Tensor:
        self._read(rows, out.numpy())
        if self._normalize is not None:
            self._normalize(out.numpy())
        return out

    def __call__(self, index: np.ndarray) -> Tensor:
        """Return rows [n, ...] on the model's device."""
        if self.held is not None and self.held.is_cuda:
            return self.held.index_select(0, to_device(torch.from_numpy(index), self.device))
        rows = self._empty(len(index), pin_memory=self.device.type == "cuda")
        if self.held is None:
            self._from_disk(index, rows)
        elif len(index):  # the store has checked the rows, and "clip" needs no buffer
            np.take(self.held.numpy(), index, axis=0, out=rows.numpy(), mode="clip")
        return rows.to(self.device, non_blocking=self.device.type == "cuda")


class ResidentImages:
    """Stored X-rays by index, from where they are held to the model's device.

    Only `rows`, in rising order, are held: an index counts in these, but on disk in all rows.
    """

    def __init__(
        self, images: PackedImages, rows: np.ndarray, placement: Placement, device: torch.device
    ) -> None:
        self.device, self.side = device, images.side
        self.held: Tensor | None = None
        self._stored = images
        if placement == "disk":
            rows = np.arange(len(images))
        self.height, self.width, size = images.height[rows], images.width[rows], images.size[rows]
        self._offset = np.cumsum(size) - size
        if placement != "disk":
            total, place = int(size.sum()), device if placement == "cuda" else torch.device("cpu")
            self.held = torch.empty(total, dtype=torch.uint8, device=place)
            at_once = max(1, BYTES_AT_ONCE // max(1, int(size.max(initial=1))))
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                read = torch.empty(int(size[part].sum()), dtype=torch.uint8)
                images.read(rows[part], read.numpy())
                self.held[int(self._offset[start]) :][: len(read)] = read

    def __call__(self, index: np.ndarray) -> ImageBatch:
        """Return images on the model's device."""
        shape = self.height[index], self.width[index]
        if self.held is not None and self.held.device.type == self.device.type:
            return ImageBatch(self.held, self._offset[index], *shape, self.side)
        size = shape[0] * shape[1]
        pixels = torch.empty(int(size.sum()), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        source = self._stored
        if self.held is not None:
            source = PackedImages(self.held.numpy(), self.height, self.width, self.side)
        source.read(index, pixels.numpy())
        on_device = pixels.to(self.device, non_blocking=self.device.type == "cuda")
        return ImageBatch(on_device, np.cumsum(size) - size, *shape, self.side)


def choose_placement(
    wanted: Literal["auto", "cuda", "cpu", "disk"],
    device: torch.device,
    sizes: tuple[int, int, int],
    world: int,
) -> Placement:
    """Return where to hold data; "auto" takes the first place that has enough space.

    `sizes` are a number of hours, the bytes of X-rays, and a number of triplets.

    Raises:
        ValueError: GPU memory is wanted, and the model is on the CPU.
    """
    if wanted == "cuda" and device.type != "cuda":
        raise ValueError("--data_device cuda needs --device cuda and a GPU; use --data_device cpu or auto")
    if wanted != "auto":
        return wanted
    hours, image_bytes, triplets = sizes
    size = hours * channel_count() * 4 + image_bytes + triplets * TRIPLET_BYTES
    if device.type == "cuda" and size < GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "cuda"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # that share this machine's memory
    return "cpu" if size * processes < MEMORY_SHARE * free_memory() else "disk"
