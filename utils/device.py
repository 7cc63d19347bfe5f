"""Devices: copies to them that the CPU does not wait for, where float64 is, and its smallest numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def tiny_numbers_are_zero() -> Iterator[None]:
    """Let the CPU take float32 numbers below 1.2e-38 for 0 inside the block, if it can.

    Gradients that fade over the hours of a stay become so small, and a CPU computes with these many times
    slower: the backward pass of an LSTM with fresh weights takes 4 times as long. It holds for NumPy, too,
    in this thread and those that it starts.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
