"""Update an index as files change.

Folders are listed repeatedly instead of waiting for system notifications: network drives send none for changes by other
machines, and notifications that cannot be set up fail silently.
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
from ..opening import open_index, save_index, shown_address
from ..places import ImageFolders, folders_of
from .membership import patterns_of

_SHARE = 9
"""A pause is at least this many times as long as the check before it, so checking takes a tenth of the time."""
_SETTLING_SECONDS = 2
"""A file modified this recently may still be being copied, so it is left for the next check."""


class Watch:
    """Watches folders and updates their index.

    Args:
        where: the index.
        folders: its image folders.
        hasher: its model.
        exclude: as for `update_from_folder`.
        unreadable: images known to be broken; they are tried again when they change.
        workers: number of decoding threads.
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
        """Check the folders periodically, forever.

        Errors in checking or saving, such as a disk that is not mounted, are reported once and waited out.

        Args:
            every: seconds between checks; longer if a check is slow.
            tell: called with the saved index and the changes made to it.
            warn: called with a message when something goes wrong, and when it works again.
        """
        while True:
            started = time.monotonic()
            try:
                found = self.look()
            except (NestKALAError, OSError) as error:
                self._index = None  # memory may differ from what was saved
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
        """Update the index and save it; None if nothing has changed.

        Raises:
            NestKALAError, OSError: a folder is missing, another process changed the index's model, folders or excluded
                files, or as for `compare` and `save_index`.
        """
        if self._index is None:
            self._index = self._opened()
        index, folders = self._index, self.folders.check_there(self._where)
        difference = compare(index, folders, self._exclude)
        difference.added = [name for name in difference.added if self._is_worth_trying(name, difference.here[name])]
        difference.changed = [name for name in difference.changed if _is_settled(difference.here[name])]
        if difference.is_empty:
            return None
        few = len(difference.added) + len(difference.changed) < 64  # not worth starting threads for
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

    def _opened(self) -> SearchIndex:
        """The index, which another process may have changed. Raises NestKALAError where this one does not fit it."""
        index = open_index(self._where)
        shown = shown_address(self._where)
        if index.about.get("model_fingerprint") not in (None, self._hasher.fingerprint):
            raise NestKALAError(f"{shown} is of another model now: stop, and watch it anew")
        if not self.folders.paths.keys() <= folders_of(index).paths.keys():
            raise NestKALAError(f"{shown} calls its folders differently now: stop, and watch it anew")
        if patterns_of(index, ()) != self._exclude:
            raise NestKALAError(f"{shown} leaves out other files now: stop, and watch it anew")
        return index

    def _is_worth_trying(self, name: str, metadata: dict[str, Any]) -> bool:
        if name in self._unreadable and self._unreadable[name] in (None, metadata):
            self._unreadable[name] = metadata
            return False
        return _is_settled(metadata)


def _is_settled(metadata: dict[str, Any]) -> bool:
    age = time.time() - metadata["mtime_ns"] / 1e9
    return not 0 <= age < _SETTLING_SECONDS  # a time in the future says nothing


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
