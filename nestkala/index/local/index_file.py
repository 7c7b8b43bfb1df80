"""An index's file, which grows by what changes.

One file, so that an index is copied, moved and deleted as one thing, and whoever opens it sees one state of it. It
begins with a piece that holds all items, as files of version 1 and 2 are as a whole; earlier programs read it until
something is appended. Each change appends a segment: new items, which earlier ones are gone, and in place of how many
earlier segments it stands, which were merged into it. What is no longer used stays where it is, and readers who have
mapped the file keep what they see, until the file is written anew under its name.

A segment lies between two frames. It counts once the second is there, which is written when all before it is on the
disk. So a file that ends anywhere, because its writer was killed or it was copied meanwhile, is the state after one of
the changes; the next change overwrites an unfinished segment.

Writers take turns by a lock, a hidden file that is beside it meanwhile. One whose file has been changed since it was
read is refused.
"""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from io import FileIO
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ...utils.errors import NestKALAError, one_line
from ...utils.files import link_target
from ..storage import Stored, read_piece, segment_bytes, write_index
from ..strings import Strings
from ..tables import Tables, num_tables_of
from .segment import Segment
from .sorted_codes import SortedCodes

LARGE = 2**18
"""Codes from which tables are kept on the disk: fewer are scanned in a tenth of a millisecond."""

_OPEN, _CLOSE = b"segment{", b"}segment"
_FRAME = 24
"""Bytes of one: which it is, the length of the segment, and the checksum of both."""
_ALIGNED = 64
"""Bytes that arrays are aligned to, and within which a frame lies: a disk writes those all or not at all."""
_HEAD = 2**16
"""Bytes at the beginning by which a file is known: in them is the checksum of the first piece."""
_PATIENCE = 10.0
"""Seconds that a writer waits for another: a killed one's worker processes take some to notice."""


