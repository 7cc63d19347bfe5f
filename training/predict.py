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


def predict(function: Callable[[B], Tensor], batches: Batches[B]) -> np.ndarray:
    """Apply `function` (b samples -> [b, K]) to every sample in inference mode; the caller sets eval mode.

    Returns [n, K] in the order of the samples and the type of the values, the same on all ranks. A rank may
    hold no sample.

    Raises:
        ValueError: The batches do not hold each sample once, or a number is not finite.
    """
    rows, values = [], []
    with torch.inference_mode(), closing(batches.epoch(0)) as stream:
        for batch in stream:
            if len(batch.row):
                rows.append(batch.row.cpu())
                values.append(function(batch))
    row = distributed.gather_arrays(torch.cat(rows).numpy() if rows else np.zeros(0, np.int64))
    value = distributed.gather_arrays(
        torch.cat(values).cpu().numpy() if values else np.zeros((0, 0), np.float32)
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
