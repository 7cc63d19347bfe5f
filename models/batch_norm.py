"""Batch norm over the samples of all processes, also on a CPU, where nn.SyncBatchNorm does not run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.replace import replace_layers
from utils.distributed import all_reduce_sum, sum_with_gradient


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm that trains on a CPU as one process with the batches of all processes would.

    All processes call it together, each with any number of samples, also none.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, H, W] -> the same shape, normalized per channel over the samples of all processes."""
        return over_processes(self, input) if self.training else super().forward(input)


class CPUSyncBatchNorm1d(nn.BatchNorm1d):
    """The same for vectors."""

    def forward(self, input: Tensor) -> Tensor:
        """[n, C] -> the same shape, normalized per channel over the samples of all processes."""
        return over_processes(self, input) if self.training else super().forward(input)


def over_processes(layer: nn.BatchNorm1d | nn.BatchNorm2d, input: Tensor) -> Tensor:
    """Apply a batch norm in training, with the samples [n, C, ...] of all processes."""
    assert layer.running_mean is not None and layer.running_var is not None and layer.momentum is not None
    assert layer.num_batches_tracked is not None
    upcast = input.to(torch.promote_types(input.dtype, torch.float32))
    count = all_reduce_sum(input.numel() / input.shape[1])
    others, of_channel = (0, *range(2, input.ndim)), (-1, *[1] * (input.ndim - 2))
    mean = sum_with_gradient(upcast.sum(others)) / count
    centred = upcast - mean.view(of_channel)
    variance = sum_with_gradient(centred.square().sum(others)) / count
    layer.num_batches_tracked += 1
    unbiased = variance.detach() * count / (count - 1)
    for running, statistic in ((layer.running_mean, mean.detach()), (layer.running_var, unbiased)):
        running.lerp_(statistic.to(running.dtype), layer.momentum)
    scale = layer.weight * (variance + layer.eps).rsqrt()
    return (centred * scale.view(of_channel) + layer.bias.view(of_channel)).to(input.dtype)


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


LAYERS: dict[type[nn.Module], type[nn.Module]] = {  # nn.SyncBatchNorm is there on GPUs alone
    nn.BatchNorm1d: CPUSyncBatchNorm1d,
    nn.BatchNorm2d: CPUSyncBatchNorm,
    nn.SyncBatchNorm: CUDASyncBatchNorm,
}


def convert_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace the batch norm layers of a module, in place, by layers that work over all processes.

    They keep weights, statistics and names, so checkpoints stay the same. A module that is itself a batch
    norm is not changed: its replacement is returned.

    Raises:
        ValueError: A layer is of a kind that is neither PyTorch's nor timm's.
    """
    kinds = {type(layer) for layer in module.modules() if isinstance(layer, _BatchNorm)}
    if not kinds <= {nn.BatchNorm1d, nn.BatchNorm2d}:
        from models.timm_batch_norm import convert_timm_batch_norm

        module = convert_timm_batch_norm(module, device)
    elif device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for kind, replacement in LAYERS.items():
        module = replace_layers(module, kind, replacement)
    return module
