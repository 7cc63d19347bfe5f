"""The benchmarks of training run at a tiny size, measure what they say, and start the real programs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from benchmarks import all as everything
from benchmarks import ddp, encoders, epoch_evaluation, step
from benchmarks.random_store import icu_hours
from benchmarks.record import NOT_MEASURED
from datasets.schema import channel_count
from models.encoders import LSTMEncoder
from simclr_trainer import SimCLRConfig
from tests.random_store import write_random_store
from utils.config import parse

TINY = step.Work("resnet18", 32, 4, 8, 4)


def test_stays_are_as_long_as_icu_stays() -> None:
    hours = icu_hours(np.random.default_rng(0), 20_000)
    assert 54 < np.median(hours) < 56 and hours.min() >= 1 and hours.max() <= 2000
    assert 1.0 < np.log(hours).std() < 1.06


def test_the_step_is_measured_on_a_cpu_and_a_gpu_is_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(step.WORK, "cpu", TINY)
    monkeypatch.setattr(step, "first_steps", lambda config, store: (2.0, 1.0))
    monkeypatch.setattr(step, "icu_hours", lambda draw, count: draw.integers(1, 60, count))
    step.main(step.StepBenchmark(device="cpu", epochs=2, results=tmp_path / "results.csv"))
    table = pd.read_csv(tmp_path / "results.csv")
    on_gpu = table["work"].str.contains("a GPU")
    assert on_gpu.sum() == len(step.ROWS) and (table.loc[on_gpu, ["ours", "ratio"]] == NOT_MEASURED).all(
        axis=None
    )
    measured = table[~on_gpu]
    assert len(measured) == sum(row.on_cpu for row in step.ROWS.values())
    assert (measured["ours"].astype(float) > 0).all() and (measured["ratio"].astype(float) > 0).all()


def test_the_first_step_of_a_store_is_timed_from_the_start_of_the_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(step.WORK, "cpu", TINY)
    store, before = step.write_store(tmp_path / "store", TINY), step.seconds_since_start()
    step.main(step.StepBenchmark(device="cpu", first_step=store))
    assert float(capsys.readouterr().out.splitlines()[-1]) > before > 0
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_padded_stays_are_as_long_as_the_longest() -> None:
    stays = pack_sequence([torch.ones(hours, channel_count()) for hours in (3, 9, 9)], enforce_sorted=False)
    filled = step.fill_up(stays)
    assert filled.data.shape == (27, channel_count()) and filled.batch_sizes.tolist() == [3] * 9
    assert LSTMEncoder(dim=4)(filled).shape == (3, 4)


def test_features_once_are_measured_against_features_anew(tmp_path: Path) -> None:
    config = epoch_evaluation.EpochEvaluationBenchmark(stays=40, image_size=32, probe_epochs=2, device="cpu")
    total, features, probes = epoch_evaluation.measure(config, tmp_path)
    assert total.ours == pytest.approx(features.ours + probes.ours) == pytest.approx(probes.other)
    assert total.other > probes.ours and features.other > 0


def test_both_ways_of_ddp_ask_for_the_same_training(tmp_path: Path) -> None:
    program, *flags = ddp.command(ddp.DDPBenchmark(), tmp_path, "two", 64)
    config = parse(SimCLRConfig, flags)
    assert program == "simclr_trainer.py" and (ddp.ROOT / program).is_file()
    assert (config.data.batch_size, config.run.name, config.run.device) == (64, "two", "cpu")


def test_a_failed_training_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)a training failed: .*ZeroDivisionError"):
        ddp.run(tmp_path, 1, ["-c", "1 / 0"])


def test_all_continues_after_one_that_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything, "BENCHMARKS", ("no_such", "record"))  # record does nothing on its own
    with pytest.raises(SystemExit) as left:
        everything.main(everything.AllConfig())
    printed = capfd.readouterr().out
    assert left.value.code == 1 and "failed with 1" in printed
    assert printed.index("== no_such") < printed.index("== record") < printed.index("total: ")


def test_all_lists_what_there_is() -> None:
    assert set(everything.BENCHMARKS) >= {"step", "epoch_evaluation", "bootstrap", "ddp"}


def test_record_encoders_are_compared_and_the_command_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {name: encoders.EHR_ENCODERS[name] for name in ("lstm", "strats")}
    monkeypatch.setattr(encoders, "EHR_ENCODERS", some)
    monkeypatch.setattr(encoders, "FUSIONS", ("ehr",))
    monkeypatch.setattr(encoders, "MODELS", ("logistic_regression",))
    store = write_random_store(tmp_path / "store")
    config = encoders.EncodersConfig(store, tmp_path / "runs", ("readmission",), seeds=2, epochs=2)
    encoders.main(config)
    printed = encoders.table(config).splitlines()
    assert printed[0] == "| encoder | weights | samples/core-s (relative) | readmission, ehr |"
    assert [line.split(" | ")[0] for line in printed[2:]] == ["| lstm", "| strats", "| logistic regression"]
    assert re.match(r"\| lstm \| 105,472 \| [\d.]+ \(1.00\) \| 0\.", printed[2]) and "(2) |" in printed[3]
    (tmp_path / "runs" / "readmission-ehr-lstm-1" / encoders.COST).unlink()  # interrupted after its test
    encoders.main(config)
    again = encoders.table(config).splitlines()
    assert again[2].split("| ")[-1] == printed[2].split("| ")[-1], "the second test replaces the first"
    monkeypatch.setattr(encoders, "classify", lambda config: pytest.fail("it was tested before"))
    encoders.main(config)
