"""ADSH against loops over pairs and entries, and its codes against the objective they minimize."""

import itertools

import pytest
import torch

from nestkala.losses.adsh import ADSH
from nestkala.losses.contract import TrainingSet
from nestkala.losses.dcc import random_codes

NUM, CLASSES, BITS = 12, 4, 4
BATCH = torch.tensor([7, 0, 1, 11, 4])


def training_set(seed=0, num=NUM, bits=BITS, single_label=False):
    """Labels (multi-hot: one image has none, one has all; single: one has none) and starting codes."""
    generator = torch.Generator().manual_seed(seed)
    if single_label:
        targets = torch.eye(CLASSES).double()[torch.randint(CLASSES, (num,), generator=generator)]
    else:
        targets = (torch.rand(num, CLASSES, generator=generator) < 0.3).double()
        targets[1] = 1
    targets[0] = 0
    return targets, random_codes(num, bits, generator).double()


def random_h(size, seed=0, bits=BITS):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.tanh(torch.randn(size, bits, generator=generator, dtype=torch.float64)).requires_grad_()


def show(loss, targets, seed=0, images=range(NUM)):
    """Show the images in batches; return {image: its last h}."""
    seen = {}
    for number, indices in enumerate(torch.tensor(list(images)).split(5)):
        h = random_h(len(indices), 10 * seed + number, loss.codes.shape[1])
        loss(h, targets[indices], indices)
        seen |= dict(zip(indices.tolist(), h.detach(), strict=True))
    return seen


def share(one, other):
    return any(a and b for a, b in zip(one.tolist(), other.tolist(), strict=True))


def slow_ratio(targets):
    pairs = [share(one, other) for one in targets for other in targets]
    return sum(pairs) / pairs.count(False) if False in pairs else 1.0


def slow_sums(queries, V, targets):
    """For {image: h}: the sum over pairs and the sum over queries of the objective, one entry at a time."""
    ratio, V = slow_ratio(targets), V.tolist()
    pairs = own = 0.0
    for image, h in queries.items():
        for n, code in enumerate(V):
            wanted = len(code) * (1 if share(targets[image], targets[n]) else -ratio)
            pairs = pairs + (sum(h[k] * code[k] for k in range(len(code))) - wanted) ** 2
        own = own + sum((V[image][k] - h[k]) ** 2 for k in range(len(h)))
    return pairs, own


def slow_terms(h, indices, V, targets, gamma):
    pairs, own = slow_sums(dict(zip(indices.tolist(), h, strict=True)), V, targets)
    return {"similarity": pairs / (len(V) * len(h)), "quantization": gamma * own / (len(V) * len(h))}


def objective(V, queries, targets, gamma):
    pairs, own = slow_sums({image: h.tolist() for image, h in queries.items()}, V, targets)
    return pairs + gamma * own


def one_sweep(V, queries, targets, gamma):
    """Bit after bit, each code takes the sign for which the objective is lower, and keeps it where both are alike."""
    V = V.clone()
    for k, n in itertools.product(range(V.shape[1]), range(len(V))):
        flipped = V.clone()
        flipped[n, k] *= -1
        if objective(flipped, queries, targets, gamma) < objective(V, queries, targets, gamma) - 1e-9:
            V = flipped
    return V


@pytest.mark.parametrize("gamma", [200.0, 0.3, 0.0])
@pytest.mark.parametrize("single_label", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_equal_the_loops(seed, single_label, gamma):
    targets, codes = training_set(seed, single_label=single_label)
    h = random_h(5, seed)
    terms = ADSH(targets, codes, gamma).terms(h, targets[BATCH], BATCH)
    expected = slow_terms(h, BATCH, codes, targets, gamma)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-10, atol=1e-12)
        ours, theirs = (torch.autograd.grad(term, h, retain_graph=True)[0] for term in (terms[name], value))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gamma_is_200_and_a_round_three_epochs_of_one_sweep_unless_told_otherwise():
    targets, codes = training_set()
    usual, said = ADSH(targets, codes), ADSH(targets, codes, quantization=200, queries=2000, round_epochs=3, sweeps=1)
    assert usual.queries == said.queries
    h = random_h(5)
    assert torch.equal(usual(h, targets[BATCH], BATCH), said(h, targets[BATCH], BATCH))
    for _ in range(3):
        assert torch.equal(usual.codes, codes)
        usual.end_epoch()
        said.end_epoch()
    assert torch.equal(usual.codes, said.codes)
    assert not torch.equal(usual.codes, codes)


@pytest.mark.parametrize(
    ("targets", "ratio"),
    [
        ([[1, 0], [1, 0], [0, 1], [0, 1]], 8 / 8),
        ([[1, 0], [1, 0], [1, 0], [0, 1]], 10 / 6),
        ([[1, 0], [1, 1], [0, 1]], 7 / 2),
        ([[1, 0], [1, 0], [0, 0]], 4 / 5),
        ([[1], [1], [1]], 1.0),
        ([[1, 1], [0, 1]], 1.0),
        ([[0, 0], [0, 0]], 0.0),
    ],
)
def test_the_ratio_counts_ordered_pairs_of_the_database(targets, ratio):
    targets = torch.tensor(targets).double()
    assert ADSH(targets, torch.ones(len(targets), 2).double()).ratio == ratio
    assert slow_ratio(targets) == ratio


