"""Commands that are disturbed at random moments, gone on with, and compared with undisturbed runs."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Self

import numpy as np

from tests.faults.contents import check_whole, contents
from tests.faults.jobs import Base, Job
from tests.faults.killing import POLL, Touches, end, heeds_term, script, start, told_by, wait

SECONDS_TO_LEAVE = 30  # that SLURM gives between SIGTERM and SIGKILL


@dataclass
class Tally:
    """What was done to one command, and what differed after it had gone on."""

    clock: int = 0
    touch: int = 0
    terms: int = 0
    slowest: float = 0.0
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of_all(cls, parts: Iterable[Self]) -> Self:
        """Of several commands together."""
        return reduce(
            lambda one, other: cls(
                one.clock + other.clock,
                one.touch + other.touch,
                one.terms + other.terms,
                max(one.slowest, other.slowest),
                one.runs + other.runs,
                one.faults + other.faults,
            ),
            parts,
            cls(),
        )

    def cells(self) -> list[object]:
        """SIGKILLs, those by the clock and at a file operation, SIGTERMs, slowest exit, runs, faults."""
        kills = [self.clock + self.touch, self.clock, self.touch]
        return [*kills, self.terms, f"{self.slowest:.1f}", self.runs, len(self.faults)]


@dataclass(frozen=True)
class Quiet:
    """A run that nobody disturbed: what it left, its seconds, and how often it touched the disk."""

    contents: dict[str, str]
    seconds: float
    touches: int


class Trials:
    """All trials of one command."""

    def __init__(self, job: Job, base: Base, folder: Path, draw: np.random.Generator) -> None:
        self.job, self.base, self.folder, self.draw = job, base, folder, draw
        self.tally = Tally()
        self.quiet = self._undisturbed()

    def run(self, kills: int, terms: int) -> Tally:
        """Disturb runs until as many signals have hit as are asked for."""
        while self.tally.clock + self.tally.touch < kills:
            self._disturbed(int(self.draw.integers(1, 4)), kills)
        while self.tally.terms < terms:
            self._disturbed(0, kills, term=True)
        return self.tally

    def _undisturbed(self) -> Quiet:
        place = self.folder / "quiet"
        self.job.prepare(self.base, place)
        touches, began = Touches(place), time.monotonic()
        beside = self._beside(place)
        self._finish(self._start(place, False, touches), place)
        seconds = time.monotonic() - began
        self._end_beside(beside, place)
        return Quiet(self._contents(place), seconds, touches.count)

    def _disturbed(self, hits: int, kills: int, term: bool = False) -> None:
        """One run: `hits` kills or a SIGTERM, or less if it ends before; then, started again, to the end."""
        place = self.folder / "disturbed"
        self.job.prepare(self.base, place)
        beside = self._beside(place)
        if term:
            self._term(place)
        for hit in range(min(hits, kills - self.tally.clock - self.tally.touch)):
            if not self._kill(place, restarted=hit > 0):
                break
            told_by(lambda: check_whole(place) or "")
        self._finish(self._start(place, True, Touches(place)), place)
        self._end_beside(beside, place)
        self._compare(place)
        shutil.rmtree(place)

    def _kill(self, place: Path, restarted: bool) -> bool:
        """A start that is killed by the clock or at a touch of the disk; False if it ended before."""
        by_clock = bool(self.draw.integers(2))
        fatal = 0 if by_clock else int(self.draw.integers(1, self.quiet.touches + 1))
        seconds = self.draw.uniform(0, self.quiet.seconds) if by_clock else math.inf
        process = self._start(place, restarted, Touches(place, fatal))
        status = wait(process, seconds)
        if status is None:
            status, _ = end(process, signal.SIGKILL)
        if status != -signal.SIGKILL:
            self._check_end(status, place)
            return False
        self.tally.clock += by_clock
        self.tally.touch += not by_clock
        return True

    def _term(self, place: Path) -> None:
        """A start that gets SIGTERM while it has a handler of it, unless it ends before."""
        process = self._start(place, False, Touches(place))
        moment, heeded = time.monotonic() + self.draw.uniform(0, self.quiet.seconds), False
        while not ((heeds := heeds_term(process)) and time.monotonic() >= moment):
            heeded = heeded or heeds
            if (status := wait(process, 0)) is not None:
                self._check_end(status, place)
                if not heeded:
                    raise RuntimeError(f"{self.job.words(self.base, place)} never heeds SIGTERM")
                return
            time.sleep(POLL)
        status, seconds = end(process, signal.SIGTERM)
        self.tally.terms += 1
        self.tally.slowest = max(self.tally.slowest, seconds)
        if status or seconds > SECONDS_TO_LEAVE:
            self.tally.faults.append(f"SIGTERM: status {status} after {seconds:.1f} s")

    def _start(self, place: Path, restarted: bool, touches: Touches) -> int:
        words = self.job.words(self.base, place) + list(self.job.again if restarted else ())
        return start(script(words), place.with_suffix(".log"), touches)

    def _beside(self, place: Path) -> list[int]:
        lines = self.job.beside(self.base, place)
        return [start(script(words), place.with_suffix(".log"), Touches(place)) for words in lines]

    def _finish(self, process: int, place: Path) -> None:
        self._check_end(wait(process), place)

    def _end_beside(self, processes: list[int], place: Path) -> None:
        for process in processes:
            self._finish(process, place)

    def _check_end(self, status: int | None, place: Path) -> None:
        if status != 0:  # None: it hangs
            text = place.with_suffix(".log").read_text()[-2000:]
            raise RuntimeError(f"{self.job.words(self.base, place)} ended with status {status}:\n{text}")

    def _contents(self, place: Path) -> dict[str, str]:
        return json.loads(told_by(lambda: json.dumps(contents(place, self.job.looks))))

    def _compare(self, place: Path) -> None:
        self.tally.runs += 1
        found, wanted = self._contents(place), self.quiet.contents
        self.tally.faults += [
            f"{name} differs" for name in {**found, **wanted} if found.get(name) != wanted.get(name)
        ]


def make_base(folder: Path) -> Base:
    """What the commands read, made by forks."""
    base = Base(folder)
    folder.mkdir()
    told_by(lambda: base.write_store() or "")
    for name in ("raw", "pretraining", "classifier"):
        log = folder / f"{name}.log"
        if status := wait(start(script(base.command(name)), log, Touches(folder))):
            raise RuntimeError(f"{name} ended with status {status}:\n{log.read_text()[-2000:]}")
    return base
