"""Conv2d for small feature maps: without the kernel taps that see only padding, and as one matrix product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.replace import replace_layers
from models.taps import TapGradient, Taps, bring_up_to_date, by_taps, put_taps_outermost

SMALL_MAP = 16  # pixels, 4 x 4; a convolution of larger maps is slower, too, but by less
LARGE_KERNEL = 2**16  # weights, from which ordering them by taps pays
WHOLE_MAPS = 2  # a product of whole maps pays from half as many pixels as channels
Span = tuple[int, int]  # start and end
Axis = tuple[int, int, int, int]  # size, kernel, stride and padding


class Plan(NamedTuple):
    """How to compute a convolution: as what, with which taps, and the size of the output's maps."""

    way: Literal["plain", "convolution", "taps", "whole maps"]
    taps: Taps
    height: int
    width: int


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
        way, taps, height, width = self._plan_for(input)
        if not torch.compiler.is_compiling():
            bring_up_to_date(self.weight, taps if way == "taps" else None)
        if way == "plain":
            return super().forward(input)
        if way == "whole maps":
            return self._product_of_whole_maps(input, height, width)
        if way == "taps":
            return self._product(input, taps, height, width)
        weight, padding = self.weight, self.padding
        if taps != self._all_taps:
            weight = cropped_kernel(weight, *taps)
            padding = self._padding_of(taps)
        return functional.conv2d(input, weight, self.bias, self.stride, padding, groups=self.groups)

    def _plan_for(self, input: Tensor) -> Plan:
        """Return the fastest way to convolve an input; PyTorch's own also where the input is an error."""
        plain = Plan("plain", self._all_taps, 0, 0)
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or self.dilation != (1, 1):
            return plain
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            return plain  # a single map, or an error
        axes = list(zip(input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True))
        height, width = (_outputs(*axis) for axis in axes)
        if min(height, width) < 1:
            return plain  # the kernel is larger than the map, which is an error
        pixels = len(input) * height * width
        if self._is_faster_as_product_of_whole_maps(input, axes, pixels):
            return Plan("whole maps", self._all_taps, height, width)
        taps = Taps(*(_visible_taps(*axis) for axis in axes))
        is_product = self._is_faster_as_product(input, pixels, height * width)
        return Plan("taps" if is_product else "convolution", taps, height, width)

    @property
    def _all_taps(self) -> Taps:
        return Taps((0, self.kernel_size[0]), (0, self.kernel_size[1]))

    def _padding_of(self, taps: Taps) -> Span:
        """Return what is left of the padding for some of the taps."""
        return self.padding[0] - taps.rows[0], self.padding[1] - taps.columns[0]  # type: ignore[operator]

    def _product(self, input: Tensor, taps: Taps, height: int, width: int) -> Tensor:
        """Multiply what some taps see from each pixel of the output by their weights."""
        window = Window(taps, (height, width), self.stride, self._padding_of(taps))  # type: ignore[arg-type]
        is_kept = not torch.compiler.is_compiling() and by_taps(self.weight).is_contiguous()
        gradient = TapGradient.made_for(self.weight) if is_kept else None
        output: Tensor = TapProduct.apply(input, self.weight, window, gradient)  # type: ignore[no-untyped-call]
        return output if self.bias is None else output + self.bias.to(output.dtype).view(-1, 1, 1)

    def _is_faster_as_product_of_whole_maps(self, input: Tensor, axes: list[Axis], pixels: int) -> bool:
        if input.device.type != "cpu" or self.groups > 1 or pixels * WHOLE_MAPS <= self.out_channels:
            return False
        return pixels > len(input) and all(_sees_whole_map(*axis) for axis in axes)

    def _product_of_whole_maps(self, input: Tensor, height: int, width: int) -> Tensor:
        """Multiply all pixels of a map, channels last, by what each means for all pixels of the output."""
        size, stride, padding = tuple(input.shape[2:]), self.stride, self.padding
        matrix = WholeMapKernel.apply(self.weight, size, (height, width), stride, padding)  # type: ignore[no-untyped-call]
        products = functional.linear(input.permute(0, 2, 3, 1).flatten(1), matrix.mT)
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
        limit = self.out_channels * 2 if pixels_of_map <= SMALL_MAP else self.out_channels // 2
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


