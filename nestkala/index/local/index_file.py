"""An index file, to which changes are appended.

It is a single file, so that an index can be copied, moved and deleted as one thing, and readers see a single state of
it. It begins with a piece that holds all items, which is a complete file of version 1 or 2; earlier releases can read
it until something is appended. Each change appends a segment: new items, which earlier items are removed, and how many
earlier segments it replaces because they were merged into it. Unused parts stay where they are, so readers that have
mapped the file keep seeing what they saw, until the file is rewritten under its name.

A segment lies between two frames. It counts only once the second frame exists, which is written after everything before
it has reached the disk. So a file cut off anywhere, because its writer was killed or it was copied meanwhile, is the
state after one of the changes; the next change overwrites an unfinished segment.

Writers take turns using a lock, a hidden file next to the index. A writer is refused if the file has changed since it
was read.
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
"""Number of codes from which tables are saved; fewer are scanned in a tenth of a millisecond."""

_OPEN, _CLOSE = b"segment{", b"}segment"
_FRAME = 24
"""Bytes in a frame: its kind, the length of the segment, and the checksum of both."""
_ALIGNED = 64
"""Alignment of arrays in bytes. A frame fits into one such unit, which disks write completely or not at all."""
_HEAD = 2**16
"""Leading bytes that identify a file; they contain the checksum of the first piece."""
_PATIENCE = 10.0
"""Seconds that a writer waits for another; worker processes of a killed one take a while to notice."""


@dataclass
class IndexFile:
    """What a file holds, as far as this process knows.

    Attributes:
        path: the file itself, not a link to it.
        bits: code length.
        about: notes on the index.
        segments: items, as stored in the file.
        sizes: size of each segment in bytes.
        end: end of the valid part of the file.
        head: the first bytes of the file.
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
        """Read a file. Its arrays stay on disk until they are used.

        Args:
            path: file to read.
            verify: read the whole file once to verify its checksum.

        Raises:
            NestKALAError: the file does not exist, is not an index, has another version, or is damaged.
        """
        try:
            with path.open("rb", buffering=0) as opened:
                size = os.fstat(opened.fileno()).st_size
                if not size:
                    raise NestKALAError(f"{path} is not a NestKALA index: it is empty")
                content = np.frombuffer(mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
                first = read_piece(content, path, verify)
                appended = [*_appended(opened, first.num_bytes, path)]
        except OSError as error:
            raise NestKALAError(f"cannot read index {path}: {error.strerror or one_line(error)}") from None
        head = content[: min(_HEAD, first.num_bytes)].tobytes()
        file = cls(Path(os.path.realpath(path)), first.bits, first.about, [], [], 0, head)
        file._take(first, first.num_bytes)
        for begin, end in appended:
            if end > size:  # finished in the meantime
                break
            piece = read_piece(content[begin:end], path, verify, is_segment=True)
            if piece.num_bytes != end - begin or piece.bits != file.bits:
                raise NestKALAError(f"the index {path} is damaged: a segment belongs to another index")
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
        """Write a file of all items, at most one segment, completely or not at all.

        Args:
            path: file to write.
            bits: code length.
            about: notes on the index.
            segments: items to write.
            tables: whether to save the tables of a large index.
            before: the file to replace, which must not have changed.

        Raises:
            OSError: the file cannot be written, usually because the disk is full.
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
        """Whether a path points to this file."""
        return Path(os.path.realpath(path)) == self.path and self.path.exists()

    def update(self, segments: Sequence[Segment], about: Mapping[str, str], tables: bool) -> bool:
        """Append the changes that lead to these segments; or write nothing and return False if rewriting is better.

        Raises:
            OSError: the file cannot be written, usually because the disk is full; it is left as it was.
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
        """Append a segment after the valid part, and return where it ends."""
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
        """Raise NestKALAError if the file has changed."""
        try:
            with self.path.open("rb", buffering=0) as file:
                same = file.read(len(self.head)) == self.head and os.fstat(file.fileno()).st_size >= self.end
                same = same and not any(_appended(file, self.end, self.path))
        except OSError as error:
            raise NestKALAError(f"cannot read index {self.path}: {error.strerror or one_line(error)}") from None
        if not same:
            raise NestKALAError(
                f"another process has changed {self.path} in the meantime: load it again, or start over"
            )

    def _take(self, piece: Stored, end: int) -> None:
        """Apply a piece that ends at `end`."""
        rows = np.cumsum([0, *(len(segment.codes) for segment in self.segments)])
        if not 0 <= piece.merged <= len(self.segments) or (
            len(piece.removed) and not 0 <= piece.removed.min() <= piece.removed.max() < rows[-1]
        ):
            raise NestKALAError(f"the index {self.path} is damaged: a segment removes items that do not exist")
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
    """Lock an index file against changes by other processes; the same thread may lock it again inside.

    Raises:
        NestKALAError: another process is changing the file.
    """
    target = link_target(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    file = target.with_name(f".{target.name}.lock")
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise NestKALAError(f"another process is changing {path}: try again when it has finished") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:  # waiting processes notice that it is gone
            with suppress(OSError):  # some systems cannot delete open files
                file.unlink()
        lock.release()


def _appended(file: FileIO, begin: int, path: Path) -> Iterator[tuple[int, int]]:
    """Where the finished segments after `begin` begin and end.

    Frames are read, not mapped, since a writer may cut off an unfinished segment meanwhile.

    Raises:
        NestKALAError: a frame is damaged.
    """
    while True:
        begin += -begin % _ALIGNED + _ALIGNED
        opening = _read(file, begin - _FRAME)
        if len(opening) < _FRAME or not any(opening):  # cut off, or zeros that a file system left for missing data
            return
        length = int.from_bytes(opening[8:16], "little")
        close = begin + length + -length % _ALIGNED
        closing = _read(file, close) if opening == _frame(_OPEN, length) else opening
        if len(closing) < _FRAME or not any(closing):
            return
        if closing != _frame(_CLOSE, length):
            raise NestKALAError(f"the index {path} is damaged: the frame of a segment does not match")
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
    """The arrays of one segment, or of none, and the tables to save with it."""
    if not segments:
        segments = [Segment.empty(bits)]
    (segment,) = segments
    strings = (segment.ids.text, segment.ids.ends, segment.metadata.text, segment.metadata.ends)
    is_large = tables and len(segment.codes) >= LARGE and num_tables_of(bits) > 1
    return (segment.codes.words, *strings), segment.codes.all_tables() if is_large else None
