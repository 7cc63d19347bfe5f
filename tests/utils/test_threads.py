"""Work ahead keeps its order, its bound and its errors."""

import time
from collections.abc import Iterator

import pytest

from utils.threads import in_order


def test_results_come_in_order_whichever_ends_first() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number

    assert list(in_order(slow_first, range(20), threads=4)) == list(range(20))


def test_no_more_items_are_taken_than_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    for done, _ in enumerate(in_order(abs, items(), threads=3, each=4), start=1):
        assert len(taken) <= done + 3 * 4


def test_an_error_is_raised_in_its_place() -> None:
    found = in_order(lambda number: 1 // number, [1, 1, 0, 1], threads=2)
    assert [next(found), next(found)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
