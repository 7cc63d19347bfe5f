"""Ordered results of work that threads do ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from utils.machine import available_cpus

Item = TypeVar("Item")
Result = TypeVar("Result")
THREADS = min(available_cpus(), 4)  # for work on blocks of stays; each thread holds some of them


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    each: int = 2,
    start: Callable[[], object] | None = None,
) -> Generator[Result, None, None]:
    """Map `work` over items in order; at most `threads * each` results are in flight or unread.

    `start` is called in each thread before its first work. An error of `work` is raised in place of its
    result, and one of `items` behind the results of the items before it. `Executor.map` has no such bound
    before Python 3.14.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, initializer=start)
    failure: Exception | None = None
    source = iter(items)
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            pending.append(pool.submit(work, item))
            if len(pending) == each * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
