"""One case of the fuzzer: a command run in this process on faulty input, and what may come of it."""

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
FLAGS_ERROR = "For full helptext"  # the last line of tyro's box around what is wrong with a flag
BUG = 70  # the status of what no command catches


class Failure(AssertionError):
    """Neither a correct result nor one clear error."""


@dataclass(frozen=True)
class Place:
    """Where a case works: `folder` is its own, `kept` serves all cases of a worker, such as for clean
    results.
    """

    folder: Path
    kept: Path

    @property
    def marker(self) -> Path:
        """A file that nothing but executed input would write."""
        return self.folder / "executed"


class Fault(NamedTuple):
    """A kind of faulty input: `attempt` draws one, runs the command, and tells which good end it took.

    Raises:
        Failure: it took none.
    """

    group: str
    name: str
    attempt: Callable[[np.random.Generator, Place], str]


@dataclass(frozen=True)
class Ended:
    """What a command left behind: its status, what it printed, and of that what it printed as errors."""

    status: int
    printed: str
    errors: str


def run(main: Callable[[T], object], config: type[T], *words: object) -> Ended:
    """Run a command as from a shell, in this process: flags, errors and status by utils.cli.run_cli."""
    return run_main(lambda: run_cli(main, config), *words)


def run_main(main: Callable[[], object], *words: object) -> Ended:
    """`run` for a command that calls run_cli itself."""
    out, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["command", *map(str, words)]),
        redirect_stdout(out),
        redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(bool(left.code))
        except BaseException:  # a panic of Polars is no Exception
            status = BUG
            traceback.print_exc()
    return Ended(status, out.getvalue() + errors.getvalue(), errors.getvalue())


def clear_error(ended: Ended, named: Sequence[str], planted: str = "") -> str:
    """CLEAR_ERROR if the command ended in one that names what it should and keeps the patient's value."""
    says_so = "error:" in ended.errors or FLAGS_ERROR in ended.errors
    broken = {
        "a traceback": ended.status == BUG or "Traceback" in ended.errors,
        "status 0": ended.status == 0,
        "nothing that says error": not says_so,
        f"none of {', '.join(named)} named": named and not any(name in ended.errors for name in named),
        "the patient's value is printed": planted and planted in ended.printed,
        "an endless message": len(ended.errors) > 6000,
    }
    for what, is_so in broken.items():
        if is_so:
            raise Failure(f"{what}: status {ended.status}, {ended.errors[-1500:].strip()!r}")
    return CLEAR_ERROR


def judge(
    ended: Ended,
    result: Callable[[], T],
    right: Sequence[T],
    named: Sequence[str],
    *,
    error: bool = True,
    planted: str = "",
) -> str:
    """CORRECT if the command ended well with one of the right results; else it is held to `clear_error`.

    `error`: may it refuse the input?
    """
    if ended.status == 0:
        found = result()
        if found not in right:
            raise Failure(f"a wrong result: {_difference(found, right)}; printed {ended.printed[-300:]!r}")
        if planted and planted in ended.printed:
            raise Failure(f"the patient's value is printed: {ended.printed[-600:]!r}")
        return CORRECT
    told = clear_error(ended, named, planted)
    if not error:
        raise Failure(f"refused what it should read: {ended.errors.strip()[-600:]!r}")
    return told


def _difference(found: object, right: Sequence[object]) -> str:
    if not right:
        return "only an error would be right"
    if isinstance(found, dict):
        nearest = min(right, key=lambda other: len(set(found.items()) ^ set(other.items())))
        return "other " + ", ".join(sorted({key for key, _ in set(found.items()) ^ set(nearest.items())}))
    return f"{str(found)[:300]} is none of {str(right)[:300]}"


def pick(draw: np.random.Generator, choices: Sequence[T]) -> T:
    """One of some choices."""
    return choices[int(draw.integers(len(choices)))]
