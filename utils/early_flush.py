"""Bring files to disk while more is appended to them, so that the wait for the disk at their end is short."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from utils.files import flush

EVERY = 16 << 20  # bytes of a file


class EarlyFlush:
    """Flushes files in a thread, each whenever `every` bytes were appended to it since."""

    def __init__(self, pool: ThreadPoolExecutor, every: int) -> None:
        self._pool, self._every = pool, every
        self._unflushed: Counter[Path] = Counter()
        self._running: dict[Path, Future[None]] = {}

    def wrote(self, path: Path, count: int) -> None:
        """Note that `count` bytes were appended to a file, and left Python's buffer.

        Raises:
            OSError: The disk did not take what was written before.
        """
        self._unflushed[path] += count
        if self._unflushed[path] >= self._every and self.is_done(path):
            self._unflushed[path] = 0
            self._running[path] = self._pool.submit(flush, path)

    def is_done(self, path: Path) -> bool:
        """Return whether no flush of a file is waiting or running; OSError as `wrote`."""
        if path in self._running and self._running[path].done():
            self._running.pop(path).result()
        return path not in self._running

    def finish(self) -> None:
        """Wait for the flushes that have begun; OSError as `wrote`."""
        for flushed in self._running.values():
            flushed.result()


@contextmanager
def early_flush(every: int = EVERY) -> Iterator[EarlyFlush]:
    """Flush files while they are written. What is left at the end is for `utils.files.flush`.

    Raises:
        OSError: The disk did not take what was written.
    """
    pool = ThreadPoolExecutor(1)
    flushes = EarlyFlush(pool, every)
    try:
        yield flushes
        flushes.finish()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
