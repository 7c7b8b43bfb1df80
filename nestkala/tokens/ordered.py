"""Work that threads do ahead of who takes its results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_order(work: Callable[[S], T], items: Iterable[S], threads: int, ahead: int) -> Iterator[T]:
    """What `work` returns for each item, in their order.

    Args:
        work: safe to call from several threads; what it raises is raised here, in its turn.
        items: taken as they are needed.
        threads: that work; with 0 each item waits until it is asked for.
        ahead: results that are held at most, those in work included.
    """
    if not threads:
        yield from map(work, items)
        return
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[T]]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
