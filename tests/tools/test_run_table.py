"""The table of a task is made from nothing, in the right order; what is in the results is not run again."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from datasets.store import Store
from evaluation import results
from models.fusion import FUSIONS
from tasks import TASKS
from tests.random_store import write_random_store
from tests.tools.test_write_scripts import Config, settings
from tools.run_table import TableConfig, TableMaker, best_checkpoint, main, program_of
from tools.runner import Runner
from tools.write_scripts import FLOORS
from training.baselines import BaselineConfig
from training.epoch_table import epoch_columns
from utils.config import parse

ROOT = Path(__file__).resolve().parents[2]
PRETRAININGS = ("simclr", "vicreg", "align")


class Run(NamedTuple):
    """A run that a table would start: its name, its script with flags, and the environment."""

    name: str
    script: list[str]
    environment: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """The program that the script starts, with its flags."""
        return program_of(self.script, self.environment)


class Recorder(Runner):
    """A runner that notes the runs instead of starting them; None stands for a wait."""

    def __init__(self) -> None:
        self.runs: list[Run | None] = []

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        assert command[0] == "bash"
        self.runs.append(Run(name, list(command[1:]), environment or {}))

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.run(name, command, environment)

    def finish(self) -> None:
        self.runs.append(None)


def recorded(folder: Path, *flags: str, **environment: str) -> list[Run | None]:
    """Return what a table with its runs and results in a folder starts, and its waits, in order."""
    places = {"RUNS": f"{folder}/runs", "RESULTS": f"{folder}/results", "LAUNCH": "python"}
    config = TableConfig.from_environment({**places, **environment}, flags)
    recorder = Recorder()
    TableMaker(config, recorder).make()
    return recorder.runs


def runs_of(folder: Path, *flags: str, **environment: str) -> list[Run]:
    """Return what a table with its runs and results in a folder starts, in order."""
    return [run for run in recorded(folder, *flags, **environment) if run]


def configs(runs: Iterable[Run], *programs: str) -> dict[str, Config]:
    """Return the settings of the runs of some programs, by name."""
    words = {run.name: run.words for run in runs}
    return {name: settings(command) for name, command in words.items() if command[0] in programs}


@pytest.mark.parametrize("quick", ["", "1"])
def test_the_whole_table_of_all_tasks_is_made(tmp_path: Path, quick: str) -> None:
    names = ("in-hospital-mortality", "readmission")
    runs = runs_of(tmp_path, "--seed", "5", TASK=" ".join(names), QUICK=quick)
    classifiers = configs(runs, "run_gpu.py")
    wanted = {f"{p}-concatenation-{o}" for p in ("lineareval", "finetune") for o in PRETRAININGS}
    wanted |= {f"supervised-{fusion}" for fusion in FUSIONS}
    assert set(classifiers) == {f"{task}-{name}-seed5" for task in names for name in wanted}
    for name, config in classifiers.items():
        assert config.run.name == name
        assert (config.run.seed, config.run.resume, config.mode) == (5, True, "train")
        assert config.run.save_dir == tmp_path / "runs" and config.results_dir == tmp_path / "results"
        assert (config.data.image_size == 32) == bool(quick)
        assert (config.data.every_hours == 24) == bool(quick)
    for name, config in configs(runs, *(f"{objective}_trainer.py" for objective in PRETRAININGS)).items():
        assert config.run.name == name and config.run.seed == 5 and (config.optim.epochs < 300) == bool(quick)
        assert (config.selection.tasks, config.selection.keep) == ((config.task,), "best")
        assert config.selection.probe_epochs == (30 if quick else 100)
        classifier = classifiers[f"{config.task}-finetune-concatenation-{name.split('-')[0]}-seed5"]
        checkpoint = config.run.save_dir / name / "last.ckpt"
        assert (classifier.protocol, Path(classifier.load_state)) == ("finetune", checkpoint)
    early, ehr = (classifiers[f"readmission-supervised-{fusion}-seed5"] for fusion in ("early", "ehr"))
    assert Path(early.load_state_ehr) == ehr.run.save_dir / ehr.run.name / "best.ckpt"


def test_a_run_starts_after_the_runs_that_it_needs(tmp_path: Path) -> None:
    runs = recorded(tmp_path, OBJECTIVES="simclr", JOBS="2")
    waits = [index for index, run in enumerate(runs) if run is None]
    stages = [[run.name for run in runs[a + 1 : b] if run] for a, b in itertools.pairwise([-1, *waits])]
    supervised = [f"phenotyping-supervised-{fusion}-seed0" for fusion in FUSIONS]
    assert stages == [
        ["simclr-phenotyping-seed0"],
        [f"phenotyping-{p}-concatenation-simclr-seed0" for p in ("lineareval", "finetune")] + supervised[:2],
        supervised[2:],
    ]
    assert list(FUSIONS)[:2] == ["ehr", "cxr"] and runs[-1] is None


def test_encoders_are_shared_and_objectives_and_fusions_chosen(tmp_path: Path) -> None:
    tasks, objectives = ("phenotyping", "radiology"), ("align", "clip", "tsimclr")
    chosen = {"TASK": " ".join(tasks), "OBJECTIVES": " ".join(objectives), "PAIRS": "readmission"}
    runs = runs_of(tmp_path, **chosen, FUSIONS_OF="radiology")
    pretrainings = configs(runs[:3], "simclr_trainer.py", "align_trainer.py")
    assert list(pretrainings) == [f"{name}-readmission-seed0" for name in objectives]
    assert [config.run.name for config in pretrainings.values()] == list(pretrainings)
    assert {config.task for config in pretrainings.values()} == {"readmission"}
    assert [config.objective for config in list(pretrainings.values())[1:]] == ["clip", "tsimclr"]
    assert [config.optim.optimizer for config in pretrainings.values()] == ["adamw", "adamw", "lars"]
    assert {config.selection.tasks for config in pretrainings.values()} == {tasks}
    checkpoints = {run.name: run.environment["CHECKPOINT"] for run in runs[3:15]}
    for task, objective in itertools.product(tasks, objectives):
        checkpoint = checkpoints[f"{task}-lineareval-concatenation-{objective}-seed0"]
        assert checkpoint == f"{tmp_path}/runs/{objective}-readmission-seed0/last.ckpt"
    assert [run.name for run in runs[15:]] == [f"radiology-supervised-{fusion}-seed0" for fusion in FUSIONS]


def test_another_record_encoder_has_names_of_its_own_and_the_fusions_that_can_take_it(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, OBJECTIVES="simclr", ENCODER="strats")
    names = {run.name for run in runs}
    lacking = {"healnet", "umse", "utde", "cxr"}
    supervised = {f"phenotyping-supervised-{f}-strats-seed0" for f in {*FUSIONS} - lacking - {"mmtm", "daft"}}
    shared = {f"phenotyping-supervised-{f}-seed0" for f in lacking}
    linear = {f"phenotyping-{p}-concatenation-simclr-strats-seed0" for p in ("lineareval", "finetune")}
    assert names == {"simclr-phenotyping-strats-seed0", *linear, *supervised, *shared}
    with pytest.raises(ValueError, match="ENCODER: unknown name 'gru'; choose from lstm, gru_d"):
        runs_of(tmp_path, ENCODER="gru")


def test_the_floors_are_fitted_if_asked_for(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, "--lr", "0.1", OBJECTIVES="simclr", FLOORS="1", QUICK="1", SEED="3")
    found = {run.name: run.words for run in runs if "baseline" in run.name}
    assert list(found) == [f"phenotyping-baseline-{model}-seed3" for model in FLOORS]
    for (name, words), model in zip(found.items(), FLOORS, strict=True):
        config = parse(BaselineConfig, words[2:])
        assert words[:2] == ["-m", "training.baselines"] and (config.name, config.seed) == (name, 3)
        assert (config.model, config.every_hours, config.results_dir) == (model, 24, tmp_path / "results")
    with pytest.raises(ValueError, match="the floors have no --fold"):
        runs_of(tmp_path, "--fold", "1/5", OBJECTIVES="simclr", FLOORS="1")


def test_what_is_in_the_results_is_not_run_again(tmp_path: Path) -> None:
    everything = {run.name for run in runs_of(tmp_path)}
    tested = {
        "phenotyping-supervised-mmtm-seed0",
        *(f"phenotyping-{p}-concatenation-vicreg-seed0" for p in ("lineareval", "finetune")),
    }
    row = {"task": "phenotyping", "metric": "auroc", "value": 0.7}
    rows = [row | {"run": name, "split": "test"} for name in tested]
    rows.append(row | {"run": "phenotyping-supervised-daft-seed0", "split": "val"})
    results.append(tmp_path / "results/phenotyping.csv", rows)
    assert everything - {run.name for run in runs_of(tmp_path)} == tested | {"vicreg-phenotyping-seed0"}


def test_results_of_another_store_are_not_taken_for_its_own(tmp_path: Path) -> None:
    store = write_random_store(tmp_path / "store")
    own = Store.open(store).fingerprint_of("phenotyping")[: results.HASH_DIGITS]
    maker = TableMaker(TableConfig(results=tmp_path / "results", store=store), Recorder())
    row = {"task": "phenotyping", "metric": "auroc", "value": 0.7, "split": "test"}
    for name, hash_ in (("mine", own), ("older", ""), ("other", "5a5a5a5a5a5a")):
        results.append(tmp_path / "results/phenotyping.csv", [row | {"run": name, "store": hash_}])
    assert maker.is_tested("phenotyping", "mine") and maker.is_tested("phenotyping", "older")
    assert not maker.is_tested("phenotyping", "none")
    with pytest.raises(ValueError, match=r"has other of another store than .*store; give each store its own"):
        maker.is_tested("phenotyping", "other")


@pytest.mark.parametrize(
    ("scores", "best"),
    [((0.6, 0.9, 0.8), "02"), ((0.7, 0.7, 0.1), "01"), (("", "", -0.1), "03"), (("", "", ""), None)],
)
def test_the_best_epoch_by_validation_is_taken(
    tmp_path: Path, scores: tuple[object, ...], best: str | None
) -> None:
    task = TASKS["length-of-stay"]
    rows = [
        {"epoch": epoch, "train_kappa": 0.99, "val_kappa": score} for epoch, score in enumerate(scores, 1)
    ]
    results.append_rows(tmp_path / "results_label_length-of-stay.csv", epoch_columns(task), rows, "")
    for number in range(12):
        (tmp_path / f"simclr-length-of-stay_epoch_{number:02d}.ckpt").touch()
    name = f"simclr-length-of-stay_epoch_{best}.ckpt" if best else "last.ckpt"
    assert best_checkpoint(tmp_path, task) == tmp_path / name
    assert best_checkpoint(tmp_path / "none", task) == tmp_path / "none/last.ckpt"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for runs and results, named by the environment."""
    monkeypatch.setattr(sys, "argv", ["run_table", "--seed", "3"])
    for name in ("TASK", "QUICK", "STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OBJECTIVES", "simclr")
    monkeypatch.setenv("RUNS", f"{tmp_path}/runs")
    monkeypatch.setenv("RESULTS", f"{tmp_path}/results")
    return tmp_path


