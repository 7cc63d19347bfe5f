"""Time convolutions of small feature maps against PyTorch's: `python -m benchmarks.convolution`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.record import RESULTS, Figure, record
from models.convolution import suit_small_maps
from training.optimizers import SGD
from utils.cli import run_cli


class Shape(NamedTuple):
    """A 3 x 3 convolution of square maps, padded by one."""

    channels: int
    outputs: int
    size: int
    stride: int


LAYERS = (  # of a ResNet-18, where images have 32 or 64 pixels
    Shape(128, 128, 4, 1),
    Shape(128, 256, 4, 2),
    Shape(256, 256, 2, 1),
    Shape(256, 512, 2, 2),
    Shape(512, 512, 1, 1),
    Shape(512, 512, 2, 1),
)


@dataclass(frozen=True)
class ConvolutionBenchmark:
    """Time the forward and the backward pass of a ResNet-18's convolutions of small maps, in turn, on a CPU.

    Core-milliseconds of one thread, medians.
    """

    images: tuple[int, ...] = (2, 16, 128)
    """Images in a batch."""
    repeats: int = 15
    """Times that each is run."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


def milliseconds(layer: nn.Module, images: torch.Tensor) -> float:
    """Return what a forward and a backward pass take in training, which drops gradients after each."""
    optimizer = SGD(layer.parameters(), lr=0.0)
    start = time.process_time()
    layer(images).sum().backward()
    taken = 1e3 * (time.process_time() - start)
    optimizer.zero_grad()
    return taken


def compare(shape: Shape, images: int, repeats: int) -> Figure:
    """Time both in turn; their values must agree."""
    settings = (shape.channels, shape.outputs, 3, shape.stride, 1)
    ours, theirs = suit_small_maps(nn.Sequential(nn.Conv2d(*settings))), nn.Conv2d(*settings)
    ours[0].load_state_dict(theirs.state_dict())
    maps = torch.rand(images, shape.channels, shape.size, shape.size)
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-4, atol=1e-4)
    taken = [[milliseconds(layer, maps) for layer in (ours, theirs)] for _ in range(repeats + 1)]
    mine, other = np.median(taken[1:], axis=0)
    channels = f"{shape.channels} to {shape.outputs} channels"
    work = (
        f"3 x 3 convolution, {channels}, stride {shape.stride}, {shape.size} x {shape.size}, {images} images"
    )
    return Figure(work, "core-ms", float(mine), "nn.Conv2d", float(other))


def main(config: ConvolutionBenchmark) -> None:
    """Measure, print and append the rows."""
    torch.set_num_threads(1)
    figures = [compare(shape, images, config.repeats) for shape in LAYERS for images in config.images]
    record(config.results, "convolution", ("torch",), figures)


if __name__ == "__main__":
    run_cli(main, ConvolutionBenchmark)
