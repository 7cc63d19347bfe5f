"""Result rows of made-up runs, for tests of tables."""

from pathlib import Path

from evaluation.results import append, write_settings
from utils.config import digest

SETTINGS = {"optim.lr": 0.001, "optim.epochs": 300}


def add_run(folder: Path, seed: int, value: float, **changes: object) -> None:
    """Append a row of a run to results, of phenotyping; `settings` is a dict."""
    settings = {**SETTINGS, **changes.pop("settings", {})}
    write_settings(folder, settings)
    row = {
        "run": f"run{seed}", "mode": "train", "task": "phenotyping", "protocol": "lineareval",
        "fusion": "ehr", "objective": "simclr",
        "checkpoint": f"runs/simclr-seed{seed}/a.ckpt", "checkpoint_hash": f"c{seed}",
        "classifier_hash": f"w{seed}", "epoch": 5, "seed": seed, "data": "synthetic", "store": "5a5a",
        "data_pairs": "paired", "settings": digest(settings), "split": "test", "label": "macro",
        "metric": "auroc", "value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "positives": 4,
        "started": f"2030-01-0{seed + 1}",
    }  # fmt: skip
    append(folder / f"{changes.get('task', 'phenotyping')}.csv", [row | changes])
