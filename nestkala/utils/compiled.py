"""Functions compiled by numba, cached on disk if possible and called by one thread at a time.

numba's simplest threading layer, the only one that pip installs on macOS, aborts the process if two threads enter
parallel functions at once. Its threads, like OpenMP's, do not survive a fork, so the next parallel function kills the
child process or hangs.

Importing numba takes half a second or more, so it is delayed until the first call of such a function.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Like `numba.njit`, for functions without threads; they may call each other.

    Machine code is cached wherever numba can write: next to the source, in the user's cache folder, or in
    NUMBA_CACHE_DIR. If it can write nowhere, as in a read-only installation, every process compiles again.
    """
    return _Deferred(lambda: _kept(function))


def compiled_parallel(function: Callable[P, R]) -> Callable[P, R]:
    """Like `compiled`, with `numba.prange` over threads; may be called only from Python.

    Threads take turns. A process that was forked after threads were started computes the same result without them. A
    fork waits for a running call to finish.
    """
    parallel = _Deferred(lambda: _kept(function, parallel=True))
    # numba caches code by name: otherwise it would confuse the two versions
    serial = _Deferred(lambda: _kept(function, f"{function.__qualname__}_without_threads"))

    @wraps(function)
    def in_turn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _threads.turn:
            result: R = (serial if _threads.lost else parallel)(*args, **kwargs)
            return result

    return in_turn


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """A lock for work that only one thread may do, such as writing a cache: the one that compiled calls use.

    A separate lock would stay locked in a process that is forked while another thread holds it.
    """
    with _threads.turn:
        yield


def intrinsic(function: Callable[..., Any]) -> Any:
    """Like `numba.extending.intrinsic`."""

    def made() -> Any:
        from numba.extending import intrinsic as numba_intrinsic

        return numba_intrinsic(function)

    return _Deferred(made)


def threads_are_lost() -> bool:
    """Whether this process was forked from one that computed with threads, which the fork has lost."""
    return _threads.lost


class _Threads:
    """numba's threads: whose turn it is, and whether a fork has lost them."""

    def __init__(self) -> None:
        self.turn, self.lost = threading.RLock(), False
        self._held: Any = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._begin_anew)

    def _hold(self) -> None:
        self.turn.acquire()
        self._held = sys.modules.get("numba.core.compiler_lock")
        if self._held is not None:
            self._held.global_compiler_lock.acquire()  # nobody would release it in the child

    def _release(self) -> None:
        if self._held is not None:
            self._held.global_compiler_lock.release()
        self.turn.release()

    def _begin_anew(self) -> None:
        self._release()
        if self._held is not None:
            from numba import threading_layer

            with suppress(ValueError):  # no threads had been started
                threading_layer()
                self.lost = True


_threads = _Threads()


class _Deferred:
    """A numba object that is created when first called, or when a function that calls it is compiled."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def made(self) -> Any:
        """The object itself."""
        with _threads.turn:
            return self._make()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.made(*args, **kwargs)


def _numba_prange() -> Any:
    from numba import prange

    return prange


prange: Any = _Deferred(_numba_prange)
"""Like `numba.prange`, in functions that are `compiled_parallel`."""


def _kept(function: Callable[..., Any], name: str | None = None, **options: bool) -> Any:
    """The function, compiled and cached under a name, by default its own."""
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
    copy = FunctionType(function.__code__, function.__globals__ | made, name or function.__name__)
    copy.__qualname__ = name or function.__qualname__
    dispatcher = njit(copy, **options)
    with suppress(RuntimeError):  # no writable folder
        dispatcher._cache = Cache(dispatcher.py_func)
    return dispatcher
