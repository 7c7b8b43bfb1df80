"""Groups of near-duplicates in an index."""

from collections import defaultdict

from ..index.pairs import groups_within
from ..index.prefix_index import PrefixIndex


def find_duplicates(index: PrefixIndex, max_distance: int) -> list[list[str]]:
    """Groups of two or more images, the largest first, each sorted by name.

    Args:
        index: of their codes.
        max_distance: bits in which two may differ; a group is what chains of such pairs connect.

    Raises:
        NestKALAError: a distance that is not 0 to fewer than the codes' bits.
    """
    members = defaultdict[int, list[str]](list)
    for name, group in zip(index.ids, groups_within(index.codes, max_distance).tolist(), strict=True):
        members[group].append(name)
    groups = [sorted(names) for names in members.values() if len(names) > 1]
    return sorted(groups, key=lambda names: (-len(names), names))
