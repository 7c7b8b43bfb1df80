"""EfficientNet-Lite in plain PyTorch, with timm's module names: importing timm takes longer than a search."""

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192)),
    (1, 3, 1, 6, 320),
)
"""Stages of EfficientNet-B0 (Tan and Le, ICML 2019, table 1): blocks, kernel size, stride, expansion, channels."""
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_EPSILON = 1e-3


class EfficientNetLite(nn.Module):
    """EfficientNet without squeeze-and-excitation, with ReLU6, and with a fixed stem and head.

    Images (B, 3, H, W) -> scores (B, 1000) for the classes of ImageNet-1k. Weights are not allocated until
    `load_state_dict(..., assign=True)`.

    Args:
        width: multiplier for the stages' channels, which are rounded to multiples of 8.
        depth: multiplier for the stages' blocks, except in the first and last stage.
    """

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        with torch.device("meta"):
            self.conv_stem, self.bn1 = _convolution(3, _STEM, 3, stride=2), _Norm(_STEM, nn.ReLU6())
            stages, before = [], _STEM
            for blocks, kernel, stride, expansion, channels in _STAGES:
                after = max(8, int(channels * width + 4) // 8 * 8)
                num = blocks if blocks == 1 else ceil(blocks * depth)
                widths, strides = [before] + (num - 1) * [after], [stride] + (num - 1) * [1]
                kind = DepthwiseSeparableConv if expansion == 1 else InvertedResidual
                stages.append([kind(w, after, kernel, s, expansion) for w, s in zip(widths, strides, strict=True)])
                before = after
            self.blocks = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
            self.conv_head, self.bn2 = _convolution(before, _HEAD, 1), _Norm(_HEAD, nn.ReLU6())
            self.classifier: nn.Module = nn.Linear(_HEAD, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.blocks(self.bn1(self.conv_stem(images)))
        return self.classifier(self.bn2(self.conv_head(maps)).mean(dim=(2, 3)))


class DepthwiseSeparableConv(nn.Module):
    """A block without expansion."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, _: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _convolution(before, before, kernel, stride, before), _Norm(before, nn.ReLU6())
        self.conv_pw, self.bn2 = _convolution(before, after, 1), _Norm(after, nn.Identity())
        self.has_skip = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return out + x if self.has_skip else out


class InvertedResidual(nn.Module):
    """A block that widens its input, convolves each channel, and narrows it again."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.conv_pw, self.bn1 = _convolution(before, inner, 1), _Norm(inner, nn.ReLU6())
        self.conv_dw, self.bn2 = _convolution(inner, inner, kernel, stride, inner), _Norm(inner, nn.ReLU6())
        self.conv_pwl, self.bn3 = _convolution(inner, after, 1), _Norm(after, nn.Identity())
        self.has_skip = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.has_skip else out


class _Norm(nn.BatchNorm2d):
    """BatchNorm followed by an activation."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels, eps=_EPSILON)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class _StridedConv2d(nn.Conv2d):
    """Pads as TensorFlow does: if the total is odd, the right and the bottom get more."""

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding))


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)
    return _StridedConv2d(before, after, kernel, stride, groups=groups, bias=False)
