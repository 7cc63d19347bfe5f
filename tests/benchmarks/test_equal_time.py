"""Both ways of making batches get the same time."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import child, equal_time


def test_stays_get_the_epochs_that_fit_the_time_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs: dict[str, list[int]] = {"sample": [], "stay": []}

    def run(command: list[str], environment: object = None, cwd: Path = child.ROOT) -> child.Ended:
        """Write scores; the program starts in 5 core-s, an epoch by samples takes 40, by stays 2."""
        flags = dict(zip(command[2::2], command[3::2], strict=True))
        by, name = flags["--batch_by"], flags["--name"]
        epochs[by].append(int(flags["--epochs"]))
        assert flags["--batch_size"] == {"sample": "256", "stay": "1024"}[by]
        (Path(flags["--save_dir"]) / name).mkdir(parents=True)
        results = Path(flags["--results_dir"]) / f"{flags['--task']}.csv"
        results.parent.mkdir(exist_ok=True)
        row = {"run": name, "label": "macro", "metric": "auroc"}
        rows = [{**row, "split": "val", "value": 0.8}, {**row, "split": "test", "value": 0.75}]
        pd.DataFrame(rows).to_csv(results, mode="a", index=False, header=not results.exists())
        taken = 5 + int(flags["--epochs"]) * (40 if by == "sample" else 2)
        return child.Ended(taken, taken, 1, 1, "")

    monkeypatch.setattr(child, "run", run)
    config = equal_time.EqualTimeConfig(
        tmp_path, tmp_path / "out", ("decompensation",), seeds=2, stay_batch_size=1024
    )
    equal_time.main(config)
    equal_time.main(config)
    assert epochs == {"sample": [1, 1], "stay": [1, 3, 20] * 2}, "nothing is trained twice"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "| decompensation | sample | 0.001 | 256 | 1 | 45 | 0.800 | 0.750 | 0.750 | 0.750 |",
        "| decompensation | stay | 0.001 | 1024 | 20 | 45 | 0.800 | 0.750 | 0.750 | 0.750 |",
    ]
