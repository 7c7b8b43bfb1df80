"""What property tests draw: labels, codes and training sets of any shape."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from nestkala.losses import TrainingSet, random_codes

HALF_TO_DOUBLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@st.composite
def multi_hot(draw: st.DrawFn, num: int, classes: int, single: bool = False) -> Tensor:
    """Labels (num, classes): none, all, one each, or any, rows repeated among them; with `single` one each."""
    if not num:
        return torch.zeros(0, classes)
    kind = "one each" if single else draw(st.sampled_from(["any", "one each", "none", "all"]))
    if kind in ("none", "all"):
        return torch.full((num, classes), float(kind == "all"))
    row = st.integers(0, classes - 1).map(torch.eye(classes).__getitem__)
    if kind == "any":
        row = st.lists(st.sampled_from([0.0, 1.0]), min_size=classes, max_size=classes).map(torch.tensor)
    return torch.stack(draw(st.lists(row, min_size=num, max_size=num)))


@st.composite
def relaxed(draw: st.DrawFn, num: int, bits: int) -> Tensor:
    """Codes (num, bits) in [-1, 1], double precision: in general position, all zero, signs, alike, tiny or opposite."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    h = torch.tanh(torch.randn(num, bits, generator=generator, dtype=torch.float64))
    match draw(st.sampled_from(["general", "zero", "signs", "alike", "tiny", "some zero"])):
        case "zero":
            return 0 * h
        case "signs":
            return h.sign()
        case "alike":
            return h[:1].repeat(num, 1)
        case "tiny":
            return 1e-20 * h
        case "some zero":
            return h.masked_fill(torch.rand(num, bits, generator=generator) < 0.5, 0)
    return h


def general(num: int, bits: int, seed: int = 0) -> Tensor:
    """Codes (num, bits) in (-1, 1), double precision, of which no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(num, bits, generator=generator, dtype=torch.float64))


def training_set(targets: Tensor, bits: int, seed: int = 0) -> TrainingSet:
    """Of these labels (N, C), with codes and hash centers drawn by the seed, in the labels' dtype."""
    generator = torch.Generator().manual_seed(seed)
    codes = random_codes(len(targets), bits, generator).to(targets)
    centers = random_codes(targets.shape[1], bits, generator).to(targets)
    return TrainingSet(targets, codes, {bits: centers}.__getitem__, seed)
