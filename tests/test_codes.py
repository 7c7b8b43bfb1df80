"""Packed codes against numpy.packbits, character strings and bit-by-bit loops."""

import numpy as np
import pytest
import torch

from nestkala.codes import hamming, pack, prefix, unpack
from nestkala.utils.errors import NestKALAError

LENGTHS = [1, 5, 8, 12, 16, 63, 64, 65]


def random_codes(n, bits, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(n, bits))


@pytest.mark.parametrize("bits", LENGTHS)
def test_pack_is_packbits_of_the_signs(bits):
    h = np.random.default_rng(bits).standard_normal((7, bits))
    packed = pack(h)
    assert packed.dtype == np.uint8
    assert packed.shape == (7, (bits + 7) // 8)
    np.testing.assert_array_equal(packed, np.packbits(h > 0, axis=1))


def test_first_bit_is_the_highest_and_the_rest_is_zero():
    assert pack(np.array([[1.0, -1.0, 1.0]])).tolist() == [[0b10100000]]
    assert pack(np.array([[-1] * 8 + [1]])).tolist() == [[0, 0b10000000]]


def test_zero_of_either_sign_counts_as_plus_one():
    assert pack(np.array([[0.0, -0.0, -5e-324]])).tolist() == [[0b11000000]]
    assert pack(torch.tensor([[0.0, -0.0, -1e-45]])).tolist() == [[0b11000000]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_pack_like_arrays(dtype):
    codes = random_codes(6, 21)
    h = torch.tensor(codes).to(dtype)
    if dtype.is_floating_point:
        h = (h / 3).requires_grad_()
    np.testing.assert_array_equal(pack(h), pack(codes))


@pytest.mark.parametrize("bits", LENGTHS)
def test_unpack_inverts_pack(bits):
    codes = random_codes(9, bits)
    restored = unpack(pack(codes), bits)
    assert restored.dtype == np.int8
    np.testing.assert_array_equal(restored, codes)


@pytest.mark.parametrize("bits", LENGTHS)
def test_prefix_is_the_pack_of_the_first_columns(bits):
    codes = random_codes(9, 65)
    packed = pack(codes)
    before = packed.copy()
    shortened = prefix(packed, bits)
    np.testing.assert_array_equal(shortened, pack(codes[:, :bits]))
    np.testing.assert_array_equal(unpack(packed, bits), codes[:, :bits])
    assert shortened.dtype == np.uint8
    assert shortened.flags.c_contiguous
    assert not np.shares_memory(shortened, packed)
    np.testing.assert_array_equal(packed, before)


def test_column_major_input_gives_row_major_codes():
    codes = random_codes(9, 24)
    assert pack(np.asfortranarray(codes)).flags.c_contiguous
    assert prefix(np.asfortranarray(pack(codes)), 16).flags.c_contiguous


@pytest.mark.parametrize("bits", [*LENGTHS, None])
def test_hamming_counts_differing_bits(bits):
    queries, gallery = random_codes(4, 65, seed=1), random_codes(11, 65, seed=2)
    distances = hamming(pack(queries), pack(gallery), bits)
    expected = [[sum(a != b for a, b in zip(q[:bits], g[:bits], strict=True)) for g in gallery] for q in queries]
    assert distances.tolist() == expected


def test_hamming_at_more_than_255_bits():
    ones = np.ones((1, 512), np.int8)
    assert hamming(pack(ones), pack(-ones)).tolist() == [[512]]


@pytest.mark.parametrize(
    ("h", "message"),
    [
        (np.array([1.0, -1.0]), r"\(2,\)"),
        (np.ones((3, 0)), r"\(3, 0\)"),
        (np.ones((2, 3), complex), "complex128"),
        (np.ones((2, 3), bool), "bool"),
        (np.ones((2, 3), np.uint8), "uint8"),
        (torch.ones(2, 3, dtype=torch.bool), "bool"),
        ([[1.0, -1.0]], "list"),
        (np.array([[1.0, np.nan]]), r"nan at \(0, 1\)"),
        (torch.tensor([[1.0, 2.0], [-torch.inf, 1.0]]), r"-inf at \(1, 0\)"),
    ],
)
def test_pack_refuses(h, message):
    with pytest.raises(NestKALAError, match=message):
        pack(h)


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        (np.zeros((2, 2), np.uint8), 0, "bits: got 0, .* 1 to 16"),
        (np.zeros((2, 2), np.uint8), 17, "bits: got 17, .* 1 to 16"),
        (np.zeros((2, 2), np.int8), 8, "int8"),
        (np.zeros(2, np.uint8), 8, r"\(2,\)"),
        (np.zeros((2, 0), np.uint8), 8, r"\(2, 0\)"),
        ([[0, 1]], 8, "list"),
    ],
)
def test_packed_codes_and_bits_are_checked(codes, bits, message):
    for operation in (unpack, prefix):
        with pytest.raises(NestKALAError, match=message):
            operation(codes, bits)
    with pytest.raises(NestKALAError, match=message):
        hamming(codes, codes, bits)


def test_hamming_refuses_codes_of_different_size():
    with pytest.raises(NestKALAError, match="queries have 2 bytes and the gallery 3"):
        hamming(np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.uint8))
