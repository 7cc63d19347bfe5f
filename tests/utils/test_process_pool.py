"""Processes of a pool end with the one that started them, and one that is killed gives one clear error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.processes import process_pool

ROOT = Path(__file__).resolve().parents[2]
WAITS = """\
import os, sys, time
from utils.processes import process_pool
if __name__ == "__main__":
    with process_pool(2, "waits") as pool:
        list(pool.map(time.sleep, [1, 1]))  # both processes have begun then
        process = pool.submit(os.getpid).result()
        waits = [pool.submit(time.sleep, float(sys.argv[1])) for _ in range(2)]
        time.sleep(0.5)
        print(process, flush=True)
        for wait in waits:
            wait.result()
        print("done")
"""


@pytest.fixture
def seconds() -> int:
    """How long each process waits."""
    return 2


@pytest.fixture
def waiting(tmp_path: Path, seconds: int) -> subprocess.Popen[str]:
    """A program with a pool whose two processes wait for some seconds, in a group of its own."""
    path = tmp_path / "waits.py"
    path.write_text(WAITS)
    command, environment = [sys.executable, str(path), str(seconds)], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, process_group=0)


def is_alive(pid: int) -> bool:
    """Return whether a process is there that has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_processes_end_with_the_one_that_started_them(waiting: subprocess.Popen[str]) -> None:
    with waiting:
        assert waiting.stdout is not None
        process = int(waiting.stdout.readline())
        waiting.kill()
    deadline = time.monotonic() + 30
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_lets_processes_finish_what_they_have_begun(
    waiting: subprocess.Popen[str], number: signal.Signals
) -> None:
    with waiting:
        assert waiting.stdout is not None
        os.kill(int(waiting.stdout.readline()), number)
        assert waiting.stdout.read() == "done\n"
    assert waiting.returncode == 0


@pytest.mark.parametrize("seconds", [600])
def test_the_others_end_when_one_process_is_killed(waiting: subprocess.Popen[str]) -> None:
    """They would be waited for without end if they took no notice of SIGTERM."""
    with waiting:
        assert waiting.stdout is not None
        os.kill(int(waiting.stdout.readline()), signal.SIGKILL)
        try:
            assert waiting.wait(30) == 1
        finally:
            waiting.kill()  # if it waits for ever


def test_a_process_that_is_killed_gives_one_clear_error() -> None:
    error = pytest.raises(OSError, match="a process that divides was killed, perhaps because memory ran out")
    with error, process_pool(1, "divides") as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        pool.submit(os._exit, 1).result()
