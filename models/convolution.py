"""A convolution that does not compute what meets nothing but padding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class TrimmedConv2d(nn.Conv2d):
    """The same convolution, without the taps of its kernel that see no pixel of the map.

    A map of one pixel meets one of the nine taps of a 3 x 3 kernel. Small images end in such maps, and the
    gradients of the other eight taps, which are zero, are what a CPU is slowest at.

    >>> import torch
    >>> TrimmedConv2d(8, 4, 3, padding=1)(torch.rand(2, 8, 1, 1)).shape
    torch.Size([2, 4, 1, 1])
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H', W'], as `nn.Conv2d`."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or self.dilation != (1, 1):
            return super().forward(input)
        places = zip(input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        rows, columns = (_taps(*place) for place in places)
        if (len(rows), len(columns)) == self.kernel_size:
            return super().forward(input)
        weight = self.weight[:, :, rows.start : rows.stop, columns.start : columns.stop]
        padding = (self.padding[0] - rows.start, self.padding[1] - columns.start)
        return functional.conv2d(input, weight, self.bias, self.stride, padding, groups=self.groups)


def _taps(size: int, kernel: int, stride: int, padding: int) -> range:
    """The taps along one axis that see a pixel; all, if padding both sides alike would then not do.

    >>> _taps(1, 3, 1, 1), _taps(2, 3, 2, 1), _taps(2, 3, 1, 1)
    (range(1, 2), range(1, 3), range(0, 3))
    """
    last = (size + 2 * padding - kernel) // stride  # number of the last output
    seen = range(max(0, padding - last * stride), min(kernel, size + padding))
    fits = len(seen) > 0 and (size + 2 * (padding - seen.start) - len(seen)) // stride == last
    return seen if fits else range(kernel)


def trim_convolutions(network: nn.Module) -> nn.Module:
    """The network, each of whose plain convolutions is trimmed; its weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = TrimmedConv2d
    return network
