"""Devices: copies to them that the CPU does not wait for, and where float64 is."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; to a CUDA GPU it is copied while the CPU works on."""
    is_copied = device.type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if is_copied else tensor).to(device, non_blocking=is_copied)


def float64_device(device: torch.device) -> torch.device:
    """Return where to compute in float64: on the device, or on the CPU if it is the GPU of an Apple machine.

    >>> float64_device(torch.device("mps")), float64_device(torch.device("cuda", 1))
    (device(type='cpu'), device(type='cuda', index=1))
    """
    return torch.device("cpu") if device.type == "mps" else device
