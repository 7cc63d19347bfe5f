"""Whom a model learns from: written into its checkpoints, and held against the split of a store they meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.schema import SPLITS
from datasets.store import Store
from utils import checkpoint

# Who may not be held out in which split: those that a model learnt from, and for test those that chose it.
MUST_NOT_OVERLAP = {"test": ("train", "val"), "val": ("train",)}


def training_subjects(store: Store, checkpoints: Iterable[Path] = ()) -> dict[str, Tensor]:
    """{"train", "val"}: the subjects of a store, and of the checkpoints that a run on it starts from.

    int64 ids in rising order, each once: what the run's own checkpoints hold under "subjects". ValueError as
    `check_no_leakage`.
    """
    records = [_subjects(store), *(check_no_leakage(store, path) for path in checkpoints)]
    joined = {split: np.concatenate([record[split] for record in records]) for split in ("train", "val")}
    return {split: torch.from_numpy(np.unique(subjects)) for split, subjects in joined.items()}


def check_no_leakage(store: Store, path: Path) -> Mapping[str, np.ndarray]:
    """{"train", "val"}: the subjects that a checkpoint knows.

    ValueError if any of them is held out in the store, or if the checkpoint does not say whom it knows.
    """
    record = checkpoint.load(path).get("subjects")
    if not isinstance(record, dict) or not all(isinstance(record.get(s), Tensor) for s in ("train", "val")):
        raise ValueError(
            f"{path} does not say whom it learnt from, so that nobody can tell whether they are in the test "
            f"split of {store.folder}; train it again with this version"
        )
    known, now = {split: record[split].numpy() for split in ("train", "val")}, _subjects(store)
    for held, splits in MUST_NOT_OVERLAP.items():
        seen = np.intersect1d(now[held], np.concatenate([known[split] for split in splits]))
        if len(seen):
            raise ValueError(
                f"{path} learnt from {len(seen)} subjects that are in the {held} split of {store.folder} "
                f"(first: {seen[0]}), and would know them; use a store with the split that it was trained "
                "on, or train it again on this one"
            )
    return known


def _subjects(store: Store) -> dict[str, np.ndarray]:
    """{split: the subjects [n] of its stays}."""
    stays = store.stays(["subject_id", "split"])
    return {split: stays["subject_id"][stays["split"] == split].to_numpy(np.int64) for split in SPLITS}