class Window(NamedTuple):
    """What taps of a kernel see: the pixels of the output, their stride, and the padding that is seen."""

    taps: Taps
    outputs: Span
    stride: Span
    padding: Span

    def patches_of(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B x output pixels, rows x columns x C]; a view, if that is the whole map."""
        maps = maps.permute(0, 2, 3, 1)
        if self._is_whole(*maps.shape[1:3]):
            return maps.flatten(1)
        top, left = self.padding
        windows = self._windows_of(functional.pad(maps, (0, 0, left, left, top, top)))
        return windows.reshape(math.prod(windows.shape[:3]), -1)

    def _windows_of(self, maps: Tensor) -> Tensor:
        """Return what each pixel of the output sees of padded maps, a view of these that repeats pixels.

        [B, H, W, C] -> [B, H', W', rows, columns, C].
        """
        (image, row, column, channel), (down, right) = maps.stride(), self.stride
        strides = (image, row * down, column * right, row, column, channel)
        return maps.as_strided((len(maps), *self.outputs, *self.taps.sides, maps.shape[3]), strides)

    def sum_of(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """[B x output pixels, rows x columns x C] -> [B, C, H, W]: what each pixel is in, summed."""
        images, channels, height, width = shape
        if self._is_whole(height, width):
            return patches.view(images, height, width, channels).permute(0, 3, 1, 2)
        rows = patches.view(-1, channels)
        where = _places_of_pixels if torch.compiler.is_compiling() else _kept_places_of_pixels
        places, starts = where(self, images, height, width)
        sums = functional.embedding_bag(places, rows, starts, mode="sum")
        return sums.view(images, height, width, channels).permute(0, 3, 1, 2)

    def _is_whole(self, height: int, width: int) -> bool:
        """Return whether the taps see maps of that size whole, and once."""
        return self.taps.sides == (height, width) and self.padding == (0, 0)


def _places_of_pixels(window: Window, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the places in patches [B, output pixels, rows, columns] that show each pixel [B, H, W] of maps.

    They are in the order of the pixels; the second tensor is where those of each pixel start.
    """
    (top, left), (down, right) = window.padding, window.stride
    shown: list[list[int]] = [[] for _ in range(height * width)]
    axes = (*window.outputs, *window.taps.sides)
    for place, (y, x, row, column) in enumerate(itertools.product(*map(range, axes))):
        pixel = down * y + row - top, right * x + column - left
        if 0 <= pixel[0] < height and 0 <= pixel[1] < width:
            shown[pixel[0] * width + pixel[1]].append(place)
    places = torch.tensor(list(itertools.chain(*shown)), dtype=torch.long)
    starts = torch.tensor([0, *itertools.accumulate(map(len, shown))][:-1])
    image = torch.arange(images).unsqueeze(1)
    return (places + image * math.prod(axes)).flatten(), (starts + image * len(places)).flatten()


_kept_places_of_pixels = lru_cache(maxsize=256)(_places_of_pixels)


