"""The comparison of two builds reads what their programs wrote, and runs them in turn."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import child, side_by_side
from training.classify_config import ClassifyConfig, check_config
from utils.config import parse


def test_the_medians_of_both_builds_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    def run(command: list[object], environment: object = None, cwd: Path = child.ROOT) -> child.Ended:
        """Write what a program would: the other build is ten times as slow and predicts 0.25 more."""
        words = list(map(str, command))
        if "run_gpu.py" not in words:
            return child.Ended(1, 1, 1, 1, "")
        flags = dict(zip(words[2::2], words[3::2], strict=False))
        slow = 1 if cwd == child.ROOT else 10
        turns.append(slow)
        folder = Path(flags["--save_dir"]) / flags["--name"]
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"samples_per_second": [1, 200 / slow], "seconds": [9, 2 * slow]}).to_csv(
            folder / "log.csv", index=False
        )
        rows = pd.DataFrame({"run": flags["--name"], "split": ["val", "test"], "seconds": [1.0, 1.0 + slow]})
        rows.to_csv(Path(flags["--results_dir"]) / f"{flags['--name']}.csv", index=False)
        columns = {"stay_id": 1, "subject_id": 1, "end_hours": 5.0, "label": "y_true", "truth": 1}
        pd.DataFrame({**columns, "probability": [0.25 + (slow == 10) / 4]}).to_csv(
            folder / "predictions_test.csv", index=False
        )
        return child.Ended(1, 1, 50.0 * slow, 1, "")

    monkeypatch.setattr(child, "run", run)
    config = side_by_side.SideBySide(tmp_path / "other", repeats=2)
    figures = {figure.work: figure for figure in side_by_side.compare(config, tmp_path)}
    assert turns[:4] == [1, 10, 1, 10] and len(figures) == 3 * len(side_by_side.TRAININGS) + 1
    assert {figure.ratio for figure in figures.values()} == {10.0}
    assert figures[f"test: {side_by_side.TESTED}"].ours == 1.0
    builds = side_by_side.make_builds(config, tmp_path)
    assert side_by_side.largest_gap(config, *builds, tmp_path / "best.ckpt") == 0.25


@pytest.mark.parametrize("flags", side_by_side.TRAININGS.values())
def test_the_trainings_are_valid(flags: str) -> None:
    check_config(parse(ClassifyConfig, ["--protocol", "supervised", *flags.split()]))
