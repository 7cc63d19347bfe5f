"""The table of a task is made from nothing, in the right order; what is in the results is not run again."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from evaluation import results
from models.fusion import FUSIONS
from tasks import TASKS
from tests.tools.test_write_scripts import Config, settings
from tools.run_table import TableConfig, TableMaker, best_checkpoint, program_of
from tools.runner import Runner
from training.epoch_table import epoch_columns
from training.select_epoch import EpochSelectionConfig
from utils.config import parse

ROOT = Path(__file__).resolve().parents[2]
PRETRAININGS = ("simclr", "vicreg", "align")


class Recorder(Runner):
    """A runner that notes the runs instead of starting them; None stands for a wait."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, list[str]] | None] = []

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        assert command[0] == "bash"
        self.runs.append((name, program_of(command[1:], environment or {})))

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.run(name, command, environment)

    def finish(self) -> None:
        self.runs.append(None)


def runs_of(folder: Path, *flags: str, **environment: str) -> list[tuple[str, list[str]] | None]:
    """Return what a table with its runs and results in a folder starts, by name, in order."""
    places = {"RUNS": f"{folder}/runs", "RESULTS": f"{folder}/results", "LAUNCH": "python"}
    config = TableConfig.from_environment({**places, **environment}, flags)
    recorder = Recorder()
    TableMaker(config, recorder).make()
    return recorder.runs


def configs(runs: Sequence[tuple[str, list[str]] | None], *programs: str) -> dict[str, Config]:
    """Return the settings of the runs of some programs."""
    return {run[0]: settings(run[1]) for run in runs if run and run[1][0] in programs}


@pytest.mark.parametrize("quick", ["", "1"])
def test_the_whole_table_of_all_tasks_is_made(tmp_path: Path, quick: str) -> None:
    names = ("in-hospital-mortality", "readmission")
    runs = runs_of(tmp_path, "--seed", "5", TASK=" ".join(names), QUICK=quick)
    classifiers = configs(runs, "run_gpu.py")
    wanted = {f"{p}-concatenation-{o}" for p in ("lineareval", "finetune") for o in PRETRAININGS}
    wanted |= {f"supervised-{fusion}" for fusion in FUSIONS}
    assert set(classifiers) == {f"{task}-{name}" for task in names for name in wanted}
    for name, config in classifiers.items():
        assert config.run.name == name
        assert (config.run.seed, config.run.resume, config.mode) == (5, True, "train")
        assert config.run.save_dir == tmp_path / "runs" and config.results_dir == tmp_path / "results"
        assert (config.data.image_size == 32) == bool(quick)
        assert (config.data.every_hours == 24) == bool(quick)
    for name, config in configs(runs, *(f"{objective}_trainer.py" for objective in PRETRAININGS)).items():
        assert config.run.name == name and config.run.seed == 5 and (config.optim.epochs < 300) == bool(quick)
        classifier = classifiers[f"{config.task}-finetune-concatenation-{name.split('-')[0]}"]
        checkpoint = config.run.save_dir / name / "last.ckpt"
        assert (classifier.protocol, Path(classifier.load_state)) == ("finetune", checkpoint)
    early, ehr = (classifiers[f"readmission-supervised-{fusion}"] for fusion in ("early", "ehr"))
    assert Path(early.load_state_ehr) == ehr.run.save_dir / ehr.run.name / "best.ckpt"


def test_a_run_starts_after_the_runs_that_it_needs(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, OBJECTIVES="simclr", JOBS="2")
    stages = [
        [run[0] for run in stage if run]
        for waits, stage in itertools.groupby(runs, lambda r: r is None)
        if not waits
    ]
    supervised = [f"phenotyping-supervised-{fusion}" for fusion in FUSIONS]
    assert stages == [
        ["simclr-phenotyping"],
        ["simclr-phenotyping-epochs"],
        [f"phenotyping-{p}-concatenation-simclr" for p in ("lineareval", "finetune")] + supervised[:2],
        supervised[2:],
    ]
    assert supervised[0].endswith("ehr") and supervised[1].endswith("cxr") and runs[-1] is None


