"""Starts commands as forks of a process that has imported what they need, and ends them at any moment."""

from __future__ import annotations

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
POLL = 0.001  # seconds between looks at a process
LOOKS = 600_000  # after which a process hangs


@dataclass
class Touches:
    """How often a process touched the disk below a folder: opened a file to write or flush it, renamed or
    removed one. Counted in memory that the process shares with this one.
    """

    folder: Path
    fatal: int = 0
    _shared: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8), repr=False)

    @property
    def count(self) -> int:
        """The touches up to now."""
        return int.from_bytes(self._shared[:8], "little")

    def watch(self) -> None:
        """Counts this process's touches from now on; SIGKILL just before the one with number `fatal`."""
        below = f"{self.folder}{os.sep}"

        def note(event: str, told: tuple[object, ...]) -> None:
            opens = event == "open" and (int(told[2]) & WRITES or str(told[0]).endswith(".partial"))
            if (opens or event in CHANGES) and str(told[0]).startswith(below):
                self._shared[:8] = (self.count + 1).to_bytes(8, "little")
                if self.count == self.fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(note)


def start(work: Callable[[], int], log: Path, touches: Touches) -> int:
    """Runs `work` in a fork, its output added to `log`; the fork's id. What `work` returns is its status."""
    sys.stdout.flush()
    sys.stderr.flush()
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which a new process has
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, handler)
        return child
    status = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        touches.watch()
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def script(words: Sequence[str]) -> Callable[[], int]:
    """What `python WORDS` does, as a function that returns its exit status."""

    def run() -> int:
        warnings.simplefilter("ignore", RuntimeWarning)  # a module that runs was imported by another before
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


def wait(process: int, seconds: float = math.inf) -> int | None:
    """The status of a process that ends by itself, negative for a signal; None if it runs on until then.

    One that hangs is told by the number of looks, not by the clock, which goes on while both are suspended.
    """
    until = time.monotonic() + seconds
    for _ in range(LOOKS):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            break
        time.sleep(POLL)
    return None


def end(process: int, number: signal.Signals) -> tuple[int, float]:
    """Sends a signal to a process that runs; its status, and the seconds until it ended."""
    began = time.monotonic()
    os.kill(process, number)
    status = wait(process)
    if status is None:
        os.kill(process, signal.SIGKILL)
        raise RuntimeError(f"process {process} did not heed {number.name}")
    return status, time.monotonic() - began


def heeds_term(process: int) -> bool:
    """Whether a process has a handler of SIGTERM yet (Linux)."""
    state = Path(f"/proc/{process}/status").read_text()
    caught = next(line.split()[1] for line in state.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def told_by(work: Callable[[], str]) -> str:
    """What a function returns, called in a fork; RuntimeError, with its traceback, if it fails."""
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
