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
        """[n, C, H, W] -> the same shape, normalized per channel over the samples of all processes."""
        if not self.training:
            return super().forward(input)
        upcast = input.to(torch.promote_types(input.dtype, torch.float32))
        count = all_reduce_sum(input.numel() / input.shape[1])
        mean = sum_with_gradient(upcast.sum((0, 2, 3))) / count
        centred = upcast - mean[:, None, None]
        variance = sum_with_gradient(centred.square().sum((0, 2, 3))) / count
        self._update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


class CUDASyncBatchNorm(nn.SyncBatchNorm):
    """nn.SyncBatchNorm for processes of which some have no image, also under autocast.

    All processes exchange float32 statistics. nn.SyncBatchNorm of PyTorch 2.12 makes those of an empty input
    in the input's own number format, bfloat16 under autocast, and NCCL does not compare formats.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, H, W] -> the same shape, normalized per channel over the samples of all processes."""
        if input.numel() or not self.training:
            return super().forward(input)
        upcast = input.to(torch.promote_types(input.dtype, torch.float32))
        return super().forward(upcast).to(input.dtype)


def convert_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace the batch norm layers of a module, in place, by layers that work over all processes.

    They keep weights, statistics and names, so checkpoints stay the same. A module that is itself a batch
    norm is not changed: its replacement is returned.
    """
    if device.type == "cuda":
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return replace_layers(converted, nn.SyncBatchNorm, CUDASyncBatchNorm)
    return replace_layers(module, nn.BatchNorm2d, CPUSyncBatchNorm)
