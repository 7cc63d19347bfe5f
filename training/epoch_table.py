"""The table of an epoch selection: a row of scores per epoch, and the best epoch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.schema import SPLITS
from evaluation import metrics, results
from evaluation.scoring import compute_scores
from tasks import TASKS
from tasks.task import Task
from utils.lazy_pandas import pd

MEANS_OF_MONITOR = {"auroc": ("auroc", "auprc"), "kappa": ("kappa",)}
SCRIPTS = {"concatenation": "lineareval.sh", "ehr": "lineareval_ehr.sh", "cxr": "lineareval_cxr.sh"}


def epoch_columns(task: Task) -> tuple[str, ...]:
    """Return the columns: epoch, the mean scores of every split, and the score of every label."""
    means = [f"{split}_{metric}" for split in SPLITS for metric in MEANS_OF_MONITOR[task.monitor]]
    labels = [f"{split}_{task.monitor}[{label}]" for split in SPLITS for label in task.labels]
    return ("epoch", *means, *labels)


def epoch_row(
    task: Task, epoch: int, truth: Mapping[str, np.ndarray], probability: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Score an epoch, given encoded labels [n, L] and probabilities [n, outputs] of each split."""
    row: dict[str, float] = {"epoch": epoch}
    for split in SPLITS:
        scores = compute_scores(task, truth[split], probability[split])
        means = metrics.headline(scores)
        row |= {f"{split}_{metric}": means[metric] for metric in MEANS_OF_MONITOR[task.monitor]}
        row |= {
            f"{split}_{task.monitor}[{score['label']}]": score["value"]
            for score in scores
            if score["metric"] == task.monitor and score["label"] in task.labels
        }
    return row


def read_epochs(path: Path, task: Task) -> pd.DataFrame:
    """Read the rows by epoch, each once; none without a file. ValueError if they are of another task."""
    table = results.read_rows(path) if path.is_file() else pd.DataFrame()
    if table.empty:
        return pd.DataFrame(columns=list(epoch_columns(task)))
    if tuple(table) != epoch_columns(task):
        raise ValueError(f"{path} does not have the columns of {task.name}; move it away")
    return table.drop_duplicates("epoch").sort_values("epoch", ignore_index=True)


def remove_epochs(path: Path, task: Task, first: int) -> None:
    """Remove the rows of an epoch and of all later ones; ValueError if they are of another task."""
    if (read_epochs(path, task)["epoch"] >= first).any():
        results.keep_rows(path, lambda row: int(row["epoch"]) < first)


def best_epoch(table: pd.DataFrame, task: Task) -> int | None:
    """Return the first epoch with the largest validation score; None if no epoch has a score."""
    scored = table.dropna(subset=f"val_{task.monitor}")
    return int(scored["epoch"][scored[f"val_{task.monitor}"].idxmax()]) if len(scored) else None


def best_epochs(folder: Path, done: int) -> set[int]:
    """Return the best of the first `done` epochs of a pretraining, for each task with a table."""
    tables = [(task, read_epochs(folder / f"results_label_{task.name}.csv", task)) for task in TASKS.values()]
    best = [best_epoch(table[table["epoch"] <= done], task) for task, table in tables]
    return {epoch for epoch in best if epoch is not None}


def lineareval_command(task: Task, fusion: str, checkpoint: Path, flags: Mapping[str, object]) -> str:
    """Return the command that trains and tests the task's linear classifier on a checkpoint.

    >>> from tasks import TASKS
    >>> lineareval_command(TASKS["phenotyping"], "ehr", Path("runs/a/a_epoch_07.ckpt"), {"store": "my data"})
    "bash tasks/phenotyping/train/lineareval_ehr.sh --load_state runs/a/a_epoch_07.ckpt --store 'my data'"
    """
    words = ["bash", f"tasks/{task.folder}/train/{SCRIPTS[fusion]}", "--load_state", str(checkpoint)]
    for name, value in flags.items():
        words += [f"--{name}", str(value)]
    return shlex.join(words)
