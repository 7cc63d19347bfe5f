"""Commands run as processes of their own, with their seconds and their memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POLL = 0.02  # seconds between looks at a child's memory
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """A command that ended: seconds on the clock and of all cores together, its largest memory in MiB, the
    largest part of that which is no file's (and so cannot be dropped), and what it printed.
    """

    seconds: float
    core_seconds: float
    peak_mb: float
    anonymous_mb: float
    output: str


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, with more variables in its environment; ValueError with its last lines if it
    fails.

    Memory is that of the process itself, from /proc: the system's own figure for ended children counts what
    their parent held when it started them.
    """
    with tempfile.TemporaryFile("w+") as said:
        spent, began = _children(), time.perf_counter()
        around = os.environ | dict(environment or {})
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, env=around)
        peak, anonymous = 0.0, 0.0
        while child.poll() is None:
            now = _memory(child.pid)
            peak, anonymous = max(peak, now["VmHWM"]), max(anonymous, now["RssAnon"])
            time.sleep(POLL)
        seconds = time.perf_counter() - began
        said.seek(0)
        output = said.read()
    if child.returncode:
        told = "\n".join(output.splitlines()[-5:])
        raise ValueError(f"{' '.join(map(str, command))} ended with status {child.returncode}:\n{told}")
    return Ended(seconds, _children() - spent, peak, anonymous, output)


def run_module(module: str, *flags: str | Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run one of our own commands."""
    return run([sys.executable, "-m", module, *flags], environment)


def forget_peak() -> None:
    """Let the largest memory of this process count anew from what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def own_peak() -> float:
    """Largest memory of this process, in MiB."""
    return _memory(os.getpid())["VmHWM"]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(pid: int) -> dict[str, float]:
    """MiB that /proc tells of a process; 0 of one that has just ended."""
    found = {"VmHWM": 0.0, "RssAnon": 0.0}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) / 1024
    return found


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A new folder inside `place`, removed at the end."""
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=place, prefix="benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
