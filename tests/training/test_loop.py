"""The loop resumes bit for bit, agrees over ranks, and stops when it should."""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.convolution import suit_small_maps
from tests.training.toy import ToyBatch, ToyBatches, ToyObjective, room_for, same, send, toy_run
from tests.utils.ranks import run_on_ranks
from training import loop
from training.early_stopping import StoppingConfig
from training.loop import FitResult, fit
from training.optim import OptimConfig
from training.predict import Predictions, predict
from utils import checkpoint, distributed
from utils.cli import STOP_SIGNALS, exit_on_stop_signals
from utils.distributed import Process
from utils.files import FullDisk
from utils.run import Run

CONFIG = OptimConfig(epochs=3, lr=0.01, warmup_epochs=1, schedule="cosine", clip=1.0)
STOPPING = StoppingConfig()
SIGNALS = (*STOP_SIGNALS, signal.SIGINT)
TIMES = ("seconds", "samples_per_second")


def train(
    run: Run,
    batches: ToyBatches,
    objective: nn.Module,
    config: OptimConfig = CONFIG,
    val: ToyBatches | None = None,
    stopping: StoppingConfig = STOPPING,
) -> FitResult:
    val = val or ToyBatches(n=7, train=False)
    content, keep = objective.content, lambda done: range(1, done + 1)
    return fit(objective, batches, val, config, stopping, run, save=content, keep_epochs=keep)


def log_of(run: Run) -> list[dict[str, str]]:
    with open(run.folder / "log.csv", newline="") as file:
        return [
            {key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)
        ]


def has_tiny_numbers() -> bool:
    return bool((torch.full((1,), 1e-40) * 1.0).item())


def test_tiny_numbers_are_zero_while_weights_are_trained_and_not_after(tmp_path: Path) -> None:
    found: dict[str, set[bool]] = {"train": set(), "val": set()}
    train_batches = ToyBatches(at=lambda *_: found["train"].add(has_tiny_numbers()))
    val = ToyBatches(n=7, train=False, at=lambda *_: found["val"].add(has_tiny_numbers()))
    can_be_zero = torch.set_flush_denormal(False)  # False where the processor has no such mode
    train(toy_run(tmp_path / "a"), train_batches, ToyObjective(), val=val)
    assert found == {"train": {not can_be_zero}, "val": {True}} and has_tiny_numbers()
    with pytest.raises(RuntimeError, match="power cut"):
        train(toy_run(tmp_path / "b"), ToyBatches(at=crash), ToyObjective())
    assert has_tiny_numbers()


def crash(epoch: int, step: int) -> None:
    if (epoch, step) == (1, 3):
        raise RuntimeError("power cut")


def assert_same_training(one: Run, other: Run) -> None:
    assert same(checkpoint.load(one.folder / "last.ckpt"), checkpoint.load(other.folder / "last.ckpt"))
    assert same(checkpoint.load(one.folder / "best.ckpt"), checkpoint.load(other.folder / "best.ckpt"))
    assert log_of(one) == log_of(other)


@pytest.mark.parametrize("optimizer", ["lars", "adamw", "sgd"])
@pytest.mark.parametrize("step", [0, 2, 3])
def test_stopped_by_a_signal_and_resumed_is_bit_identical(tmp_path: Path, optimizer: str, step: int) -> None:
    config = OptimConfig(optimizer=optimizer, epochs=3, lr=0.01, warmup_epochs=1, schedule="cosine", clip=1.0)
    undisturbed, stopped = toy_run(tmp_path / "a"), toy_run(tmp_path / "b")
    train(undisturbed, ToyBatches(), ToyObjective(), config)
    with pytest.raises(SystemExit) as stop:
        number = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2][step]
        train(stopped, ToyBatches(at=send(number, 1, step)), ToyObjective(), config)
    assert stop.value.code == 0
    assert len(log_of(stopped)) == 1
    train(toy_run(tmp_path / "b", resume=True), ToyBatches(), ToyObjective(seed=9), config)
    assert_same_training(undisturbed, stopped)


def test_crashed_after_a_timed_save_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    undisturbed, stopped = toy_run(tmp_path / "a"), toy_run(tmp_path / "b", save_minutes=1e-9)
    train(undisturbed, ToyBatches(), ToyObjective())
    with pytest.raises(RuntimeError, match="power cut"):
        train(stopped, ToyBatches(at=crash), ToyObjective())
    assert checkpoint.load(stopped.folder / "last.ckpt")["training"]["progress"]["step"] in (2, 3)
    train(toy_run(tmp_path / "b", resume=True), ToyBatches(), ToyObjective(seed=9))
    assert_same_training(undisturbed, stopped)