def test_the_script_prints_its_commands_from_any_folder(table: Path) -> None:
    command = ["bash", str(ROOT / "tasks/run_all.sh"), "--seed", "3"]
    environment = {**os.environ, "LAUNCH": "echo", "PYTHON": sys.executable}
    printed = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    assert (printed.returncode, printed.stderr) == (0, "")
    lines = printed.stdout.splitlines()
    commands = [line.split() for line in lines if line.partition(" ")[0].endswith(".py")]
    assert commands == [run.words for run in runs_of(table, "--seed", "3", OBJECTIVES="simclr")]
    assert lines[1] == "== simclr-phenotyping-seed3" and lines[2].startswith("simclr_trainer.py")


def test_several_jobs_write_logs(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS", "3")
    monkeypatch.setenv("LAUNCH", "echo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main() == 0
    logs = {path.stem: path.read_text() for path in (table / "runs").glob("*.log")}
    assert set(logs) == {run.name for run in runs_of(table, "--seed", "3", OBJECTIVES="simclr")}
    for name, text in logs.items():
        assert text.startswith(("simclr", "run_gpu.py ")) and f" --name {name} " in text


def test_nothing_is_started_after_a_failure(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBS", "3")
    monkeypatch.setenv("LAUNCH", "false")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main() == 1
    assert capsys.readouterr().err == "error: simclr-phenotyping-seed3 failed with exit status 1\n"
    assert [path.name for path in (table / "runs").iterdir()] == ["simclr-phenotyping-seed3.log"]


def test_nothing_is_started_after_ctrl_c(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, log = table / "program", table / "log"
    program.write_text(
        f"trap 'echo saved >> \"{log}\"; exit 0' TERM\n"
        f'echo "$1" >> "{log}"\n'
        f"kill -INT {os.getpid()}\n"
        "for _ in $(seq 600); do sleep 0.05; done\n"
    )
    monkeypatch.setenv("LAUNCH", f"bash {program}")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 143
    assert log.read_text().splitlines() == ["simclr_trainer.py", "saved"]


def test_scores_are_printed_at_the_end(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAUNCH", "true")
    monkeypatch.setenv("FUSIONS_OF", "")
    names = [f"phenotyping-{protocol}-concatenation-simclr-seed3" for protocol in ("lineareval", "finetune")]
    row = {"task": "phenotyping", "protocol": "p", "fusion": "f", "objective": "o", "split": "test", "n": 9}
    scores = {"label": "macro", "metric": "auroc", "value": 0.75, "started": "2026-01-01"}
    results.append(table / "results/phenotyping.csv", [row | scores | {"run": name} for name in names])
    results.append(table / "results/radiology.csv", [row | scores | {"task": "radiology", "run": "other"}])
    assert main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"\n== {names[0]} is in {table}/results/phenotyping.csv\n")
    assert "\nTest scores\n" in printed and printed.count("0.750") == 2
    assert "radiology" not in printed.partition("Test scores")[2]


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


def test_few_labels_are_trained_from_the_last_epoch_and_drawn(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, OBJECTIVES="simclr", LABELS="0.1 1", FUSIONS_OF="")
    classifiers = configs(runs, "run_gpu.py")
    fractions = {name: config.label_fraction for name, config in classifiers.items()}
    protocols = ("lineareval", "finetune")
    expected = {f"phenotyping-{p}-concatenation-simclr-seed0": 1.0 for p in protocols}
    for label, value in (("labels0.1", 0.1), ("labels1", 1.0)):
        expected |= {f"phenotyping-{p}-concatenation-simclr-{label}-seed0": value for p in protocols}
    expected["phenotyping-supervised-concatenation-labels0.1-seed0"] = 0.1
    expected["phenotyping-supervised-concatenation-seed0"] = 1.0
    assert fractions == expected
    last = f"{tmp_path}/runs/simclr-phenotyping-seed0/last.ckpt"
    assert {c.load_state for name, c in classifiers.items() if "labels" in name} == {last, ""}
    with pytest.raises(ValueError, match="LABELS must be fractions above 0, up to 1, not"):
        runs_of(tmp_path, LABELS="0.1 all")
