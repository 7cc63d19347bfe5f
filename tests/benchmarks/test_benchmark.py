"""The benchmark compares equal numbers and adds a row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import bootstrap as benchmark
from benchmarks.record import COLUMNS


def small(folder: Path) -> benchmark.BootstrapBenchmark:
    return benchmark.BootstrapBenchmark(120, 2, 6, 3, 1, folder / "results.csv")


def test_a_row_says_what_was_measured_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(small(tmp_path))
    table = pd.read_csv(tmp_path / "results.csv")
    assert tuple(table.columns) == COLUMNS and table.notna().all(axis=None)
    assert table["work"].tolist() == ["120 samples x 2 labels x 6 resamples"]
    assert "published" in capsys.readouterr().out


def test_intervals_that_differ_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = benchmark.published
    monkeypatch.setattr(benchmark, "published", lambda *given: wrong(*given) + np.float64(1e-6))
    with pytest.raises(ValueError, match="intervals differ by"):
        benchmark.main(small(tmp_path))
    assert not (tmp_path / "results.csv").exists()
