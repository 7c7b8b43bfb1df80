"""Discrete cyclic coordinate descent against its objective, a plain loop and the brute-force optimum."""

import itertools

import pytest
import torch

from nestkala.losses import dcc, random_codes

ALPHA, BETA = 0.1, 1.0


def signs(*shape, generator):
    return torch.randint(0, 2, shape, generator=generator).double() * 2 - 1


def problem(seed, num=12, classes=5, bits=7, scale=3.0):
    """Random Y, T, U and starting codes; the larger `scale`, the more the bits interact."""
    generator = torch.Generator().manual_seed(seed)
    Y = (torch.rand(num, classes, generator=generator) < 0.4).double()
    T = torch.randn(classes, bits, generator=generator, dtype=torch.float64) * scale
    U = torch.tanh(torch.randn(num, bits, generator=generator, dtype=torch.float64))
    return Y, T, U, signs(num, bits, generator=generator)


def objective(B, Y, T, U, alpha=ALPHA, beta=BETA):
    return (alpha * ((Y - B @ T.T) ** 2).sum() + beta * ((U - B) ** 2).sum()).item()


def linear_and_gram(Y, T, U, alpha=ALPHA, beta=BETA):
    return Y @ T + beta / alpha * U, T.T @ T


def loop(codes, linear, gram, sweeps):
    """The update as the formula says it, one entry at a time."""
    codes, linear, gram = codes.tolist(), linear.tolist(), gram.tolist()
    for _ in range(sweeps):
        for n, code in enumerate(codes):
            for i in range(len(code)):
                argument = linear[n][i] - sum(code[j] * gram[j][i] for j in range(len(code)) if j != i)
                if argument != 0:
                    code[i] = 1.0 if argument > 0 else -1.0
    return codes


def converged(codes, linear, gram):
    for _ in range(100):
        renewed = dcc(codes, linear, gram, sweeps=1)
        if torch.equal(renewed, codes):
            return codes
        codes = renewed
    raise AssertionError("100 sweeps and bits still flip")


@pytest.mark.parametrize("seed", range(10))
def test_no_sweep_raises_the_objective(seed):
    Y, T, U, codes = problem(seed)
    linear, gram = linear_and_gram(Y, T, U)
    values = [objective(codes, Y, T, U)]
    for _ in range(6):
        codes = dcc(codes, linear, gram, sweeps=1)
        values.append(objective(codes, Y, T, U))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))
    assert values[-1] < values[0] - 1


@pytest.mark.parametrize("seed", range(10))
def test_once_nothing_flips_no_single_flip_improves(seed):
    Y, T, U, codes = problem(seed)
    codes = converged(codes, *linear_and_gram(Y, T, U))
    best = objective(codes, Y, T, U)
    for n, i in itertools.product(range(codes.shape[0]), range(codes.shape[1])):
        flipped = codes.clone()
        flipped[n, i] *= -1
        assert objective(flipped, Y, T, U) >= best - 1e-9


def test_never_below_the_brute_force_optimum_and_mostly_at_it():
    reached, excess = 0, []
    for seed in range(40):
        Y, T, U, codes = problem(seed, num=2, classes=3, bits=4, scale=1.5)
        every = (torch.tensor(bits).double().view(2, 4) for bits in itertools.product((-1, 1), repeat=8))
        optimum = min(objective(B, Y, T, U) for B in every)
        found = objective(converged(codes, *linear_and_gram(Y, T, U)), Y, T, U)
        assert found >= optimum - 1e-9
        reached += found <= optimum + 1e-9
        excess.append(found / optimum - 1)
    assert reached >= 24
    assert sum(excess) / len(excess) < 0.12


@pytest.mark.parametrize("sweeps", [0, 1, 2, 10])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_loop_over_the_bits(seed, sweeps):
    Y, T, U, codes = problem(seed)
    linear, gram = linear_and_gram(Y, T, U)
    assert dcc(codes, linear, gram, sweeps).tolist() == loop(codes, linear, gram, sweeps)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loop_where_many_arguments_are_exactly_zero(seed):
    generator = torch.Generator().manual_seed(seed)
    codes = signs(50, 6, generator=generator)
    linear = torch.randint(-2, 3, (50, 6), generator=generator).double()
    gram = torch.randint(-1, 2, (6, 6), generator=generator).double()
    gram = gram + gram.T
    assert dcc(codes, linear, gram, 3).tolist() == loop(codes, linear, gram, 3)


