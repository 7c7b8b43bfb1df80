"""Queries: image files, images in the index, sentences, and mixtures of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import isdir, isfile  # unlike those of Path, false for sentences too long for a file name
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
"""Minimum number of images that a mixture ranks: those nearest to its signs."""

_AGAINST = 0.5
"""Weight of unwanted queries relative to wanted ones; at 1, only the differences would be left."""


@dataclass(frozen=True, eq=False)
class Query:
    """One query.

    Attributes:
        asked: the image or the sentence.
        code: packed code, uint8 (1, bytes).
        relaxed: real-valued code (1, L) of an encoded image file; otherwise None.
        is_image: whether it is an image rather than a sentence.
    """

    asked: Path | str
    code: NDArray[np.uint8]
    relaxed: NDArray[np.floating[Any]] | None = None
    is_image: bool = True


def as_query(said: str, index: SearchIndex, hasher: Hasher, folders: ImageFolders | None) -> Query:
    """Interpret a query: an image file, the name of an image in the index, or else a sentence.

    Args:
        said: the user's words.
        index: the index to search.
        hasher: the index's model.
        folders: the index's image folders, if known.

    Raises:
        NestKALAError: a name that looks like an image but does not exist, a folder, only spaces, or as for `Hasher`.
    """
    path, in_index = Path(said), None if folders is None else folders.file(said)
    if not said.strip():
        raise NestKALAError("a query is empty: name an image, or describe what the images should show")
    if isfile(path):  # noqa: PTH113
        return _of_image(path, hasher)
    if (item := index.get(said)) is not None:
        return Query(in_index or said, item[0])
    if in_index is not None and looks_like_image(path) and isfile(in_index):  # noqa: PTH113
        return _of_image(in_index, hasher)
    if looks_like_image(path):
        return _of_image(path, hasher)  # raises an error that says why it cannot be read
    if isdir(path):  # noqa: PTH112
        raise NestKALAError(f"{said} is a folder: search for an image, or use --text for a sentence")
    return of_text(said, hasher)


def of_text(sentence: str, hasher: Hasher) -> Query:
    """A sentence as a query. Raises NestKALAError as `Hasher.encode_text` does."""
    return Query(sentence, hasher.encode_text(sentence), is_image=False)


def mixture(wanted: Sequence[Query], unwanted: Sequence[Query], bits: int) -> NDArray[np.float32]:
    """A real-valued code (1, bits) that is similar to all wanted queries and dissimilar to the unwanted ones.

    The sum of the wanted codes, with entries -1 or +1, minus half of each unwanted one. Images are then ranked by the
    product of their code with it, as by `PrefixIndex.search` with `rescore`.
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
        index: the index to search.
        mixed: from `mixture`, of the index's code length.
        k: how many results to return.
        shortlist: how many images to rank (default: `SHORTLIST`, or 10 k if that is more).
        bits: prefix length to compare (default: all bits).
        where: conditions, as for `PrefixIndex.search`.
    """
    compared = np.where(np.arange(mixed.shape[1]) < (bits or mixed.shape[1]), mixed, np.float32(0))
    ranked = shortlist or max(SHORTLIST, 10 * k)
    return index.search(pack(mixed), k, bits, shortlist=ranked, rescore=compared, where=where)


def _of_image(path: Path, hasher: Hasher) -> Query:
    relaxed = hasher.relaxed(path)
    return Query(path, pack(relaxed), relaxed)
