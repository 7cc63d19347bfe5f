"""Conv2d for small feature maps: without the kernel taps that see only padding, and as one matrix product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.replace import replace_layers

SMALL_MAP = 4  # pixels, 2 x 2; a convolution of larger maps is slower, too, but by less
FEW_PIXELS = 32  # of all maps, up to which multiplying by zeros takes less time than cropping the weights
WHOLE_MAPS = 4  # a product of whole maps pays from a fourth as many pixels as channels
Span = tuple[int, int]  # start and end
Axis = tuple[int, int, int, int]  # size, kernel, stride and padding


class SmallMapConv2d(nn.Conv2d):
    """The same convolution, in less time where its feature maps are small.

    Small images shrink to maps of a few pixels. Only one of the nine taps of a 3 x 3 kernel sees an input of
    one pixel; the other eight are left out. On a CPU, a convolution of few pixels spends most of its time on
    bringing the weights and their gradients into an order of its own. It is computed as a product instead, of
    the patches that the kernel sees and the weights as they are (`python -m benchmarks.convolution`). Where a
    kernel sees the whole map from each of its pixels, as one of 3 x 3 does with 2 x 2 pixels, more pixels are
    a product of whole maps, with 4 of 9 taps for each.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H', W'], as nn.Conv2d."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or self.dilation != (1, 1):
            return super().forward(input)
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            return super().forward(input)  # a single map, or an error
        axes = list(zip(input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True))
        height, width = (_outputs(*axis) for axis in axes)
        if min(height, width) < 1:
            return super().forward(input)  # the kernel is larger than the map, which is an error
        pixels = len(input) * height * width
        if self._is_faster_as_product_of_whole_maps(input, axes, pixels):
            return self._product_of_whole_maps(input, height, width)
        rows, columns = (_visible_taps(*axis) for axis in axes)
        is_product = self._is_faster_as_product(input, pixels, height * width)
        weight, padding = self.weight, self.padding
        multiplies_zeros = is_product and pixels <= FEW_PIXELS and tuple(input.shape[2:]) != (1, 1)
        if (rows, columns) != ((0, self.kernel_size[0]), (0, self.kernel_size[1])) and not multiplies_zeros:
            weight = cropped_kernel(weight, rows, columns)
            padding = (padding[0] - rows[0], padding[1] - columns[0])
        if not is_product:
            return functional.conv2d(input, weight, self.bias, self.stride, padding, groups=self.groups)
        if weight.shape[2:] == input.shape[2:] and tuple(padding) == (0, 0):
            patches = input.flatten(1)[:, None]  # the kernel sees the whole map, once
        else:
            patches = functional.unfold(input, weight.shape[2:], padding=padding, stride=self.stride).mT
        products = functional.linear(patches, weight.flatten(1), self.bias)
        output: Tensor = products.mT.unflatten(2, (height, width))
        return output

    def _is_faster_as_product_of_whole_maps(self, input: Tensor, axes: list[Axis], pixels: int) -> bool:
        if input.device.type != "cpu" or self.groups > 1 or pixels * WHOLE_MAPS <= self.out_channels:
            return False
        return pixels > len(input) and all(_sees_whole_map(*axis) for axis in axes)

    def _product_of_whole_maps(self, input: Tensor, height: int, width: int) -> Tensor:
        """Multiply all pixels of a map, channels last, by what each means for all pixels of the output."""
        size, stride, padding = tuple(input.shape[2:]), self.stride, self.padding
        matrix = WholeMapKernel.apply(self.weight, size, (height, width), stride, padding)  # type: ignore[no-untyped-call]
        products = functional.linear(input.permute(0, 2, 3, 1).flatten(1), matrix)
        maps = products.view(len(input), height, width, self.out_channels)
        if self.bias is not None:
            maps = maps + self.bias.to(maps.dtype)  # autocast makes products alone smaller
        output: Tensor = maps.permute(0, 3, 1, 2)
        return output

    def _is_faster_as_product(self, input: Tensor, pixels: int, pixels_of_map: int) -> bool:
        """Return whether output maps of that many pixels are faster to compute as one matrix product.

        A convolution's additional work grows with the weights, a product's with the pixels.
        """
        if input.device.type != "cpu" or self.groups > 1 or pixels == 0:
            return False
        limit = self.out_channels if pixels_of_map <= SMALL_MAP else self.out_channels // 2
        return pixels <= limit or tuple(input.shape[2:]) == (1, 1)


