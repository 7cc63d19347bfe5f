"""Rows of the samples that have an image, moved between batches of P images and batches of B samples.

The number of images is known from their tensor, so nothing here, nor its gradient, waits for the device.
"""

import torch
from torch import Tensor


def scatter_rows(features: Tensor, present: Tensor) -> Tensor:
    """Place the features [P, D] of the P present rows among zeros, [B, D]; present: bool [B]."""
    if len(features) == len(present):
        return features
    place = torch.where(present, present.cumsum(0) - 1, len(features))
    with_zeros = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return with_zeros.index_select(0, place)


def gather_rows(values: Tensor, present: Tensor, count: int) -> Tensor:
    """Select the present rows of values [B, ...], of which there are `count`; present: bool [B]."""
    if count == len(present):
        return values
    return values.index_select(0, (~present).int().argsort(stable=True)[:count])
