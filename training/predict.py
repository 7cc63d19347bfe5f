"""Predictions for every sample of a split, over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from training.batches import B, Batches
from training.metrics_accumulator import list_samples
from utils import distributed


class Predictions:
    """Values of samples, collected batch by batch, to be put into the order of the samples."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._values: list[Tensor] = []

    def add(self, row: Tensor, values: Tensor) -> None:
        """Add the values [b, K] of the samples `row` [b]."""
        self._rows.append(row.cpu())
        self._values.append(values)

    def in_order(self) -> np.ndarray:
        """Return the values [n, K] of all processes' samples in their order, the same on all ranks.

        Raises:
            ValueError: Not each sample came once, or a number is not finite.
        """
        row, value = (
            distributed.gather_arrays(torch.cat(parts).cpu().numpy() if parts else empty)
            for parts, empty in ((self._rows, np.zeros(0, np.int64)), (self._values, np.zeros((0, 0))))
        )
        if not len(row):
            raise ValueError("there is no sample to predict")
        if not np.array_equal(np.sort(row), np.arange(len(row))):
            raise ValueError(f"the batches do not hold each of the samples 0 to {row.max()} once")
        ordered = np.empty_like(value)
        ordered[row] = value
        not_finite = np.flatnonzero(~np.isfinite(ordered).all(axis=1))
        if len(not_finite):
            raise ValueError(
                f"the model predicts NaN or infinity for the samples {list_samples(not_finite.tolist())} of "
                f"{len(ordered)}; look at these samples, or take an earlier checkpoint"
            )
        return ordered


def predict(function: Callable[[B], Tensor], batches: Batches[B]) -> np.ndarray:
    """Apply `function` (b samples -> [b, K]) to every sample in inference mode; the caller sets eval mode.

    Returns [n, K] as `Predictions.in_order`. A rank may hold no sample.
    """
    predictions = Predictions()
    with torch.inference_mode(), closing(batches.epoch(0)) as stream:
        for batch in stream:
            if len(batch.row):
                predictions.add(batch.row, function(batch))
    return predictions.in_order()
