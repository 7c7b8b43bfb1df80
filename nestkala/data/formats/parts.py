"""What the splits of a data set are called elsewhere, and which parts they are here."""

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

    Images of a validation split ask where there is no test split; else they are in no part, so that they are searched
    where no gallery is named. Training images alone are no part: queries are drawn from them.

    Args:
        splits: of images, by index, the split that each belongs to, in any letters; one may belong to several.
        size: number of images.
        where: what errors call the data.

    Raises:
        NestKALAError: a split of another name.
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
