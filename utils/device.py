"""Copies to the device that the CPU does not wait for."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; to a GPU it is copied while the CPU works on."""
    is_copied = device.type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if is_copied else tensor).to(device, non_blocking=True)
