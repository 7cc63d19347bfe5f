"""Batch norm over the samples of all processes, on a CPU too, where PyTorch's own asks for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.distributed import all_reduce_sum, sum_with_gradient


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm that in training computes, on a CPU, what one process with the whole batch would.

    All processes call it together then, with as many samples as each has, none too.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, ...] -> the same: channels of mean 0 and variance 1 over all processes, scaled and moved."""
        if not self.training:
            return super().forward(input)
        over = [0, *range(2, input.ndim)]
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        count = all_reduce_sum(input.numel() / input.shape[1])
        mean = sum_with_gradient(wide.sum(over)) / count
        centred = wide - _along_channels(mean, input)
        variance = sum_with_gradient(centred.square().sum(over)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * _along_channels(self.weight * (variance + self.eps).rsqrt(), input)
        return (scaled + _along_channels(self.bias, input)).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    """[C] -> [1, C, 1, ...], of as many dimensions as `like`."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


def convert_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, in place, with batch norm layers that average over the samples of all processes.

    They keep their weights, statistics and names, so that checkpoints are the same.

    >>> shared = convert_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), torch.device("cpu"))
    >>> [type(part).__name__ for part in shared]
    ['CPUSyncBatchNorm', 'ReLU']
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = CPUSyncBatchNorm
    return module
