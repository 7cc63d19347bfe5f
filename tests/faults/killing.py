"""Start commands as forks of a process that has imported their modules, and end them at any moment."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")
POLL = 0.001  # seconds between checks of a process
MAX_POLLS = 600_000  # after which a process is considered to hang


@dataclass
class FileOperations:
    """The file operations of a process in a folder: opening to write or flush, renaming, removing.

    It is counted in memory that the process shares with this one.
    """

    folder: Path
    fatal: int = 0
    _shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8), repr=False)

    @property
    def count(self) -> int:
        """The operations so far."""
        return int.from_bytes(self._shared[:8], "little")

    def watch(self) -> None:
        """Count the operations of this process from now on; SIGKILL it just before operation `fatal`."""
        inside = f"{self.folder}{os.sep}"

        def count(event: str, arguments: tuple[object, ...]) -> None:
            path = str(arguments[0]) if arguments else ""
            opens = event == "open" and (int(arguments[2]) & WRITES or path.endswith(".partial"))
            if (opens or event in CHANGES) and path.startswith(inside):
                self._shared[:8] = (self.count + 1).to_bytes(8, "little")
                if self.count == self.fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)


def start(work: Callable[[], int], log: Path, operations: FileOperations) -> int:
    """Run `work` in a fork and append its output to `log`; return the id of the fork.

    The fork exits with the status that `work` returns.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a new process
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, handler)
        return child
    status = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        operations.watch()
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def script(words: Sequence[str]) -> Callable[[], int]:
    """Return a function that does what `python WORDS` does, and returns the exit status."""

    def run() -> int:
        warnings.simplefilter("ignore", RuntimeWarning)  # the module to run was imported before
        os.chdir(ROOT)
        module = words[0] == "-m"
        sys.argv = list(words[1:] if module else words)
        try:
            if module:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def without_flock(work: Callable[[], int], number: int) -> Callable[[], int]:
    """Return what does the same work on a file system without flock, which fails with an error number."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    def run() -> int:
        fcntl.flock = fail  # this is a process of its own
        return work()

    return run


def wait(process: int, seconds: float = math.inf) -> int | None:
    """Wait for a process to end by itself.

    A process that hangs is recognized by the number of checks, not by the clock, which also advances while
    both are suspended.

    Returns:
        The exit status, negative for a signal; None if the process is still running after `seconds`.
    """
    until = time.monotonic() + seconds
    for _ in range(MAX_POLLS):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            break
        time.sleep(POLL)
    return None


def end(process: int, number: signal.Signals) -> tuple[int, float]:
    """Send a signal to a running process; return its exit status, and the seconds until it ended."""
    os.kill(process, number)
    return _wait_after(process, number)


def _wait_after(process: int, number: signal.Signals) -> tuple[int, float]:
    began = time.monotonic()
    status = wait(process)
    if status is None:
        os.kill(process, signal.SIGKILL)
        raise RuntimeError(f"process {process} did not end after {number.name}")
    return status, time.monotonic() - began


def stop(process: int) -> bool:
    """Stop a process, and wait until it stands still; return False if it ended instead."""
    os.kill(process, signal.SIGSTOP)
    state = os.waitid(os.P_PID, process, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return state is not None and state.si_code == os.CLD_STOPPED


def terminate(process: int) -> tuple[int, float] | None:
    """Send SIGTERM to a running process if it has a handler for it; return as `end` does, or None.

    The process is stopped meanwhile: it could give up its handler, as commands do at their end, between the
    look and the signal.
    """
    if not stop(process):
        return None
    try:
        if not handles_sigterm(process):
            return None
        os.kill(process, signal.SIGTERM)  # delivered when the process goes on
    finally:
        os.kill(process, signal.SIGCONT)
    return _wait_after(process, signal.SIGTERM)


def handles_sigterm(process: int) -> bool:
    """Return whether a process has a handler for SIGTERM yet (Linux)."""
    state = Path(f"/proc/{process}/status").read_text()
    caught = next(line.split()[1] for line in state.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def call_in_fork(work: Callable[[], str]) -> str:
    """Call a function in a fork, and return what it returns.

    Raises:
        RuntimeError: It failed; the message is its traceback.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            text = work()
            status = 0
        except BaseException:
            text = traceback.format_exc()
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(text.encode())
        os._exit(status)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        text = pipe.read().decode()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(text)
    return text
