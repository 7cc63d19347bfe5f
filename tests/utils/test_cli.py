"""Commands end with one line and a status that tells what happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from dataclasses import dataclass
from utils.cli import run_cli

@dataclass(frozen=True)
class Config:
    '''Print a table.'''
    fault: str = ""

def main(config):
    if config.fault == "interrupt": raise KeyboardInterrupt
    if config.fault == "bug": raise KeyError("x")
    if config.fault == "mps": raise NotImplementedError("The operator 'x' is not implemented for MPS. More.")
    if config.fault == "signal": import os, signal; os.kill(os.getpid(), signal.SIGUSR1)
    if config.fault in ("import", "library"):
        import os, signal
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        except BaseException:
            raise {"import": ImportError, "library": OSError}[config.fault]("initialization failed")
    if config.fault: raise OSError(config.fault)
    for row in range(100_000): print(row)

run_cli(main, Config)
"""


def run(*words: str, reader: str = "cat") -> tuple[int, str, str]:
    """Return the status of a command whose output goes into a pipe, the output and the errors."""
    shell = f'{{ "$0" -c "$@"; echo status $? >&2; }} | {reader}'
    command = ["bash", "-c", shell, sys.executable, PROGRAM, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    errors, _, status = done.stderr.rpartition("status ")
    return int(status), done.stdout, errors


def test_another_system_is_told_in_one_line() -> None:
    windows = f"import sys; sys.modules['fcntl'] = None; sys.path.insert(0, '.')\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", windows, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: MedMod needs Linux or macOS; on Windows, use it in WSL\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_a_pipe_that_nobody_reads_ends_a_command_quietly(words: list[str]) -> None:
    assert run(*words, reader="head -c 0") == (141, "", "")
    status, printed, errors = run(*words, reader="head -n 1")
    assert status in (0, 141) and printed.count("\n") == 1 and errors == ""


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("disk is full", 1, "error: disk is full\n"),
        ("interrupt", 130, "interrupted; run the same command again to continue\n"),
        ("bug", 1, "Traceback"),
        ("mps", 1, "error: --device mps: The operator 'x' is not implemented for MPS; use --device cpu\n"),
        ("signal", 0, "stopped; continue with the same command, and --resume if it has one\n"),
        ("import", 0, "stopped; continue with the same command, and --resume if it has one\n"),
        ("library", 0, "stopped; continue with the same command, and --resume if it has one\n"),
    ],
)
def test_an_error_has_a_line_and_a_status_of_its_own(fault: str, status: int, error: str) -> None:
    left, printed, errors = run("--fault", fault)
    assert (left, printed) == (status, "") and errors.startswith(error)
