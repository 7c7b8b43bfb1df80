"""An index that is brought up to date as files change.

Folders are listed again and again, and no notices of the system are waited for: network drives send none of what other
machines change, and what cannot be watched by notices fails silently.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ...hasher import Hasher
from ...index.contract import SearchIndex
from ...utils.errors import NestKALAError, one_line
from ..folder import Changes, bring_up_to_date, compare
from ..opening import open_index, save_index
from ..places import ImageFolders

_SHARE = 9
"""A pause is this many times as long as the look before it, at least, so that looking takes a tenth of the time."""
_SETTLING_SECONDS = 2
"""A file that was written to so recently may be half of a copy: it is left to the next look."""


class Watch:
    """Looks at folders and brings their index up to date.

    Args:
        where: the index.
        folders: of its images.
        hasher: whose codes it holds.
        exclude: as for `update_from_folder`.
        unreadable: images that are known to be broken; they are tried again when they change.
        workers: processes that decode.
    """

    def __init__(
        self,
        where: str,
        folders: ImageFolders,
        hasher: Hasher,
        exclude: Sequence[str] = (),
        unreadable: Sequence[str] = (),
        workers: int = 0,
    ) -> None:
        self._where, self.folders, self._hasher, self._workers = where, folders, hasher, workers
        self._exclude = list(exclude)
        self._unreadable: dict[str, dict[str, Any] | None] = dict.fromkeys(unreadable)
        self._index: SearchIndex | None = None
        self._said = ""

    def run(self, every: float, tell: Callable[[SearchIndex, Changes], None], warn: Callable[[str], None]) -> None:
        """Look every so many seconds, without end.

        Whatever keeps it from looking or from saving, such as a disk that is not mounted, is said once and waited for.

        Args:
            every: seconds, more where a look takes longer.
            tell: called with the index, saved, and what has changed in it.
            warn: called with what is wrong, and when it is not any more.
        """
        while True:
            started = time.monotonic()
            try:
                found = self.look()
            except (NestKALAError, OSError) as error:
                self._index = None  # what is in memory need not be what was saved
                if (said := one_line(error)) != self._said:
                    warn(f"waiting: {said}")
                    self._said = said
            else:
                if self._said:
                    warn("watching again")
                    self._said = ""
                if found is not None:
                    tell(*found)
            time.sleep(max(every, _SHARE * (time.monotonic() - started)))

    def look(self) -> tuple[SearchIndex, Changes] | None:
        """Bring the index up to date and save it; None where nothing has changed.

        Raises:
            NestKALAError, OSError: a folder is missing, or as `compare` and `save_index` do.
        """
        if self._index is None:
            self._index = open_index(self._where)
        index, folders = self._index, self.folders.check_there(self._where)
        difference = compare(index, folders, self._exclude)
        difference.added = [name for name in difference.added if self._is_worth_trying(name, difference.here[name])]
        difference.changed = [name for name in difference.changed if _is_settled(difference.here[name])]
        if difference.is_empty:
            return None
        few = len(difference.added) + len(difference.changed) < 64  # for which processes take longer to start
        changes = bring_up_to_date(
            index,
            folders,
            difference,
            self._hasher,
            0 if few else self._workers,
            keep=lambda: save_index(index, self._where),
        )
        self._unreadable |= {name: difference.here[name] for name in changes.broken}
        return index, changes

    def _is_worth_trying(self, name: str, metadata: dict[str, Any]) -> bool:
        if name in self._unreadable and self._unreadable[name] in (None, metadata):
            self._unreadable[name] = metadata
            return False
        return _is_settled(metadata)


def _is_settled(metadata: dict[str, Any]) -> bool:
    age = time.time() - metadata["mtime_ns"] / 1e9
    return not 0 <= age < _SETTLING_SECONDS  # of a clock that is ahead nothing can be said


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