def test_what_is_wanted_of_a_database_of_several_blocks_is_what_its_whole_similarity_matrix_says():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(2500, CLASSES, generator=generator) < 0.3).double()
    codes, h = random_codes(2500, BITS, generator).double(), random_h(2500)
    loss = ADSH(targets, codes, quantization=3.0, round_epochs=1)
    similar = (targets[:, None] * targets[None]).amax(dim=2)
    assert loss.ratio == (similar.sum() / (1 - similar).sum()).item()
    loss(h, targets, torch.arange(2500))
    loss.end_epoch()
    S, U = (1 + loss.ratio) * similar - loss.ratio, h.detach()
    linear, gram, V = BITS * S.T @ U + 3 * U, U.T @ U, codes.clone()
    for k in range(BITS):
        others = [i for i in range(BITS) if i != k]
        V[:, k] = torch.sign(linear[:, k] - V[:, others] @ gram[others, k])
    assert torch.equal(loss.codes, V)


def test_memory_holds_the_last_seen_h_until_the_round_ends_and_no_graph():
    targets, codes = training_set()
    loss = ADSH(targets, codes, round_epochs=2)
    expected = torch.zeros(NUM, BITS, dtype=torch.float64)
    for number, indices in enumerate([torch.tensor([3, 1, 11]), torch.tensor([1, 5]), torch.tensor([3])]):
        h = random_h(len(indices), number)
        loss(h, targets[indices], indices)
        expected[indices] = h.detach()
        assert torch.equal(loss.memory, expected)
    loss.end_epoch()
    assert torch.equal(loss.memory, expected)
    assert not loss.memory.requires_grad
    loss.end_epoch()
    assert not loss.memory.any()


def test_codes_change_only_where_a_round_ends():
    targets, codes = training_set()
    loss = ADSH(targets, codes, round_epochs=3)
    changed = []
    for epoch in range(9):
        show(loss, targets, seed=epoch)
        before = loss.codes.clone()
        loss.end_epoch()
        changed.append(not torch.equal(loss.codes, before))
        assert set(loss.codes.unique().tolist()) == {-1.0, 1.0}
    assert changed == [False, False, True] * 3


@pytest.mark.parametrize("gamma", [200.0, 2.0, 0.0])
@pytest.mark.parametrize("single_label", [False, True])
@pytest.mark.parametrize("images", [range(NUM), [2, 7, 3, 10, 0, 6, 3]])
@pytest.mark.parametrize("seed", range(2))
def test_new_codes_are_those_of_the_better_sign_bit_by_bit(seed, images, single_label, gamma):
    targets, codes = training_set(seed, single_label=single_label)
    loss = ADSH(targets, codes, gamma, round_epochs=1)
    V = codes
    for epoch in range(2):  # the first epoch's outputs have no say in the second's codes
        queries = show(loss, targets, seed + 5 * epoch, images if epoch == 0 else images[:4])
        V = one_sweep(V, queries, targets, gamma)
        loss.end_epoch()
        assert torch.equal(loss.codes, V)
    assert not torch.equal(V, codes)


@pytest.mark.parametrize("gamma", [200.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_sweep_raises_the_objective_and_at_rest_no_single_flip_improves_it(seed, gamma):
    targets, codes = training_set(seed)
    values = []
    for sweeps in range(8):
        loss = ADSH(targets, codes, gamma, round_epochs=1, sweeps=sweeps)
        queries = show(loss, targets, seed, [2, 7, 3, 10, 0, 1, 5, 6])
        loss.end_epoch()
        values.append(objective(loss.codes, queries, targets, gamma))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))
    assert values[-1] < values[0]
    for n, k in itertools.product(range(NUM), range(BITS)):
        flipped = loss.codes.clone()
        flipped[n, k] *= -1
        assert objective(flipped, queries, targets, gamma) >= values[-1] - 1e-9


def test_never_below_the_brute_force_optimum_and_mostly_at_it():
    reached = 0
    signs = [torch.tensor(bits).double().view(4, 2) for bits in itertools.product((-1, 1), repeat=8)]
    for seed in range(8):
        targets, codes = training_set(seed, num=4, bits=2)
        loss = ADSH(targets, codes, quantization=1.0, round_epochs=1, sweeps=20)
        queries = show(loss, targets, seed, range(3))
        loss.end_epoch()
        found = objective(loss.codes, queries, targets, 1.0)
        optimum = min(objective(V, queries, targets, 1.0) for V in signs)
        assert found >= optimum - 1e-9
        reached += found <= optimum + 1e-9
    assert reached >= 5


def test_a_round_without_outputs_keeps_the_codes():
    targets, codes = training_set()
    loss = ADSH(targets, codes, round_epochs=1)
    loss.end_epoch()
    assert torch.equal(loss.codes, codes)


