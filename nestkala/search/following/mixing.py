"""Codes of several backends in one index."""

from collections.abc import Callable, Sequence
from itertools import islice

from ...hasher import Hasher
from ...images.listing import LeftOut
from ...index.contract import SearchIndex
from ...runtimes.agreement import differing_bits
from ...runtimes.names import missing_packages
from ...utils.errors import NestKALAError
from ..folder import images_in
from ..image_folder import encoded
from ..places import ImageFolders

MAX_MIXED = 0.01
"""Share of bits in which the codes of two backends may differ where both go into one index."""

_COMPARED = 32
"""Images of the folder that are encoded by both."""


def check_mixing(
    index: SearchIndex,
    hasher: Hasher,
    folders: ImageFolders,
    exclude: Sequence[str],
    load: Callable[[str], Hasher],
) -> list[str]:
    """Compare a backend with the one that made an index, before its codes are added.

    The index then keeps the names of both, joined by "+".

    Args:
        index: to add to.
        hasher: whose codes will be added.
        folders: of images, the first of which are encoded by both backends.
        exclude: patterns of images that are left out.
        load: gives the same model with a backend, by name.

    Returns:
        A note that says how many bits differ, for the user; nothing where the backend is not new to the index.

    Raises:
        NestKALAError: more than 1 % of the bits differ.
    """
    before = index.about.get("backend", "torch").split("+")
    if hasher.backend in before or not len(index):
        return []
    both = f"the index was made with backend {before[0]}, and {hasher.backend} adds to it now"
    if missing_packages(before[0]):
        index.about["backend"] = "+".join([*before, hasher.backend])
        return [f"note: {both}: how far their codes differ is unknown, since {before[0]} is not installed here"]
    names = list(islice(images_in(folders, exclude, LeftOut()), _COMPARED))
    for readable, codes, _ in encoded(hasher, folders.file, names, workers=0):
        others = load(before[0]).encode([folders.file(name) or "" for name in readable])
        differing = differing_bits(codes, others, index.bits)
        if differing > MAX_MIXED:
            raise NestKALAError(
                f"{both}: {differing:.2%} of the bits of {len(readable)} images differ, and {MAX_MIXED:.0%} may; "
                f"say --backend {before[0]}"
            )
        index.about["backend"] = "+".join([*before, hasher.backend])
        return [f"note: {both}: {differing:.3%} of the bits of {len(readable)} images differ"]
    return []
