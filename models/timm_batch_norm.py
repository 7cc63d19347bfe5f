"""timm's batch norm, which holds its activation, over the samples of all processes."""

from __future__ import annotations

import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.batch_norm import CUDASyncBatchNorm, over_processes
from models.replace import replace_layers

KNOWN = {nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d}


class CPUSyncBatchNormAct(BatchNormAct2d):
    """As `models.batch_norm.CPUSyncBatchNorm`, followed by the activation."""

    def forward(self, input: Tensor) -> Tensor:
        """[n, C, H, W] -> the same shape, normalized over the samples of all processes and activated."""
        if not self.training:
            return super().forward(input)  # type: ignore[no-untyped-call, no-any-return]
        activated: Tensor = self.act(self.drop(over_processes(self, input)))
        return activated


class CUDASyncBatchNormAct(SyncBatchNormAct, CUDASyncBatchNorm):
    """As `models.batch_norm.CUDASyncBatchNorm`, followed by the activation."""


def convert_timm_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Do for timm's layers what `models.batch_norm.convert_sync_batch_norm` does.

    PyTorch's own conversion takes them for plain batch norm, and loses the activation without a word.

    Raises:
        ValueError: A layer is of a kind that is neither PyTorch's nor timm's.
    """
    kinds = {type(layer) for layer in module.modules() if isinstance(layer, _BatchNorm)}
    if unknown := sorted(kind.__qualname__ for kind in kinds - KNOWN):
        raise ValueError(
            f"batch norm of the kind {', '.join(unknown)} cannot work over several processes; "
            "start one process, or give another --vision_backbone"
        )
    if device.type == "cuda":
        converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return replace_layers(converted, SyncBatchNormAct, CUDASyncBatchNormAct)
    return replace_layers(module, BatchNormAct2d, CPUSyncBatchNormAct)
