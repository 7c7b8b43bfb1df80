"""Groups of near-duplicates in an index."""

from collections import defaultdict

from ..index.pairs import groups_within
from ..index.prefix_index import PrefixIndex


def find_duplicates(index: PrefixIndex, max_distance: int) -> list[list[str]]:
    """Groups of two or more images, largest group first, each sorted by name.

    Args:
        index: index of the images.
        max_distance: how many bits a pair may differ in; a group is connected by chains of such pairs.

    Raises:
        NestKALAError: max_distance is negative or not less than the number of bits.
    """
    members = defaultdict[int, list[str]](list)
    for name, group in zip(index.ids, groups_within(index.codes, max_distance).tolist(), strict=True):
        members[group].append(name)
    groups = [sorted(names) for names in members.values() if len(names) > 1]
    return sorted(groups, key=lambda names: (-len(names), names))
