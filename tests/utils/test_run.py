"""A run's folder says what was run, and never loses a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import align_trainer
import simclr_trainer
import vicreg_trainer
from training.classify_config import ClassifyConfig
from utils import config
from utils.checkpoint import Origin
from utils.distributed import Process
from utils.lock import hold
from utils.run import Run, set_precision, start_run
from utils.run_config import RunConfig
from utils.yaml_files import read_yaml_mapping

FORK = get_context("fork")


@dataclass(frozen=True)
class Settings:
    run: RunConfig
    width: int = 3


def settings(folder: Path, **changes: str | bool | int) -> Settings:
    return Settings(replace(RunConfig(save_dir=folder, device="cpu"), **changes))


def test_a_run_writes_its_settings_and_its_environment(tmp_path: Path) -> None:
    run = start_run(settings(tmp_path, seed=7), "supervised-ehr", "synthetic data", "1f2e")
    assert run.folder == tmp_path / "supervised-ehr" and run.seed == 7
    again = config.from_dict(Settings, read_yaml_mapping(run.folder / "config.yaml"))
    assert again == settings(tmp_path, seed=7)
    environment = yaml.safe_load((run.folder / "environment.yaml").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["commit"] == run.commit and environment["started"] == run.started
    assert (environment["data"], environment["store"]) == ("synthetic data", "1f2e")
    assert {"numpy", "pandas", "pyarrow", "pyyaml"} < environment["packages"].keys()
    assert environment["threads"] == torch.get_num_threads()


def test_the_folder_of_a_run_holds_the_patch_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.run.commit", lambda: "1f2e+")
    monkeypatch.setattr("utils.run.git_diff", lambda: "diff --git a/x b/x\n")
    folder = start_run(settings(tmp_path), "x").folder
    assert (folder / "dirty.patch").read_text() == "diff --git a/x b/x\n"
    monkeypatch.setattr("utils.run.commit", lambda: "1f2e")
    start_run(settings(tmp_path, resume=True), "x")
    assert not (folder / "dirty.patch").exists()


def test_a_name_is_a_folder(tmp_path: Path) -> None:
    assert start_run(settings(tmp_path, name="mine"), "x").folder == tmp_path / "mine"
    for name in ("a/b", "..", ".", "/a"):
        with pytest.raises(ValueError, match="must be a single folder name"):
            RunConfig(name=name)


def test_equal_seeds_give_equal_numbers(tmp_path: Path) -> None:
    def draw(seed: int) -> tuple[float, float]:
        start_run(settings(tmp_path, seed=seed), "x")
        return torch.rand(()).item(), np.random.random()

    assert draw(1) == draw(1) != draw(2)


def test_a_folder_with_a_run_is_refused_without_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start_run(settings(tmp_path), "x")
    run.log({"epoch": 1, "step": 4, "loss": 1.0})
    (run.folder / "last.ckpt").touch()
    with pytest.raises(FileExistsError, match="continue it with --resume, or choose another --name"):
        start_run(settings(tmp_path), "x")
    start_run(settings(tmp_path, resume=True, save_minutes=2), "x")
    said = capsys.readouterr().out
    assert "resumed with another setting: run.save_minutes 10.0 -> 2" in said and "run.resume" not in said
    assert said.count("resumed with another setting") == 1
    assert run.read_log() == [{"epoch": "1", "step": "4", "loss": "1.0"}]


def sources_of(digit: str) -> dict[str, Origin]:
    """A source whose hash has one digit."""
    return {"load_state_ehr": Origin(digit * 64, "simclr", "its settings", seed=3)}


@pytest.mark.parametrize("resume", [False, True])
def test_a_job_that_starts_twice_runs_once_and_a_dead_one_does_not_block(
    tmp_path: Path, resume: bool
) -> None:
    started, ended = FORK.Event(), FORK.Event()

    def first() -> None:
        start_run(settings(tmp_path), "x")
        started.set()
        ended.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=first)
    process.start()
    started.wait(60)
    config_of_first = (tmp_path / "x" / "config.yaml").read_bytes()
    refused = rf"x: another process is writing there, process {process.pid} on .*--name"
    with pytest.raises(ValueError, match=refused):
        start_run(settings(tmp_path, seed=1, resume=resume), "x")
    assert (tmp_path / "x" / "config.yaml").read_bytes() == config_of_first
    ended.set()
    process.join(60)
    assert start_run(settings(tmp_path, seed=1, resume=resume), "x").seed == 1


def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    run = start_run(settings(tmp_path), "x", sources=sources_of("a"))
    (run.folder / "last.ckpt").touch()
    kept = {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    again, same = settings(tmp_path, resume=True), sources_of("a")
    refused = {
        "width 3 -> 4": (replace(again, width=4), same),
        "run.seed 0 -> 1": (settings(tmp_path, resume=True, seed=1), same),
        f"sources.load_state_ehr {'a' * 64} -> {'b' * 64}": (again, sources_of("b")),
    }
    for message, (other, sources) in refused.items():
        with pytest.raises(
            ValueError, match=f"began with other settings, .*: {message}; use the settings of the run"
        ):
            start_run(other, "x", sources=sources)
        assert kept == {path: path.read_bytes() for path in kept}
    assert start_run(again, "x", sources=same).sources == same


RUN = "name save_dir device resume save_minutes precision deterministic compile"
DATA = "store data_device batch_size"
OPTIM = """optimizer lr weight_decay momentum epochs warmup_epochs schedule milestones gamma plateau_patience
    clip lars_exclude trust_coefficient patience min_delta"""
PROGRAMS = {
    simclr_trainer.SimCLRConfig: "monitor mode probe keep probe_epochs cxr_weights",
    vicreg_trainer.VICRegConfig: "monitor mode probe keep probe_epochs cxr_weights",
    align_trainer.AlignConfig: "monitor mode probe keep probe_epochs cxr_weights",
    ClassifyConfig: "head_lr load_state load_state_ehr load_state_cxr cxr_weights results_dir bootstrap "
    "subgroups keep_features layer_lr_decay",
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_resumed_run_may_change_these_settings_alone(program: type) -> None:
    default = program()
    paths = [name for name, value in vars(default).items() if not is_dataclass(value)]
    for name, part in vars(default).items():
        paths += [f"{name}.{key}" for key in vars(part)] if is_dataclass(part) else []
    changeable = {path.rpartition(".")[2] for path in paths if config.is_resumable(default, path)}
    assert changeable == set(f"{RUN} {DATA} {OPTIM} {PROGRAMS[program]}".split())


def test_settings_decide_the_scores_but_for_seed_paths_and_device(tmp_path: Path) -> None:
    def digest(sources: dict[str, Origin] | None = None, width: int = 3, **run: object) -> object:
        changed = replace(settings(tmp_path, name="x", **run), width=width)
        return start_run(changed, "x", sources=sources).origin["settings"]

    plain = digest()
    same = [{"seed": 4}, {"save_dir": tmp_path / "b"}, {"device": "cpu"}, {"save_minutes": 3.0}]
    assert {digest(**run) for run in same} == {plain} and digest(precision="float32") == plain
    other = [digest(width=4), digest(precision="bf16"), digest(sources_of("a"))]
    assert len({plain, *other}) == 4
    assert digest(sources_of("b")) == digest(sources_of("a"))  # the same settings, another seed
    environment = yaml.safe_load((tmp_path / "x" / "environment.yaml").read_text())
    assert environment["settings"] == digest(sources_of("b"))


def test_a_run_that_was_resumed_with_other_settings_has_settings_of_its_own(tmp_path: Path) -> None:
    def digest(**changes: object) -> object:
        return start_run(settings(tmp_path, resume=True, **changes), "x").origin["settings"]

    half, plain = digest(precision="bf16"), digest()
    (tmp_path / "x" / "last.ckpt").touch()  # before, nothing was trained
    assert digest() == digest(save_minutes=3.0) == plain
    mixed = digest(precision="bf16")
    assert digest(precision="bf16") == mixed and len({half, plain, mixed}) == 3


def test_a_log_that_counts_from_0_is_read(tmp_path: Path) -> None:
    run = Run(RunConfig(), "x", tmp_path)
    (tmp_path / "log.csv").write_text("epoch,step\n0,4\n1,8\n2,12\n")
    run.rewind(2, 8)
    assert [row["epoch"] for row in run.read_log()] == ["1", "2"]


def test_a_resumed_run_keeps_the_time_at_which_it_began(tmp_path: Path) -> None:
    path = tmp_path / "x" / "environment.yaml"
    first = start_run(settings(tmp_path), "x")
    path.write_text(path.read_text().replace(first.started, "2030-01-01T00:00:00+00:00"))
    assert start_run(settings(tmp_path, resume=True), "x").started == "2030-01-01T00:00:00+00:00"
    assert yaml.safe_load(path.read_text())["started"] == "2030-01-01T00:00:00+00:00"
    assert start_run(settings(tmp_path), "x").started != "2030-01-01T00:00:00+00:00"


def test_a_new_start_clears_the_log_of_a_run_that_saved_nothing(tmp_path: Path) -> None:
    run = start_run(settings(tmp_path), "x")
    run.log({"epoch": 1, "step": 4, "loss": 1.0})
    assert start_run(settings(tmp_path, resume=True), "x").read_log() == []


def scalars(run: Run, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run.folder / "tb")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_the_log_grows_columns_and_rewinds(tmp_path: Path) -> None:
    run = Run(RunConfig(), "x", tmp_path)
    for epoch in (1, 2, 3):
        later = {"auroc": 0.1} if epoch > 1 else {}
        run.log({"epoch": epoch, "step": 5 * epoch, "loss": 2 * 0.5**epoch} | later)
    run.close()
    run.rewind(2, 10)
    run.log({"epoch": 3, "step": 15, "loss": 9.0, "auroc": float("nan")})
    run.close()
    assert (tmp_path / "log.csv").read_text().splitlines() == [
        "epoch,step,loss,auroc",
        "1,5,1.0,",
        "2,10,0.5,0.1",
        "3,15,9.0,nan",
    ]
    assert scalars(run, "loss") == [(5, 1.0), (10, 0.5), (15, 9.0)]
    assert scalars(run, "auroc") == [(10, pytest.approx(0.1))]


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_new_folder_is_removed_if_the_run_does_not_begin(tmp_path: Path, error: type[Exception]) -> None:
    run = start_run(settings(tmp_path), "x")
    hold(run.folder / ".table.lock", run.folder, "wait")
    with pytest.raises(error), run.getting_ready():
        raise error("a wrong flag")
    assert list(tmp_path.iterdir()) == []
    with start_run(settings(tmp_path), "x").getting_ready():
        pass
    assert sorted(path.name for path in run.folder.glob("*.yaml")) == ["config.yaml", "environment.yaml"]


@pytest.mark.parametrize(
    "there",
    [
        {},
        {"notes.txt": b"mine"},
        {"config.yaml": b"a: 1", "last.ckpt": b"weights"},
        {"dirty.patch": b"+of Windows\r\n+latin-1: \xe9\n"},
    ],
)
def test_a_folder_is_left_as_it_was_if_the_run_does_not_begin(
    tmp_path: Path, there: dict[str, bytes]
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for name, content in there.items():
        (folder / name).write_bytes(content)
    run = Run(RunConfig(save_dir=tmp_path), "x", folder)
    run.note_what_was_there(is_new=False)
    for name in ("config.yaml", "environment.yaml"):
        (folder / name).write_text("of a command that is refused")
    with pytest.raises(ValueError, match="a wrong flag"), run.getting_ready():
        raise ValueError("a wrong flag")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == there


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    run = Run(RunConfig(), "x", tmp_path, Process(rank=1, world=2))
    run.log({"epoch": 1, "step": 1})
    run.rewind(0, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def default_precision() -> Iterator[None]:
    """Put back what set_precision changes."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "tf32"
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize(
    ("precision", "matrix", "convolution"), [("auto", "high", "tf32"), ("float32", "highest", "ieee")]
)
def test_a_recurrence_on_a_gpu_is_float32(
    default_precision: None, precision: str, matrix: str, convolution: str
) -> None:
    set_precision(RunConfig(precision=precision), torch.device("cuda"))
    assert torch.get_float32_matmul_precision() == matrix
    assert torch.backends.cudnn.conv.fp32_precision == convolution
    assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
    compiled = torch.compile(nn.Conv2d(1, 1, 1), backend="eager")  # reads the flags
    assert compiled(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("bf16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
    ],
)
def test_precision(precision: str, device: str, dtype: torch.dtype) -> None:
    run = Run(RunConfig(precision=precision), "x", Path("x"), Process(device=torch.device(device)))
    assert run.dtype is dtype
