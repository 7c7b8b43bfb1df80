"""Functions compiled by numba, cached on disk if possible, and threads to call them in.

Compiled functions release Python's global lock, so ordinary threads run them in parallel. numba's own parallel loops
take several times longer to compile, and their threads do not survive a fork.

The first call in a process without a cache waits for the compiler. So these functions are plain loops over arrays: a
NumPy function in them, such as `argsort` or indexing by an array, is compiled as well and takes up to a second.

Importing numba takes a tenth of a second or more, so it is delayed until the first call of such a function.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from .machine import compute_threads

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Like `numba.njit`, without Python's global lock; such functions may call each other.

    Machine code is cached wherever numba can write: next to the source, in the user's cache folder, or in
    NUMBA_CACHE_DIR. If it can write nowhere, as in a read-only installation, every process compiles again.
    """
    return _Deferred(lambda: _kept(function))


def in_threads(
    work: Callable[[int, int], object], number: int, *, at_least: int = 1, threads: int | None = None
) -> None:
    """Call `work(first, last)` for ranges that together are 0 to `number`, at the same time.

    The threads end with the call: starting them takes some 50 microseconds each, and a fork has none to lose.

    Args:
        work: what to do, in compiled functions.
        number: number of items.
        at_least: number of items worth a thread.
        threads: the most threads; None for as many as this process computes with, see `compute_threads`.
    """
    parts = number // at_least
    if parts > 1:
        parts = min(parts, compute_threads() if threads is None else threads)
    if parts <= 1:
        work(0, number)
        return
    bounds = [number * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        deque(pool.map(work, bounds[:-1], bounds[1:]), maxlen=0)  # raises what they raised


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """A lock for work that only one thread may do, such as writing a cache.

    A lock that another thread holds would stay locked in a forked process, so a fork waits for this one.
    """
    with _locks.turn:
        yield


def intrinsic(function: Callable[..., Any]) -> Any:
    """Like `numba.extending.intrinsic`."""

    def made() -> Any:
        from numba.extending import intrinsic as numba_intrinsic

        return numba_intrinsic(function)

    return _Deferred(made)


class _Locks:
    """Our lock and numba's compiler lock; a fork waits for both, since nobody would release them in the child."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self._compiling: Any = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._release)

    def _hold(self) -> None:
        self.turn.acquire()
        self._compiling = sys.modules.get("numba.core.compiler_lock")
        if self._compiling is not None:
            self._compiling.global_compiler_lock.acquire()

    def _release(self) -> None:
        if self._compiling is not None:
            self._compiling.global_compiler_lock.release()
        self.turn.release()


_locks = _Locks()


class _Deferred:
    """A numba object that is created when first called, or when a function that calls it is compiled."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def made(self) -> Any:
        """The object itself."""
        with _locks.turn:
            return self._make()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.made(*args, **kwargs)


def _kept(function: Callable[..., Any]) -> Any:
    """The function, compiled and cached."""
    from numba import njit
    from numba.core.caching import FunctionCache

    class Cache(FunctionCache):
        """Machine code on disk. Unreadable code is compiled again; code that cannot be written is not cached."""

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            with suppress(Exception):  # unpickling the remains of a crash can raise almost any type
                return super().load_overload(sig, target_context)
            return None

        def save_overload(self, sig: Any, data: Any) -> None:
            with suppress(Exception):  # likewise: it first reads the existing file
                super().save_overload(sig, data)

    assert isinstance(function, FunctionType)
    called = {key: function.__globals__.get(key) for key in function.__code__.co_names}
    made = {key: value.made for key, value in called.items() if isinstance(value, _Deferred)}
    copy = FunctionType(function.__code__, function.__globals__ | made, function.__name__)
    copy.__qualname__ = function.__qualname__
    dispatcher = njit(copy, nogil=True, error_model="numpy")  # a division by 0 is not checked for
    with suppress(RuntimeError):  # no writable folder
        dispatcher._cache = Cache(dispatcher.py_func)
    return dispatcher