class OnePixel(ToyObjective):
    """A convolution of maps of one pixel, which sees one of its nine taps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = nn.Conv2d(90, 90, 3, padding=1)
        self.net = suit_small_maps(
            nn.Sequential(nn.Linear(3, 90), nn.Unflatten(1, (90, 1, 1)), conv, nn.Flatten(), nn.Linear(90, 1))
        )

    @property
    def unseen(self) -> Tensor:
        """The weight of a tap in a corner."""
        return self.net[2].weight[:, :, 0, 0]


def test_weights_that_are_decayed_late_are_up_to_date_wherever_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OptimConfig(epochs=3, lr=0.01, weight_decay=0.3)
    late, at_once = (toy_run(tmp_path / name, save_minutes=1e-9) for name in ("late", "at once"))
    read: dict[str, list[Tensor]] = {"late": [], "at once": []}
    for run in (late, at_once):
        objective, seen = OnePixel(), read[run.folder.parent.name]
        val = ToyBatches(n=7, train=False, at=lambda *_, o=objective, s=seen: s.append(o.unseen.clone()))
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
            if run is at_once:
                patched.setattr(loop, "late_decay", lambda _: nullcontext())
            train(run, ToyBatches(at=crash), objective, config, val)
        seen.append(objective.unseen)
    assert_same_training(late, at_once)
    assert len(read["late"]) == 3 and all(map(torch.equal, *read.values()))
    assert not torch.equal(read["late"][0], OnePixel().unseen)


def test_stopped_in_validation_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    undisturbed, stopped = toy_run(tmp_path / "a"), toy_run(tmp_path / "b")
    train(undisturbed, ToyBatches(), ToyObjective(), val=ToyBatches(n=7, batch_size=2, train=False))
    stopping = ToyBatches(n=7, batch_size=2, train=False, at=send(signal.SIGINT, 0, 1))
    with pytest.raises(SystemExit) as stop:
        train(stopped, ToyBatches(), ToyObjective(), val=stopping)
    assert stop.value.code == 130
    again = ToyBatches(n=7, batch_size=2, train=False)
    train(toy_run(tmp_path / "b", resume=True), ToyBatches(), ToyObjective(seed=9), val=again)
    assert_same_training(undisturbed, stopped)


def test_stopped_in_scoring_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    def train_scored(run: Run, at: int, seed: int = 0) -> None:
        objective, epochs = ToyObjective(seed=seed), []

        def score(epoch: int) -> dict[str, float]:
            epochs.append(0)
            if len(epochs) == at:
                signal.raise_signal(signal.SIGTERM)
            return {"auroc": predict(lambda batch: objective.net(batch.x), ToyBatches()).mean().item()}

        config, stopping = OptimConfig(epochs=3, lr=0.01), StoppingConfig(monitor="auroc", mode="max")
        fit(objective, ToyBatches(), None, config, stopping, run, save=objective.content, score=score)

    undisturbed, stopped = toy_run(tmp_path / "a"), toy_run(tmp_path / "b")
    train_scored(undisturbed, at=-1)
    with pytest.raises(SystemExit) as stop:
        train_scored(stopped, at=2)
    assert stop.value.code == 0 and len(log_of(stopped)) == 1
    train_scored(toy_run(tmp_path / "b", resume=True), at=-1, seed=9)
    assert_same_training(undisturbed, stopped)


def test_a_signal_at_any_line_around_scoring_ends_the_training_with_status_0(tmp_path: Path) -> None:
    lines = 0  # of the method that scores, until the signal comes

    def fit_scored(run: Run, at: int) -> None:
        nonlocal lines
        objective, lines = ToyObjective(), 0

        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal lines
            if frame.f_code.co_name == "_score" and event == "line":
                lines += 1
                if lines == at:
                    signal.raise_signal(signal.SIGTERM)
            return trace

        before, config = sys.gettrace(), OptimConfig(epochs=1)
        sys.settrace(trace)
        try:
            fit(objective, ToyBatches(), ToyBatches(train=False), config, STOPPING, run,
                save=objective.content, score=lambda epoch: {})  # fmt: skip
        finally:
            sys.settrace(before)

    fit_scored(toy_run(tmp_path / "undisturbed"), at=0)
    passed = lines
    assert passed >= 5
    for at in range(1, passed + 1):
        run = toy_run(tmp_path / str(at))
        with pytest.raises(SystemExit) as stop:
            fit_scored(run, at)
        assert stop.value.code == 0 and (run.folder / "last.ckpt").is_file()


def train_without_files_of_epochs(run: Run, batches: ToyBatches, seed: int = 0) -> None:
    objective, val = ToyObjective(seed=seed), ToyBatches(n=7, train=False)
    fit(objective, batches, val, CONFIG, STOPPING, run, save=objective.content)


def test_a_signal_of_which_a_library_makes_another_error_ends_the_training(
    tmp_path: Path,
) -> None:
    def score(epoch: int) -> dict[str, float]:
        try:
            signal.raise_signal(signal.SIGTERM)
        except InterruptedError as error:
            raise ImportError("initialization failed") from error
        pytest.fail("scoring was not interrupted")

    run, objective = toy_run(tmp_path), ToyObjective()
    with pytest.raises(SystemExit) as stop:
        fit(objective, ToyBatches(), ToyBatches(train=False), CONFIG, STOPPING, run,
            save=objective.content, score=score)  # fmt: skip
    assert stop.value.code == 0 and (run.folder / "last.ckpt").is_file()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_short_epochs_are_not_all_saved_and_what_is_lost_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    saved: list[tuple[str, int]] = []
    write = checkpoint.save

    def save(path: Path, content: Mapping[str, object]) -> None:
        saved.append((path.name, content["epoch"]))
        write(path, content)

    monkeypatch.setattr(checkpoint, "save", save)
    undisturbed, other = toy_run(tmp_path / "a"), toy_run(tmp_path / "b")
    train_without_files_of_epochs(undisturbed, ToyBatches())
    assert saved == [("best.ckpt", 3), ("last.ckpt", 3)]  # of three epochs that take no time
    saved.clear()
    if how == "killed":
        with pytest.raises(RuntimeError, match="power cut"):
            train_without_files_of_epochs(other, ToyBatches(at=crash))
        assert not saved and len(log_of(other)) == 1
    else:
        log = other.log
        monkeypatch.setattr(other, "log", lambda row: (log(row), signal.raise_signal(signal.SIGTERM)))
        with pytest.raises(SystemExit) as stop:
            train_without_files_of_epochs(other, ToyBatches())
        assert stop.value.code == 0 and saved == [("best.ckpt", 1), ("last.ckpt", 1)]
    again, seed = (
        toy_run(tmp_path / "b", resume=True),
        9,
    )  # of weights that are replaced by those in last.ckpt
    if how == "killed":
        again.rewind(0, 0)  # as a run does where there is no last.ckpt
        seed = 0
    train_without_files_of_epochs(again, ToyBatches(), seed)
    assert_same_training(undisturbed, other)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux alone names open files")
def test_rows_of_short_epochs_are_on_the_disk_before_last_ckpt_and_wait_for_it_no_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    write, fsync = checkpoint.save, os.fsync

    def note_fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_save(path: Path, content: Mapping[str, object]) -> None:
        if path.name == "last.ckpt":
            done.append(f"{path.name} after {len(log_of(run))} rows")
        write(path, content)

    run = toy_run(tmp_path)
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(checkpoint, "save", note_save)
    train_without_files_of_epochs(run, ToyBatches())
    assert done.count("log.csv.partial") == 1
    steps = ("log.csv.partial", "last.ckpt after 3 rows", "last.ckpt.partial")
    assert sorted(steps, key=done.index) == list(steps)


def test_a_disk_without_room_for_the_checkpoints_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 100))
    untouched = ToyBatches(at=lambda epoch, step: pytest.fail("a step was taken"))
    with pytest.raises(FullDisk, match=r"toy has 0.0 GB left, and this training takes .* GB; free space"):
        train(toy_run(tmp_path), untouched, ToyObjective())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 10**4))
    warnings: list[str] = []
    monkeypatch.setattr(loop.logger, "warning", warnings.append)
    train(toy_run(tmp_path), ToyBatches(), ToyObjective(), replace(CONFIG, epochs=1))
    assert not warnings
    huge = replace(CONFIG, epochs=10**6)
    with pytest.raises(RuntimeError, match="power cut"):
        train(toy_run(tmp_path), ToyBatches(at=crash), ToyObjective(), huge)
    assert len(warnings) == 1 and "no room for the checkpoints of all epochs" in warnings[0]


@pytest.mark.parametrize(
    ("seconds", "calls"), [(0.0, [(1, 1), (2, 2), (3, 3), (4, 3)]), (loop.SECONDS_BETWEEN_SAVES, [(4, 4)])]
)
def test_epochs_are_removed_once_last_ckpt_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, calls: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", seconds)
    run, asked = toy_run(tmp_path), []

    def keep(done: int) -> set[int]:
        if (run.folder / "last.ckpt").exists():
            assert checkpoint.load(run.folder / "last.ckpt")["epoch"] == done
            asked.append((done, len(list(run.folder.glob("*_epoch_*")))))
        return {1, done}

    config, objective = OptimConfig(epochs=4), ToyObjective()
    stopping = StoppingConfig(monitor="train_loss")
    fit(objective, ToyBatches(), None, config, stopping, run, save=objective.content, keep_epochs=keep)
    assert asked[-len(calls) :] == calls
    assert {path.name for path in run.folder.glob("*_epoch_*")} == {"toy_epoch_01.ckpt", "toy_epoch_04.ckpt"}


def test_files_of_short_epochs_are_all_written_and_best_ckpt_goes_with_last_ckpt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed goes on from last.ckpt with the best epoch that this knows."""
    monkeypatch.setattr(loop._Trainer, "_is_worth_saving", lambda self: self.progress.epoch in (1, 3))
    undisturbed, killed = toy_run(tmp_path / "a"), toy_run(tmp_path / "b")
    stopping = StoppingConfig(monitor="train_loss")  # lower in each epoch
    config = replace(CONFIG, lr=0.1)
    train(undisturbed, ToyBatches(), ToyObjective(), config, stopping=stopping)
    later = ToyBatches(at=lambda epoch, step: crash(epoch - 1, step))
    with pytest.raises(RuntimeError, match="power cut"):
        train(killed, later, ToyObjective(), config, stopping=stopping)
    losses = [float(row["train_loss"]) for row in log_of(killed)]
    assert losses[1] < losses[0]
    assert {path.stem for path in killed.folder.glob("*_epoch_*")} == {"toy_epoch_01", "toy_epoch_02"}
    assert checkpoint.load(killed.folder / "last.ckpt")["epoch"] == 1
    assert (killed.folder / "best.ckpt").samefile(killed.folder / "toy_epoch_01.ckpt")
    train(toy_run(tmp_path / "b", resume=True), ToyBatches(), ToyObjective(seed=9), config, stopping=stopping)
    assert_same_training(undisturbed, killed)
    assert (killed.folder / "best.ckpt").samefile(killed.folder / "toy_epoch_03.ckpt")


