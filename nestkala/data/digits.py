"""scikit-learn's handwritten digits, which come with its installation."""

import numpy as np

from .dataset import ArrayDataset

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load_digits() -> ArrayDataset:
    """1,797 gray images of handwritten digits, 8 x 8 pixels, named by their position in scikit-learn."""
    import sklearn.datasets  # the import takes a second, and only this data set needs it

    digits = sklearn.datasets.load_digits()
    return ArrayDataset(
        names=[str(number) for number in range(len(digits.target))],
        targets=digits.target[:, None] == np.arange(len(DIGITS)),
        class_names=DIGITS,
        images=np.rint(digits.images * (255 / 16)).astype(np.uint8),
    )
