"""Disturb commands at random moments, resume them, and compare them with undisturbed runs."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Self

import numpy as np

from tests.faults.contents import check_complete, contents, same_bytes
from tests.faults.jobs import Base, Job
from tests.faults.killing import (
    POLL,
    FileOperations,
    call_in_fork,
    end,
    handles_sigterm,
    script,
    start,
    stop,
    terminate,
    wait,
    without_flock,
)

MAX_EXIT_SECONDS = 30  # between SIGTERM and SIGKILL under SLURM


@dataclass
class Counts:
    """How often a command was disturbed, and what differed after it was resumed.

    clock, operation: SIGKILLs at a random time and just before a random file operation; starts: second starts
    while the first lived; without_flock: those on a file system without flock; slowest: the longest exit
    after SIGTERM, in seconds; faults: what differed.
    """

    clock: int = 0
    operation: int = 0
    terms: int = 0
    starts: int = 0
    without_flock: int = 0
    slowest: float = 0.0
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of_all(cls, parts: Iterable[Self]) -> Self:
        """Add up the counts of several commands."""
        return reduce(
            lambda one, other: cls(
                one.clock + other.clock,
                one.operation + other.operation,
                one.terms + other.terms,
                one.starts + other.starts,
                one.without_flock + other.without_flock,
                max(one.slowest, other.slowest),
                one.runs + other.runs,
                one.faults + other.faults,
            ),
            parts,
            cls(),
        )

    def cells(self) -> list[object]:
        """Return SIGKILLs, by time and by file operation, SIGTERMs, slowest exit, starts, runs, faults."""
        kills = [self.clock + self.operation, self.clock, self.operation]
        starts = [self.starts, self.without_flock]
        return [*kills, self.terms, f"{self.slowest:.1f}", *starts, self.runs, len(self.faults)]


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed run: the files that it left, its seconds, and the number of its file operations."""

    contents: dict[str, str]
    seconds: float
    operations: int


