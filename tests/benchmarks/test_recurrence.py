"""Ways to run an LSTM that are not used yet give what the used one gives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from benchmarks import hourly, recurrence
from benchmarks.record import NOT_MEASURED
from models.encoders import run_lstm
from models.encoders.resnet import RESNETS, Shape


@pytest.mark.parametrize(("count", "few"), [(9, 4), (9, 16), (9, 0), (1, 16)])
def test_an_lstm_split_in_time_has_the_states_and_gradients_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, count: int, few: int
) -> None:
    monkeypatch.setattr(recurrence, "icu_hours", lambda draw, count: draw.integers(1, 40, count))
    torch.manual_seed(0)
    lstm = nn.LSTM(recurrence.channel_count(), 5).double()
    stays, _ = recurrence.random_stays(count, torch.device("cpu"))
    found: list[list[Tensor]] = []
    for run in (run_lstm, lambda lstm, inputs: recurrence.split_in_time(lstm, inputs, few)):
        states, last = run(lstm, stays.to(torch.float64))
        lstm.zero_grad()
        (last.sin().sum() + states.data.square().sum()).backward()
        found.append([states.data, last, *(weight.grad for weight in lstm.parameters())])
    for whole, split in zip(*found, strict=True):
        torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-12)


def test_the_lines_for_a_gpu_run_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except for the compiler and the second stream; the loss is computed both ways and compared."""
    monkeypatch.setattr(recurrence, "icu_hours", lambda draw, count: draw.integers(1, 9, count))
    monkeypatch.setattr(recurrence, "set_precision", lambda config, device: None)
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    monkeypatch.setitem(RESNETS, "resnet18", Shape((1, 1, 1, 1), has_bottlenecks=False))  # half the time
    cudnn = torch.backends.cudnn
    for place, name in ((cudnn, "benchmark"), (cudnn.rnn, "fp32_precision")):
        monkeypatch.setattr(place, name, getattr(place, name))  # to put it back
    tiny = recurrence.Sizes((4,), (3,), "resnet18", 32, 4, 1)
    figures = recurrence.measure_gpu(tiny, torch.device("cpu"))
    assert len(figures) == len(recurrence.not_measured())
    assert all(figure.ours > 0 and figure.other > 0 for figure in figures)


def test_without_a_gpu_nothing_but_the_save_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "SAVED", "resnet18")
    recurrence.main(recurrence.RecurrenceBenchmark(device="cpu", results=tmp_path / "results.csv"))
    table = pd.read_csv(tmp_path / "results.csv")
    on_gpu = table["work"].str.contains("a GPU")
    assert (table.loc[on_gpu, ["ours", "other"]] == NOT_MEASURED).all(axis=None) and on_gpu.sum() == 6
    assert (table.loc[~on_gpu, "ours"].astype(float) > 0).all() and np.sum(~on_gpu) == 1


def test_hourly_tasks_are_timed_both_ways_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hourly.WORK, "cpu", hourly.Work("test_resnet", 32, 16, 4, 4))
    monkeypatch.setattr(hourly, "icu_hours", lambda draw, count: draw.integers(6, 12, count))
    monkeypatch.setattr(hourly, "EPOCHS", 2)
    hourly.main(hourly.HourlyBenchmark(device="cpu", results=tmp_path / "results.csv"))
    gpu, cpu = pd.read_csv(tmp_path / "results.csv").to_dict("records")
    assert gpu["ours"] == gpu["other"] == NOT_MEASURED
    assert float(cpu["ours"]) > 0 and float(cpu["other"]) > 0
