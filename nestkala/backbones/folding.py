"""Merges BatchNorms into convolutions, for evaluation."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every BatchNorm2d into the Conv2d registered right before it, in place, keeping the activation after it.

    The network must call each such pair in this order; its output is unchanged except for rounding.
    """
    for parent in list(network.modules()):
        for (name, conv), (next_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, next_name, getattr(norm, "act", nn.Identity()))  # timm's may include an activation
