"""The map over threads keeps order, bound and errors."""

import time
from collections.abc import Iterator

import pytest

from utils.threads import in_order


def test_results_are_in_order_whichever_is_ready_first() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number

    assert list(in_order(slow_first, range(20), threads=4)) == list(range(20))


def test_no_more_items_are_read_than_the_bound() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    for done, _ in enumerate(in_order(abs, items(), threads=3, each=4), start=1):
        assert len(taken) <= done + 3 * 4


def test_an_error_is_raised_in_its_place() -> None:
    results = in_order(lambda number: 1 // number, [1, 1, 0, 1], threads=2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_error_of_the_items_comes_after_the_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise KeyError("no more")

    results = in_order(abs, items(), threads=2)
    assert [next(results), next(results), next(results)] == [1, 2, 3]
    with pytest.raises(KeyError, match="no more"):
        next(results)


def test_an_error_of_the_work_comes_before_a_later_one_of_the_items() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError("no more")

    with pytest.raises(ZeroDivisionError):
        next(in_order(lambda number: 1 // number, items(), threads=2))
