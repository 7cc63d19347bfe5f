"""Batch norm over the samples of all processes, also on a CPU, where nn.SyncBatchNorm does not run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.replace import replace_layers
from utils.distributed import all_reduce_sum, sum_with_gradient


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm that trains on a CPU as one process with the batches of all processes would.

    All processes call it together, each with any number of samples, also none.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, ...] -> the same shape, normalized per channel over the samples of all processes."""
        if not self.training:
            return super().forward(input)
        dims = [0, *range(2, input.ndim)]
        upcast = input.to(torch.promote_types(input.dtype, torch.float32))
        count = all_reduce_sum(input.numel() / input.shape[1])
        mean = sum_with_gradient(upcast.sum(dims)) / count
        centred = upcast - _along_channels(mean, input)
        variance = sum_with_gradient(centred.square().sum(dims)) / count
        self._update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * _along_channels(self.weight * (variance + self.eps).rsqrt(), input)
        return (scaled + _along_channels(self.bias, input)).to(input.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    """[C] -> [1, C, 1, ...], with as many dimensions as `like`."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


def convert_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace the batch norm layers of a module, in place, by layers that work over all processes.

    They keep weights, statistics and names, so checkpoints stay the same.

    Returns:
        The module, or the layer that replaces it if it is a batch norm itself.

    >>> converted = convert_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), torch.device("cpu"))
    >>> [type(layer).__name__ for layer in converted]
    ['CPUSyncBatchNorm', 'ReLU']
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    return replace_layers(module, nn.BatchNorm2d, CPUSyncBatchNorm)
