"""Heads of any lengths, shapes and types of number."""

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from nestkala.codes import columns, pack
from nestkala.heads import CascadeHashHead, FlatHashHead, HashHead, NestedHashHead, check_lengths

KINDS = (NestedHashHead, FlatHashHead, CascadeHashHead)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ascending = st.lists(st.integers(1, 512), min_size=1, max_size=6, unique=True).map(sorted)
small = st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(sorted)


@st.composite
def heads(draw: st.DrawFn, lengths: st.SearchStrategy[list[int]] = small) -> tuple[HashHead, Tensor]:
    """A head with random weights, as in evaluation, and features (B, d), B 1 or more."""
    width, batch, seed = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(0, 99))
    dtype = draw(st.sampled_from(DTYPES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = draw(st.sampled_from(KINDS))(width, draw(lengths), draw(st.booleans()))
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        x = torch.randn(batch, width)
    return head.to(dtype).eval().requires_grad_(False), x.to(dtype)


@given(heads(ascending))
def test_codes_are_finite_between_the_signs_and_as_wide_as_told(made: tuple[HashHead, Tensor]) -> None:
    head, x = made
    h = head(x)
    assert h.shape == (len(x), head.width)
    assert h.dtype == x.dtype
    assert (h.abs() <= 1).all()  # a NaN is not


@given(heads())
def test_the_columns_of_all_lengths_cover_the_output(made: tuple[HashHead, Tensor]) -> None:
    head, x = made
    places = [head.columns(bits) for bits in head.lengths]
    assert [where.stop - where.start for where in places] == list(head.lengths)
    if head.nested:
        assert {where.start for where in places} == {0}
        assert head.width == head.lengths[-1]
    else:
        assert all(one.stop == other.start for one, other in itertools.pairwise(places))
        assert (places[0].start, places[-1].stop) == (0, head.width)
    h = head(x)
    for where in places:
        assert (columns(pack(h), where) == pack(h[:, where])).all()


@given(heads())
def test_a_feature_that_is_no_number_never_becomes_a_code(made: tuple[HashHead, Tensor]) -> None:
    head, x = made
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="got nan at"):
        pack(head(x))


@given(heads(), st.integers(-5, 600))
def test_a_length_that_the_head_lacks_is_named(made: tuple[HashHead, Tensor], bits: int) -> None:
    head, _ = made
    known = range(1, head.lengths[-1] + 1) if head.nested else head.lengths
    if bits in known:
        assert head.columns(bits).stop - head.columns(bits).start == bits
        return
    with pytest.raises(ValueError, match=f"not {bits}$"):
        head.columns(bits)


@given(
    st.lists(st.one_of(st.integers(-3, 512), st.booleans(), st.floats(), st.none(), st.text(max_size=2)), max_size=5)
)
@example(["4", 8])
@example([4, None])
@example([])
def test_lengths_are_taken_or_named(lengths: list[object]) -> None:
    good = bool(lengths) and all(type(bits) is int and bits >= 1 for bits in lengths)
    if good and lengths == sorted(set(lengths)):  # type: ignore[type-var]
        assert check_lengths(lengths) == tuple(lengths)  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match="lengths must be ascending whole numbers of bits"):
        check_lengths(lengths)  # type: ignore[arg-type]
