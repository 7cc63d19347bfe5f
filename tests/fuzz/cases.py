"""One case of the fuzzer: run a command in this process on faulty input, and check how it ends."""

import io
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar
from unittest.mock import patch

import numpy as np

from utils.cli import run_cli

T = TypeVar("T")

CORRECT, CLEAR_ERROR = "correct result", "clear error"
FLAGS_ERROR = "For full helptext"  # the last line of tyro's message about a wrong flag
BUG = 70  # our status for an exception that the command does not catch


class Failure(AssertionError):
    """Neither a correct result nor one clear error."""


@dataclass(frozen=True)
class Workspace:
    """Folders of a case: its own, and `shared` for files of all cases of a worker, such as clean results."""

    folder: Path
    shared: Path

    @property
    def marker(self) -> Path:
        """A file that only exists if the input was executed."""
        return self.folder / "executed"


class Fault(NamedTuple):
    """A kind of faulty input.

    `attempt` draws one, runs the command, and returns CORRECT or CLEAR_ERROR; it raises Failure otherwise.
    """

    group: str
    name: str
    attempt: Callable[[np.random.Generator, Workspace], str]


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: its status, all that it printed, and what it printed to standard error."""

    status: int
    printed: str
    errors: str


def run(main: Callable[[T], object], config: type[T], *words: object) -> CommandResult:
    """Run a command in this process as from a shell, with flags, errors and status of utils.cli.run_cli."""
    return run_main(lambda: run_cli(main, config), *words)


def run_main(main: Callable[[], object], *words: object) -> CommandResult:
    """Run a command that calls run_cli itself."""
    out, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["command", *map(str, words)]),
        redirect_stdout(out),
        redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        except BaseException:  # a panic of Polars is not an Exception
            status = BUG
            traceback.print_exc()
    return CommandResult(status, out.getvalue() + errors.getvalue(), errors.getvalue())


def clear_error(done: CommandResult, named: Sequence[str], patient_value: str = "") -> str:
    """Return CLEAR_ERROR if the command ended in a clear error.

    Args:
        done: How the command ended.
        named: The error must contain one of these names.
        patient_value: A value of a patient, which must not be printed.

    Raises:
        Failure: It did not.
    """
    has_error = "error:" in done.errors or FLAGS_ERROR in done.errors
    faults = {
        "a traceback": done.status == BUG or "Traceback" in done.errors,
        "status 0": done.status == 0,
        "no error message": not has_error,
        f"none of {', '.join(named)} named": bool(named) and not any(name in done.errors for name in named),
        "the patient's value is printed": bool(patient_value) and patient_value in done.printed,
        "an endless message": len(done.errors) > 8000,  # tyro repeats a flag of 5000 characters
    }
    for fault, occurred in faults.items():
        if occurred:
            raise Failure(f"{fault}: status {done.status}, {done.errors[-1500:].strip()!r}")
    return CLEAR_ERROR


def check_result(
    done: CommandResult,
    result: Callable[[], T],
    right: Sequence[T],
    named: Sequence[str],
    *,
    error: bool = True,
    patient_value: str = "",
) -> str:
    """Return CORRECT if the command succeeded with one of the right results; else check its error.

    Args:
        done: How the command ended.
        result: Reads the result.
        right: The right results.
        named: Names for `clear_error`.
        error: Whether the command may refuse the input.
        patient_value: A value of a patient, which must not be printed.

    Raises:
        Failure: The result is wrong, or the error is not clear or not allowed.
    """
    if done.status == 0:
        actual = result()
        if actual not in right:
            raise Failure(f"a wrong result: {_difference(actual, right)}; printed {done.printed[-300:]!r}")
        if patient_value and patient_value in done.printed:
            raise Failure(f"the patient's value is printed: {done.printed[-600:]!r}")
        return CORRECT
    outcome = clear_error(done, named, patient_value)
    if not error:
        raise Failure(f"refused valid input: {done.errors.strip()[-600:]!r}")
    return outcome


def _difference(actual: object, right: Sequence[object]) -> str:
    if not right:
        return "only an error would be right"
    if isinstance(actual, dict):
        nearest = min(right, key=lambda other: len(set(actual.items()) ^ set(other.items())))
        keys = {key for key, _ in set(actual.items()) ^ set(nearest.items())}
        return f"other {', '.join(sorted(keys))}"
    return f"{str(actual)[:300]} is none of {str(right)[:300]}"


def pick(draw: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of the choices."""
    return choices[int(draw.integers(len(choices)))]
