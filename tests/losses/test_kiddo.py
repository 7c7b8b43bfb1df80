"""KIDDO against a double loop over pairs and entries, and its codes against the sum form they minimize."""

import itertools

import pytest
import torch

from nestkala.losses import KIDDO, random_codes

NUM, CLASSES, BITS = 14, 4, 5
WEIGHTS = [(0.1, 1.0, 3.0), (0.7, 0.2, 1.3)]


def training_set(seed=0):
    """Multi-hot labels (one image has none, one has all) and starting codes of the whole training set."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(NUM, CLASSES, generator=generator) < 0.35).double()
    targets[0], targets[1] = 0, 1
    return targets, random_codes(NUM, BITS, generator).double()


def random_h(size, seed=0):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.tanh(torch.randn(size, BITS, generator=generator, dtype=torch.float64)).requires_grad_()


def random_anchors(seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(200 + seed)
    return (torch.randn(CLASSES, BITS, generator=generator, dtype=torch.float64) * scale).requires_grad_()


def slow_terms(h, targets, codes, anchors, alpha, beta, gamma):
    (size, bits), classes = h.shape, targets.shape[1]
    similarity = quantization = alignment = 0.0
    for i in range(size):
        for j in range(size):
            theta = sum(h[i, k] * h[j, k] for k in range(bits)) / 2
            similar = any(a and b for a, b in zip(targets[i].tolist(), targets[j].tolist(), strict=True))
            similarity = similarity + torch.log(1 + torch.exp(theta)) - (theta if similar else 0)
        for k in range(bits):
            quantization = quantization + (h[i, k] - codes[i, k].item()) ** 2
        for c in range(classes):
            aligned = sum(codes[i, k].item() * anchors[c, k] for k in range(bits))
            alignment = alignment + (targets[i, c].item() - aligned) ** 2
    return {
        "similarity": gamma * similarity / size**2,
        "quantization": beta * quantization / (size * bits),
        "alignment": alpha * alignment / (size * classes),
    }


def objective(codes, targets, memory, anchors, alpha, beta):
    return (alpha * ((targets - codes @ anchors.T) ** 2).sum() + beta * ((memory - codes) ** 2).sum()).item()


def one_epoch(loss, targets, seed=0):
    """Show every image once, in batches; return what the memory should then hold."""
    seen = torch.zeros(NUM, BITS, dtype=torch.float64)
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(seed))
    for number, indices in enumerate(order.split(5)):
        h = random_h(len(indices), 10 * seed + number)
        loss(h, targets[indices], indices, random_anchors(seed))
        seen[indices] = h.detach()
    return seen


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_equal_the_double_loop(seed, weights):
    targets, codes = training_set(seed)
    indices = torch.tensor([7, 0, 1, 13, 4, 9])
    h, anchors = random_h(6, seed), random_anchors(seed)
    terms = KIDDO(targets, codes, *weights).terms(h, targets[indices], indices, anchors)
    expected = slow_terms(h, targets[indices], codes[indices], anchors, *weights)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=1e-12)
        for leaf in (h, anchors):
            ours, theirs = (
                torch.autograd.grad(term, leaf, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
                for term in (terms[name], value)
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_weights_are_the_published_ones_unless_told_otherwise():
    targets, codes = training_set()
    indices, h, anchors = torch.arange(6), random_h(6), random_anchors()
    expected = slow_terms(h, targets[:6], codes[:6], anchors, *WEIGHTS[0])
    torch.testing.assert_close(KIDDO(targets, codes)(h, targets[:6], indices, anchors), sum(expected.values()))


def test_anchors_learn_from_the_alignment_and_the_network_from_the_others():
    targets, codes = training_set()
    indices, h, anchors = torch.arange(2, 8), random_h(6), random_anchors()
    terms = KIDDO(targets, codes).terms(h, targets[2:8], indices, anchors)
    reached = {
        name: [
            gradient is not None and bool(gradient.abs().sum() > 0)
            for gradient in torch.autograd.grad(term, (h, anchors), allow_unused=True)
        ]
        for name, term in terms.items()
    }
    assert reached == {"similarity": [True, False], "quantization": [True, False], "alignment": [False, True]}


def test_memory_starts_at_zero_and_holds_the_last_seen_h_of_each_image():
    targets, codes = training_set()
    loss = KIDDO(targets, codes)
    expected = torch.zeros(NUM, BITS, dtype=torch.float64)
    assert torch.equal(loss.memory, expected)
    for number, indices in enumerate([torch.tensor([3, 1, 12]), torch.tensor([1, 5]), torch.tensor([3])]):
        h = random_h(len(indices), number)
        loss(h, targets[indices], indices, random_anchors())
        expected[indices] = h.detach()
        assert torch.equal(loss.memory, expected)
    assert not loss.memory.requires_grad


def test_codes_are_a_copy_that_changes_in_end_epoch_alone():
    targets, codes = training_set()
    given = codes.clone()
    loss = KIDDO(targets, codes)
    one_epoch(loss, targets)
    assert torch.equal(loss.codes, given)
    memory = loss.memory.clone()
    loss.end_epoch(random_anchors())
    assert not torch.equal(loss.codes, given)
    assert torch.equal(codes, given)
    assert torch.equal(loss.memory, memory)
    assert set(loss.codes.unique().tolist()) == {-1.0, 1.0}
    assert not loss.codes.requires_grad


@pytest.mark.parametrize("bits", [1, BITS])
def test_codes_of_any_length_may_be_prefixes_of_one_draw(bits):
    targets, codes = training_set()
    given = codes.clone()
    loss = KIDDO(targets, codes[:, :bits])
    h = random_h(NUM)[:, :bits]
    loss(h, targets, torch.arange(NUM), random_anchors()[:, :bits])
    loss.end_epoch(random_anchors()[:, :bits])
    assert torch.equal(codes, given)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", range(5))
def test_new_codes_minimize_the_sum_form_up_to_single_flips(seed, weights):
    alpha, beta, _ = weights
    targets, codes = training_set(seed)
    loss, anchors = KIDDO(targets, codes, *weights), random_anchors(seed, scale=2.0)
    U = one_epoch(loss, targets, seed)
    loss.end_epoch(anchors)
    T = anchors.detach()
    best = objective(loss.codes, targets, U, T, alpha, beta)
    assert best < objective(codes, targets, U, T, alpha, beta)
    for n, i in itertools.product(range(NUM), range(BITS)):
        flipped = loss.codes.clone()
        flipped[n, i] *= -1
        assert objective(flipped, targets, U, T, alpha, beta) >= best - 1e-9


@pytest.mark.parametrize("weights", WEIGHTS)
def test_new_codes_equal_the_published_update_bit_by_bit(weights):
    alpha, beta, _ = weights
    targets, codes = training_set()
    loss, anchors = KIDDO(targets, codes, *weights), random_anchors(scale=2.0)
    U, T, B = one_epoch(loss, targets), anchors.detach(), codes.clone()
    P, gram = targets @ T + beta / alpha * U, T.T @ T
    for _ in range(10):
        for i in range(BITS):
            others = [j for j in range(BITS) if j != i]
            B[:, i] = torch.sign(P[:, i] - B[:, others] @ gram[others, i])
    loss.end_epoch(anchors)
    assert torch.equal(loss.codes, B)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.1, 0.0)])
def test_a_term_of_weight_zero_has_no_say_in_the_codes(alpha, beta):
    targets, codes = training_set()
    loss = KIDDO(targets, codes, alpha, beta)
    anchors = random_anchors(scale=1e-3 if beta else 1.0)
    U = one_epoch(loss, targets)
    loss.end_epoch(anchors)
    if alpha == 0:
        assert torch.equal(loss.codes, torch.where(U == 0, codes, U.sign()))
    else:
        T = anchors.detach()
        before, after = (((targets - B @ T.T) ** 2).sum() for B in (codes, loss.codes))
        assert after < before


def test_images_not_seen_yet_follow_the_anchors_alone():
    targets, codes = training_set()
    loss, anchors = KIDDO(targets, codes), random_anchors()
    loss.end_epoch(anchors)
    T = anchors.detach()
    before, after = (((targets - B @ T.T) ** 2).sum() for B in (codes, loss.codes))
    assert after < before


def test_the_order_of_the_batch_does_not_matter():
    targets, codes = training_set()
    indices, order = torch.tensor([7, 0, 1, 13, 4, 9]), torch.tensor([3, 0, 5, 1, 4, 2])
    h, anchors = random_h(6), random_anchors()
    one, other = KIDDO(targets, codes), KIDDO(targets, codes)
    shuffled = indices[order]
    torch.testing.assert_close(
        one(h, targets[indices], indices, anchors), other(h[order], targets[shuffled], shuffled, anchors)
    )
    assert torch.equal(one.memory, other.memory)


def test_state_dict_carries_codes_and_memory_and_nothing_else():
    targets, codes = training_set()
    trained = KIDDO(targets, codes)
    one_epoch(trained, targets)
    trained.end_epoch(random_anchors())
    one_epoch(trained, targets, seed=1)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    assert state.keys() == {"codes", "memory"}

    fresh = KIDDO(targets, random_codes(NUM, BITS, torch.Generator().manual_seed(9)).double())
    fresh.load_state_dict(state)
    indices, h, anchors = torch.arange(6), random_h(6), random_anchors(3)
    values = [loss(h, targets[:6], indices, anchors) for loss in (trained, fresh)]
    assert torch.equal(*values)
    for loss in (trained, fresh):
        loss.end_epoch(anchors)
    assert torch.equal(trained.codes, fresh.codes)
    assert torch.equal(trained.memory, fresh.memory)


def test_missing_anchors_are_an_error_that_says_so():
    targets, codes = training_set()
    loss = KIDDO(targets, codes)
    assert loss.uses_anchors
    with pytest.raises(ValueError, match="needs anchors"):
        loss(random_h(3), targets[:3], torch.arange(3))
    with pytest.raises(ValueError, match="needs anchors"):
        loss.end_epoch()
    assert torch.equal(loss.memory, torch.zeros_like(loss.memory))


def test_targets_and_codes_of_different_row_numbers_are_an_error():
    targets, codes = training_set()
    with pytest.raises(ValueError, match=f"targets have {NUM - 1} rows, but codes have {NUM}"):
        KIDDO(targets[1:], codes)
