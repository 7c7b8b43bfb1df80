"""Several indexes searched as one."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from ...utils.errors import NestKALAError
from ..prefix_index import PrefixIndex
from .segment import Segment


class JoinedIndex(PrefixIndex):
    """Several indexes of the same model, searched as if they were one. It is read-only.

    Results have exactly the order of a single index; items with equal distance and code come in the order of the
    indexes. If the indexes know their image folders, ids are paths relative to the folder that contains all of them.

    Example:
        >>> both = JoinedIndex([PrefixIndex.load("2019.index"), PrefixIndex.load("2020.index")])
        >>> both.search(hasher.encode("query.jpg"), k=20)
    """

    def __init__(self, indexes: Sequence[PrefixIndex], names: Sequence[str] | None = None) -> None:
        """Join one or more indexes; `names` are used in error messages.

        Raises:
            NestKALAError: the indexes have different code lengths or models.
        """
        names = names or [f"number {n}" for n in range(1, len(indexes) + 1)]
        if not indexes:
            raise NestKALAError("there is no index to search")
        first = indexes[0]
        for name, index in zip(names, indexes, strict=True):
            if index.bits != first.bits:
                raise NestKALAError(
                    f"the codes of {name} have {index.bits} bits and those of {names[0]} have {first.bits}: "
                    "only indexes of the same model can be searched together"
                )
            if index.about.get("model_fingerprint") != first.about.get("model_fingerprint"):
                raise NestKALAError(
                    f"{name} and {names[0]} were made with different models: their codes cannot be compared"
                )
        super().__init__([], first.bits, first.about)
        folders = [index.about.get("folder") for index in indexes]
        above = _common([folder for folder in folders if folder is not None]) if None not in folders else None
        for key in ("folder", "near", "folders"):
            self.about.pop(key, None)
        if above is not None:
            self.about["folder"] = str(above)
        self._segments = tuple(
            replace(segment, folder=_below(above, folder)) if above is not None and folder is not None else segment
            for index, folder in zip(indexes, folders, strict=True)
            for segment in index._segments
        )

    def _insert(self, new: Sequence[Segment]) -> NoReturn:
        self._refuse(new)

    def remove(self, ids: Iterable[str]) -> NoReturn:
        """Not supported: raises NestKALAError."""
        self._refuse(ids)

    def save(self, path: Path | str, tables: bool = True) -> NoReturn:
        """Not supported: raises NestKALAError."""
        self._refuse(path, tables)

    def _refuse(self, *_: object) -> NoReturn:
        raise NestKALAError("several indexes can be searched together, but must be changed and saved one by one")


def _common(folders: Sequence[str]) -> Path | None:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on different drives
        return None


def _below(above: Path, folder: str) -> str:
    relative = Path(folder).relative_to(above).as_posix()
    return "" if relative == "." else f"{relative}/"
