"""Classification by class names alone."""

import torch.nn.functional as F
from torch import Tensor


def zero_shot_labels(features: Tensor, texts: Tensor) -> Tensor:
    """The class (n,) of each feature (n, d), that of the nearest text (C, d), both centered by their own mean."""
    images, names = features - features.mean(dim=0), texts - texts.mean(dim=0)
    return (images @ F.normalize(names, dim=1).T).argmax(dim=1)
