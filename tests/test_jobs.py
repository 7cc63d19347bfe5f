"""What a cluster does to a job's script: a signal saves, and the job goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIMCLR = "tasks/phenotyping/train/simclr.sh"


def start(folder: Path, *words: str, status: int = 0) -> subprocess.Popen[bytes]:
    """A script of the project as a job, with a program that saves on SIGTERM and leaves with a status.

    What the program and scontrol were told is in the folder's log.
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
    places = {"RUNS": str(folder / "runs"), "RESULTS": str(folder / "results"), "SLURM_SUBMIT_DIR": str(ROOT)}
    return subprocess.Popen(
        ["bash", *words], cwd=ROOT, env={**os.environ, **job, **places}, preexec_fn=heeding_interrupts
    )


def heeding_interrupts() -> None:
    """Bash cannot trap a signal that it was started to ignore, as all in the background of a script is."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stopped(job: subprocess.Popen[bytes], folder: Path, number: signal.Signals = signal.SIGTERM) -> list[str]:
    """The log's lines after the job got a signal; its program has started before."""
    log = folder / "log"
    end = time.monotonic() + 60
    while not log.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    job.send_signal(number)
    job.wait(60)
    return log.read_text().splitlines()


@pytest.mark.parametrize("status", [0, 1], ids=["python", "torchrun, which leaves a signal with 1"])
def test_a_job_saves_and_returns_to_the_queue(tmp_path: Path, status: int) -> None:
    job = start(tmp_path, "tasks/requeue.sh", SIMCLR, "--seed", "1", status=status)
    started, *after = stopped(job, tmp_path)
    assert started.startswith("started simclr_trainer.py") and started.endswith("--seed 1 --resume")
    assert after == ["saved", "scontrol requeue 77"] and job.returncode == 0


def test_a_job_that_fails_does_not_return(tmp_path: Path) -> None:
    job = start(tmp_path, "tasks/requeue.sh", "tasks/no_such.sh")
    assert job.wait(60) == 127 and not (tmp_path / "log").exists()


@pytest.mark.parametrize("script", ["eval_epoch.sh", "tasks/run_all.sh"])
def test_what_goes_on_by_itself_gets_no_flag(tmp_path: Path, script: str) -> None:
    started, *after = stopped(start(tmp_path, "tasks/requeue.sh", script), tmp_path)
    assert not (script == "eval_epoch.sh" and "--resume" in started)
    assert after == ["saved", "scontrol requeue 77"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_table_that_is_stopped_starts_no_other_program(tmp_path: Path, number: signal.Signals) -> None:
    job = start(tmp_path, "tasks/run_all.sh")
    started, *after = stopped(job, tmp_path, number)
    assert started.startswith("started simclr_trainer.py") and after == ["saved"] and job.returncode == 143


@pytest.mark.parametrize("script", [SIMCLR, "tasks/phenotyping/train/finetune.sh", "eval_epoch.sh"])
def test_a_signal_to_a_script_is_one_to_its_program(tmp_path: Path, script: str) -> None:
    job = start(tmp_path, script)
    assert stopped(job, tmp_path)[1:] == ["saved"] and job.returncode == 0
