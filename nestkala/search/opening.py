"""An index by name: a file, or where Milvus or PostgreSQL keeps it."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..index import milvus
from ..index.contract import SearchIndex
from ..index.local.joined import JoinedIndex
from ..index.milvus import MilvusIndex
from ..index.prefix_index import PrefixIndex
from ..utils.errors import NestKALAError
from ..utils.files import ABANDONED_SECONDS, link_target, remove_unfinished

if TYPE_CHECKING:
    from ..index.postgres import PostgresIndex


def is_in_postgres(where: str) -> bool:
    """Whether an index is named that PostgreSQL keeps."""
    return where.startswith(("postgresql://", "postgres://"))


def is_address(where: str) -> bool:
    """Whether an index is named that Milvus or PostgreSQL keeps, and no file of ours."""
    return is_in_postgres(where) or milvus.is_address(where)


def shown_address(where: str) -> str:
    """The name of an index for people: without the password that an address of PostgreSQL may have."""
    if not is_in_postgres(where):
        return where
    _postgres()
    from ..index.postgres.address import Address

    return Address.parse(where).shown


def index_beside(folder: Path) -> str:
    """The index file that stands beside a folder by default: photos.index of photos."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return str(named.with_name(f"{named.name}.index"))


def index_called(where: str) -> str:
    """The index that is meant: of a folder the one beside it, else what was said.

    Raises:
        NestKALAError: a folder without an index beside it.
    """
    if is_address(where) or not Path(where).is_dir():
        return where
    beside = index_beside(Path(where))
    if not Path(beside).is_file():
        raise NestKALAError(f"{where} is a folder, and there is no index {beside}: nestkala index {where} makes it")
    return beside


def open_index(where: str) -> SearchIndex:
    """The index of this name: a file, a URI of PostgreSQL or Milvus, a file of Milvus Lite (.db), or files with commas.

    Raises:
        NestKALAError: there is none, what is there is no index, or several that cannot be searched together.
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
        raise NestKALAError(f"{where} is no file: only index files are searched together")
    return index


def find_index(where: str) -> SearchIndex | None:
    """As `open_index`, or None where there is none."""
    if is_in_postgres(where):
        return _postgres().open(where)
    if is_address(where):
        return MilvusIndex.open(where)
    return PrefixIndex.load(where) if Path(where).exists() else None


def create_index(
    where: str, lengths: Sequence[int], about: dict[str, str], partitions: int | None = None
) -> SearchIndex:
    """An index of no items yet.

    Args:
        where: as for `open_index`; a file is written by `save_index` only.
        lengths: trained ones of the model, which Milvus holds; the longest is that of the codes.
        about: the index itself.
        partitions: as for `PostgresIndex.create`; None elsewhere.

    Raises:
        NestKALAError: Milvus or PostgreSQL cannot be reached, or has one there already.
    """
    if is_in_postgres(where):
        return _postgres().create(where, max(lengths), about, partitions)
    if is_address(where):
        return MilvusIndex.create(where, lengths, about)
    return PrefixIndex.empty(max(lengths), about)


def save_index(index: SearchIndex, where: str) -> None:
    """Write what has changed in an index that is a file, and delete what killed processes left of it.

    Milvus and PostgreSQL have theirs already.
    """
    if isinstance(index, PrefixIndex):
        path = link_target(Path(where))
        index.save(path)
        remove_unfinished(path.parent, glob.escape(path.name), ABANDONED_SECONDS)


def _postgres() -> "type[PostgresIndex]":
    try:
        from ..index.postgres import PostgresIndex
    except ImportError as error:
        raise NestKALAError('an index in PostgreSQL needs its driver: pip install "nestkala[postgresql]"') from error
    return PostgresIndex
