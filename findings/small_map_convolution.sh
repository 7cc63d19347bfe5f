#!/usr/bin/env bash
# Question: the last stages of a ResNet-18 that reads images of 32 or 64 pixels have maps of 1 to 4 pixels and up to 512
# channels. Is PyTorch's convolution, which is oneDNN's on a CPU, at least as fast there as the textbook's way, one
# product of the unfolded patches and the weights, both ways through autograd?
# Guess: yes; a tuned library beats a product that reads each pixel up to nine times, and multiplies the padding, too.
# Seen with torch 2.12.1, one thread, an AMD EPYC: the product takes a third to an eighth of the time, forward
# and backward, where there are few pixels (512 to 512 channels, 2 x 2, 4 images: 7.6 of 58.6 ms), and twice the time
# where there are many (64 to 64 channels, 8 x 8, 32 images). Fails if the product is no longer twice as fast in the first
# cases, or no longer slower in the last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check torch==2.12.1 numpy==2.4.6
OMP_NUM_THREADS=1 "$folder/env/bin/python" -W ignore - <<'PY'
import statistics
import time

import torch
from torch.nn import functional

torch.set_num_threads(1)


def library(maps: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    return functional.conv2d(maps, weight, None, stride, 1)


def product(maps: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    side = (maps.shape[-1] - 1) // stride + 1
    patches = functional.unfold(maps, 3, padding=1, stride=stride)
    return functional.linear(patches.mT, weight.flatten(1)).mT.unflatten(2, (side, side))


def times_as_fast(channels: int, outputs: int, size: int, stride: int, images: int) -> float:
    """Time both in turn, forward and backward; return how many times as fast the product is, by medians."""
    maps = torch.rand(images, channels, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.rand(outputs, channels, 3, 3, requires_grad=True)
    torch.testing.assert_close(library(maps, weight, stride), product(maps, weight, stride), rtol=1e-4, atol=1e-3)
    taken = {library: [], product: []}
    for _ in range(16):
        for way, seconds in taken.items():
            maps.grad = weight.grad = None
            start = time.process_time()
            way(maps, weight, stride).sum().backward()
            seconds.append(time.process_time() - start)
    medians = [1e3 * statistics.median(taken[way][1:]) for way in (library, product)]
    shape = f"{channels} to {outputs} channels, {size} x {size}, stride {stride}, {images} images"
    print(f"{shape}: conv2d {medians[0]:.1f} ms, product {medians[1]:.1f} ms")
    return medians[0] / medians[1]


print("torch", torch.__version__)
few = [(256, 256, 2, 1, 2), (256, 512, 2, 2, 2), (256, 512, 2, 2, 16), (512, 512, 2, 1, 4), (512, 512, 2, 1, 16)]
assert min(times_as_fast(*layer) for layer in few) > 2
assert times_as_fast(64, 64, 8, 1, 32) < 1
PY
