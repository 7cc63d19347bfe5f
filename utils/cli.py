"""How a command starts and ends: its flags, one clear error on standard error, and its exit status."""

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from utils.config import parse

T = TypeVar("T")


def run_cli(main: Callable[[T], None], config: type[T]) -> None:
    """Parse the command line and run `main`; the docstring of `config` opens its help.

    What a user can mend (ValueError, OSError) ends in one line and status 1, Ctrl-C in status 130, SIGTERM in
    status 0; a wrong flag in status 2 (utils.config.parse). Anything else is a bug of ours and keeps its
    traceback. Of several processes the one that failed is named, and torchrun, which then stops the others,
    reports its cause.
    """
    with leaving_on_sigterm():
        settings = parse(config, description=inspect.getdoc(config) or "")
        try:
            main(settings)
        except (ValueError, OSError) as error:
            place = f" in process {os.environ['RANK']}" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
            print(f"error{place}: {error}", file=sys.stderr)
            _tell_torchrun(error)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            sys.exit(130)


@contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """Ends the program with status 0 on SIGTERM, where it is: what is written is whole, and stays."""

    def leave(number: int, frame: FrameType | None) -> None:
        if os.environ.get("RANK", "0") == "0":
            print("stopped; go on with the same command, and --resume where it has one", file=sys.stderr)
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell_torchrun(error: Exception) -> None:
    """Leaves the cause where torchrun looks for it, if that started this process."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # not all need torch

        get_error_handler().record_exception(error)
