"""What several sets of samples read of a modality, each piece once: features can then be shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from datasets.batches import Samples

# The fields of a sample that say which part of the store its modality is.
READ = {"ehr": ("offset", "bins", "tail_row"), "cxr": ("cxr_row",)}


def distinct(parts: Sequence[Samples], modality: str) -> tuple[Samples, list[np.ndarray]]:
    """The distinct hours ("ehr") or X-rays ("cxr") that samples read, and where each sample has its own.

    Returns samples without labels that read each of them once, and for every part [n] int64: the place of a
    sample's among them, -1 if it has none. Samples of other tasks or splits that read the same share a place.
    """
    keys = np.concatenate([_keys(part, modality) for part in parts])
    there = np.flatnonzero(keys[:, -1] >= 0 if modality == "cxr" else np.ones(len(keys), bool))
    _, first, place = np.unique(keys[there], axis=0, return_index=True, return_inverse=True)
    places = np.full(len(keys), -1, np.int64)
    places[there] = place.ravel()
    ends = np.cumsum([len(part) for part in parts])
    return _without_labels(parts).take(there[first]), np.split(places, ends[:-1])


def _keys(part: Samples, modality: str) -> np.ndarray:
    return np.stack([getattr(part, name) for name in READ[modality]], axis=1)


def _without_labels(parts: Sequence[Samples]) -> Samples:
    """All parts one after another; tasks differ in how many labels they have."""
    none = np.zeros((sum(map(len, parts)), 0), np.float32)
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Samples)
        if not field.name.endswith("labels")
    }
    return Samples(**arrays, labels=none, raw_labels=none)
