"""A study with a cheap objective, as a program to kill."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from training.study import Report, SharedStudy
from utils.config import Range

EPOCHS = 3
EPOCH_SECONDS = 0.05


def objective(folder: Path, settings: Mapping[str, float], report: Report) -> float:
    """Return a score that grows with the epochs and is best at lr 0.01 and 3 layers; note the call."""
    folder.mkdir(exist_ok=True)
    with (folder / "calls").open("a") as file:
        file.write(f"{dict(settings)}\n")
    score = 0.0
    for epoch in range(1, EPOCHS + 1):
        time.sleep(EPOCH_SECONDS)
        score = epoch / EPOCHS - abs(settings["a.lr"] - 0.01) * 20 - abs(settings["layers"] - 3) / 10
        report(epoch, score)
    return score


def open_study(folder: Path, trials: int) -> SharedStudy:
    """Open the study."""
    space = {"a.lr": Range(1e-4, 0.1, log=True), "layers": Range(1, 6), "kind": ("x", "y")}
    first = {"a.lr": 0.05, "layers": 1, "kind": "x"}
    return SharedStudy(folder, space, first, trials, maximize=True, seed=3, prune=True)


if __name__ == "__main__":
    study = open_study(Path(sys.argv[1]), int(sys.argv[2]))
    study.run(objective)
    study.table().to_csv(study.folder / f"table{sys.argv[3]}.csv", index=False)
