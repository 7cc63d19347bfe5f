"""A pool of processes that end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from utils.machine import keep_freed_memory

# A pool ends its processes by SIGTERM when one of them is killed, and waits for them: that one they obey.
IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def process_pool(count: int, what: str) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes, which start when work is submitted and import what it needs.

    Ctrl-C and the signals for users, which stop this process, let them finish what they have begun.

    Args:
        count: processes.
        what: what they do, for the error if one of them is killed, such as "draws X-rays".

    Raises:
        OSError: One of them was killed.
    """
    spawn = multiprocessing.get_context("spawn")  # Polars' threads do not survive a fork
    try:
        with ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise OSError(
            f"a process that {what} was killed, perhaps because memory ran out; run the same command again, "
            "with fewer cores (taskset) or more memory"
        ) from error


def _begin() -> None:
    """Prepare a process of the pool."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, which leaves it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a process of a pool has one
    parent.join()
    os._exit(1)
