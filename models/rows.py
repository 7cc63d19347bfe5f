"""Rows of the samples that have an image, moved between batches of P images and batches of B samples.

The number of images is known from their tensor, so nothing here, nor its gradient, waits for the device.
"""

from torch import Tensor


def take_rows(features: Tensor, index: Tensor) -> Tensor:
    """Take rows [n] of features [P, ...] -> [n, ...], without a device sync; -1, no X-ray, gives zeros.

    >>> import torch
    >>> take_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, -1, 1, 0])).flatten().tolist()
    [2.0, 0.0, 2.0, 1.0]
    """
    if not len(features):  # zeros, of which the gradient is zero, too
        return features.sum() + features.new_zeros(len(index), *features.shape[1:])
    absent = (index < 0).view(-1, *[1] * (features.ndim - 1))
    return features.index_select(0, index.clamp(min=0)).masked_fill(absent, 0.0)


def gather_rows(values: Tensor, present: Tensor, count: int) -> Tensor:
    """Select the present rows of values [B, ...], of which there are `count`; present: bool [B]."""
    if count == len(present):
        return values
    return values.index_select(0, (~present).int().argsort(stable=True)[:count])
