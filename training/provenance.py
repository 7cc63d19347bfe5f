"""Data leakage: checkpoints carry the subjects they were trained on, who must not be held out later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from datasets.schema import SPLITS
from datasets.store import Store
from utils import checkpoint
from utils.log import logger
from utils.state_dict import is_state_dict_file

# Training subjects must not be in val or test; validation subjects must not be in test.
MUST_NOT_OVERLAP = {"test": ("train", "val"), "val": ("train",)}


class Lineage(TypedDict):
    """What a run's checkpoints say of its subjects: those that it learns from, and how they were split.

    subjects: {"train": [n], "val": [m]}, int64, ascending and unique. split_by: as Store.split_name.
    """

    subjects: dict[str, Tensor]
    split_by: str


def lineage(store: Store, checkpoints: Iterable[Path] = ()) -> Lineage:
    """Return the lineage of a run: its subjects and those of the checkpoints that it starts from.

    Weights from elsewhere do not list theirs, which is logged as a warning.
    """
    records: list[Mapping[str, np.ndarray]] = [_subjects(store)]
    for path in checkpoints:
        if is_state_dict_file(path):
            logger.warning(
                f"{path} does not say on whose images it was trained: if MIMIC-CXR was among them, so may be "
                "patients of the test split; tables name its weights"
            )
        else:
            records.append(check_no_leakage(store, path))
    joined = {split: np.concatenate([record[split] for record in records]) for split in ("train", "val")}
    subjects = {split: torch.from_numpy(np.unique(ids)) for split, ids in joined.items()}
    return Lineage(subjects=subjects, split_by=store.split_name)


def check_no_more_labels(checkpoints: Iterable[Path], fraction: float, seed: int) -> None:
    """Raise ValueError if encoders learnt from labels that a run with this --label_fraction may not use.

    Those of a classifier did, unless it had the same seed and no larger fraction. Its own encoders were
    checked in the same way, so that this holds for all checkpoints before it.
    """
    for path in checkpoints:
        state = None if fraction == 1 or is_state_dict_file(path) else checkpoint.load_lazily(path)
        if state is None or "fusion" not in state["config"]:
            continue  # weights from elsewhere, or a pretraining, which uses no labels
        before, its_seed = state["config"].get("label_fraction", 1.0), state.get("origin", {}).get("seed")
        if not isinstance(before, float) or before > fraction or its_seed != seed:
            raise ValueError(
                f"--label_fraction {fraction:g} --seed {seed}: {path} is a classifier that learnt from other "
                f"labels (--label_fraction {before} --seed {its_seed}); give a pretraining, or "
                "train it again with these flags"
            )


def check_no_leakage(store: Store, path: Path) -> Mapping[str, np.ndarray]:
    """Return the subjects of a checkpoint, {"train": [n], "val": [m]}.

    Raises:
        ValueError: The store holds out some of them, or the checkpoint does not list them.
    """
    state = checkpoint.load_lazily(path)
    record = state.get("subjects")
    if not isinstance(record, dict) or not all(isinstance(record.get(s), Tensor) for s in ("train", "val")):
        raise ValueError(
            f"{path} does not list its training subjects, so they may be in the test split of "
            f"{store.folder}; train it again with this version"
        )
    trained_on = {split: record[split].clone().numpy() for split in ("train", "val")}
    current = _subjects(store)
    for held_out, splits in MUST_NOT_OVERLAP.items():
        leaked = np.intersect1d(current[held_out], np.concatenate([trained_on[split] for split in splits]))
        if len(leaked):
            before, now = (name or "the store's split" for name in (state.get("split_by"), store.split_name))
            other = "" if before == now else f" It was trained with {before}, and this is {now}."
            raise ValueError(
                f"{path} was trained or selected on {len(leaked)} subjects in the {held_out} split of "
                f"{store.folder} (first: {leaked[0]}); use a store with the split that it was trained on, or "
                f"train it again on this one.{other}"
            )
    return trained_on


def _subjects(store: Store) -> dict[str, np.ndarray]:
    """Return {split: subject of each stay [n]}."""
    stays = store.stay_columns(["subject_id", "split"])
    return {split: stays["subject_id"][stays["split"] == split] for split in SPLITS}
