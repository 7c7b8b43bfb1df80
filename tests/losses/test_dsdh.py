"""DSDH against loops over pairs and entries, and its codes against the sum form they minimize."""

import itertools

import pytest
import torch

from nestkala.losses.contract import TrainingSet
from nestkala.losses.dcc import random_codes
from nestkala.losses.dsdh import DSDH

NUM, CLASSES, BITS = 14, 4, 5
WEIGHTS = [(1.0, 0.1, 0.1), (0.3, 2.0, 0.02)]
BATCH = torch.tensor([7, 0, 1, 13, 4, 9])


def training_set(seed=0, num=NUM, bits=BITS):
    """Multi-hot labels (one image has none, one has all) and starting codes of the whole training set."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(num, CLASSES, generator=generator) < 0.35).double()
    targets[0], targets[1] = 0, 1
    return targets, random_codes(num, bits, generator).double()


def random_h(size, seed=0, bits=BITS):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.tanh(torch.randn(size, bits, generator=generator, dtype=torch.float64)).requires_grad_()


def show(loss, targets, seed=0, images=range(NUM)):
    """Show the images in batches; return what the memory should then hold of them."""
    seen = torch.zeros_like(loss.codes)
    for number, indices in enumerate(torch.tensor(list(images)).split(5)):
        h = random_h(len(indices), 10 * seed + number, loss.codes.shape[1])
        loss(h, targets[indices], indices)
        seen[indices] = h.detach()
    return seen


def slow_terms(h, targets, indices, memory, codes, all_targets, eta):
    size, bits = h.shape
    memory, codes = memory.clone(), codes.tolist()
    for i, number in enumerate(indices.tolist()):
        memory[number] = h[i].detach()
    memory = memory.tolist()
    similarity = quantization = 0.0
    for i in range(size):
        for j in range(len(memory)):
            theta = sum(h[i, k] * memory[j][k] for k in range(bits)) / 2
            similar = any(a and b for a, b in zip(targets[i].tolist(), all_targets[j].tolist(), strict=True))
            similarity = similarity + torch.log(1 + torch.exp(theta)) - (theta if similar else 0)
        for k in range(bits):
            quantization = quantization + (h[i, k] - codes[indices[i]][k]) ** 2
    return {"similarity": similarity / (size * len(memory)), "quantization": eta * quantization / (size * bits)}


def objective(B, W, Y, U, mu, nu, eta):
    """The sum form, one entry at a time."""
    B, W, Y, U = B.tolist(), W.tolist(), Y.tolist(), U.tolist()
    value = nu * sum(w**2 for row in W for w in row)
    for n, code in enumerate(B):
        for c, label in enumerate(Y[n]):
            value += mu * (label - sum(bit * W[k][c] for k, bit in enumerate(code))) ** 2
        value += eta * sum((bit - u) ** 2 for bit, u in zip(code, U[n], strict=True))
    return value


def ridge(B, Y, mu, nu):
    return torch.linalg.inv(B.T @ B + nu / mu * torch.eye(B.shape[1]).double()) @ B.T @ Y


def best_objective(B, Y, U, mu, nu, eta):
    """The sum form at the W that suits B best."""
    return objective(B, ridge(B, Y, mu, nu), Y, U, mu, nu, eta)


def one_sweep(B, W, Y, U, mu, eta):
    """Bit after bit, each code takes the better sign given its others; nu |W|^2 is the same for both."""
    B = B.clone()
    for k, n in itertools.product(range(B.shape[1]), range(len(B))):
        flipped = B[n : n + 1].clone()
        flipped[0, k] *= -1
        here, there = (objective(code, W, Y[n : n + 1], U[n : n + 1], mu, 0, eta) for code in (B[n : n + 1], flipped))
        if there < here - 1e-12:
            B[n] = flipped
    return B


@pytest.mark.parametrize("eta", [0.1, 2.5, 0.0])
@pytest.mark.parametrize("already_seen", [[], [2, 7, 3, 12, 13], range(NUM)])
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_equal_the_double_loop(seed, already_seen, eta):
    targets, codes = training_set(seed)
    loss, h = DSDH(targets, codes, quantization=eta), random_h(6, seed)
    memory = show(loss, targets, seed + 1, already_seen) if len(already_seen) else torch.zeros_like(codes)
    terms = loss.terms(h, targets[BATCH], BATCH)
    expected = slow_terms(h, targets[BATCH], BATCH, memory, codes, targets, eta)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-10, atol=1e-12)
        ours, theirs = (torch.autograd.grad(term, h, retain_graph=True)[0] for term in (terms[name], value))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_weights_are_one_and_a_tenth_and_a_tenth_and_one_round_unless_told_otherwise():
    targets, codes = training_set()
    usual, said = DSDH(targets, codes), DSDH(targets, codes, mu=1, nu=0.1, quantization=0.1, rounds=1)
    for loss in (usual, said):
        show(loss, targets)
        loss.end_epoch()
    assert torch.equal(usual.codes, said.codes)
    h = random_h(6)
    assert torch.equal(usual(h, targets[BATCH], BATCH), said(h, targets[BATCH], BATCH))
    assert torch.equal(usual.regression(), said.regression())


def test_images_not_seen_yet_are_a_constant():
    targets, codes = training_set()
    h, indices = torch.zeros(1, BITS, dtype=torch.float64, requires_grad=True), torch.tensor([3])
    similarity = DSDH(targets, codes).terms(h, targets[indices], indices)["similarity"]
    torch.testing.assert_close(similarity, torch.tensor(2.0).double().log())
    assert not torch.autograd.grad(similarity, h)[0].any()


def test_memory_holds_the_last_seen_h_of_each_image_and_no_graph():
    targets, codes = training_set()
    loss = DSDH(targets, codes)
    expected = torch.zeros(NUM, BITS, dtype=torch.float64)
    assert torch.equal(loss.memory, expected)
    for number, indices in enumerate([torch.tensor([3, 1, 12]), torch.tensor([1, 5]), torch.tensor([3])]):
        h = random_h(len(indices), number)
        loss(h, targets[indices], indices)
        expected[indices] = h.detach()
        assert torch.equal(loss.memory, expected)
    loss.end_epoch()
    assert torch.equal(loss.memory, expected)
    assert not loss.memory.requires_grad
    assert not loss.codes.requires_grad


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_regression_leaves_no_gradient_and_is_the_published_formula(seed, weights):
    mu, nu, _ = weights
    targets, codes = training_set(seed)
    codes[:, 1] = codes[:, 0]
    W = DSDH(targets, codes, *weights).regression().requires_grad_()
    (mu * (targets - codes @ W).square().sum() + nu * W.square().sum()).backward()
    assert W.grad.abs().max() < 1e-10
    torch.testing.assert_close(W.detach(), ridge(codes, targets, mu, nu), rtol=1e-8, atol=1e-10)


def test_the_regression_of_many_images_with_equal_bits_is_right_in_single_precision():
    generator = torch.Generator().manual_seed(0)
    targets = torch.eye(CLASSES)[torch.randint(CLASSES, (20_000,), generator=generator)]
    codes = random_codes(20_000, 1, generator).repeat(1, 64)
    codes[:50] = random_codes(50, 64, generator)
    W = DSDH(targets, codes, nu=1e-3).regression()
    assert W.dtype == torch.float32
    expected = ridge(codes.double(), targets.double(), 1.0, 1e-3)
    torch.testing.assert_close(W.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_codes_take_turns_with_the_regression_one_sweep_each(seed, weights, rounds):
    mu, nu, eta = weights
    targets, codes = training_set(seed)
    loss = DSDH(targets, codes, *weights, rounds=rounds)
    U, B = show(loss, targets, seed), codes
    for _ in range(rounds):
        B = one_sweep(B, ridge(B, targets, mu, nu), targets, U, mu, eta)
    loss.end_epoch()
    assert torch.equal(loss.codes, B)
    assert rounds == 0 or not torch.equal(B, codes)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", range(5))
def test_no_round_raises_the_objective_and_at_rest_no_single_flip_improves_it(seed, weights):
    targets, codes = training_set(seed)
    loss = DSDH(targets, codes, *weights)
    U = show(loss, targets, seed)
    values, before = [best_objective(codes, targets, U, *weights)], None
    while before is None or not torch.equal(before, loss.codes):
        before = loss.codes.clone()
        loss.end_epoch()
        values.append(best_objective(loss.codes, targets, U, *weights))
        assert len(values) < 50
    assert all(after <= earlier + 1e-9 for earlier, after in itertools.pairwise(values))
    assert values[-1] < values[0]
    W = loss.regression()
    for n, k in itertools.product(range(NUM), range(BITS)):
        flipped = loss.codes.clone()
        flipped[n, k] *= -1
        assert objective(flipped, W, targets, U, *weights) >= values[-1] - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_never_below_the_brute_force_optimum_and_at_it_from_the_best_of_all_starts(seed):
    weights = (1.0, 0.1, 0.3)
    signs = [torch.tensor(bits).double().view(3, 2) for bits in itertools.product((-1, 1), repeat=6)]
    targets, found, moved = training_set(seed, num=3, bits=2)[0], [], 0
    for start in signs:
        loss = DSDH(targets, start, *weights, rounds=20)
        U = show(loss, targets, seed, range(3))
        loss.end_epoch()
        found.append(best_objective(loss.codes, targets, U, *weights))
        moved += not torch.equal(loss.codes, start)
    optimum = min(best_objective(B, targets, U, *weights) for B in signs)
    assert min(found) == pytest.approx(optimum, abs=1e-9)
    assert moved >= 8


def test_without_labels_the_codes_follow_the_memory_and_rest_where_there_is_none():
    targets, codes = training_set()
    loss = DSDH(targets, codes, mu=0.0)
    U = show(loss, targets, images=[2, 3, 5, 8])
    loss.end_epoch()
    assert torch.equal(loss.codes, torch.where(U == 0, codes, U.sign()))


def test_the_order_of_the_batch_and_of_the_training_set_does_not_matter():
    targets, codes = training_set()
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(3))
    shuffle, h = torch.tensor([3, 0, 5, 1, 4, 2]), random_h(6)
    where = order.argsort()[BATCH]  # the batch's images in the reordered set
    one, other = DSDH(targets, codes), DSDH(targets[order], codes[order])
    values = one(h, targets[BATCH], BATCH), other(h[shuffle], targets[BATCH[shuffle]], where[shuffle])
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    one.end_epoch()
    other.end_epoch()
    assert torch.equal(one.codes[order], other.codes)
    assert torch.equal(one.memory[order], other.memory)


def test_flipping_a_bit_everywhere_changes_nothing():
    targets, codes = training_set()
    flip = torch.tensor([1.0, -1, 1, 1, -1]).double()
    one, other = DSDH(targets, codes), DSDH(targets, codes * flip)
    for seed in range(3):
        h = random_h(6, seed)
        values = one(h, targets[BATCH], BATCH), other(h * flip, targets[BATCH], BATCH)
        torch.testing.assert_close(*values, rtol=1e-12, atol=0)
        one.end_epoch()
        other.end_epoch()
        assert torch.equal(one.codes * flip, other.codes)
        assert torch.equal(one.memory * flip, other.memory)


def test_the_next_batch_may_come_before_the_backward_pass():
    targets, codes = training_set()
    loss, reference = DSDH(targets, codes), DSDH(targets, codes)
    h, later = random_h(6), random_h(6, 1)
    value = loss(h, targets[BATCH], BATCH)
    loss(later, targets[BATCH], BATCH)
    expected = torch.autograd.grad(reference(h, targets[BATCH], BATCH), h)[0]
    assert torch.equal(torch.autograd.grad(value, h)[0], expected)


def test_state_dict_carries_codes_and_memory_and_nothing_else():
    targets, codes = training_set()
    trained = DSDH(targets, codes)
    show(trained, targets)
    trained.end_epoch()
    show(trained, targets, seed=1)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    assert state.keys() == {"codes", "memory"}
    fresh = DSDH(targets, random_codes(NUM, BITS, torch.Generator().manual_seed(9)).double())
    fresh.load_state_dict(state)
    for seed in range(2):
        h = random_h(6, seed)
        assert torch.equal(*(loss(h, targets[BATCH], BATCH) for loss in (trained, fresh)))
        for loss in (trained, fresh):
            loss.end_epoch()
        assert torch.equal(trained.codes, fresh.codes)
        assert torch.equal(trained.memory, fresh.memory)


@pytest.mark.parametrize("bits", [1, 3])
def test_for_a_training_set_it_takes_prefixes_and_leaves_them_as_they_are(bits):
    targets, codes = training_set()
    given = codes.clone()
    loss = DSDH.for_training(bits, TrainingSet(targets, codes, {}.__getitem__), quantization=0.7, rounds=2.0)
    assert torch.equal(loss.codes, given[:, :bits])
    assert (loss.quantization, loss.rounds) == (0.7, 2)
    show(loss, targets)
    loss.end_epoch()
    assert not torch.equal(loss.codes, given[:, :bits])
    assert torch.equal(codes, given)


@pytest.mark.parametrize("bits", [1, 64, 512])
@pytest.mark.parametrize("labels", [torch.eye(4), torch.ones(4, 1), torch.zeros(4, 3), torch.eye(4)[:, :2]])
def test_it_is_finite_for_saturated_codes_of_any_length(labels, bits):
    h = torch.ones(4, bits) * torch.tensor([1, -1, 1, -1])[:, None]
    loss = DSDH(labels, torch.ones(4, bits))
    for _ in range(3):
        h = h.detach().requires_grad_()
        value = loss(h, labels, torch.arange(4))
        value.backward()
        loss.end_epoch()
        assert torch.isfinite(value)
        assert torch.isfinite(h.grad).all()
        assert set(loss.codes.unique().tolist()) <= {-1.0, 1.0}


def test_it_takes_h_of_another_precision_than_its_memory():
    targets, codes = training_set()
    single, double = DSDH(targets, codes.float()), DSDH(targets, codes)
    h = random_h(6)
    value = single(h, targets[BATCH], BATCH)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, double(h, targets[BATCH], BATCH), rtol=1e-6, atol=0)


def test_it_needs_no_anchors():
    targets, codes = training_set()
    h, anchors = random_h(6), torch.randn(CLASSES, BITS)
    one, other = DSDH(targets, codes), DSDH(targets, codes)
    assert not one.uses_anchors
    assert torch.equal(one(h, targets[BATCH], BATCH, anchors), other(h, targets[BATCH], BATCH))
    one.end_epoch(anchors)
    other.end_epoch()
    assert torch.equal(one.codes, other.codes)


def test_what_does_not_fit_is_an_error():
    targets, codes = training_set()
    with pytest.raises(ValueError, match=f"targets have {NUM - 1} rows, but codes have {NUM}"):
        DSDH(targets[1:], codes)
    with pytest.raises(ValueError, match="nu must be above 0"):
        DSDH(targets, codes, nu=0.0)
