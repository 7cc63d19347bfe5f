"""How a command starts and ends: its flags, one clear error on standard error, and its exit status."""

import inspect
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, UnionType
from typing import TypeVar, cast

from utils.config import parse
from utils.lazy import resolve_main
from utils.log import is_rank_zero
from utils.machine import limit_threads

T = TypeVar("T")

# Signals that announce the end of a job: SLURM sends SIGTERM, and submitit and others the two for users.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def run_cli(main: Callable[[T], None] | str, config: type[T] | UnionType) -> None:
    """Parse the command line and run `main`; the docstring of `config` opens the help text.

    `main` may be given as "module:function", which is imported once the flags are known to be right.
    A union of dataclasses gives a subcommand for each; then the docstring of `main` opens the help text.
    Exit status: 1 for an error that the user can fix (ValueError, OSError; one line on standard error), 2 for
    a wrong flag, 130 for Ctrl-C, 0 for STOP_SIGNALS, and 141 if the reader of a pipe has left. Any other
    exception is a bug and keeps its traceback. Under torchrun the error names the process that failed.
    """
    with _exit_on_closed_pipe(), exit_on_stop_signals():
        limit_threads()
        description = inspect.getdoc(main if isinstance(config, UnionType) else config)
        settings = parse(cast(type[T], config), description=description or "")
        try:
            run = main if callable(main) else cast(Callable[[T], None], resolve_main(main))
            run(settings)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            process = f" in process {os.environ['RANK']}" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
            print(f"error{process}: {error}", file=sys.stderr)
            _report_to_torchrun(error)
            sys.exit(1)
        except NotImplementedError as error:
            if "MPS" not in str(error):
                raise
            operator = str(error).partition(".")[0]
            print(f"error: --device mps: {operator}; use --device cpu", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to continue", file=sys.stderr)
            sys.exit(130)


@contextmanager
def exit_on_stop_signals() -> Iterator[None]:
    """Exit with status 0 on STOP_SIGNALS. What was written so far is complete and is kept."""
    is_stopped = False

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        if is_rank_zero():
            print("stopped; continue with the same command, and --resume if it has one", file=sys.stderr)
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in STOP_SIGNALS}
    try:
        yield
    except BaseException:
        if is_stopped:  # an extension module that is imported makes ImportError of SystemExit
            raise SystemExit(0) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _exit_on_closed_pipe() -> Iterator[None]:
    """Exit quietly with status 141, as other commands do, if nobody reads standard output any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it exits, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _report_to_torchrun(error: Exception) -> None:
    """Write the cause where torchrun looks for it, if torchrun started this process."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # not all need torch

        get_error_handler().record_exception(error)


def run_next(module: str, *arguments: str) -> None:
    """Do what `python -m module arguments` does, as the last thing that this process does.

    This saves the start of another process, which is mostly imports that both have in common.
    """
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
