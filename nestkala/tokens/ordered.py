"""Work that threads do ahead of the consumer of its results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def in_order(work: Callable[[S], T], items: Iterable[S], threads: int, ahead: int) -> Iterator[T]:
    """Yield the result of `work` for each item, in the order of the items.

    Args:
        work: must be thread-safe; its exceptions are raised here, in order.
        items: consumed as needed.
        threads: number of worker threads; with 0, each item is processed when it is requested.
        ahead: maximum number of results held, including those in progress.
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
