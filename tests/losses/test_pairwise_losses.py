"""The pairwise and triplet losses against loops over pairs, triplets and entries, and at the edges of their domain."""

import math

import pytest
import torch

from nestkala.losses import NestedLoss, TrainingSet
from nestkala.losses.dbdh import DBDH
from nestkala.losses.dch import DCH
from nestkala.losses.dhn import DHN
from nestkala.losses.dsh import DSH
from nestkala.losses.dtsh import DTSH
from nestkala.losses.hashnet import HashNet
from nestkala.losses.lcdsh import LCDSH
from nestkala.losses.pairwise import balanced_mean, masked_mean, off_diagonal, pairwise_likelihood, shares_label

NUM, BITS, CLASSES = 9, 5, 4
INDICES = torch.tensor([7, 0, 1, 8, 4, 2])
LOSSES = [DHN, DSH, HashNet, DCH, DTSH, DBDH, LCDSH]


def training_set(seed=0):
    """Multi-hot labels of the whole training set: one image has none, one has all, two of the batch are alike."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(NUM, CLASSES, generator=generator) < 0.3).double()
    targets[0], targets[1] = 0, 1
    targets[7] = targets[8] = torch.tensor([1, 0, 0, 1])
    targets[2] = torch.tensor([0, 1, 0, 0])
    return targets


def random_h(size=6, bits=BITS, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(100 + seed)
    h = torch.tanh(scale * torch.randn(size, bits, generator=generator, dtype=torch.float64))
    return h.requires_grad_()


def make(cls, targets, bits=BITS, **options):
    codes = torch.ones(len(targets), bits, dtype=targets.dtype)
    return cls.for_training(bits, TrainingSet(targets, codes, {}.__getitem__), **options)


def similarities(targets, others=None):
    others = targets if others is None else others
    return [[float(any(a and b for a, b in zip(x, y, strict=True))) for y in others.tolist()] for x in targets.tolist()]


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def softplus(x):
    return torch.log(1 + torch.exp(x))


def sign(x):
    return 1.0 if x.item() >= 0 else -1.0


def mean(values):
    return sum(values) / max(len(values), 1)  # of nothing, 0


def pairs(size, different=True):
    return [(i, j) for i in range(size) for j in range(size) if not (different and i == j)]


def balance(s, counted):
    """The weights, as the paper writes them: |S| / |S1| and |S| / |S0|."""
    similar = sum(s[i][j] for i, j in counted)
    number = {1.0: similar, 0.0: len(counted) - similar}
    return {(i, j): len(counted) / number[s[i][j]] for i, j in counted}


def slow_dhn(h, targets, quantization=0.1, memory=None, all_targets=None):
    s = similarities(targets, all_targets)
    similarity = []
    for i in range(len(h)):
        for j in range(len(memory)):
            theta = dot(h[i], memory[j]) / 2
            similarity.append(softplus(theta) - s[i][j] * theta)
    distance = [torch.log(torch.cosh(x.abs() - 1)) for x in h.flatten()]
    return {"similarity": mean(similarity), "quantization": quantization * mean(distance)}


def slow_dsh(h, targets, margin=None, quantization=0.01):
    s, margin = similarities(targets), 2 * h.shape[1] if margin is None else margin
    similarity = []
    for i, j in pairs(len(h)):
        squared = sum((a - b) ** 2 for a, b in zip(h[i], h[j], strict=True))
        apart = margin - squared if squared < margin else 0 * squared
        similarity.append(s[i][j] / 2 * squared + (1 - s[i][j]) / 2 * apart)
    regularizer = [sum((x.abs() - 1).abs() for x in row) for row in h]
    return {"similarity": mean(similarity), "quantization": quantization * mean(regularizer)}


def slow_hashnet(h, targets, alpha=None, continuation=20, epoch=0):
    s, counted = similarities(targets), pairs(len(h), different=False)
    alpha = 10 / h.shape[1] if alpha is None else alpha
    beta, w, similarity = math.sqrt(1 + epoch // continuation), balance(s, counted), []
    if beta > 1:
        h = torch.stack([torch.tanh(beta * torch.log((1 + x) / (1 - x)) / 2) for x in h.flatten()]).view_as(h)
    for i, j in counted:
        theta = alpha * dot(h[i], h[j])
        similarity.append(w[i, j] * (softplus(theta) - s[i][j] * theta))
    return {"similarity": mean(similarity)}


def slow_dch(h, targets, gamma=20.0, quantization=0.1):
    def distance(x, y):
        return len(x) / 2 * (1 - dot(x, y) / torch.sqrt(dot(x, x) * dot(y, y)))

    s, counted = similarities(targets), pairs(len(h))
    w, similarity = balance(s, counted), []
    for i, j in counted:
        d = distance(h[i], h[j])
        cost = torch.log(1 + d / gamma) if s[i][j] else torch.log(1 + gamma / d.clamp(min=1e-3))
        similarity.append(w[i, j] * cost)
    corner = [torch.log(1 + distance(row.abs(), torch.ones_like(row)) / gamma) for row in h]
    return {"similarity": mean(similarity), "quantization": quantization * mean(corner)}


def slow_dtsh(h, targets, alpha=5.0, quantization=1.0):
    s, size, similarity = similarities(targets), len(h), []
    for q in range(size):
        for p in range(size):
            for n in range(size):
                if p != q and s[q][p] and not s[q][n]:
                    theta_p, theta_n = dot(h[q], h[p]) / 2, dot(h[q], h[n]) / 2
                    similarity.append(softplus(-(theta_p - theta_n - alpha)))
    distance = [(x - sign(x)) ** 2 for x in h.flatten()]
    return {"similarity": mean(similarity), "quantization": quantization * mean(distance)}


def slow_dbdh(h, targets, alpha=0.1):
    s, similarity = similarities(targets), []
    codes = [[x + (sign(x) - x.item()) for x in row] for row in h]
    for i, j in pairs(len(h), different=False):
        theta = dot(codes[i], codes[j]) / 2
        similarity.append(softplus(theta) - s[i][j] * theta)
    of_bits = [mean(column) ** 2 for column in zip(*codes, strict=True)]
    return {"similarity": mean(similarity), "balance": alpha * mean(of_bits)}


def slow_lcdsh(h, targets, quantization=3.0):
    s, similarity, locality = similarities(targets), [], []
    for i, j in pairs(len(h), different=False):
        theta, binary = dot(h[i], h[j]) / 2, sum(sign(a) * sign(b) for a, b in zip(h[i], h[j], strict=True)) / 2
        similarity.append(softplus(-(2 * s[i][j] - 1) * theta))
        locality.append((1 / (1 + math.exp(-binary)) - 1 / (1 + torch.exp(-theta))) ** 2)
    return {"similarity": mean(similarity), "quantization": quantization * mean(locality)}


SLOW = {
    DHN: slow_dhn,
    DSH: slow_dsh,
    HashNet: slow_hashnet,
    DCH: slow_dch,
    DTSH: slow_dtsh,
    DBDH: slow_dbdh,
    LCDSH: slow_lcdsh,
}
OPTIONS = [
    (DHN, {}),
    (DHN, {"quantization": 1.7}),
    (DSH, {}),
    (DSH, {"margin": 3.0, "quantization": 0.5}),
    (DSH, {"margin": 0.0}),
    (HashNet, {}),
    (HashNet, {"alpha": 0.3}),
    (DCH, {}),
    (DCH, {"gamma": 0.8, "quantization": 2.0}),
    (DTSH, {}),
    (DTSH, {"alpha": 0.4, "quantization": 0.2}),
    (DBDH, {}),
    (DBDH, {"alpha": 3.0}),
    (LCDSH, {}),
    (LCDSH, {"quantization": 0.2}),
]


def assert_same_terms(terms, expected, h, rtol=1e-10):
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=rtol, atol=1e-13, msg=lambda text, name=name: name + text)
        ours, theirs = (torch.autograd.grad(term, h, retain_graph=True)[0] for term in (terms[name], value))
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-13, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize(("cls", "options"), OPTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_terms_and_gradients_equal_the_loops(cls, options, seed):
    targets, h = training_set(seed), random_h(seed=seed, scale=(0.3, 1.0, 2.0, 1.0)[seed])
    loss, known = make(cls, targets, **options), {}
    if cls is DHN:
        earlier = torch.tensor([3, 0, 4])
        seen = random_h(len(earlier), seed=50 + seed).detach()
        loss(seen, targets[earlier], earlier)
        memory = torch.zeros(NUM, BITS, dtype=torch.float64)
        memory[earlier], memory[INDICES] = seen, h.detach()
        known = {"memory": memory, "all_targets": targets}
    terms = loss.terms(h, targets[INDICES], INDICES)
    assert_same_terms(terms, SLOW[cls](h, targets[INDICES], **options, **known), h)
    torch.testing.assert_close(loss(h, targets[INDICES], INDICES), sum(terms.values()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("cls", [DSH, DCH, DTSH, HashNet])
@pytest.mark.parametrize("alike", [False, True])
def test_with_one_kind_of_pair_the_other_has_no_part(cls, alike):
    """HashNet pairs an image with itself, so only images without labels leave it no similar pair."""
    h = random_h(4)
    targets = torch.ones(4, 1).double() if alike else torch.eye(4).double() * (cls is not HashNet)
    terms, expected = make(cls, targets).terms(h, targets, torch.arange(4)), SLOW[cls](h, targets)
    if cls is DTSH:
        assert terms["similarity"].item() == 0
        del terms["similarity"], expected["similarity"]
    assert_same_terms(terms, expected, h)


@pytest.mark.parametrize("cls", [DSH, DCH, DTSH])
def test_a_batch_of_one_has_no_pairs_of_different_images(cls):
    h, targets = random_h(1), torch.ones(1, 1).double()
    similarity = make(cls, targets).terms(h, targets, torch.arange(1))["similarity"]
    assert similarity.item() == 0
    assert not torch.autograd.grad(similarity, h)[0].any()


@pytest.mark.parametrize("cls", LOSSES)
def test_the_order_of_the_batch_does_not_matter(cls):
    targets, h, order = training_set(), random_h(), torch.tensor([3, 0, 5, 1, 4, 2])
    one, other = make(cls, targets), make(cls, targets)
    shuffled, leaf = INDICES[order], h.detach()[order].requires_grad_()
    values = one(h, targets[INDICES], INDICES), other(leaf, targets[shuffled], shuffled)
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(values[0], h)[0][order], torch.autograd.grad(values[1], leaf)[0]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)
    for buffer, same in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(buffer, same)


@pytest.mark.parametrize("cls", LOSSES)
def test_a_bit_may_change_its_sign_for_all_images_at_once(cls):
    targets, h = training_set(), random_h()
    flip = torch.tensor([1, -1, 1, 1, -1]).double()
    one, other = make(cls, targets), make(cls, targets)
    if cls is DHN:
        one.memory.copy_(random_h(NUM, seed=1).detach())
        other.memory.copy_(one.memory * flip)
    leaf = (h.detach() * flip).requires_grad_()
    values = one(h, targets[INDICES], INDICES), other(leaf, targets[INDICES], INDICES)
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(values[0], h)[0] * flip, torch.autograd.grad(values[1], leaf)[0]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


def codes_at_the_edge(kind, bits):
    generator = torch.Generator().manual_seed(bits)
    if kind == "saturated":
        return torch.randint(0, 2, (6, bits), generator=generator).float() * 2 - 1
    if kind == "nearly saturated":
        return (torch.randint(0, 2, (6, bits), generator=generator).float() * 2 - 1) * (1 - 2**-24)
    if kind == "saturated and alike":
        return torch.ones(6, bits)
    if kind == "opposite":
        return torch.ones(6, bits) * torch.tensor([1, -1, 1, -1, 1, -1])[:, None]
    if kind == "alike":
        return torch.tanh(torch.randn(bits, generator=generator)).expand(6, bits)
    if kind == "zero":
        return torch.zeros(6, bits)
    assert kind == "tiny"
    return torch.randn(6, bits, generator=generator) * 1e-6


LABELS = {
    "some": training_set()[INDICES],
    "all similar": torch.ones(6, 2),
    "similar to themselves alone": torch.eye(6),
    "without labels": torch.zeros(6, 3),
    "one without labels": torch.tensor([0, 1, 1, 1, 1, 1])[:, None].expand(6, 2),
}
EDGES = ["saturated", "nearly saturated", "saturated and alike", "opposite", "alike", "zero", "tiny"]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("cls", LOSSES)
def test_values_and_gradients_are_finite_at_the_edges(cls, edge, labels):
    for bits in (1, 2, 64, 512):
        for dtype in (torch.float32, torch.float64):
            for size, epochs in [(6, 0), (1, 0), (6, 25)][: 3 if cls is HashNet else 2]:
                targets = LABELS[labels][:size].to(dtype)
                h = codes_at_the_edge(edge, bits)[:size].to(dtype).requires_grad_()
                loss = make(cls, targets, bits)
                for _ in range(epochs):
                    loss.end_epoch()
                value = loss(h, targets, torch.arange(size))
                value.backward()
                assert value.dtype == dtype
                assert torch.isfinite(value)
                assert torch.isfinite(h.grad).all()


@pytest.mark.parametrize("cls", LOSSES)
def test_similar_images_come_together_and_others_part(cls):
    """Steps down the gradient from small codes: every loss must order the pairs as the labels do."""
    targets = torch.eye(3).double().repeat_interleave(4, dim=0)
    generator = torch.Generator().manual_seed(0)
    z = (0.3 * torch.randn(12, 16, generator=generator, dtype=torch.float64)).requires_grad_()
    loss = make(cls, targets, 16)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss(torch.tanh(z), targets, torch.arange(12)).backward()
        optimizer.step()
    codes = torch.where(z.detach() >= 0, 1.0, -1.0)
    products, s = codes @ codes.T, torch.tensor(similarities(targets)) > 0
    assert products[s].min() > products[~s].max()


@pytest.mark.parametrize("cls", LOSSES)
def test_targets_of_another_row_number_are_an_error(cls):
    targets, h = training_set(), random_h()
    loss = make(cls, targets)
    for wrong in (targets[INDICES[1:]], targets[INDICES[:1]]):
        with pytest.raises(ValueError, match=f"6 rows of h do not fit {len(wrong)} rows of targets"):
            loss(h, wrong, INDICES)


@pytest.mark.parametrize("cls", LOSSES)
def test_it_says_where_it_is_from_and_needs_no_anchors(cls):
    name, _, rest = cls.paper.partition(" (")
    assert name == cls.__name__
    assert rest.endswith(")")
    loss, (targets, h) = make(cls, training_set()), (training_set(), random_h())
    assert loss.multi_label
    assert not loss.uses_anchors
    values = [loss(h, targets[INDICES], INDICES, anchors) for anchors in (None, torch.randn(CLASSES, BITS))]
    assert torch.equal(*values)
    loss.end_epoch(torch.randn(CLASSES, BITS))
    assert set(loss.state_dict()) == {DHN: {"memory"}, HashNet: {"epoch"}}.get(cls, set())
    assert not list(loss.parameters())


@pytest.mark.parametrize("weighting", ["adaptive", "uniform"])
@pytest.mark.parametrize("cls", LOSSES)
def test_it_trains_a_nested_code_from_one_bit_on(cls, weighting):
    targets, lengths = training_set(), (1, 4, 16)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(NUM, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(16, 8, generator=generator, dtype=torch.float64).requires_grad_()
    nested = NestedLoss(lengths, lambda bits: make(cls, targets, bits), weighting)
    result = nested.terms(torch.tanh(features @ weight.T / 4), targets, torch.arange(NUM), weight=weight)
    result.total.backward()
    assert torch.isfinite(weight.grad).all()
    assert weight.grad[8:].any()
    assert result.weights.min() >= 0


# DHN's memory


def test_dhn_remembers_the_last_seen_h_of_each_image_and_starts_at_zero():
    targets = training_set()
    loss = make(DHN, targets)
    expected = torch.zeros(NUM, BITS, dtype=torch.float64)
    assert torch.equal(loss.memory, expected)
    for number, indices in enumerate([torch.tensor([3, 1, 8]), torch.tensor([1, 5]), torch.tensor([3])]):
        h = random_h(len(indices), seed=number)
        loss(h, targets[indices], indices)
        expected[indices] = h.detach()
        assert torch.equal(loss.memory, expected)
        loss.end_epoch()
    assert torch.equal(loss.memory, expected)
    assert not loss.memory.requires_grad


def test_dhn_with_every_image_in_the_batch_is_the_likelihood_of_all_pairs():
    """Its gradient is half as long: the other end of each pair is a constant."""
    targets, h, order = training_set(), random_h(NUM), torch.randperm(NUM, generator=torch.Generator().manual_seed(0))
    similarity = make(DHN, targets).terms(h, targets[order], order)["similarity"]
    closed = pairwise_likelihood(h, targets[order])
    torch.testing.assert_close(similarity, closed, rtol=1e-12, atol=0)
    ours, all_pairs = (torch.autograd.grad(value, h)[0] for value in (similarity, closed))
    torch.testing.assert_close(ours, all_pairs / 2, rtol=1e-10, atol=1e-13)


def test_dhn_images_never_seen_add_a_constant():
    targets, h = training_set(), random_h(1)
    similarity = make(DHN, targets).terms(h, targets[2:3], torch.tensor([2]))["similarity"]
    own = softplus(-dot(h[0], h[0].detach()) / 2)
    torch.testing.assert_close(similarity, ((NUM - 1) * math.log(2) + own) / NUM)
    torch.testing.assert_close(*(torch.autograd.grad(value, h)[0] for value in (similarity, own / NUM)))


def test_dhn_memory_travels_in_the_state_dict_and_targets_do_not():
    targets = training_set()
    trained, fresh = make(DHN, targets), make(DHN, targets)
    trained(random_h(), targets[INDICES], INDICES)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    assert state.keys() == {"memory"}
    fresh.load_state_dict(state)
    h, indices = random_h(3, seed=5), torch.tensor([3, 5, 6])
    values = [loss(h, targets[indices], indices) for loss in (trained, fresh)]
    assert torch.equal(*values)
    assert torch.equal(trained.memory, fresh.memory)
    assert not torch.equal(values[0], make(DHN, targets)(h, targets[indices], indices))


def test_dhn_batches_may_be_shown_before_the_backward_pass_of_others():
    targets, indices = training_set(), torch.tensor([3, 0, 5])
    batches = [(random_h(), INDICES), (random_h(3, seed=1), indices)]
    together, apart = make(DHN, targets), make(DHN, targets)
    sum(together(h, targets[of_batch], of_batch) for h, of_batch in batches).backward()
    for h, of_batch in batches:
        (expected,) = torch.autograd.grad(apart(h, targets[of_batch], of_batch), h)
        assert torch.equal(h.grad, expected)


def test_dhn_takes_counted_labels_and_leaves_its_arguments_as_they_are():
    targets, h = training_set(), random_h().detach().float()
    given = h.clone()
    loss = make(DHN, targets.long())
    assert loss.memory.dtype == torch.float32
    expected = make(DHN, targets.float())(h, targets[INDICES].float(), INDICES)
    assert torch.equal(loss(h, targets[INDICES].float(), INDICES), expected)
    assert torch.equal(h, given)


def test_dhn_quantization_keeps_small_distances_from_one():
    """cosh(1e-4) is 1 in single precision, its logarithm 0."""
    h = torch.full((2, 3), 1 - 1e-4).requires_grad_()
    quantization = DHN(torch.ones(2, 1), 3, 1.0).terms(h, torch.ones(2, 1), torch.arange(2))["quantization"]
    gradient = torch.autograd.grad(quantization, h)[0]
    torch.testing.assert_close(gradient, torch.full((2, 3), -math.tanh(1e-4) / 6), rtol=1e-2, atol=0)
    assert quantization.item() == pytest.approx(5e-9, rel=1e-2)


def test_dhn_refuses_what_does_not_fit_and_writes_nothing():
    targets, h = training_set(), random_h()
    loss = make(DHN, targets)
    with pytest.raises(ValueError, match="6 rows of targets and 5 indices"):
        loss(h, targets[INDICES], INDICES[1:])
    with pytest.raises(ValueError, match="1 rows of h do not fit 6"):
        loss(h[:1], targets[INDICES], INDICES)
    for wrong in (-1, NUM):
        with pytest.raises(ValueError, match=f"indices must be 0 to {NUM - 1}, but contain {wrong}"):
            loss(h[:1], targets[:1], torch.tensor([wrong]))
    with pytest.raises(ValueError, match="h has 4 columns, but the loss is for 5 bits"):
        loss(h[:, :4], targets[INDICES], INDICES)
    with pytest.raises(ValueError, match="targets have 3 classes"):
        loss(h, targets[INDICES, :3], INDICES)
    assert not loss.memory.any()


# HashNet's continuation


@pytest.mark.parametrize(("continuation", "epochs"), [(20, 19), (20, 20), (20, 39), (20, 60), (1, 1), (3, 8)])
def test_hashnet_outputs_grow_steeper_by_stages_of_epochs(continuation, epochs):
    targets, h = training_set(), random_h(scale=0.7)
    loss = HashNet(continuation=continuation)
    for _ in range(epochs):
        loss(h, targets[INDICES], INDICES)  # what counts are epochs, not batches
        loss(h, targets[INDICES], INDICES)
        loss.end_epoch()
    expected = slow_hashnet(h, targets[INDICES], continuation=continuation, epoch=epochs)
    assert loss.beta == math.sqrt(1 + epochs // continuation)
    assert_same_terms(loss.terms(h, targets[INDICES], INDICES), expected, h)


def test_hashnet_takes_h_itself_in_the_first_stage():
    targets, h = training_set(), torch.ones(6, BITS).double()
    h[::2] = 1 - 1e-12
    loss, value = HashNet(), HashNet(alpha=10 / BITS)(h, targets[INDICES], INDICES)
    for _ in range(19):
        loss.end_epoch()
        assert torch.equal(loss(h, targets[INDICES], INDICES), value)
    s = torch.tensor(similarities(targets[INDICES])).double()
    costs = torch.nn.functional.binary_cross_entropy_with_logits(10 / BITS * h @ h.T, s, reduction="none")
    assert torch.equal(value, balanced_mean(costs, s, torch.ones_like(s)))


def test_hashnet_counts_epochs_across_checkpoints():
    trained, fresh = HashNet(continuation=2), HashNet(continuation=2)
    for _ in range(3):
        trained.end_epoch()
    fresh.load_state_dict({name: value.clone() for name, value in trained.state_dict().items()})
    assert fresh.beta == trained.beta == math.sqrt(2)
    for loss in (trained, fresh):
        loss.end_epoch()
        assert loss.beta == math.sqrt(3)


def test_hashnet_wants_stages_of_an_epoch_or_more():
    with pytest.raises(ValueError, match="continuation must be a whole number of 1 or more, not 0"):
        HashNet(continuation=0)


# DCH at its limits


def test_dch_at_one_bit_counts_signs_and_has_no_gradient_at_all():
    """Not even one of rounding, which adaptive weighting would compare with real ones."""
    generator = torch.Generator().manual_seed(0)
    h, targets = torch.tanh(torch.randn(16, 1, generator=generator)).requires_grad_(), torch.eye(4).repeat(4, 1)
    terms = DCH().terms(h, targets, torch.arange(16))
    assert not torch.autograd.grad(sum(terms.values()), h)[0].any()
    assert terms["quantization"].item() == 0

    s, near, far = similarities(targets), [], []
    for i, j in pairs(16):
        d = float(sign(h[i]) != sign(h[j]))
        if s[i][j]:
            near.append(math.log(1 + d / 20))
        else:
            far.append(math.log(1 + 20 / max(d, 1e-3)))
    assert terms["similarity"].item() == pytest.approx(mean(near) + mean(far))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dch_dissimilar_images_of_one_code_cost_what_a_thousandth_of_a_bit_does(dtype):
    h, targets = torch.ones(2, 512, dtype=dtype).requires_grad_(), torch.eye(2, dtype=dtype)
    similarity = DCH(gamma=20.0).terms(h, targets, torch.arange(2))["similarity"]
    assert similarity.item() == pytest.approx(math.log(1 + 20 / 1e-3))
    assert not torch.autograd.grad(similarity, h)[0].any()


@pytest.mark.parametrize("bits", [3, 5, 6, 7, 48, 100, 511])
def test_dch_distances_are_not_below_zero_where_cosines_round_up(bits):
    """A tiny gamma makes the rounding show: log(1 + d / gamma) would have no value."""
    generator = torch.Generator().manual_seed(bits)
    h = torch.tanh(torch.randn(20, bits, generator=generator)).repeat(2, 1)
    h = torch.cat([h, h.sign()]).requires_grad_()
    terms = DCH(gamma=1e-9).terms(h, torch.eye(20).repeat(4, 1), torch.arange(80))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) and term >= 0 for term in terms.values())
    assert torch.isfinite(h.grad).all()


# What they share


def test_labels_are_compared_within_a_batch_or_with_others():
    targets = training_set()
    assert shares_label(targets).tolist() == similarities(targets)
    assert shares_label(targets[:2], targets.float()).tolist() == similarities(targets[:2], targets)


def test_means_over_masks():
    costs, mask = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert masked_mean(costs, mask).item() == pytest.approx(13 / 3)
    assert masked_mean(costs, 0 * mask).item() == 0
    assert off_diagonal(mask).tolist() == [[0, 0], [1, 0]]
    assert mask.tolist() == [[1, 0], [1, 1]]
    similar = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert balanced_mean(costs, similar, mask).item() == pytest.approx((1 + 8) / 2 + 4)
    assert balanced_mean(costs, similar, similar).item() == pytest.approx((1 + 8) / 2)
