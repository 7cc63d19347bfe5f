"""What the samples of a task hold: why stays have none, positives by split, and splits that are too small."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from datasets.schema import SPLITS
from tasks.task import Task
from utils.lazy_pandas import pd

ATTRITION, LABELS = "attrition.csv", "labels.csv"  # files in the folder of a task in a store
FEW_STAYS = 5  # with fewer of a class in validation, chance decides which epoch has the best score
LABEL_KEYS = ["label", "split", "data_pairs"]
CONSEQUENCES = {
    "train": "nothing can be learned from it",
    "val": "the validation loss must choose the best epoch",
    "test": "it has no score",
}


def count_attrition(
    task: Task, stays: pd.DataFrame, images: pd.DataFrame, protocol: str, samples: pd.DataFrame
) -> pd.DataFrame:
    """Count the stays that are left after each rule of a task: a row per rule, a column per split.

    The last row counts the stays that have a sample.
    """
    left = np.ones(len(stays), bool)
    rows = {"all stays": left}
    for rule, passes in task.rules(stays, images, protocol).items():
        left = left & passes.to_numpy()
        rows[rule] = left
    with_sample = np.zeros(len(stays), bool)
    with_sample[samples["stay_row"].to_numpy()] = True
    rows["a sample"] = with_sample
    split = stays["split"].to_numpy()
    counts = {name: np.stack([row[split == name] for row in rows.values()]).sum(axis=1) for name in SPLITS}
    return pd.DataFrame(counts, index=pd.Index(rows, name="rule"))


def with_removed(attrition: pd.DataFrame) -> pd.DataFrame:
    """Add the stays of all splits that each rule leaves and removes."""
    stays = attrition.sum(axis=1)
    return attrition.assign(stays=stays, removed_stays=-stays.diff().fillna(0).astype(int))


def count_labels(task: Task, samples: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """Count known samples and positive ones, and the stays with a positive and with a negative sample.

    A row per label (of an ordinal task: per class, "name[k]"), split and data_pairs: `partial` are all
    samples, `paired` those with an X-ray.
    """
    targets = task.encode(samples[list(task.labels)].to_numpy(np.float64))
    is_ordinal = task.kind == "ordinal"
    names = tuple(f"{task.labels[0]}[{k}]" for k in range(task.classes)) if is_ordinal else task.labels
    count = _count_classes_by_stay if is_ordinal else _count_by_stay
    split = stays["split"].to_numpy()
    every = np.ones(len(samples), bool)
    counts = np.empty((len(names), len(SPLITS), 2, 4), np.int64)
    for pairs, selected in enumerate((every, samples["cxr_row"].to_numpy() >= 0)):
        stay = samples["stay_row"].to_numpy()[selected]
        positive, negative = count(stay, targets[selected], (len(stays), len(names)))
        for number, name in enumerate(SPLITS):
            of_split = positive[split == name], negative[split == name]
            positives, negatives = (part.sum(axis=0) for part in of_split)
            stays_of = ((part > 0).sum(axis=0) for part in of_split)
            counts[:, number, pairs] = np.stack([positives + negatives, positives, *stays_of], axis=1)
    columns = ["samples", "positives", "positive_stays", "negative_stays"]
    return pd.DataFrame(counts.reshape(-1, len(columns)), _label_keys(names), columns)


@cache
def _label_keys(names: tuple[str, ...]) -> pd.MultiIndex:
    return pd.MultiIndex.from_product([names, SPLITS, ("partial", "paired")], names=LABEL_KEYS)


def _count_by_stay(
    stay: np.ndarray, targets: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many samples of each stay are positive and how many negative, [stays, L] each (`shape`).

    `stay` [n] names each sample's, `targets` [n, L] are 1, 0 or NaN.
    """
    counts = []
    for value in (1, 0):
        sample, label = np.nonzero(targets == value)
        counts.append(np.bincount(stay[sample] * shape[1] + label, minlength=shape[0] * shape[1]))
    return counts[0].reshape(shape), counts[1].reshape(shape)


def _count_classes_by_stay(
    stay: np.ndarray, targets: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many samples of each stay are of a class and how many of others, [stays, K] each (`shape`).

    `stay` [n] names each sample's, `targets` [n, 1] are classes from 0 to K - 1, or NaN.
    """
    known = np.flatnonzero(~np.isnan(targets[:, 0]))
    cell = stay[known] * shape[1] + targets[known, 0].astype(np.int64)
    of_class = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    return of_class, of_class.sum(axis=1, keepdims=True) - of_class


def read_counts(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Read both tables of a task's folder; None if an earlier version wrote it."""
    if not ((folder / ATTRITION).is_file() and (folder / LABELS).is_file()):
        return None
    return pd.read_csv(folder / ATTRITION), pd.read_csv(folder / LABELS)


def describe_positives(labels: pd.DataFrame) -> str:
    """Return the positive samples of each split, in brackets those with an X-ray.

    Of several labels (or classes) these are the fewest and the most.
    """

    def positives(split: str, pairs: str) -> str:
        selected = labels[(labels["split"] == split) & (labels["data_pairs"] == pairs)]["positives"]
        low, high = selected.min(), selected.max()
        return str(low) if len(selected) == 1 else f"{low} to {high}"

    counts = (f"{split} {positives(split, 'partial')} ({positives(split, 'paired')})" for split in SPLITS)
    return "  ".join(counts)


def describe_attrition(attrition: pd.DataFrame) -> str:
    """Return how many stays have a sample, and what the others lack."""
    first, last = attrition.iloc[0], attrition.iloc[-1]
    reasons = [
        f"{row.removed_stays} without {row.rule}"
        for row in attrition.iloc[1:].itertuples()
        if row.removed_stays
    ]
    text = f"{last['stays']} of {first['stays']} stays"
    return f"{text}; {', '.join(reasons)}" if reasons else text


def small_splits(labels: pd.DataFrame) -> Iterator[str]:
    """Yield a warning for each split that cannot be learned from, be scored, or choose an epoch.

    The label (or class) with the most stays of its rarer class counts.
    """
    has_images = labels["samples"][labels["data_pairs"] == "paired"].any()
    rarer = labels.assign(rarer=labels[["positive_stays", "negative_stays"]].min(axis=1))
    most = rarer.groupby(["split", "data_pairs"])["rarer"].max()
    for split in SPLITS:
        of_all, of_paired = int(most[split, "partial"]), int(most[split, "paired"])
        fewest = of_paired if has_images else of_all
        where = " with an X-ray" if has_images and of_all else ""
        if fewest == 0:
            yield f"the {split} stays{where} have no label of both classes: {CONSEQUENCES[split]}"
        elif split == "val" and fewest < FEW_STAYS:
            what = f"the val stays{where} have at most {fewest} of a label's rarer class"
            yield f"{what}: too few to choose an epoch by a score"