def test_encoders_are_shared_and_objectives_and_fusions_chosen(tmp_path: Path) -> None:
    tasks, objectives = ("phenotyping", "radiology"), ("align", "clip", "tsimclr")
    chosen = {"TASK": " ".join(tasks), "OBJECTIVES": " ".join(objectives), "PAIRS": "readmission"}
    runs = runs_of(tmp_path, **chosen, FUSIONS_OF="radiology")
    pretrainings = configs(runs, "simclr_trainer.py", "align_trainer.py")
    assert list(pretrainings) == [f"{name}-readmission" for name in objectives]
    assert [config.run.name for config in pretrainings.values()] == list(pretrainings)
    assert {config.task for config in pretrainings.values()} == {"readmission"}
    assert [config.objective for config in list(pretrainings.values())[1:]] == ["clip", "tsimclr"]
    assert [config.optim.optimizer for config in pretrainings.values()] == ["adamw", "adamw", "lars"]
    probes = [run[1][1:] for run in runs if run and run[1][0] == "epoch_evaluation.py"]
    assert [parse(EpochSelectionConfig, flags).task for flags in probes] == [",".join(tasks)] * 3
    classifiers = configs(runs, "run_gpu.py")
    for task, objective in itertools.product(tasks, objectives):
        state = classifiers[f"{task}-lineareval-concatenation-{objective}"].load_state
        assert state == f"{tmp_path}/runs/{objective}-readmission/last.ckpt"
    assert {config.task for config in classifiers.values() if config.protocol == "supervised"} == {
        "radiology"
    }


def test_what_is_in_the_results_is_not_run_again(tmp_path: Path) -> None:
    everything = configs(runs_of(tmp_path), "run_gpu.py")
    tested = [
        "phenotyping-supervised-mmtm",
        *(f"phenotyping-{p}-concatenation-vicreg" for p in ("lineareval", "finetune")),
    ]
    row = {"task": "phenotyping", "metric": "auroc", "value": 0.7}
    rows = [row | {"run": name, "split": "test"} for name in tested]
    results.append(tmp_path / "results/phenotyping.csv", rows)
    results.append(
        tmp_path / "results/phenotyping.csv", [row | {"run": "phenotyping-supervised-daft", "split": "val"}]
    )
    runs = runs_of(tmp_path)
    assert set(everything) - set(configs(runs, "run_gpu.py")) == set(tested)
    programs = [run[1][0] for run in runs if run]
    assert "vicreg_trainer.py" not in programs and "align_trainer.py" in programs


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.6, 0.9, 0.8), "01"), ((0.7, 0.7, 0.1), "00"), (("", "", -0.1), "02"), (("", "", ""), None)],
)
def test_the_best_epoch_by_validation_is_taken(
    tmp_path: Path, scores: tuple[object, ...], best: str | None
) -> None:
    task = TASKS["length-of-stay"]
    rows = [{"epoch": epoch, "train_kappa": 0.99, "val_kappa": score} for epoch, score in enumerate(scores)]
    results.append_rows(tmp_path / "results_label_length-of-stay.csv", epoch_columns(task), rows, "")
    for number in range(12):
        (tmp_path / f"simclr-length-of-stay_epoch_{number:02d}.ckpt").touch()
    name = f"simclr-length-of-stay_epoch_{best}.ckpt" if best else "last.ckpt"
    assert best_checkpoint(tmp_path, task) == tmp_path / name
    assert best_checkpoint(tmp_path / "none", task) == tmp_path / "none/last.ckpt"


def start(folder: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script itself, from another folder."""
    clean = {name: value for name, value in os.environ.items() if name not in ("TASK", "QUICK", "STORE")}
    places = {"RUNS": f"{folder}/runs", "RESULTS": f"{folder}/results", "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "tasks/run_all.sh"), *flags]
    return subprocess.run(
        command, env={**clean, **places, **environment}, cwd="/", capture_output=True, text=True
    )


def test_the_script_shows_its_commands(tmp_path: Path) -> None:
    shown = start(tmp_path, "--seed", "3", LAUNCH="echo")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    commands = [line.split() for line in lines if line.partition(" ")[0].endswith(".py")]
    assert commands == [run[1] for run in runs_of(tmp_path, "--seed", "3") if run]
    assert lines[1] == "== simclr-phenotyping" and lines[2].startswith("simclr_trainer.py")


def test_several_jobs_write_logs_and_stop_at_a_failure(tmp_path: Path) -> None:
    shown = start(tmp_path, LAUNCH="echo", JOBS="3", OBJECTIVES="simclr")
    wanted = [run for run in runs_of(tmp_path, OBJECTIVES="simclr") if run]
    assert shown.returncode == 0
    for name, words in wanted:
        assert (tmp_path / f"runs/{name}.log").read_text().split() == words
    failed = start(tmp_path, LAUNCH="false", JOBS="3", OBJECTIVES="simclr")
    assert failed.returncode == 1 and "error: simclr-phenotyping failed" in failed.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TASK": "phenotyping mortality"}, "TASK: unknown name 'mortality'; choose from phenotyping, "),
        ({"PAIRS": "all"}, "TASK: unknown name 'all'"),
        ({"OBJECTIVES": "simclr byol"}, "OBJECTIVES: unknown name 'byol'; choose from simclr, "),
        ({"JOBS": "two"}, "invalid literal"),
    ],
)
def test_unknown_names_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableConfig.from_environment(environment)