@dataclass
class IndexFile:
    """What a file holds, as far as this process knows.

    Attributes:
        path: of the file itself, not of a link to it.
        bits: length of the codes.
        about: notes on the index.
        segments: its items, as they are there.
        sizes: bytes that each segment takes.
        end: of what counts in the file.
        head: how it begins.
    """

    path: Path
    bits: int
    about: dict[str, str]
    segments: list[Segment]
    sizes: list[int]
    end: int
    head: bytes

    @classmethod
    def read(cls, path: Path, verify: bool) -> "IndexFile":
        """Read a file; its arrays stay on the disk until they are used.

        Args:
            path: of the file.
            verify: read all of it once, to see that it is what was written.

        Raises:
            NestKALAError: no such file, no index, of another version, or damaged.
        """
        try:
            with path.open("rb", buffering=0) as opened:
                size = os.fstat(opened.fileno()).st_size
                if not size:
                    raise NestKALAError(f"{path} is no index of NestKALA: it is empty")
                content = np.frombuffer(mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
                first = read_piece(content, path, verify)
                appended = [*_appended(opened, first.num_bytes, path)]
        except OSError as error:
            raise NestKALAError(f"cannot read index {path}: {error.strerror or one_line(error)}") from None
        head = content[: min(_HEAD, first.num_bytes)].tobytes()
        file = cls(Path(os.path.realpath(path)), first.bits, first.about, [], [], 0, head)
        file._take(first, first.num_bytes)
        for begin, end in appended:
            if end > size:  # finished since
                break
            piece = read_piece(content[begin:end], path, verify, is_segment=True)
            if piece.num_bytes != end - begin or piece.bits != file.bits:
                raise NestKALAError(f"the index {path} is damaged: a segment is not of this index")
            file._take(piece, end + -(end - begin) % _ALIGNED + _FRAME)
        return file

    @classmethod
    def write(
        cls,
        path: Path,
        bits: int,
        about: Mapping[str, str],
        segments: Sequence[Segment],
        tables: bool,
        before: "IndexFile | None",
    ) -> "IndexFile":
        """Write a file of all items, one segment at most, whole or not at all.

        Args:
            path: of the file.
            bits: length of the codes.
            about: notes on the index.
            segments: its items.
            tables: whether to keep those of a large one.
            before: what it replaces, if that must not have changed.

        Raises:
            OSError: it cannot be written, for want of room as a rule.
            NestKALAError: another process has changed the file, or is changing it now.
        """
        if before is None:
            write_index(path, bits, about, *_stored(segments, bits, tables))
        else:
            with writing_alone(path):
                before._check_unchanged()
                write_index(path, bits, about, *_stored(segments, bits, tables))
        real = Path(os.path.realpath(path))
        with real.open("rb") as opened:
            head, size = opened.read(_HEAD), os.fstat(opened.fileno()).st_size
        return cls(real, bits, dict(about), list(segments), [size] * len(segments), size, head)

    def is_at(self, path: Path) -> bool:
        """Whether this is the file that a path leads to."""
        return Path(os.path.realpath(path)) == self.path and self.path.exists()

    def update(self, segments: Sequence[Segment], about: Mapping[str, str], tables: bool) -> bool:
        """Append what makes these the segments; or write nothing and return False, where writing all anew is better.

        Raises:
            OSError: it cannot be written, for want of room as a rule; the file is as it was before.
            NestKALAError: another process has changed the file, or is changing it now.
        """
        pairs = zip(self.segments, segments, strict=False)
        kept = next((n for n, (old, new) in enumerate(pairs) if old.codes is not new.codes), None)
        kept = min(len(self.segments), len(segments)) if kept is None else kept
        if not kept or dict(about) != self.about or self.end > 2 * sum(self.sizes):
            return False
        if not tables and any(old.codes.has_all_tables for old in self.segments):
            return False
        rows = np.cumsum([0, *(len(old.codes) for old in self.segments)])
        removed = [
            rows[n] + np.flatnonzero(new.removed if old.removed is None else new.removed & ~old.removed)
            for n, (old, new) in enumerate(zip(self.segments[:kept], segments[:kept], strict=True))
            if new.removed is not None
        ]
        gone, merged = np.concatenate([np.empty(0, np.int64), *removed]), len(self.segments) - kept
        with writing_alone(self.path):
            self._check_unchanged()
            new = [Segment.merged(segments[kept:])] if segments[kept:] else []
            if not len(gone) and not merged and not new:
                return True
            end = self._append(segment_bytes(self.bits, about, *_stored(new, self.bits, tables), gone, merged))
        self.segments[:] = [*segments[:kept], *new]
        self.sizes[kept:], self.end = [end - self.end] * len(new), end
        return True

    def _append(self, content: bytes) -> int:
        """Put a segment at the end of what counts, and say where it ends."""
        begin = self.end + -self.end % _ALIGNED
        with self.path.open("r+b") as file:
            try:
                file.truncate(self.end)
                file.seek(begin + _ALIGNED - _FRAME)
                file.write(_frame(_OPEN, len(content)) + content + bytes(-len(content) % _ALIGNED))
                file.flush()
                os.fsync(file.fileno())
                file.write(_frame(_CLOSE, len(content)))
                file.flush()
                os.fsync(file.fileno())
                return file.tell()
            except BaseException:
                with suppress(OSError):
                    file.truncate(self.end)
                raise

    def _check_unchanged(self) -> None:
        """Raise NestKALAError where the file holds something else by now."""
        try:
            with self.path.open("rb", buffering=0) as file:
                same = file.read(len(self.head)) == self.head and os.fstat(file.fileno()).st_size >= self.end
                same = same and not any(_appended(file, self.end, self.path))
        except OSError as error:
            raise NestKALAError(f"cannot read index {self.path}: {error.strerror or one_line(error)}") from None
        if not same:
            raise NestKALAError(f"another process has changed {self.path} meanwhile: load it again, or start again")

    def _take(self, piece: Stored, end: int) -> None:
        """Apply a piece that ends there."""
        rows = np.cumsum([0, *(len(segment.codes) for segment in self.segments)])
        if not 0 <= piece.merged <= len(self.segments) or (
            len(piece.removed) and not 0 <= piece.removed.min() <= piece.removed.max() < rows[-1]
        ):
            raise NestKALAError(f"the index {self.path} is damaged: a segment removes what is not there")
        for n in np.unique(np.searchsorted(rows, piece.removed, "right") - 1).tolist():
            mine = piece.removed[(piece.removed >= rows[n]) & (piece.removed < rows[n + 1])]
            self.segments[n] = self.segments[n].without(mine - rows[n])
        left = len(self.segments) - piece.merged
        del self.segments[left:], self.sizes[left:]
        words, *strings = piece.arrays
        if len(words):
            codes = SortedCodes(words, piece.bits, piece.tables)
            self.segments.append(Segment(codes, Strings(*strings[:2]), Strings(*strings[2:])))
            self.sizes.append(end - self.end)
        self.end = end


@contextmanager
def writing_alone(path: Path) -> Iterator[None]:
    """Be the only process that changes this index file; the same thread may do so again inside.

    Raises:
        NestKALAError: another process is changing it.
    """
    target = link_target(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.with_name(f".{target.name}.lock")
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise NestKALAError(f"another process is changing {path}: try again when it has ended") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:  # those who wait for it notice that it is gone
            with suppress(OSError):  # of systems that do not delete what is open
                file.unlink()
        lock.release()


def _appended(file: FileIO, begin: int, path: Path) -> Iterator[tuple[int, int]]:
    """Where the finished segments behind `begin` begin and end.

    They are read, not mapped: a writer may cut off an unfinished one meanwhile.

    Raises:
        NestKALAError: frames that nobody wrote.
    """
    while True:
        begin += -begin % _ALIGNED + _ALIGNED
        opening = _read(file, begin - _FRAME)
        if len(opening) < _FRAME or not any(opening):  # cut off, or as a file system leaves what did not arrive
            return
        length = int.from_bytes(opening[8:16], "little")
        close = begin + length + -length % _ALIGNED
        closing = _read(file, close) if opening == _frame(_OPEN, length) else opening
        if len(closing) < _FRAME or not any(closing):
            return
        if closing != _frame(_CLOSE, length):
            raise NestKALAError(f"the index {path} is damaged: a segment is not what was written")
        yield begin, begin + length
        begin = close + _FRAME


def _read(file: FileIO, begin: int) -> bytes:
    file.seek(begin)
    return file.read(_FRAME)


def _frame(which: bytes, length: int) -> bytes:
    told = which + length.to_bytes(8, "little")
    return told + blake2b(told, digest_size=8).digest()


def _stored(
    segments: Sequence[Segment], bits: int, tables: bool
) -> tuple[tuple[NDArray[np.generic], ...], Tables | None]:
    """The arrays of one segment, or of none, and the tables that are kept with it."""
    if not segments:
        segments = [Segment.empty(bits)]
    (segment,) = segments
    strings = (segment.ids.text, segment.ids.ends, segment.metadata.text, segment.metadata.ends)
    is_large = tables and len(segment.codes) >= LARGE and num_tables_of(bits) > 1
    return (segment.codes.words, *strings), segment.codes.all_tables() if is_large else None
