"""Conv2d that skips the kernel taps which only ever see padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from models.replace import replace_layers


class TrimmedConv2d(nn.Conv2d):
    """The same convolution, computed without the kernel taps that see no pixel of the input.

    Only one of the nine taps of a 3 x 3 kernel sees an input of one pixel. Small images shrink to such maps,
    and the zero gradients of the other eight taps are the slowest part of a step on a CPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H', W'], as nn.Conv2d."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or self.dilation != (1, 1):
            return super().forward(input)
        axes = zip(input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        rows, columns = (_visible_taps(*axis) for axis in axes)
        if (len(rows), len(columns)) == self.kernel_size:
            return super().forward(input)
        weight = self.weight[:, :, rows.start : rows.stop, columns.start : columns.stop]
        padding = (self.padding[0] - rows.start, self.padding[1] - columns.start)
        return functional.conv2d(input, weight, self.bias, self.stride, padding, groups=self.groups)


def _visible_taps(size: int, kernel: int, stride: int, padding: int) -> range:
    """Return the taps along one axis that see a pixel, or all if the padding would become uneven."""
    last_output = (size + 2 * padding - kernel) // stride
    visible = range(max(0, padding - last_output * stride), min(kernel, size + padding))
    fits = len(visible) > 0 and (size + 2 * (padding - visible.start) - len(visible)) // stride == last_output
    return visible if fits else range(kernel)


def trim_convolutions(network: nn.Module) -> nn.Module:
    """Replace the plain convolutions of a network, in place; they keep their weights and names."""
    return replace_layers(network, nn.Conv2d, TrimmedConv2d)
