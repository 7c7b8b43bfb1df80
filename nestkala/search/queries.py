"""What an index is asked with: images, sentences, images that it holds, and mixtures of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes import pack, unpack
from ..hasher import Hasher
from ..images.decoding import looks_like_image
from ..index.contract import Hits, SearchIndex
from ..utils.errors import NestKALAError
from .places import ImageFolders

SHORTLIST = 1000
"""Images that a mixture ranks, at least: those nearest to its signs."""

_AGAINST = 0.5
"""How much what is not wanted counts beside what is: all of it would leave nothing but differences."""


@dataclass(frozen=True, eq=False)
class Query:
    """One thing to ask with.

    Attributes:
        asked: the image, or the sentence.
        code: packed, uint8 (1, bytes).
        relaxed: real-valued code (1, L) of an image that was encoded; None of all else.
        is_image: whether it is an image, and no sentence.
    """

    asked: Path | str
    code: NDArray[np.uint8]
    relaxed: NDArray[np.floating[Any]] | None = None
    is_image: bool = True


def as_query(said: str, index: SearchIndex, hasher: Hasher, folders: ImageFolders | None) -> Query:
    """What is meant: an image file, an image of the index by its name in it, or else a sentence.

    Args:
        said: by the user.
        index: that is asked.
        hasher: that made its codes.
        folders: of the index's images, if it knows.

    Raises:
        NestKALAError: what is called like an image and is not there, a folder, nothing but spaces, or as `Hasher` does.
    """
    path, in_index = Path(said), None if folders is None else folders.file(said)
    if not said.strip():
        raise NestKALAError("a query is empty: name an image, or say what the images should show")
    if _is_file(path):
        return _of_image(path, hasher)
    if (item := index.get(said)) is not None:
        return Query(in_index or said, item[0])
    if in_index is not None and looks_like_image(path) and _is_file(in_index):
        return _of_image(in_index, hasher)
    if looks_like_image(path):
        return _of_image(path, hasher)  # which says why it cannot be read
    if _is_folder(path):
        raise NestKALAError(f"{said} is a folder: ask with an image, or with a sentence by --text")
    return of_text(said, hasher)


def of_text(sentence: str, hasher: Hasher) -> Query:
    """Raises NestKALAError as `Hasher.encode_text` does."""
    return Query(sentence, hasher.encode_text(sentence), is_image=False)


def mixture(wanted: Sequence[Query], unwanted: Sequence[Query], bits: int) -> NDArray[np.float32]:
    """A real-valued code (1, bits) that is like all that is wanted and unlike what is not.

    The sum of the codes, entries -1 or +1, less half of each that is not wanted. Images are then ranked by the product
    of their code with it, as `PrefixIndex.search` does by `rescore`.
    """
    for_it = sum(unpack(query.code, bits).astype(np.float32) for query in wanted)
    against = sum((unpack(query.code, bits).astype(np.float32) for query in unwanted), np.zeros((1, bits), np.float32))
    mixed: NDArray[np.float32] = for_it - _AGAINST * against
    return mixed


def search_mixture(
    index: SearchIndex,
    mixed: NDArray[np.float32],
    k: int,
    shortlist: int | None,
    bits: int | None = None,
    where: Sequence[str] = (),
) -> Hits:
    """The k images whose codes have the largest products with a mixture (1, L), among those nearest to its signs.

    Args:
        index: to search.
        mixed: of the index's length, as `mixture` gives it.
        k: how many.
        shortlist: how many images to rank; None for `SHORTLIST`, or 10 k if that is more.
        bits: prefix length that is compared, by default all.
        where: conditions, as for `PrefixIndex.search`.
    """
    compared = np.where(np.arange(mixed.shape[1]) < (bits or mixed.shape[1]), mixed, np.float32(0))
    ranked = shortlist or max(SHORTLIST, 10 * k)
    return index.search(pack(mixed), k, bits, shortlist=ranked, rescore=compared, where=where)


def _of_image(path: Path, hasher: Hasher) -> Query:
    relaxed = hasher.relaxed(path)
    return Query(path, pack(relaxed), relaxed)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a sentence longer than a file's name can be
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