def test_a_bit_whose_argument_is_zero_keeps_its_value():
    codes = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert torch.equal(dcc(codes, torch.zeros(3, 2), torch.zeros(2, 2)), codes)
    gram = torch.tensor([[5.0, 2.0], [2.0, 7.0]])
    linear = codes.flip(1) * 2  # cancels the other bit's pull exactly
    assert torch.equal(dcc(codes, linear, gram, sweeps=1), codes)


@pytest.mark.parametrize(("sweeps", "flipped"), [({}, 10), ({"sweeps": 3}, 3), ({"sweeps": 50}, 16)])
def test_ten_sweeps_at_most_unless_told_otherwise(sweeps, flipped):
    bits = 16  # each follows its right neighbor more than its left one: one flip a sweep, from the last bit on
    gram = -torch.diag(torch.arange(1.0, bits), diagonal=1)
    linear = torch.zeros(1, bits)
    linear[0, -1] = 100
    codes = dcc(-torch.ones(1, bits), linear, gram + gram.T, **sweeps)
    assert codes[0].tolist() == [-1.0] * (bits - flipped) + [1.0] * flipped


@pytest.mark.parametrize("shape", [(6, 4), (6, 1), (1, 4), (1, 1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_arguments_are_left_as_they_were(shape, transposed):
    generator = torch.Generator().manual_seed(0)
    codes = signs(*shape, generator=generator)
    if transposed:
        codes = codes.T.contiguous().T
    linear, gram = -codes.clone(), torch.eye(shape[1]).double()
    before = [x.clone() for x in (codes, linear, gram)]
    assert torch.equal(dcc(codes, linear, gram), -before[0])
    assert all(torch.equal(x, was) for x, was in zip((codes, linear, gram), before, strict=True))


def test_the_diagonal_of_gram_does_not_matter():
    Y, T, U, codes = problem(3)
    linear, gram = linear_and_gram(Y, T, U)
    other = gram + torch.diag(torch.linspace(-50, 50, 7).double())
    assert torch.equal(dcc(codes, linear, gram), dcc(codes, linear, other))


def test_rows_do_not_influence_each_other():
    Y, T, U, codes = problem(5)
    linear, gram = linear_and_gram(Y, T, U)
    whole = dcc(codes, linear, gram)
    single = [dcc(codes[n : n + 1].clone(), linear[n : n + 1], gram) for n in range(len(codes))]
    assert torch.equal(whole, torch.cat(single))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8])
def test_codes_keep_their_dtype_and_stay_signs(dtype):
    Y, T, U, codes = problem(2)
    linear, gram = linear_and_gram(Y, T, U)
    renewed = dcc(codes.to(dtype), linear, gram)
    assert renewed.dtype == dtype
    assert renewed.tolist() == loop(codes, linear, gram, 10)
    assert set(renewed.unique().tolist()) == {-1, 1}


@pytest.mark.parametrize(
    ("linear", "gram"), [((4, 3), (2, 2)), ((3, 2), (2, 2)), ((4, 2), (3, 3)), ((4, 2), (2, 3)), ((4, 2), (2,))]
)
def test_shapes_that_do_not_fit_are_refused(linear, gram):
    with pytest.raises(ValueError, match=r"codes \(4, 2\) need linear"):
        dcc(torch.ones(4, 2), torch.zeros(linear), torch.zeros(gram))


def test_random_codes_are_balanced_signs_drawn_from_the_generator():
    codes = random_codes(500, 40, torch.Generator().manual_seed(7))
    assert codes.shape == (500, 40)
    assert codes.is_floating_point()
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    assert codes.mean().abs() < 0.03
    assert codes.mean(dim=0).abs().max() < 0.2
    assert torch.equal(codes, random_codes(500, 40, torch.Generator().manual_seed(7)))
    assert not torch.equal(codes, random_codes(500, 40, torch.Generator().manual_seed(8)))


def test_random_codes_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    random_codes(5, 3, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
