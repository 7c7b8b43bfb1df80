"""Open an index by name: a file, or a Milvus or PostgreSQL address."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..index import milvus
from ..index.contract import SearchIndex
from ..index.local.joined import JoinedIndex
from ..index.milvus import MilvusIndex
from ..index.prefix_index import PrefixIndex
from ..utils.errors import NestKALAError, without_passwords
from ..utils.files import ABANDONED_SECONDS, link_target, remove_unfinished

if TYPE_CHECKING:
    from ..index.postgres import PostgresIndex


def is_in_postgres(where: str) -> bool:
    """Whether this is a PostgreSQL address."""
    return where.startswith(("postgresql://", "postgres://"))


def is_address(where: str) -> bool:
    """Whether this is a Milvus or PostgreSQL address rather than an index file."""
    return is_in_postgres(where) or milvus.is_address(where)


def shown_address(where: str) -> str:
    """The name of an index for display, without the password of an address."""
    if not is_in_postgres(where):
        return without_passwords(where) if is_address(where) else where
    _postgres()
    from ..index.postgres.address import Address

    return Address.parse(where).shown


def index_beside(folder: Path) -> str:
    """The default index file of a folder, next to it: photos.index for photos."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return str(named.with_name(f"{named.name}.index"))


def index_called(where: str) -> str:
    """The index that a name refers to: for a folder, the index file next to it; otherwise the name itself.

    Raises:
        NestKALAError: the folder has no index next to it.
    """
    if is_address(where) or not Path(where).is_dir():
        return where
    beside = index_beside(Path(where))
    if not Path(beside).is_file():
        raise NestKALAError(f"{where} is a folder without an index: create {beside} with nestkala index {where}")
    return beside


def open_index(where: str) -> SearchIndex:
    """Open an index: a file, a PostgreSQL or Milvus URI, a Milvus Lite file (.db), or several files with commas.

    Raises:
        NestKALAError: there is no such index, or several cannot be searched together.
    """
    names = where.split(",")
    if len(names) > 1 and "://" not in where and not Path(where).exists():
        return JoinedIndex([_open_file(name) for name in map(index_called, names)], names)
    index = find_index(where)
    if index is None:
        raise NestKALAError(f"there is no index {shown_address(where)}")
    return index


def _open_file(where: str) -> PrefixIndex:
    index = open_index(where)
    if not isinstance(index, PrefixIndex):
        raise NestKALAError(f"{where} is not a file: only index files can be searched together")
    return index


def find_index(where: str) -> SearchIndex | None:
    """Like `open_index`, but None if there is no index."""
    if is_in_postgres(where):
        return _postgres().open(where)
    if is_address(where):
        return MilvusIndex.open(where)
    return PrefixIndex.load(where) if Path(where).exists() else None


def create_index(
    where: str, lengths: Sequence[int], about: dict[str, str], partitions: int | None = None
) -> SearchIndex:
    """Create an empty index.

    Args:
        where: as for `open_index`; files are written only by `save_index`.
        lengths: the model's training lengths, which Milvus can search at; the longest is the code length.
        about: notes on the index.
        partitions: as for `PostgresIndex.create`; otherwise None.

    Raises:
        NestKALAError: Milvus or PostgreSQL cannot be reached, or already has an index there.
    """
    if is_in_postgres(where):
        return _postgres().create(where, max(lengths), about, partitions)
    if is_address(where):
        return MilvusIndex.create(where, lengths, about)
    return PrefixIndex.empty(max(lengths), about)


def save_index(index: SearchIndex, where: str) -> None:
    """Write the changes to an index file, and delete unfinished files left by killed processes.

    Milvus and PostgreSQL save changes immediately.
    """
    if isinstance(index, PrefixIndex):
        path = link_target(Path(where))
        index.save(path)
        remove_unfinished(path.parent, glob.escape(path.name), ABANDONED_SECONDS)


def _postgres() -> "type[PostgresIndex]":
    try:
        from ..index.postgres import PostgresIndex
    except ImportError as error:
        raise NestKALAError('PostgreSQL needs a driver: pip install "nestkala[postgresql]"') from error
    return PostgresIndex