def test_the_order_of_the_batch_and_of_the_database_does_not_matter():
    targets, codes = training_set()
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(3))
    shuffle, h = torch.tensor([3, 0, 1, 4, 2]), random_h(5)
    where = order.argsort()[BATCH]  # the batch's images in the reordered database
    one, other = (ADSH(targets[rows], codes[rows], round_epochs=1) for rows in (torch.arange(NUM), order))
    values = one(h, targets[BATCH], BATCH), other(h[shuffle], targets[BATCH[shuffle]], where[shuffle])
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    one.end_epoch()
    other.end_epoch()
    assert torch.equal(one.codes[order], other.codes)


def test_flipping_a_bit_everywhere_changes_nothing():
    targets, codes = training_set()
    flip = torch.tensor([1.0, -1, 1, -1]).double()
    one, other = (ADSH(targets, start, round_epochs=1) for start in (codes, codes * flip))
    for seed in range(3):
        h = random_h(5, seed)
        values = one(h, targets[BATCH], BATCH), other(h * flip, targets[BATCH], BATCH)
        torch.testing.assert_close(*values, rtol=1e-12, atol=0)
        assert torch.equal(one.memory * flip, other.memory)
        one.end_epoch()
        other.end_epoch()
        assert torch.equal(one.codes * flip, other.codes)


def test_state_dict_goes_on_in_the_middle_of_a_round():
    targets, codes = training_set()
    trained = ADSH(targets, codes)
    for epoch in range(4):
        show(trained, targets, seed=epoch)
        trained.end_epoch()
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    assert state.keys() == {"codes", "memory", "epochs"}
    fresh = ADSH(targets, random_codes(NUM, BITS, torch.Generator().manual_seed(9)).double())
    fresh.load_state_dict(state)
    middle = trained.codes.clone()
    for epoch in range(2):
        h = random_h(5, epoch)
        assert torch.equal(*(loss(h, targets[BATCH], BATCH) for loss in (trained, fresh)))
        for loss in (trained, fresh):
            loss.end_epoch()
        assert torch.equal(trained.codes, fresh.codes)
        assert torch.equal(trained.memory, fresh.memory)
    assert not torch.equal(trained.codes, middle)


@pytest.mark.parametrize("bits", [1, 3])
def test_for_a_training_set_it_takes_prefixes_and_leaves_them_as_they_are(bits):
    targets, codes = training_set()
    given = codes.clone()
    loss = ADSH.for_training(
        bits, TrainingSet(targets, codes, {}.__getitem__), quantization=2.0, round_epochs=1.0, sweeps=2.0
    )
    assert torch.equal(loss.codes, given[:, :bits])
    assert (loss.quantization, loss.round_epochs, loss.sweeps) == (2, 1, 2)
    show(loss, targets)
    loss.end_epoch()
    assert not torch.equal(loss.codes, given[:, :bits])
    assert torch.equal(codes, given)


@pytest.mark.parametrize("bits", [1, 64, 512])
@pytest.mark.parametrize("labels", [torch.eye(4), torch.ones(4, 1), torch.zeros(4, 3), torch.eye(4)[:, :2]])
def test_it_is_finite_for_saturated_codes_of_any_length(labels, bits):
    h = torch.ones(4, bits) * torch.tensor([1, -1, 1, -1])[:, None]
    loss = ADSH(labels, torch.ones(4, bits), round_epochs=1)
    for _ in range(3):
        h = h.detach().requires_grad_()
        value = loss(h, labels, torch.arange(4))
        value.backward()
        loss.end_epoch()
        assert torch.isfinite(value)
        assert torch.isfinite(h.grad).all()
        assert set(loss.codes.unique().tolist()) <= {-1.0, 1.0}


def test_it_takes_h_of_another_precision_than_its_codes():
    targets, codes = training_set()
    single, double = ADSH(targets, codes.float()), ADSH(targets, codes)
    h = random_h(5)
    value = single(h, targets[BATCH], BATCH)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, double(h, targets[BATCH], BATCH), rtol=1e-12, atol=0)


def test_it_needs_no_anchors():
    targets, codes = training_set()
    h, anchors = random_h(5), torch.randn(CLASSES, BITS)
    one, other = (ADSH(targets, codes, round_epochs=1) for _ in range(2))
    assert not one.uses_anchors
    assert torch.equal(one(h, targets[BATCH], BATCH, anchors), other(h, targets[BATCH], BATCH))
    one.end_epoch(anchors)
    other.end_epoch()
    assert torch.equal(one.codes, other.codes)


def test_what_does_not_fit_is_an_error():
    targets, codes = training_set()
    with pytest.raises(ValueError, match=f"targets have {NUM - 1} rows, but codes have {NUM}"):
        ADSH(targets[1:], codes)
    with pytest.raises(ValueError, match="round_epochs must be a whole number of 1 or more, not 0"):
        ADSH(targets, codes, round_epochs=0)
