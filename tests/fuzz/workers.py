"""Worker processes that run the cases of the fuzzer; a watchdog kills a process that hangs."""

import faulthandler
import multiprocessing
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.fuzz.cases import Failure, Workspace

STACKS = "stacks.txt"  # where a worker that hangs writes its stack
POLLS = 300  # of one second each, after which a case hangs; on an idle machine the slowest takes a few


class Case(NamedTuple):
    """A case of a kind of fault; number and seed determine what is drawn."""

    group: str
    fault: str
    number: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """How a case ended: `end` is CORRECT, CLEAR_ERROR or "failure"; the text of a failure explains it."""

    case: Case
    end: str
    text: str = ""


def attempt(case: Case, shared: Path) -> Outcome:
    """Run a case in this process, in a temporary folder beside `shared`."""
    from tests.fuzz.groups import FAULTS

    draw = np.random.default_rng((case.seed, zlib.crc32(case.fault.encode()), case.number))
    with tempfile.TemporaryDirectory(dir=shared.parent) as folder:
        workspace = Workspace(Path(folder), shared)
        try:
            end = FAULTS[case.group, case.fault].attempt(draw, workspace)
            if workspace.marker.exists():
                raise Failure("the input was executed")
        except Failure as failure:
            return Outcome(case, "failure", str(failure))
    return Outcome(case, end)


def _serve(pipe: Connection, scratch: str) -> None:
    """Run the cases that arrive through a pipe."""
    os.environ.update(
        POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1"
    )  # on tiny cohorts more threads only cost time
    shared = Path(scratch) / "shared"
    shared.mkdir()
    with (Path(scratch) / STACKS).open("w") as stacks:
        while case := pipe.recv():
            faulthandler.dump_traceback_later(0.9 * POLLS, file=stacks)
            pipe.send(attempt(case, shared))
            faulthandler.cancel_dump_traceback_later()


class Worker:
    """A process that runs one case after another; it is replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._scratch = tempfile.TemporaryDirectory(prefix="fuzz")
        (Path(self._scratch.name) / STACKS).touch()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._scratch.name), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, case: Case) -> Outcome:
        """Run a case; a hang or a crash of the interpreter is a failure.

        Polls are counted instead of seconds, because the clock goes on while both processes are suspended.
        """
        try:
            self._pipe.send(case)
            if any(self._pipe.poll(1.0) for _ in range(POLLS)):
                return self._pipe.recv()
            stack = (Path(self._scratch.name) / STACKS).read_text()
            text = f"a hang: no end after {POLLS} polls\n{stack}"
        except (EOFError, ConnectionError):
            text = "a crash: the interpreter died"
        self.stop()
        self._start()
        return Outcome(case, "failure", text)

    def stop(self) -> None:
        """End the process and remove its files."""
        with suppress(ConnectionError):
            self._pipe.send(None)
        self._process.join(1)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._scratch.cleanup()


def run_all(cases: Sequence[Case], jobs: int) -> Iterator[Outcome]:
    """Yield the outcomes of the cases in order, from `jobs` workers."""
    workers = [Worker() for _ in range(jobs)]
    threads = [ThreadPoolExecutor(1) for _ in workers]  # only one thread may use a pipe
    try:
        streams = [
            thread.map(worker.run, cases[job::jobs])
            for job, (thread, worker) in enumerate(zip(threads, workers, strict=True))
        ]
        for index in range(len(cases)):
            yield next(streams[index % jobs])
    finally:
        for worker, thread in zip(workers, threads, strict=True):
            thread.shutdown(wait=False, cancel_futures=True)
            worker.stop()