class TapProduct(torch.autograd.Function):
    """A convolution with some taps of a kernel, as a product with a matrix of their weights.

    That is a view of the weights, where these taps lie together in memory, and a sum of a product for each
    row of taps where only the rows do.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, window: Window, gradient: TapGradient | None
    ) -> Tensor:
        """[B, in, H, W], [out, in, kernel height, kernel width] -> [B, out, H', W'], channels last."""
        ctx.window, ctx.gradient = window, gradient
        patches = window.patches_of(input)
        ctx.save_for_backward(input, weight, patches)
        first, *others = window.taps.matrices_of(by_taps(weight))
        part, *parts = patches.chunk(1 + len(others), 1)
        products = part @ first
        for part, matrix in zip(parts, others, strict=True):
            products = products + part @ matrix
        return products.view(len(input), *window.outputs, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the gradients of the input, and of all weights: zero but for the taps that were used."""
        input, weight, patches = ctx.saved_tensors
        window, of_input, of_weight = ctx.window, None, None
        gradient = gradient.permute(0, 2, 3, 1).flatten(0, 2)
        if ctx.needs_input_grad[0]:
            matrices = window.taps.matrices_of(by_taps(weight))
            products = [gradient @ matrix.mT.to(gradient.dtype) for matrix in matrices]
            patches_gradient = products[0] if len(products) == 1 else torch.cat(products, 1)
            of_input = window.sum_of(patches_gradient, input.shape).to(input.dtype)
        if ctx.needs_input_grad[1]:
            if torch.is_grad_enabled():
                patches = window.patches_of(input)  # as a function of the input, for a second derivative
            of_weight = _gradient_of(weight, patches, gradient, window.taps, ctx.gradient)
        return of_input, of_weight, None, None


def _gradient_of(
    weight: Tensor, patches: Tensor, gradient: Tensor, taps: Taps, kept: TapGradient | None
) -> Tensor:
    """Return the gradient of all taps, in the order of the weights: patches.T @ gradient for some of them."""
    is_partial = taps.sides != weight.shape[2:]
    if is_partial and kept is not None and not torch.is_grad_enabled():
        return kept.write_product(patches, gradient, taps, weight)
    values = (patches.mT.to(gradient.dtype) @ gradient).to(weight.dtype)
    values = values.view(*taps.sides, *by_taps(weight).shape[2:])
    if not is_partial:
        return _ordered_as(weight, values.permute(3, 2, 0, 1))
    every = torch.zeros_like(weight)
    taps.of(by_taps(every)).copy_(values)
    return every


def _ordered_as(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient in the order of its weight in memory."""
    if gradient.stride() == weight.stride():
        return gradient
    return gradient.new_empty_strided(weight.shape, weight.stride()).copy_(gradient)


class WholeMapKernel(torch.autograd.Function):
    """The weights of a kernel that sees all pixels of a map, from each pixel of its output."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, size: Span, outputs: Span, stride: Span, padding: Span) -> Tensor:
        """[out, in, kernel height, kernel width] -> [input pixels x in, output pixels x out]."""
        ctx.sizes = size, outputs, stride, padding
        ctx.save_for_backward(weight)
        taps = by_taps(weight)
        matrix = weight.new_empty(*size, weight.shape[1], *outputs, len(weight))
        for (row, column), (rows, columns) in _windows(size, outputs, stride, padding):
            matrix[:, :, :, row, column] = taps[rows, columns]
        return matrix.view(math.prod(matrix.shape[:3]), -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient of the weights, in their order."""
        (weight,), (size, outputs, _, _) = ctx.saved_tensors, ctx.sizes
        matrix = gradient.reshape(*size, weight.shape[1], *outputs, len(weight))
        taps = gradient.new_zeros(by_taps(weight).shape)
        for (row, column), (rows, columns) in _windows(*ctx.sizes):
            taps[rows, columns] += matrix[:, :, :, row, column]
        return _ordered_as(weight, taps.permute(3, 2, 0, 1)), None, None, None, None


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
    network = replace_layers(network, nn.Conv2d, SmallMapConv2d)
    order_by_taps(network)
    return network


def order_by_taps(network: nn.Module) -> None:
    """Order kernels on a CPU: the taps of large ones outermost, the channels of small ones innermost.

    The latter is the order in which PyTorch's convolution takes them, with maps that have theirs innermost.
    """
    for layer in network.modules():
        if isinstance(layer, SmallMapConv2d) and layer.groups == 1:
            weight = layer.weight
            if weight.device.type == "cpu" and weight.numel() >= LARGE_KERNEL:
                put_taps_outermost(weight)
            elif weight.device.type == "cpu":
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
