"""Run commands as child processes, and measure their time and memory."""

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

POLL_SECONDS = 0.02  # between two readings of a child's memory
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    seconds: wall-clock time. core_seconds: of all cores together. peak_mb: peak memory in MiB. anonymous_mb:
    the peak of the part that no file backs, which the system cannot drop. output: what it printed.
    """

    seconds: float
    core_seconds: float
    peak_mb: float
    anonymous_mb: float
    output: str


def run(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Ended:
    """Run a command to its end, with additional environment variables.

    Memory is that of the process itself, read from /proc: the peak that the system reports for children
    includes the memory of their parent when it started them.

    Raises:
        ValueError: the command failed; with the last lines that it printed.
    """
    with tempfile.TemporaryFile("w+") as printed:
        core_seconds = _core_seconds_of_children()
        started = time.perf_counter()
        variables = os.environ | dict(environment or {})
        child = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, cwd=cwd, env=variables)
        peak, anonymous = 0.0, 0.0
        while child.poll() is None:
            memory = _memory(child.pid)
            peak = max(peak, memory["VmHWM"])
            anonymous = max(anonymous, memory["RssAnon"])
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
        printed.seek(0)
        output = printed.read()
    if child.returncode:
        last_lines = "\n".join(output.splitlines()[-5:])
        raise ValueError(f"{' '.join(map(str, command))} ended with status {child.returncode}:\n{last_lines}")
    return Ended(seconds, _core_seconds_of_children() - core_seconds, peak, anonymous, output)


def run_module(module: str, *flags: str | Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a module of this repository."""
    return run([sys.executable, "-m", module, *flags], environment)


def forget_peak() -> None:
    """Reset the peak memory of this process to what it uses now."""
    Path("/proc/self/clear_refs").write_text("5")


def own_peak() -> float:
    """Return the peak memory of this process, in MiB."""
    return _memory(os.getpid())["VmHWM"]


def _core_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(pid: int) -> dict[str, float]:
    """Return the memory of a process in MiB, as /proc has it; 0 if it has just ended."""
    memory = {"VmHWM": 0.0, "RssAnon": 0.0}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return memory
    for line in lines:
        name, _, value = line.partition(":")
        if name in memory:
            memory[name] = int(value.split()[0]) / 1024
    return memory


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Make a temporary folder inside `parent`, and remove it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
