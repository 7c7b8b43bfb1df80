"""Threads that work ahead: in order, no further than they may, and no longer than anybody waits."""

import threading
from collections.abc import Iterator

import pytest

from nestkala.tokens.ordered import in_order


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_results_come_in_the_order_of_the_items_whichever_is_done_first(threads: int) -> None:
    later = threading.Event()

    def work(item: int) -> int:
        if item == 0 and threads > 1:
            assert later.wait(60)  # until a later one is done
        if item == 1:
            later.set()
        return item * item

    assert list(in_order(work, range(100), threads, ahead=8)) == [item * item for item in range(100)]


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_is_held_than_may_be(threads: int, ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(20):
            taken += 1
            yield item

    for number, found in enumerate(in_order(lambda item: item, items(), threads, ahead)):
        assert found == number
        assert taken <= number + ahead


@pytest.mark.parametrize("threads", [0, 2])
def test_what_fails_is_raised_in_its_turn(threads: int) -> None:
    found = in_order(lambda item: 6 // (3 - item), range(6), threads, ahead=4)
    assert [next(found) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_what_nobody_waits_for_is_not_begun() -> None:
    begun, hold = [], threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            hold.wait(60)
        return item

    found = in_order(work, range(100), threads=1, ahead=50)
    assert next(found) == 0
    threading.Timer(0.1, hold.set).start()
    found.close()
    assert len(begun) <= 2
    assert threading.active_count() < 10
