"""Map the names of a data set's splits to parts."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ...utils.errors import unknown_name

_VALIDATION = "validation"
_PART_OF = {
    **dict.fromkeys(("train", "training", "train2014", "train2017"), "train"),
    **dict.fromkeys(("test", "testing", "query", "queries"), "test"),
    **dict.fromkeys(("gallery", "database"), "database"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "val2014", "val2017"), _VALIDATION),
}


def parts_of(splits: Iterable[tuple[int, str]], size: int, where: str) -> dict[str, npt.NDArray[np.int64]]:
    """The parts "train", "database" and "test" of a data set.

    A validation split serves as the test part if there is no test split; otherwise its images are in no part, so they
    are searched if no gallery is named. If all images are training images, there are no parts, and queries are drawn
    from them.

    Args:
        splits: (image index, split name) pairs, in any case; an image may belong to several splits.
        size: number of images.
        where: name of the data for error messages.

    Raises:
        NestKALAError: a split has an unknown name.
    """
    members: dict[str, dict[int, None]] = {}
    for index, split in splits:
        part = _PART_OF.get(split.strip().lower())
        if part is None:
            raise unknown_name(f"split in {where}:", split, _PART_OF)
        members.setdefault(part, {})[index] = None
    validation = members.pop(_VALIDATION, None)
    if validation is not None and "test" not in members:
        members["test"] = validation
    if members.keys() == {"train"} and len(members["train"]) == size:
        return {}
    return {part: np.array(list(indices), dtype=np.int64) for part, indices in members.items()}
