"""Every script of every task says what its place says, in flags that the program understands."""

import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from run_gpu import RunGPUConfig, check
from simclr_trainer import SimCLRConfig
from tasks import TASKS
from tasks.scripts import Script, scripts, write_missing
from utils.config import parse

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {task.folder: task for task in TASKS.values()}
SCRIPTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("tasks/*/*/*.sh"))
CONFIGS = {"run_gpu.py": RunGPUConfig, "simclr_trainer.py": SimCLRConfig}
PROTOCOLS = {"finetune": "finetune", "fteval": "finetune", "lineareval": "lineareval"}
MATRIX = {"train": ("finetune", "lineareval"), "eval": ("fteval", "lineareval")}
MODALITIES = {"": ("concatenation", "paired"), "ehr": ("ehr", "ehr"), "cxr": ("cxr", "cxr")}

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=str)
classifier_script = pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem != "simclr"], ids=str)


@cache
def words(script: Path, *flags: str, **environment: str) -> list[str]:
    """What a script runs, word by word."""
    clean = {name: value for name, value in os.environ.items() if name not in ("STORE", "CHECKPOINT")}
    done = subprocess.run(
        ["bash", str(ROOT / script), *flags],
        env={**clean, "LAUNCH": "printf %s\\n", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@cache
def parsed(script: Path, *flags: str, **environment: str) -> RunGPUConfig | SimCLRConfig:
    """The settings that a script asks for."""
    program, *rest = words(script, *flags, **environment)
    return parse(CONFIGS[program], rest)


def schedule(config: RunGPUConfig) -> tuple[str, float, int, int]:
    return config.optim.optimizer, config.optim.lr, config.optim.epochs, config.data.batch_size


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_matrix_is_complete(folder: str) -> None:
    wanted = {
        f"{mode}/{name}{end}.sh"
        for mode, names in MATRIX.items()
        for name in names
        for end in ("", "_ehr", "_cxr")
    }
    there = {
        str(path.relative_to(ROOT / "tasks" / folder)) for path in (ROOT / "tasks" / folder).rglob("*.sh")
    }
    assert wanted | {"train/simclr.sh"} <= there


@every_script
def test_a_script_is_bash_and_can_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    assert os.access(ROOT / script, os.X_OK) and script.parts[1] in FOLDERS
    text = (ROOT / script).read_text()
    assert "set -euo pipefail" in text and text.rstrip().endswith('"$@"')


@classifier_script
def test_a_place_names_task_mode_protocol_and_modality(script: Path) -> None:
    config = parsed(script)
    protocol, _, modality = script.stem.partition("_")
    check(config)
    assert config.task == FOLDERS[script.parts[1]].name
    assert config.mode == script.parts[2]
    assert config.protocol == PROTOCOLS[protocol]
    assert (config.fusion, config.data.data_pairs) == MODALITIES[modality]


@pytest.mark.parametrize("folder", FOLDERS)
def test_pretraining_is_on_the_pairs_of_the_task(folder: str) -> None:
    config = parsed(Path("tasks", folder, "train/simclr.sh"))
    assert config.task == FOLDERS[folder].name and config.data.data_pairs == "paired"


@classifier_script
def test_a_script_reads_what_the_one_before_it_leaves(script: Path) -> None:
    """train/ the encoders of simclr.sh, eval/ the best epoch of its twin in train/."""
    task, training = ROOT / "tasks" / script.parts[1], script.parts[2] == "train"
    before = "simclr" if training else script.stem.replace("fteval", "finetune")
    left = parsed(task / "train" / f"{before}.sh").run
    config = parsed(script)
    assert Path(config.load_state) == left.save_dir / left.name / ("last.ckpt" if training else "best.ckpt")
    assert config.run.name != left.name


def test_launch_echo_shows_the_command() -> None:
    script = Path("tasks/phenotyping/eval/fteval_ehr.sh")
    shown = subprocess.check_output(
        ["bash", str(ROOT / script)], env={**os.environ, "LAUNCH": "echo"}, text=True
    )
    assert shown.split() == words(script)


def test_no_two_scripts_share_a_run() -> None:
    names = [parsed(script).run.name for script in SCRIPTS]
    assert len(set(names)) == len(names)


@every_script
def test_the_environment_gives_the_store(script: Path) -> None:
    assert parsed(script, STORE="/my data/store").data.store == Path("/my data/store")


@classifier_script
def test_the_environment_gives_the_checkpoint(script: Path) -> None:
    assert parsed(script, CHECKPOINT="/my runs/a.ckpt").load_state == "/my runs/a.ckpt"


@every_script
def test_the_line_wins(script: Path) -> None:
    config = parsed(script, "--seed", "7", "--batch_size", "12", "--name", "mine", "--store", "there")
    assert (config.run.seed, config.data.batch_size, config.run.name) == (7, 12, "mine")
    assert config.data.store == Path("there")


@every_script
def test_a_misspelt_flag_fails_and_names_the_right_one(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parsed(script, "--batch_sise", "12")
    assert left.value.code == 2
    assert "--batch_size" in capsys.readouterr().err


def test_the_program_itself_refuses_a_misspelt_flag(tmp_path: Path) -> None:
    script = ROOT / "tasks/phenotyping/train/lineareval.sh"
    done = subprocess.run(
        ["bash", str(script), "--epoch", "3"],
        env={**os.environ, "LAUNCH": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "unknown flag --epoch; the nearest right one is --epochs" in done.stderr


@every_script
def test_a_job_starts_where_it_was_submitted(script: Path, tmp_path: Path) -> None:
    """sbatch runs a copy of the script in a folder of its own."""
    copy = tmp_path / "spool/a/job/slurm_script"
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / script, copy)
    done = subprocess.run(
        ["bash", str(copy)],
        env={**os.environ, "LAUNCH": "bash -c pwd", "SLURM_SUBMIT_DIR": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(ROOT)
    directives = [
        line for line in (ROOT / script).read_text().split("set -e")[0].splitlines() if "#SBATCH" in line
    ]
    assert any("--gres=gpu" in line for line in directives)


def test_values_are_the_published_ones() -> None:
    published = {"radiology": {"lineareval": ("adamw", 0.01, 300, 256)}}
    published["decompensation"] = dict.fromkeys(("finetune", "lineareval"), ("adamw", 0.01, 400, 256))
    for task in TASKS.values():
        for place, script in scripts(task).items():
            if place.parts[0] == "train" and place.stem != "simclr":
                config = generated(script)
                expected = published.get(task.name, {}).get(config.protocol, ("adamw", 1e-3, 300, 256))
                assert schedule(config) == expected, (task.name, place)
                optim = config.optim
                assert (optim.weight_decay, optim.schedule, optim.milestones) == (0.01, "step", (0.6, 0.8))
                assert (optim.gamma, optim.patience, optim.min_delta) == (0.1, 30, 1e-3)


def test_pretraining_has_the_published_values() -> None:
    config = generated(scripts(TASKS["phenotyping"])[Path("train/simclr.sh")])
    assert config.optim == SimCLRConfig().optim
    assert (config.temperature, config.width, config.denominator) == (0.1, 1, "decoupled")
    assert (config.data.batch_size, config.data.image_size, config.data.transforms_cxr) == (
        256,
        224,
        "simclrv2",
    )


def generated(script: Script) -> RunGPUConfig | SimCLRConfig:
    """The settings of a script as it is made, whatever became of the file."""
    flags = " ".join(script.flags).replace("${STORE:-", "").replace("${CHECKPOINT:-", "").replace('}"', '"')
    return parse(CONFIGS[script.program], shlex.split(flags))


def test_missing_scripts_are_written_and_others_left_alone(tmp_path: Path) -> None:
    task = TASKS["readmission"]
    first = write_missing(task, tmp_path)
    assert len(first) == 13 and all(os.access(path, os.X_OK) for path in first)
    assert all(len(line) <= 110 for path in first for line in path.read_text().splitlines())
    mine, gone = first[:2]
    mine.write_text("# mine\n")
    gone.unlink()
    assert write_missing(task, tmp_path) == [gone]
    assert mine.read_text() == "# mine\n"
