"""What a cluster does to a job: on a signal the program saves, and the job continues later."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIMCLR = "tasks/phenotyping/train/simclr.sh"


def start(folder: Path, *words: str, status: int = 0) -> subprocess.Popen[bytes]:
    """Start a script as a job, with a program that saves on SIGTERM and exits with a status.

    The calls of the program and of scontrol are in the folder's log.
    """
    log, program, scontrol = folder / "log", folder / "program", folder / "scontrol"
    program.write_text(
        f"trap 'echo saved >> \"{log}\"; exit {status}' TERM\n"
        f'echo "started $*" >> "{log}"\n'
        "for _ in $(seq 600); do sleep 0.05; done\n"
    )
    scontrol.write_text(f'#!/usr/bin/env bash\necho "scontrol $*" >> "{log}"\n')
    scontrol.chmod(0o755)
    job = {"PATH": f"{folder}:{os.environ['PATH']}", "LAUNCH": f"bash {program}", "SLURM_JOB_ID": "77"}
    folders = {"RUNS": f"{folder}/runs", "RESULTS": f"{folder}/results", "SLURM_SUBMIT_DIR": str(ROOT)}
    environment = {**os.environ, **job, **folders, "PYTHON": sys.executable}
    return subprocess.Popen(["bash", *words], cwd=ROOT, env=environment)


def stop(job: subprocess.Popen[bytes], folder: Path, number: signal.Signals = signal.SIGTERM) -> list[str]:
    """Send a signal to the job when its program has started; return the lines of the log."""
    log = folder / "log"
    end = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    job.send_signal(number)
    job.wait(60)
    return log.read_text().splitlines()


@pytest.mark.parametrize(
    ("status", "number"),
    [(0, signal.SIGTERM), (0, signal.SIGUSR1), (1, signal.SIGTERM)],
    ids=["SIGTERM", "SIGUSR1", "torchrun, which exits with 1 after a signal"],
)
def test_a_job_saves_and_returns_to_the_queue(tmp_path: Path, status: int, number: signal.Signals) -> None:
    job = start(tmp_path, "tasks/requeue.sh", SIMCLR, "--seed", "1", status=status)
    started, *after = stop(job, tmp_path, number)
    assert started.startswith("started simclr_trainer.py") and started.endswith("--seed 1 --resume")
    assert after == ["saved", "scontrol requeue 77"] and job.returncode == 0


def test_a_job_that_fails_does_not_return(tmp_path: Path) -> None:
    job = start(tmp_path, "tasks/requeue.sh", "tasks/no_such.sh")
    assert job.wait(60) == 127 and not (tmp_path / "log").exists()


@pytest.mark.parametrize("script", ["eval_epoch.sh", "tasks/run_all.sh"])
def test_a_script_that_continues_by_itself_gets_no_flag(tmp_path: Path, script: str) -> None:
    started, *after = stop(start(tmp_path, "tasks/requeue.sh", script), tmp_path)
    assert not (script == "eval_epoch.sh" and "--resume" in started)
    assert after == ["saved", "scontrol requeue 77"]


@pytest.mark.parametrize("script", [SIMCLR, "tasks/phenotyping/train/finetune.sh", "eval_epoch.sh"])
def test_a_signal_to_a_script_is_one_to_its_program(tmp_path: Path, script: str) -> None:
    job = start(tmp_path, script)
    assert stop(job, tmp_path)[1:] == ["saved"] and job.returncode == 0


@pytest.mark.parametrize(
    "launch", ["torchrun", ".venv/bin/torchrun", "srun -n 2 torchrun", "python -m torch.distributed.run"]
)
def test_torchrun_is_told_to_pass_on_every_signal_to_stop(launch: str) -> None:
    environment = os.environ | {"LAUNCH": f"echo {launch} --nproc-per-node 2"}
    command = subprocess.run(["bash", SIMCLR], cwd=ROOT, env=environment, capture_output=True, text=True)
    handled = "--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"
    assert command.stdout.startswith(f"{launch} {handled} --nproc-per-node 2 simclr_trainer.py --store ")


NOT_IN_BASH_3_2 = {  # of macOS
    "an associative array": r"\b(declare|local|typeset) -[a-zA-Z]*[Ang]",
    "mapfile": r"\b(mapfile|readarray|coproc)\b",
    "wait -n": r"\bwait -[np]",
    "a change of case": r"\$\{[^}]*(\^|,)",
    "an expansion @Q": r"\$\{[^}]*@[A-Za-z]\}",
    "a negative index": r"\$\{\w+\[-|\$\{[^}]*: ?-?\d+: ?-",
    "&>> or |&": r"&>>|\|&",
    "a case that falls through": r";;?&",
    "a new variable": r"\b(EPOCHREALTIME|EPOCHSECONDS|BASHPID|SRANDOM)\b",
    "a new option": r"\b(globstar|lastpipe|inherit_errexit)\b|read -[a-zA-Z]*[Ni]",
    "printf of a time": r"%\([^)]*\)T",
    "a command that macOS lacks": r"\b(nproc|flock|setsid|timeout|taskset|realpath|readlink -f|tac|free)\b",
    "an option that macOS lacks": r"\b(sed -i|date -d|stat -c|grep -[a-zA-Z]*P|xargs -r|cp -[a-zA-Z]*t)\b",
}


def lacks(line: str) -> list[str]:
    return [what for what, pattern in NOT_IN_BASH_3_2.items() if re.search(pattern, line)]


def test_the_scripts_run_in_the_bash_of_macos() -> None:
    scripts = [*ROOT.glob("*.sh"), *(ROOT / "tasks").rglob("*.sh")]
    lines = {line for path in scripts for line in path.read_text().splitlines() if not line.startswith("#")}
    assert len(scripts) > 100 and not [(what, line) for line in lines for what in lacks(line)]


NEW = ["declare -A runs", "wait -n", "echo ${name^^}", "mapfile -t x", "$(nproc)", "x |& tee y", "${a[-1]}"]


@pytest.mark.parametrize("line", NEW)
def test_what_the_bash_of_macos_lacks_is_found(line: str) -> None:
    assert lacks(line)