@pytest.mark.parametrize(("kept", "files"), [({2}, ["last", "toy_epoch_02"]), (set(), ["best", "last"])])
def test_the_best_epoch_by_the_monitor_stays_where_no_other_does(
    tmp_path: Path, kept: set[int], files: list[str]
) -> None:
    run, objective, stopping = toy_run(tmp_path), ToyObjective(), StoppingConfig(monitor="train_loss")
    for _ in range(2):  # also when it is resumed and finds nothing to do
        fit(
            objective,
            ToyBatches(),
            None,
            OptimConfig(epochs=3),
            stopping,
            run,
            save=objective.content,
            keep_epochs=lambda done: kept,
            leaves_best=False,
        )
        assert sorted(path.stem for path in run.folder.glob("*.ckpt")) == files
        run = toy_run(tmp_path, resume=True)


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = list(map(signal.getsignal, SIGNALS))
    train(toy_run(tmp_path), ToyBatches(), ToyObjective())
    assert list(map(signal.getsignal, SIGNALS)) == before


class SignalledOnLoad(ToyObjective):
    """SIGTERM comes while last.ckpt is loaded."""

    def load_state_dict(self, *args: object, **kwargs: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return super().load_state_dict(*args, **kwargs)


def test_a_signal_behind_the_last_epoch_is_not_lost(tmp_path: Path) -> None:
    train(toy_run(tmp_path), ToyBatches(), ToyObjective())
    with pytest.raises(SystemExit) as stop, exit_on_stop_signals():
        train(toy_run(tmp_path, resume=True), ToyBatches(), SignalledOnLoad())  # nothing is left to train
    assert stop.value.code == 0


def test_resuming_a_finished_run_trains_nothing(tmp_path: Path) -> None:
    first = train(toy_run(tmp_path), ToyBatches(), ToyObjective())
    before = (tmp_path / "toy" / "last.ckpt").read_bytes()
    assert train(toy_run(tmp_path, resume=True), ToyBatches(at=crash), ToyObjective(seed=9)) == first
    assert (tmp_path / "toy" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("batches", "config", "message"),
    [
        (
            ToyBatches(batch_size=5),
            OptimConfig(optimizer="sgd", epochs=4),
            "--optimizer was adamw and is sgd",
        ),
        (ToyBatches(batch_size=3), OptimConfig(epochs=4), "batches an epoch was 4 and is 7"),
    ],
)
def test_resuming_with_settings_that_cannot_fit_is_refused(
    tmp_path: Path, batches: ToyBatches, config: OptimConfig, message: str
) -> None:
    train(toy_run(tmp_path), ToyBatches(), ToyObjective())
    with pytest.raises(ValueError, match=message):
        train(toy_run(tmp_path, resume=True), batches, ToyObjective(), config)


@pytest.mark.parametrize("stops_early", [False, True])
def test_a_training_that_needs_no_more_epochs_leaves_the_optimizer_out_at_its_end(
    tmp_path: Path, stops_early: bool
) -> None:
    epochs = 5 if stops_early else 2
    stopping = StoppingConfig(monitor="score", patience=1) if stops_early else StoppingConfig(monitor="score")

    def run(epochs: int, resume: bool = False, at: Callable[[int, int], None] = lambda *_: None) -> FitResult:
        objective = ToyObjective()
        return fit(
            objective,
            ToyBatches(at=at),
            None,
            OptimConfig(epochs=epochs, lr=0.01),
            stopping,
            toy_run(tmp_path, resume=resume),
            save=objective.content,
            score=lambda epoch: {"score": float(epoch)},
            can_be_extended=False,
        )

    with pytest.raises(SystemExit):
        run(epochs, at=send(signal.SIGTERM, 1, 1))
    path = tmp_path / "toy" / "last.ckpt"
    assert checkpoint.load(path)["training"]["optimizer"]  # it is not over
    ended = run(epochs, resume=True)
    assert ended.epochs_run == 2 and ended.stopped_early is stops_early
    state, written = checkpoint.load(path)["training"], path.read_bytes()
    assert state["finished"] and not state["optimizer"] and state["objective"]
    assert run(epochs, resume=True) == ended and path.read_bytes() == written
    if stops_early:
        assert run(9, resume=True) == ended
    else:
        with pytest.raises(
            ValueError, match=r"last\.ckpt: --epochs 3: the training ended after 2 epochs, and"
        ):
            run(3, resume=True)
    assert path.read_bytes() == written


def test_resuming_a_model_of_another_shape_names_the_checkpoint(tmp_path: Path) -> None:
    train(toy_run(tmp_path), ToyBatches(), ToyObjective())
    other = ToyObjective()
    other.net[3] = nn.Linear(8, 2)
    with pytest.raises(ValueError, match=r"last\.ckpt: part 'objective' does not fit: .*; resume with the"):
        train(toy_run(tmp_path, resume=True), ToyBatches(), other, OptimConfig(epochs=4))


def other_progress(state: dict) -> None:
    state["training"]["progress"]["epoch"] = "2"


def other_steps(state: dict) -> None:
    state["training"]["steps"] = None


def no_state(state: dict) -> None:
    del state["training"]


def text_for_a_weight(state: dict) -> None:
    state["training"]["objective"] |= dict.fromkeys(state["training"]["objective"], "x")


def moment_of_another_shape(state: dict) -> None:
    state["training"]["optimizer"][0]["exp_avg"] = torch.zeros(3)


def moment_of_no_number(state: dict) -> None:
    state["training"]["optimizer"][0]["exp_avg"].fill_(math.nan)


def moment_of_no_weight(state: dict) -> None:
    state["training"]["optimizer"][99] = {}


def progress_of_another_version(state: dict) -> None:
    del state["training"]["progress"]["lr_drops"]


@pytest.mark.parametrize(
    ("change", "invalid"),
    [
        (no_state, "the state of the training"),
        (other_steps, "the entry 'steps' of the training"),
        (other_progress, "the progress of the training"),
        (progress_of_another_version, "the progress of the training"),
        (text_for_a_weight, "a weight of the objective"),
        (moment_of_another_shape, "the state of the optimizer"),
        (moment_of_no_number, "the state of the optimizer"),
        (moment_of_no_weight, "the state of the optimizer"),
    ],
)
def test_a_checkpoint_that_cannot_be_resumed_says_what_is_invalid(
    tmp_path: Path, change: Callable[[dict], None], invalid: str
) -> None:
    run = toy_run(tmp_path)
    train(run, ToyBatches(), ToyObjective())
    state = checkpoint.load(run.folder / "last.ckpt")
    change(state)
    checkpoint.save(run.folder / "last.ckpt", state)
    message = rf"last\.ckpt: cannot resume, {invalid} is missing or invalid; copy the file again"
    with pytest.raises(ValueError, match=message):
        train(toy_run(tmp_path, resume=True), ToyBatches(), ToyObjective(), OptimConfig(epochs=4))


def test_a_resumed_run_obeys_new_settings(tmp_path: Path) -> None:
    train(toy_run(tmp_path), ToyBatches(), ToyObjective(), OptimConfig(epochs=1, weight_decay=0.1))
    later = OptimConfig(epochs=2, weight_decay=0.0, lr=1e-30)
    before = checkpoint.load(tmp_path / "toy" / "last.ckpt")["parts"]["net"]
    train(toy_run(tmp_path, resume=True), ToyBatches(), ToyObjective(), later)
    assert same(checkpoint.load(tmp_path / "toy" / "last.ckpt")["parts"]["net"], before)


def test_log_and_checkpoints_of_every_epoch(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    train(run, ToyBatches(), ToyObjective())
    rows = run.read_log()
    columns = "epoch step seconds samples_per_second lr train_loss train_error val_loss val_error"
    assert list(rows[0]) == columns.split()
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8"), ("3", "12")]
    names = {path.name for path in run.folder.glob("*.ckpt")}
    assert names == {"best.ckpt", "last.ckpt", "toy_epoch_01.ckpt", "toy_epoch_02.ckpt", "toy_epoch_03.ckpt"}
    assert list((run.folder / "tb").iterdir())


def test_the_best_epoch_is_a_second_name_of_its_checkpoint(tmp_path: Path) -> None:
    run = toy_run(tmp_path)
    result = train(run, ToyBatches(), ToyObjective())
    assert (run.folder / "best.ckpt").samefile(run.folder / f"toy_epoch_{result.best_epoch:02d}.ckpt")


def test_a_full_disk_stops_the_training_and_keeps_what_it_wrote(tmp_path: Path) -> None:
    run, objective = toy_run(tmp_path), ToyObjective()
    train(run, ToyBatches(), objective, OptimConfig(epochs=1, lr=0.01))
    before = (run.folder / "last.ckpt").read_bytes()
    resumed = toy_run(tmp_path, resume=True)
    with room_for(1000), pytest.raises(OSError, match=r"no space left to write .*toy_epoch_02\.ckpt"):
        train(resumed, ToyBatches(), objective, OptimConfig(epochs=2, lr=0.01))
    assert (run.folder / "last.ckpt").read_bytes() == before


def test_validation_loss_is_the_mean_over_samples(tmp_path: Path) -> None:
    objective, val = ToyObjective(), ToyBatches(n=7, batch_size=6, train=False)
    run = toy_run(tmp_path)
    train(run, ToyBatches(), objective, OptimConfig(epochs=1), val)
    objective.eval()
    want = (objective.net(val.x) - val.y).square().mean().item()
    assert float(run.read_log()[0]["val_loss"]) == pytest.approx(want, rel=1e-6)


class Counted(ToyObjective):
    """Mean over the samples with a positive x_0 only, and over how many."""

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        known = batch.x[:, 0] > 0
        loss = ((self.net(batch.x) - batch.y).square()[:, 0] * known).sum() / known.sum().clamp(min=1)
        return {"loss": loss, "count": known.sum()}


def test_validation_loss_counts_what_the_objective_counts(tmp_path: Path) -> None:
    objective, val = Counted(), ToyBatches(n=9, batch_size=2, train=False)
    run = toy_run(tmp_path)
    train(run, ToyBatches(), objective, OptimConfig(epochs=1), val)
    objective.eval()
    known = val.x[:, 0] > 0
    want = (objective.net(val.x) - val.y).square()[known].mean().item()
    assert float(run.read_log()[0]["val_loss"]) == pytest.approx(want, rel=1e-6)


def test_gradients_are_not_recorded_in_validation_and_the_mode_is_eval(tmp_path: Path) -> None:
    seen = []

    class Watching(ToyObjective):
        def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
            seen.append((self.training, torch.is_inference_mode_enabled()))
            return super().forward(batch)

    train(toy_run(tmp_path), ToyBatches(), Watching(), OptimConfig(epochs=1))
    assert seen == [(True, False)] * 4 + [(False, True)] * 2


class Poisoned(ToyObjective):
    """NaN loss on any batch that holds sample 13."""

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        terms = super().forward(batch)
        return terms | {"loss": terms["loss"] * (math.nan if (batch.row == 13).any() else 1.0)}


def test_a_loss_that_is_not_finite_names_its_samples_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    train(toy_run(tmp_path), ToyBatches(), ToyObjective(), OptimConfig(epochs=1))
    run = toy_run(tmp_path, resume=True, save_minutes=1e-9)
    with pytest.raises(ValueError, match=r"nan at epoch 2, step \d, on the training samples .*\b13\b"):
        train(run, ToyBatches(), Poisoned())
    saved = checkpoint.load(run.folder / "last.ckpt")["parts"]["net"]
    assert all(value.isfinite().all() for value in saved.values())


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class PoisonedLater(Poisoned):
        def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
            return ToyObjective.forward(self, batch) if self.training else super().forward(batch)

    for batch_size, step in ((4, 3), (20, 0)):  # the last batch, and the only one
        val, run = ToyBatches(n=14, batch_size=batch_size, train=False), toy_run(tmp_path / str(batch_size))
        with pytest.raises(ValueError, match=rf"at epoch 1, step {step}, on the validation samples .*\b13;"):
            train(run, ToyBatches(), PoisonedLater(), val=val)
        assert not (run.folder / "best.ckpt").exists()


def test_a_prediction_that_is_not_finite_names_its_samples() -> None:
    wrong = torch.tensor([2, 7])
    with pytest.raises(ValueError, match=r"predicts NaN or infinity for the samples 2, 7 of 11; look"):
        predict(lambda batch: batch.x / (~torch.isin(batch.row, wrong))[:, None], ToyBatches(n=11))


def test_training_is_in_the_precision_asked_for_and_predictions_in_float32(tmp_path: Path) -> None:
    seen = []

    class Watching(ToyObjective):
        def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
            seen.append(self.net(batch.x).dtype)
            return super().forward(batch)

    objective = Watching()
    train(toy_run(tmp_path, precision="bf16"), ToyBatches(), objective, OptimConfig(epochs=1))
    assert set(seen) == {torch.bfloat16} and objective.net[0].weight.dtype is torch.float32
    assert predict(lambda batch: objective.net(batch.x), ToyBatches()).dtype == np.float32


class Collecting(ToyObjective):
    """Collects its predictions while it is evaluated, and counts its passes in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.predictions, self.passes = Predictions(), 0

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        self.passes += not self.training
        return super().forward(batch)

    def evaluate(self, batch: ToyBatch) -> dict[str, Tensor]:
        guess = self.net(batch.x)
        self.predictions.add(batch.row, guess)
        return self(batch)

    def score(self, epoch: int) -> dict[str, float]:
        guess, self.predictions = self.predictions.in_order(), Predictions()
        return {"samples": len(guess), "mean": guess.mean().item()}


def fit_collecting(process: Process, folder: Path) -> tuple[Collecting, dict[str, str]]:
    """Train an epoch in bf16, and validate nine samples in batches of four; return the row of the log."""
    objective, run = Collecting(), toy_run(folder, process, precision="bf16")
    batches, val = (ToyBatches(n, 4, process, train=n == 8) for n in (8, 9))
    hooks = {"evaluate": objective.evaluate, "score": objective.score}
    fit(objective, batches, val, OptimConfig(epochs=1), STOPPING, run, save=objective.content, **hooks)
    return objective, run.read_log()[0] if process.rank == 0 else {}


def test_one_validation_pass_gives_the_loss_and_the_predictions_in_float32(tmp_path: Path) -> None:
    objective, row = fit_collecting(Process(), tmp_path)
    val = ToyBatches(9)
    guess = objective.net(val.x)
    assert objective.passes == 3 and float(row["samples"]) == 9
    assert float(row["mean"]) == pytest.approx(guess.mean().item(), rel=1e-6)
    assert float(row["val_loss"]) == pytest.approx((guess - val.y).square().mean().item(), rel=1e-6)


class Compiled(nn.Sequential):
    """Notes that it is compiled."""

    times = 0

    def compile(self) -> None:
        self.times += 1


def test_only_what_asks_for_it_is_compiled(tmp_path: Path) -> None:
    objective = ToyObjective()
    objective.net = Compiled(Compiled(*objective.net))
    objective.net.compiles = True
    for compiles in (False, True):
        run = toy_run(tmp_path / str(compiles), compile=compiles)
        train(run, ToyBatches(), objective, OptimConfig(epochs=1))
        assert (objective.net.times, objective.net[0].times) == (int(compiles), 0)


def scores(values: list[float]) -> object:
    remaining = iter(values)
    return lambda epoch: {"auroc": next(remaining)}


@pytest.mark.parametrize(
    ("values", "result"),
    [
        ([0.5, 0.7, 0.75, 0.7, 0.9], FitResult(3, 0.75, 4, True)),  # 0.75 is the best, but too small a gain
        ([0.5, 0.7, 0.75, 0.9, 0.9], FitResult(4, 0.9, 5, False)),
        ([math.nan, 0.2, 0.25, 0.1, 0.3], FitResult(3, 0.25, 4, True)),
    ],
)
def test_early_stop_waits_for_patience_and_keeps_the_best(
    tmp_path: Path, values: list[float], result: FitResult
) -> None:
    stopping = StoppingConfig(patience=2, min_delta=0.1, monitor="auroc", mode="max")
    run, objective = toy_run(tmp_path), ToyObjective()
    ended = fit(
        objective,
        ToyBatches(),
        None,
        OptimConfig(epochs=5),
        stopping,
        run,
        save=objective.content,
        score=scores(values),
    )
    assert ended == result
    assert checkpoint.load(run.folder / "best.ckpt")["epoch"] == result.best_epoch


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    config = OptimConfig(epochs=5, lr=0.1, schedule="plateau", plateau_patience=1, gamma=0.5)
    stopping = StoppingConfig(patience=0, monitor="auroc", mode="max")
    run, objective = toy_run(tmp_path), ToyObjective()
    score = scores([0.5] * 5)
    fit(objective, ToyBatches(), None, config, stopping, run, save=objective.content, score=score)
    assert [float(row["lr"]) for row in run.read_log()] == [0.1, 0.1, 0.1, 0.05, 0.05]


def test_an_unknown_monitor_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="auprc is not logged; choose one of train_loss, train_error, val_loss"
    ):
        train(toy_run(tmp_path), ToyBatches(), ToyObjective(), stopping=StoppingConfig(monitor="auprc"))
    objective = ToyObjective()
    with pytest.raises(ValueError, match="val_loss needs validation batches"):
        fit(objective, ToyBatches(), None, CONFIG, STOPPING, toy_run(tmp_path), save=objective.content)


def test_predictions_come_in_the_order_of_samples() -> None:
    batches = ToyBatches(n=11, batch_size=4)  # shuffled
    assert np.array_equal(predict(lambda batch: batch.x, batches), batches.x.numpy())


class Twice(ToyBatches):
    def epoch(self, epoch: int, start: int = 0):
        yield from super().epoch(epoch)
        yield from super().epoch(epoch)


def test_predictions_of_samples_seen_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="each of the samples 0 to 10 once"):
        predict(lambda batch: batch.x, Twice(n=11))


class Contrast(nn.Module):
    """A loss of the global batch: every pair of samples of all ranks meets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2).double()
        self.temperature = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        z = distributed.gather_with_gradient(self.net(batch.x))
        return {"loss": (z @ z.T / self.temperature).logsumexp(1).mean()}

    def content(self) -> dict[str, object]:
        return {"parts": {"net": self.net.state_dict()}, "config": {}}


class CountedDouble(Counted):
    def __init__(self) -> None:
        super().__init__(dropout=0.0, dtype=torch.float64)


class Unequal(ToyObjective):
    def __init__(self) -> None:
        super().__init__(dropout=0.0, dtype=torch.float64)


class Partly(Unequal):
    """A part of the model serves few samples only, so that a rank may have no gradient for it."""

    def __init__(self) -> None:
        super().__init__()
        self.rare = nn.Linear(3, 1).double()

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        guess, few = self.net(batch.x), batch.row < 5
        if few.any():
            guess = guess.index_add(0, few.nonzero()[:, 0], self.rare(batch.x[few]))
        return {"loss": (guess - batch.y).square().mean()}


OBJECTIVES = {"mean": Unequal, "counted": CountedDouble, "gathered": Contrast, "partly": Partly}


def fit_double(process: Process, folder: Path, kind: str) -> tuple[dict[str, Tensor], list[dict[str, str]]]:
    """20 samples in global batches of 7 (last 6): uneven parts on two ranks."""
    objective = OBJECTIVES[kind]()
    data, val = (
        ToyBatches(n, 7, process, train=shuffled, dtype=torch.float64)
        for n, shuffled in ((20, True), (9, False))
    )
    config = OptimConfig(optimizer="sgd", lr=0.05, weight_decay=1e-3, epochs=3)
    run = toy_run(folder / kind, process)
    fit(objective, data, val, config, StoppingConfig(monitor="train_loss"), run, save=objective.content)
    return objective.state_dict(), log_of(run) if process.rank == 0 else []


def fit_all(process: Process, folder: Path) -> dict[str, tuple[dict[str, Tensor], list[dict[str, str]]]]:
    return {kind: fit_double(process, folder, kind) for kind in OBJECTIVES}


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    alone = fit_all(Process(), tmp_path / "alone")
    ranks = run_on_ranks(fit_all, tmp_path / "ranks")
    for kind in OBJECTIVES:
        for key, value in alone[kind][0].items():
            for rank in ranks:
                torch.testing.assert_close(rank[kind][0][key], value, rtol=0, atol=1e-10)
        for mine, theirs in zip(alone[kind][1], ranks[0][kind][1], strict=True):
            assert {k: float(v) for k, v in mine.items()} == pytest.approx(
                {k: float(v) for k, v in theirs.items()}
            )


def stop_one(process: Process, folder: Path) -> dict[str, object]:
    """Predict with an empty part; NaN on one rank; scores that differ by rank; SIGTERM to rank 1."""
    results: dict[str, object] = {}
    hook = send(signal.SIGTERM, 1, 1) if process.rank == 1 else send(signal.SIGTERM, -1, -1)
    objective, run = ToyObjective(), toy_run(folder, process)
    batches, val = ToyBatches(process=process), ToyBatches(n=8, process=process, train=False)
    short = ToyBatches(n=19, process=process)  # the last batch has one row, too few for two ranks
    results["predicted"] = predict(lambda batch: batch.x, ToyBatches(n=13, process=process, train=False))
    try:
        fit(Poisoned(), batches, val, CONFIG, STOPPING, run, save=objective.content)
    except ValueError as error:
        results["nan"] = str(error)
    results["early"] = fit(
        objective,
        short,
        None,
        OptimConfig(epochs=9),
        StoppingConfig(patience=1, monitor="score", mode="max"),
        run,
        save=objective.content,
        score=lambda epoch: {"score": float(process.rank)},
    ).epochs_run
    results["collected"] = fit_collecting(process, folder / "collected")[1].get("samples", "9")
    run = toy_run(folder / "term", process)
    stopped = ToyBatches(process=process, at=hook)
    try:
        fit(objective, stopped, val, CONFIG, STOPPING, run, save=objective.content)
    except SystemExit as stop:
        results["code"] = stop.code
    return results


def test_all_ranks_stop_together(tmp_path: Path) -> None:
    ranks = run_on_ranks(stop_one, tmp_path)
    for results in ranks:
        assert results["code"] == 0
        assert results["nan"].startswith("the loss became nan at epoch 1, step")
        assert results["early"] == 2 and float(results["collected"]) == 9
        assert np.array_equal(results["predicted"], ToyBatches(n=13).x.numpy())
    progress = checkpoint.load(tmp_path / "term" / "toy" / "last.ckpt")["training"]["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 3)
