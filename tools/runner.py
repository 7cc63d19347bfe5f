"""Run commands beside each other, each with its own process, output file, environment and exit status."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple, Self

from utils.cli import STOP_SIGNALS
from utils.lazy import resolve_main
from utils.machine import available_cpus

POLL_SECONDS = 0.02
FORK = multiprocessing.get_context("fork")
SIGNALS = (*STOP_SIGNALS, signal.SIGINT)
# On macOS a fork must not go on in a process whose libraries it has loaded: its programs start anew.
CAN_FORK = sys.platform != "darwin"


class RunFailed(Exception):
    """A run ended with an exit status other than 0."""

    def __init__(self, name: str, status: int, log: Path | None) -> None:
        lines = log.read_text(errors="replace").splitlines() if log else []
        reason = f"; {log} ends with: {lines[-1]}" if lines else ""
        super().__init__(f"{name} failed with exit status {status}{reason}")
        self.status = status


class Run(NamedTuple):
    """A run that was started, and its output file if it has its own."""

    process: BaseProcess
    log: Path | None


class Runner:
    """Run commands, several at once.

    A command that begins with a Python program (`run_gpu.py ...` or `-m training.pretrain ...`) runs in a
    fork of this process, which has imported the program: many short runs pay for the imports once. The fork
    is safe, as importing starts neither CUDA nor threads, but for those of OpenBLAS and of Arrow's allocator,
    which both expect forks. Any other command is executed as it is, and so are all on macOS, whose libraries
    do not allow it.

    SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C are passed on to all runs as SIGTERM. They save, nothing more is
    started, and when they have ended, this process exits with status 143. Use the runner as a context manager
    in the main thread: it handles these signals inside the block, and waits for all runs at its end.

    Args:
        jobs: runs at once; `start` waits until one has ended.
        log_dir: folder of the output files of `start`, `<name>.log`.
    """

    def __init__(self, jobs: int, log_dir: Path) -> None:
        self.jobs = jobs
        self.log_dir = log_dir
        self._running: dict[str, Run] = {}
        self._stopping = False

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for run in self._running.values():
            run.process.join()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a run when fewer than `jobs` are running. Its output goes to its log file.

        Raises:
            RunFailed: An earlier run failed; this one is not started.
        """
        self._wait(self.jobs - 1)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._fork(name, command, environment, self.log_dir / f"{name}.log")

    def run(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        before: Sequence[Sequence[str]] = (),
    ) -> None:
        """Run a command to its end. Its output goes where the output of this process goes.

        Meanwhile the programs are imported of the commands that it is run `before`.

        Raises:
            RunFailed: It ended with an exit status other than 0.
        """
        self._fork(name, command, environment, None)
        for later in before:
            _import_for(later)
        self._wait(0)

    def finish(self) -> None:
        """Wait until all runs have ended.

        Raises:
            RunFailed: One of them failed. The others may still be running.
        """
        self._wait(0)

    def _fork(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None, log: Path | None
    ) -> None:
        self._exit_if_stopped()
        _import_for(command)
        process = FORK.Process(target=_become, args=(command, environment or {}, log), name=name)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the new process is known to _stop
        process.start()
        self._running[name] = Run(process, log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _wait(self, at_most: int) -> None:
        """Wait until at most this many runs are running."""
        while len(self._running) > at_most:
            time.sleep(POLL_SECONDS)  # macOS cannot wait for one of several processes
            self._exit_if_stopped()
            for name, run in list(self._running.items()):
                if run.process.exitcode is not None:
                    del self._running[name]
                    if run.process.exitcode != 0:
                        raise RunFailed(name, _as_shell_status(run.process.exitcode), run.log)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on; the next step of the main program exits."""
        if not self._stopping:
            self._stopping = True
            for run in self._running.values():
                run.process.terminate()

    def _exit_if_stopped(self) -> None:
        if self._stopping:
            for run in self._running.values():
                run.process.join()
            sys.exit(128 + signal.SIGTERM)


def available_cores() -> int:
    """Return how many cores this process may use, or OMP_NUM_THREADS if that is set."""
    return int(os.environ.get("OMP_NUM_THREADS") or available_cpus())


def _become(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> None:
    """Turn this forked process into a run."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner passes Ctrl-C on as SIGTERM
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.environ.update(environment)
    if log is not None:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    if not _is_python(command):
        os.execvp(command[0], list(command))
    if not CAN_FORK:
        os.execv(sys.executable, [sys.executable, *command])
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:  # torch reads it when it is imported
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if command[0] == "-m":
        sys.argv = list(command[1:])
        sys.modules.pop(command[1], None)  # runpy warns of a module that was imported before
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        runpy.run_path(command[0], run_name="__main__")


def _import_for(command: Sequence[str]) -> None:
    """Import a command's program, its function MAIN, and the modules in LATER, for all its runs at once.

    The program imports MAIN when it runs, and LATER near its end. Nothing is imported for what is executed.
    """
    if not (_is_python(command) and CAN_FORK):
        return
    module = importlib.import_module(command[1] if command[0] == "-m" else Path(command[0]).stem)
    main = getattr(module, "MAIN", None)
    if main is not None:
        resolve_main(main)
    for name in getattr(module, "LATER", ()):
        importlib.import_module(name)


def _is_python(command: Sequence[str]) -> bool:
    """Return whether a command begins with a Python program."""
    return command[0] == "-m" or command[0].endswith(".py")


def _as_shell_status(exitcode: int) -> int:
    """Return the exit status that a shell reports, 128 + n for a process ended by signal n.

    >>> _as_shell_status(2), _as_shell_status(-15)
    (2, 143)
    """
    return exitcode if exitcode >= 0 else 128 - exitcode