class CroppedKernel(torch.autograd.Function):
    """The weights of some taps, whose gradient is written in one pass and in the order of the weights.

    The gradient of slices takes a pass for each of the two axes.
    """

    @staticmethod
    def forward(weight: Tensor, rows: Span, columns: Span) -> Tensor:
        """[out, in, kernel height, kernel width] -> [out, in, rows, columns], copied."""
        return weight[:, :, slice(*rows), slice(*columns)].contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Span, Span], output: Tensor) -> None:
        """Remember where the taps are."""
        weight, ctx.rows, ctx.columns = inputs
        ctx.layout = weight.shape, weight.stride()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of all taps: zero but for those that were used."""
        every = gradient.new_empty_strided(*ctx.layout).zero_()
        every[:, :, slice(*ctx.rows), slice(*ctx.columns)] = gradient
        return every, None, None


def cropped_kernel(weight: Tensor, rows: Span, columns: Span) -> Tensor:
    """[out, in, kernel height, kernel width] -> [out, in, rows, columns]; see `CroppedKernel`."""
    cropped: Tensor = CroppedKernel.apply(weight, rows, columns)  # type: ignore[no-untyped-call]
    return cropped


class WholeMapKernel(torch.autograd.Function):
    """The weights of a kernel that sees all pixels of a map, from each pixel of its output."""

    @staticmethod
    def forward(weight: Tensor, size: Span, outputs: Span, stride: Span, padding: Span) -> Tensor:
        """[out, in, kernel height, kernel width] -> [output pixels x out, input pixels x in]."""
        taps = weight.permute(2, 3, 0, 1).contiguous()  # [height, width, out, in], copied in long rows
        matrix = weight.new_empty(*outputs, len(weight), *size, weight.shape[1])
        for (row, column), (rows, columns) in _windows(size, outputs, stride, padding):
            matrix[row, column] = taps[rows, columns].permute(2, 0, 1, 3)
        return matrix.view(math.prod(matrix.shape[:3]), -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Span, Span, Span, Span], output: Tensor) -> None:
        """Remember the sizes, and the order of the weights."""
        weight, *ctx.sizes = inputs
        ctx.layout = weight.shape, weight.stride()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient of the weights, in their order."""
        size, outputs, _, _ = ctx.sizes
        shape, strides = ctx.layout
        matrix = gradient.reshape(*outputs, shape[0], *size, shape[1])
        taps = gradient.new_zeros(*shape[2:], *shape[:2])
        for (row, column), (rows, columns) in _windows(*ctx.sizes):
            taps[rows, columns] += matrix[row, column].permute(1, 2, 0, 3)
        weight = gradient.new_empty_strided(shape, strides).copy_(taps.permute(2, 3, 0, 1))
        return weight, None, None, None, None


def _windows(
    size: Span, outputs: Span, stride: Span, padding: Span
) -> Iterator[tuple[Span, tuple[slice, slice]]]:
    """Yield each pixel of the output, and the taps with which it sees the map."""
    for pixel in itertools.product(*map(range, outputs)):
        starts = [pad - step * place for pad, step, place in zip(padding, stride, pixel, strict=True)]
        rows, columns = (slice(start, start + side) for start, side in zip(starts, size, strict=True))
        yield (pixel[0], pixel[1]), (rows, columns)


def _sees_whole_map(size: int, kernel: int, stride: int, padding: int) -> bool:
    """Return whether each output along one axis sees all its pixels."""
    return padding + size <= kernel and stride * (_outputs(size, kernel, stride, padding) - 1) <= padding


def _outputs(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the pixels of the output along one axis."""
    return (size + 2 * padding - kernel) // stride + 1


def _visible_taps(size: int, kernel: int, stride: int, padding: int) -> Span:
    """Return the taps along one axis that see a pixel, or all if the padding would become uneven."""
    last_output = _outputs(size, kernel, stride, padding) - 1
    start, end = max(0, padding - last_output * stride), min(kernel, size + padding)
    taps = end - start
    fits = taps > 0 and (size + 2 * (padding - start) - taps) // stride == last_output
    return (start, end) if fits else (0, kernel)


def suit_small_maps(network: nn.Module) -> nn.Module:
    """Replace the plain convolutions of a network, in place; they keep their weights and names."""
    return replace_layers(network, nn.Conv2d, SmallMapConv2d)
