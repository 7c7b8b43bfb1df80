"""Codes from several backends in one index."""

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
"""Largest share of differing bits between two backends whose codes go into one index."""

_COMPARED = 32
"""Number of images that are encoded with both backends."""


def check_mixing(
    index: SearchIndex,
    hasher: Hasher,
    folders: ImageFolders,
    exclude: Sequence[str],
    load: Callable[[str], Hasher],
) -> list[str]:
    """Compare a backend with the one that an index was made with, before adding its codes.

    The index then stores the names of both, joined by "+".

    Args:
        index: the index to add to.
        hasher: the model whose codes will be added.
        folders: image folders; the first images are encoded with both backends.
        exclude: patterns of images to skip.
        load: loads the same model with the backend of this name.

    Returns:
        A note for the user on how many bits differ; empty if the index already has codes from this backend.

    Raises:
        NestKALAError: more than 1 % of the bits differ.
    """
    before = index.about.get("backend", "torch").split("+")
    if hasher.backend in before or not len(index):
        return []
    both = f"the index was made with backend {before[0]}, and you are adding to it with {hasher.backend}"
    if missing_packages(before[0]):
        index.about["backend"] = "+".join([*before, hasher.backend])
        return [f"note: {both}; their codes cannot be compared because {before[0]} is not installed"]
    names = list(islice(images_in(folders, exclude, LeftOut()), _COMPARED))
    for readable, codes, _ in encoded(hasher, folders.file, names, workers=0):
        others = load(before[0]).encode([folders.file(name) or "" for name in readable])
        differing = differing_bits(codes, others, index.bits)
        if differing > MAX_MIXED:
            raise NestKALAError(
                f"{both}; {differing:.2%} of the bits of {len(readable)} images differ, more than the allowed "
                f"{MAX_MIXED:.0%}: use --backend {before[0]}"
            )
        index.about["backend"] = "+".join([*before, hasher.backend])
        return [f"note: {both}; {differing:.3%} of the bits of {len(readable)} images differ"]
    return []
