"""Packed codes of any length and type of number, against lists of bits."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nestkala.codes import columns, hamming, pack, prefix, unpack
from nestkala.utils.errors import NestKALAError

DTYPES = (np.float16, np.float32, np.float64, np.int8, np.int64)


@st.composite
def real_codes(draw: st.DrawFn, max_bits: int = 100) -> np.ndarray:
    """Finite numbers (N, L), zeros of both signs and the smallest ones among them; N may be 0."""
    shape = draw(st.tuples(st.integers(0, 4), st.integers(1, max_bits)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind == "i":
        return draw(hnp.arrays(dtype, shape))
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return draw(hnp.arrays(dtype, shape, elements=st.sampled_from([0.0, -0.0, tiny, -tiny, 0.5, -0.5, 1.0, -1.0])))


def bits_of(h: np.ndarray) -> list[list[int]]:
    return [[0 if value < 0 else 1 for value in row] for row in h.tolist()]


def as_bytes(row: list[int]) -> list[int]:
    """Eight bits to a byte, the first the highest, the last byte filled up with zeros."""
    padded = row + [0] * (-len(row) % 8)
    return [int("".join(map(str, padded[i : i + 8])), 2) for i in range(0, len(padded), 8)]


@given(real_codes())
def test_packing_puts_the_signs_into_bits_and_zero_is_plus(h: np.ndarray) -> None:
    packed = pack(h)
    assert packed.tolist() == [as_bytes(row) for row in bits_of(h)]
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(pack(torch.from_numpy(h)), packed)
    if h.dtype.kind == "f":
        np.testing.assert_array_equal(pack(torch.from_numpy(h).to(torch.float64)), packed)


@given(real_codes(), st.data())
def test_a_prefix_is_the_code_of_the_first_columns_and_unpacks_to_them(h: np.ndarray, data: st.DataObject) -> None:
    packed, bits = pack(h), data.draw(st.integers(1, h.shape[1]))
    np.testing.assert_array_equal(prefix(packed, bits), pack(h[:, :bits]))
    assert unpack(packed, bits).tolist() == [[2 * bit - 1 for bit in row[:bits]] for row in bits_of(h)]
    shorter = data.draw(st.integers(1, bits))
    np.testing.assert_array_equal(prefix(prefix(packed, bits), shorter), prefix(packed, shorter))


@given(real_codes(), st.data())
def test_columns_are_the_code_of_these_columns(h: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, h.shape[1] - 1))
    stop = data.draw(st.integers(start + 1, h.shape[1]))
    np.testing.assert_array_equal(columns(pack(h), slice(start, stop)), pack(h[:, start:stop]))


@given(real_codes(), st.data())
def test_distances_count_the_bits_that_differ(h: np.ndarray, data: st.DataObject) -> None:
    bits = data.draw(st.integers(1, h.shape[1]))
    rows = bits_of(h)
    expected = [[sum(a != b for a, b in zip(x[:bits], y[:bits], strict=True)) for y in rows] for x in rows]
    assert hamming(pack(h), pack(h), bits).tolist() == expected


@given(real_codes().filter(lambda h: h.size and h.dtype.kind == "f"), st.data())
def test_a_number_without_a_sign_never_becomes_a_bit(h: np.ndarray, data: st.DataObject) -> None:
    row, column = (data.draw(st.integers(0, size - 1)) for size in h.shape)
    h[row, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    given_as = data.draw(st.sampled_from([h, torch.from_numpy(h), torch.from_numpy(h).bfloat16()]))
    with pytest.raises(NestKALAError, match=rf"got {h[row, column]} at \({row}, {column}\), need finite"):
        pack(given_as)


@given(st.integers(1, 20), st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3)))
@example(2, 3.0)
@example(2, True)
@example(2, "3")
def test_bits_are_a_whole_number_of_the_codes_or_named(num_bytes: int, bits: object) -> None:
    packed = np.zeros((2, num_bytes), np.uint8)
    if type(bits) is int and 1 <= bits <= 8 * num_bytes:
        assert unpack(packed, bits).shape == (2, bits)
        assert prefix(packed, np.int64(bits)).shape == (2, -(-bits // 8))
        return
    for operation in (unpack, prefix):
        with pytest.raises(NestKALAError, match=f"need an integer from 1 to {8 * num_bytes}"):
            operation(packed, bits)  # type: ignore[arg-type]
