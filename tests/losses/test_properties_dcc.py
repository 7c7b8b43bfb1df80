"""Discrete cyclic coordinate descent over shapes and numbers, against all codes there are."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import HALF_TO_DOUBLE
from torch import Tensor

from nestkala.losses import dcc

whole = st.integers(-4, 4).map(float)  # of which sums are exact, so that ties are ties


@st.composite
def problems(draw: st.DrawFn, most_bits: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Codes to start from (N, b), linear (N, b) and a symmetric gram (b, b); N may be 0."""
    num, bits = draw(st.integers(0, 4)), draw(st.integers(1, most_bits))
    codes = draw(hnp.arrays(float, (num, bits), elements=st.sampled_from([-1.0, 1.0])))
    linear, half = (draw(hnp.arrays(float, shape, elements=whole)) for shape in ((num, bits), (bits, bits)))
    return torch.from_numpy(codes), torch.from_numpy(linear), torch.from_numpy(half + half.T)


def objective(codes: Tensor, linear: Tensor, gram: Tensor) -> list[float]:
    """Of each row."""
    coupling = gram - gram.diag().diag()
    return ((codes * linear).sum(dim=1) - ((codes @ coupling) * codes).sum(dim=1) / 2).tolist()


@given(problems(), st.integers(0, 4))
def test_it_never_falls_and_never_exceeds_the_best_of_all_codes(
    problem: tuple[Tensor, Tensor, Tensor], sweeps: int
) -> None:
    codes, linear, gram = problem
    found = dcc(codes, linear, gram, sweeps)
    assert (found.abs() == 1).all()
    every = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=codes.shape[1])), dtype=codes.dtype)
    for n, (before, after) in enumerate(
        zip(objective(codes, linear, gram), objective(found, linear, gram), strict=True)
    ):
        assert before <= after <= max(objective(every, linear[n], gram))


@given(problems(most_bits=20))
def test_at_rest_no_single_flip_improves_it(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    _, linear, gram = problem
    codes = dcc(*problem, sweeps=1000)
    assert torch.equal(dcc(codes, linear, gram), codes)
    best = objective(codes, linear, gram)
    for bit in range(codes.shape[1]):
        flipped = codes.clone()
        flipped[:, bit] *= -1
        assert all(other <= value for other, value in zip(objective(flipped, linear, gram), best, strict=True))


@given(problems(most_bits=20), st.data())
def test_rows_are_solved_each_for_itself_in_any_precision(
    problem: tuple[Tensor, Tensor, Tensor], data: st.DataObject
) -> None:
    codes, linear, gram = problem
    order = data.draw(st.permutations(range(len(codes))))
    dtype = data.draw(st.sampled_from(HALF_TO_DOUBLE))
    expected = dcc(codes, linear, gram)
    assert torch.equal(dcc(codes[order], linear[order], gram), expected[order])
    narrow = dcc(codes.to(dtype), linear.to(dtype), gram.to(dtype))
    assert narrow.dtype == dtype
    assert torch.equal(narrow.double(), expected)


@given(problems().filter(lambda problem: len(problem[0])), st.data())
def test_what_is_no_number_never_becomes_a_code(problem: tuple[Tensor, Tensor, Tensor], data: st.DataObject) -> None:
    number, wrong = data.draw(st.integers(0, 2)), data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
    row, column = (data.draw(st.integers(0, size - 1)) for size in problem[number].shape)
    problem[number][row, column] = wrong
    said = ("codes must be -1 or [+]1", f"linear must be finite, but contains {wrong}", f"gram must be .* {wrong}")[
        number
    ]
    with pytest.raises(ValueError, match=said):
        dcc(*problem)


def test_codes_that_are_no_signs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes must be -1 or [+]1"):
        dcc(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, 3))