class Trials:
    """All runs of one command."""

    def __init__(self, job: Job, base: Base, folder: Path, rng: np.random.Generator) -> None:
        self.job, self.base, self.folder, self.rng = job, base, folder, rng
        self.counts = Counts()
        self.undisturbed = self._run_undisturbed()

    def run(self, kills: int, terms: int, starts: int = 0) -> Counts:
        """Disturb runs until they got this many signals and second starts."""
        while self.counts.clock + self.counts.operation < kills:
            self._run_disturbed(int(self.rng.integers(1, 4)), kills)
        while self.counts.terms < terms:
            self._run_disturbed(0, kills, term=True)
        while self.job.lock and self.counts.starts < starts:
            self._run_started_twice()
        return self.counts

    def _run_undisturbed(self) -> Undisturbed:
        folder = self.folder / "undisturbed"
        self.job.prepare(self.base, folder)
        operations, began = FileOperations(folder), time.monotonic()
        background = self._start_background(folder)
        self._finish(self._start(folder, False, operations), folder)
        seconds = time.monotonic() - began
        self._finish_background(background, folder)
        return Undisturbed(self._contents(folder), seconds, operations.count)

    def _run_disturbed(self, hits: int, kills: int, term: bool = False) -> None:
        """Run with up to `hits` kills or a SIGTERM, unless it ends before; then restart it to the end."""
        folder = self.folder / "disturbed"
        self.job.prepare(self.base, folder)
        background = self._start_background(folder)
        if term:
            self._term(folder)
        for hit in range(min(hits, kills - self.counts.clock - self.counts.operation)):
            if not self._kill(folder, restarted=hit > 0):
                break
            call_in_fork(lambda: check_complete(folder) or "")
        self._finish(self._start(folder, True, FileOperations(folder)), folder)
        self._finish_background(background, folder)
        self._compare(folder)
        shutil.rmtree(folder)

    def _run_started_twice(self) -> None:
        """Start a command while it runs, after a dead one has left its lock; the second must be refused."""
        folder = self.folder / "twice"
        self.job.prepare(self.base, folder)
        errors = [0, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]  # of flock; 0: it works
        flock = errors[self.counts.starts % len(errors)]
        restarted = bool(self.rng.integers(2)) and self._stop_when_locked(folder, signal.SIGKILL, flock) == 0
        if process := self._stop_when_locked(folder, signal.SIGSTOP, flock, restarted):
            before = contents(folder, {"**/*": same_bytes})
            resumed = bool(self.rng.integers(2))
            log = folder.with_suffix(".second.log")
            status = wait(self._start(folder, resumed, FileOperations(folder), flock, log))
            self.counts.starts += 1
            self.counts.without_flock += flock > 0
            refused = f"another process is writing there, process {process} on"
            if status != 1 or refused not in log.read_text():
                self.counts.faults.append(f"second start: status {status}, {log.read_text()[-300:]!r}")
            if contents(folder, {"**/*": same_bytes}) != before:
                self.counts.faults.append("second start: it changed a file")
            os.kill(process, signal.SIGCONT)
            self._finish(process, folder)
        else:
            self._finish(self._start(folder, True, FileOperations(folder), flock), folder)
        self._compare(folder)
        shutil.rmtree(folder)

    def _stop_when_locked(
        self, folder: Path, number: signal.Signals, flock: int, restarted: bool = False
    ) -> int:
        """Start the command, and stop or kill it while it holds its lock.

        Returns:
            The id of the process that was stopped; 0 if it was killed, or ended before it could be stopped.
        """
        process = self._start(folder, restarted, FileOperations(folder), flock)
        status = None
        while status is None and not self._is_locked_by(process, folder):
            status = wait(process, POLL)
        if status is None:
            status = wait(process, self.rng.uniform(0, self.undisturbed.seconds / 2))
        if status is not None:
            self._check_status(status, folder)
            return 0
        if number == signal.SIGKILL:
            end(process, number)
            return 0
        if stop(process) and self._is_locked_by(process, folder):
            return process
        os.kill(process, signal.SIGCONT)  # between two locks
        self._finish(process, folder)
        return 0

    def _is_locked_by(self, process: int, folder: Path) -> bool:
        """Return whether the lock of the folder is that of a process, and not one of a process before."""
        try:
            return json.loads((folder / self.job.lock).read_text())["pid"] == process
        except (OSError, ValueError):  # there is none, or not yet its content
            return False

    def _kill(self, folder: Path, restarted: bool) -> bool:
        """Start the command, and kill it at a time or a file operation; return False if it ended before."""
        by_clock = bool(self.rng.integers(2))
        fatal = 0 if by_clock else int(self.rng.integers(1, self.undisturbed.operations + 1))
        seconds = self.rng.uniform(0, self.undisturbed.seconds) if by_clock else math.inf
        process = self._start(folder, restarted, FileOperations(folder, fatal))
        status = wait(process, seconds)
        if status is None:
            status, _ = end(process, signal.SIGKILL)
        if status != -signal.SIGKILL:
            self._check_status(status, folder)
            return False
        self.counts.clock += by_clock
        self.counts.operation += not by_clock
        return True

    def _term(self, folder: Path) -> None:
        """Start the command, and send SIGTERM while it has a handler for it, unless it ends before."""
        process = self._start(folder, False, FileOperations(folder))
        moment = time.monotonic() + self.rng.uniform(0, self.undisturbed.seconds)
        had_handler = False
        while True:
            had_handler = had_handler or handles_sigterm(process)
            if time.monotonic() >= moment and (ended := terminate(process)):
                break
            if (status := wait(process, 0)) is not None:
                self._check_status(status, folder)
                if not had_handler:
                    raise RuntimeError(f"{self.job.command(self.base, folder)} never handles SIGTERM")
                return
            time.sleep(POLL)
        status, seconds = ended
        self.counts.terms += 1
        self.counts.slowest = max(self.counts.slowest, seconds)
        if status or seconds > MAX_EXIT_SECONDS:
            said = folder.with_suffix(".log").read_text()[-1000:]
            self.counts.faults.append(f"SIGTERM: status {status} after {seconds:.1f} s\n{said}")

    def _start(
        self,
        folder: Path,
        restarted: bool,
        operations: FileOperations,
        flock: int = 0,
        log: Path | None = None,
    ) -> int:
        words = self.job.command(self.base, folder) + list(self.job.resume_flags if restarted else ())
        work = script(words) if flock == 0 else without_flock(script(words), flock)
        return start(work, log or folder.with_suffix(".log"), operations)

    def _start_background(self, folder: Path) -> list[int]:
        commands = self.job.background(self.base, folder)
        log = folder.with_suffix(".log")
        return [start(script(words), log, FileOperations(folder)) for words in commands]

    def _finish(self, process: int, folder: Path) -> None:
        self._check_status(wait(process), folder)

    def _finish_background(self, processes: list[int], folder: Path) -> None:
        for process in processes:
            self._finish(process, folder)

    def _check_status(self, status: int | None, folder: Path) -> None:
        if status != 0:  # None: it hangs
            text = folder.with_suffix(".log").read_text()[-2000:]
            raise RuntimeError(f"{self.job.command(self.base, folder)} ended with status {status}:\n{text}")

    def _contents(self, folder: Path) -> dict[str, str]:
        return json.loads(call_in_fork(lambda: json.dumps(contents(folder, self.job.readers))))

    def _compare(self, folder: Path) -> None:
        self.counts.runs += 1
        disturbed, undisturbed = self._contents(folder), self.undisturbed.contents
        self.counts.faults += [
            f"{name} differs"
            for name in {**disturbed, **undisturbed}
            if disturbed.get(name) != undisturbed.get(name)
        ]


def make_base(folder: Path) -> Base:
    """Make the inputs of the commands, each in a fork."""
    base = Base(folder)
    folder.mkdir()
    call_in_fork(lambda: base.write_store() or "")
    for name in ("raw", "pretraining", "classifier"):
        log = folder / f"{name}.log"
        if status := wait(start(script(base.command(name)), log, FileOperations(folder))):
            raise RuntimeError(f"{name} ended with status {status}:\n{log.read_text()[-2000:]}")
    return base
