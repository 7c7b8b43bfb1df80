"""CSQ, OrthoHash, DPN, MDSH and GreedyHash against their formulas, one entry at a time."""

import math

import pytest
import torch

from nestkala.losses import TrainingSet
from nestkala.losses.csq import CSQ
from nestkala.losses.dpn import DPN
from nestkala.losses.greedyhash import GreedyHash
from nestkala.losses.mdsh import MDSH
from nestkala.losses.ortho import OrthoHashArc, OrthoHashCos

NUM, CLASSES, BITS = 14, 4, 6
LOSSES = [CSQ, DPN, OrthoHashCos, OrthoHashArc, MDSH, GreedyHash]
OPTIONS = [  # other than the defaults
    (CSQ, {"quantization": 0.7}),
    (DPN, {"margin": 0.3}),
    (DPN, {"margin": 1.5}),
    (OrthoHashCos, {"margin": 0.5, "scale": 3.0}),
    (OrthoHashArc, {"margin": 0.5, "scale": 3.0}),
    (MDSH, {"beta": 0.3, "quantization": 0.7}),
    (GreedyHash, {"quantization": 0.7}),
]
CASES = [(kind, {}) for kind in LOSSES] + OPTIONS
EARLIER = torch.tensor([3, 5, 8, 1])  # images seen before the batch, for losses with a memory
INDICES = torch.tensor([7, 0, 1, 13, 4, 9, 10])


def random_h(size=7, bits=BITS, seed=0):
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.tanh(torch.randn(size, bits, generator=generator, dtype=torch.float64)).requires_grad_()


def training_set(kind, seed=0):
    """Random centers; of the batch one image has no label, one has two and one all, unless the loss forbids it."""
    generator = torch.Generator().manual_seed(seed)
    centers = (torch.randint(0, 2, (CLASSES, BITS), generator=generator) * 2 - 1).double()
    if kind.multi_label:
        targets = (torch.rand(NUM, CLASSES, generator=generator) < 0.35).double()
        targets[0], targets[1], targets[7] = 0, 1, torch.tensor([1, 1, 0, 0])
    else:
        targets = torch.eye(CLASSES).double()[torch.randint(0, CLASSES, (NUM,), generator=generator)]
    return TrainingSet(targets, torch.ones(NUM, BITS), {BITS: centers, BITS + 1: torch.ones(1, 1)}.__getitem__, seed)


def make(kind, training, options=None, seen=True):
    """The loss, in double precision, and with `seen` some images in its memory if it has one."""
    loss = kind.for_training(BITS, training, **(options or {})).double()
    if seen:
        loss(random_h(len(EARLIER), seed=50), training.targets[EARLIER], EARLIER)
    return loss


def labels_of(row):
    return [k for k, y in enumerate(row.tolist()) if y]


def majority(labels, centers, k):
    votes = sum(centers[c, k].item() for c in labels)
    return (votes > 0) - (votes < 0)


def mean(values):
    return sum(values) / max(len(values), 1)  # of nothing, 0


def cosine(x, y):
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return dot / (sum(a * a for a in x) ** 0.5 * sum(b * b for b in y) ** 0.5)


def slow_csq(h, targets, centers, quantization=1e-4, **_):
    central, spread = [], []
    for i in range(len(h)):
        for k in range(h.shape[1]):
            c, p = majority(labels_of(targets[i]), centers, k), (h[i, k] + 1) / 2
            y = (c + 1) / 2
            if c:
                central.append(-y * torch.log(p) - (1 - y) * torch.log(1 - p))
            spread.append(torch.log(torch.cosh(torch.abs(h[i, k]) - 1)))
    return {"central": mean(central), "quantization": quantization * mean(spread)}


def slow_dpn(h, targets, centers, margin=0.7615941559557649, **_):
    costs = []
    for i in range(len(h)):
        for k in range(h.shape[1]):
            if c := majority(labels_of(targets[i]), centers, k):
                costs.append(max(margin - h[i, k] * c, h[i, k] * 0))
    return {"polarization": mean(costs)}


def slow_ortho(h, targets, centers, margined, scale=None, **_):
    costs = []
    scale = scale or math.sqrt(2) * math.log(max(len(centers), 3) - 1)
    for i in range(len(h)):
        labels = labels_of(targets[i])
        logits = [scale * margined(cosine(h[i], centers[k]), k in labels) for k in range(len(centers))]
        total = sum(torch.exp(z) for z in logits)
        if labels:
            costs.append(sum(-torch.log(torch.exp(logits[k]) / total) / len(labels) for k in labels))
    return {"classification": mean(costs)}


def slow_ortho_cos(h, targets, centers, margin=0.2, **options):
    return slow_ortho(h, targets, centers, lambda cos, own: cos - margin if own else cos, **options)


def slow_ortho_arc(h, targets, centers, margin=0.2, **options):
    return slow_ortho(
        h, targets, centers, lambda cos, own: torch.cos(torch.acos(cos) + margin) if own else cos, **options
    )


def slow_mdsh(h, targets, centers, training_targets, memory, beta=1.0, quantization=1e-4, **_):
    """`memory`: {image: its last seen h}."""
    central, pairs, spread = [], [], []
    for i in range(len(h)):
        logits = [math.sqrt(h.shape[1]) * cosine(h[i], centers[k]) for k in range(len(centers))]
        for k in range(len(centers)):
            p = torch.exp(logits[k]) / sum(torch.exp(z) for z in logits)
            central.append(-torch.log(p) if targets[i, k] else -torch.log(1 - p))
        for j, u in memory.items():
            if set(labels_of(targets[i])) & set(labels_of(training_targets[j])):
                pairs.append(torch.log(1 + torch.exp((1 - cosine(h[i], u)) / 2)))
        for k in range(h.shape[1]):
            spread.append((abs(h[i, k]) - 1) ** 2)
    return {
        "central": mean(central),
        "similarity": beta * mean(pairs),
        "quantization": quantization * mean(spread),
    }


def slow_greedyhash(h, targets, weight, quantization=0.1, **_):
    costs, spread = [], []
    for i in range(len(h)):
        # a step of the sign that has the slope of the identity
        code = [h[i, k] - h[i, k].item() + (1 if h[i, k] >= 0 else -1) for k in range(h.shape[1])]
        logits = [sum(w * c for w, c in zip(row, code, strict=True)) for row in weight]
        own = labels_of(targets[i])[0]
        costs.append(torch.log(sum(torch.exp(z) for z in logits)) - logits[own])
        for k in range(h.shape[1]):
            spread.append(abs(abs(h[i, k]) - 1) ** 3)
    return {"classification": mean(costs), "quantization": quantization * mean(spread)}


SLOW = {
    CSQ: slow_csq,
    DPN: slow_dpn,
    OrthoHashCos: slow_ortho_cos,
    OrthoHashArc: slow_ortho_arc,
    MDSH: slow_mdsh,
    GreedyHash: slow_greedyhash,
}


def slow_terms(kind, loss, h, training, options):
    """By the formula, from what the training set has, the images of EARLIER having been seen."""
    memory = dict(zip(EARLIER.tolist(), random_h(len(EARLIER), seed=50).detach(), strict=True))
    memory |= dict(zip(INDICES.tolist(), h.detach(), strict=True))
    return SLOW[kind](
        h,
        training.targets[INDICES],
        centers=training.centers(BITS),
        training_targets=training.targets,
        memory=memory,
        weight=getattr(loss, "classifier", torch.nn.Linear(1, 1)).weight,
        **options,
    )


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_equal_the_formula(seed, kind, options):
    training, h = training_set(kind, seed), random_h(seed=seed)
    loss = make(kind, training, options)
    terms = loss.terms(h, training.targets[INDICES], INDICES)
    expected = slow_terms(kind, loss, h, training, options)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-10, atol=1e-12)
        for leaf in (h, *loss.parameters()):
            ours, theirs = (
                torch.autograd.grad(term, leaf, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
                for term in (terms[name], value)
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loss_is_the_sum_of_its_terms(kind):
    training, h = training_set(kind), random_h()
    loss = make(kind, training)
    expected = sum(slow_terms(kind, loss, h, training, {}).values())
    torch.testing.assert_close(loss(h, training.targets[INDICES], INDICES), expected)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_order_of_the_batch_does_not_matter(kind):
    training, h, order = training_set(kind), random_h(), torch.tensor([3, 0, 5, 1, 6, 4, 2])
    one, other = make(kind, training), make(kind, training)
    shuffled = INDICES[order]
    torch.testing.assert_close(
        one(h, training.targets[INDICES], INDICES), other(h[order], training.targets[shuffled], shuffled)
    )


@pytest.mark.parametrize("kind", LOSSES)
def test_a_bit_may_be_negated_everywhere_at_once(kind):
    """In h, in the centers, in what is remembered, in the classifier's column."""
    training, h = training_set(kind), random_h()
    targets = training.targets[INDICES]
    loss, negated = make(kind, training), make(kind, training)
    flip = torch.ones(BITS).double()
    flip[2] = -1
    with torch.no_grad():
        for tensor in (*negated.buffers(), *negated.parameters()):
            if tensor.shape[-1] == BITS:
                tensor.mul_(flip)
    value = loss(h, targets, INDICES)
    torch.testing.assert_close(negated(h * flip, targets, INDICES), value)
    assert not torch.isclose(make(kind, training)(h * flip, targets, INDICES), value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [1, 2, 5])
@pytest.mark.parametrize("bits", [1, 2, 512])
@pytest.mark.parametrize("kind", LOSSES)
def test_values_and_gradients_are_finite_for_saturated_codes_and_zeros(kind, bits, num_classes, dtype):
    generator = torch.Generator().manual_seed(bits)
    centers = (torch.randint(0, 2, (num_classes, bits), generator=generator) * 2 - 1).to(dtype)
    labels = torch.arange(6) % num_classes
    targets = torch.eye(num_classes, dtype=dtype)[labels]
    h = centers[labels]  # right
    h[1] *= -1  # wrong
    h[2] *= 1 - torch.finfo(dtype).eps  # nearly right
    h[3] *= torch.finfo(dtype).eps - 1  # nearly wrong
    h[4] = 0
    if kind.multi_label:
        targets[0] = 0
        targets[5] = 1
    training = TrainingSet(targets, torch.ones(6, bits), {bits: centers}.__getitem__)
    loss = kind.for_training(bits, training).to(dtype)
    h.requires_grad_()
    for name, term in loss.terms(h, targets, torch.arange(6)).items():
        assert torch.isfinite(term), name
        if term.requires_grad:
            gradient = torch.autograd.grad(term, h, retain_graph=True)[0]
            assert gradient.abs().max() < 1e9, name  # and no nan


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind.multi_label])
def test_a_batch_without_any_label_is_no_error(kind):
    training, h = training_set(kind), random_h(2)
    values = make(kind, training, seen=False).terms(h, torch.zeros(2, CLASSES).double(), torch.tensor([2, 0]))
    sum(values.values()).backward()
    assert torch.isfinite(h.grad).all()
    learned = {name for name, value in values.items() if value != 0}
    assert learned == {CSQ: {"quantization"}, MDSH: {"central", "quantization"}}.get(kind, set())


@pytest.mark.parametrize("kind", LOSSES)
def test_sizes_that_do_not_fit_are_errors_that_give_them(kind):
    training, h = training_set(kind), random_h()
    targets, loss = training.targets[INDICES], make(kind, training, seen=False)
    for bad_h, bad_targets in [(h[:, 1:], targets), (h[1:], targets), (h, targets[:, 1:])]:
        with pytest.raises(ValueError, match=rf"not fit h \({len(bad_h)}, .* targets \({len(targets)}, "):
            loss.terms(bad_h, bad_targets, INDICES)
        with pytest.raises(ValueError, match=r"not fit (h \(|\d+ rows of targets)|targets have \d+ (classes|rows)"):
            loss(bad_h, bad_targets, INDICES)
    if kind is MDSH:
        assert not loss.memory.any()


@pytest.mark.parametrize("kind", LOSSES)
def test_state_dict_takes_a_loss_up_where_it_was(kind):
    training, h = training_set(kind), random_h()
    trained = make(kind, training)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    assert state.keys() == {MDSH: {"centers", "memory"}, GreedyHash: {"classifier.weight"}}.get(kind, {"centers"})
    other = training_set(kind, seed=9)
    fresh = make(kind, TrainingSet(training.targets, other.codes, other.centers, other.seed), seen=False)
    fresh.load_state_dict(state)
    values = [loss(h, training.targets[INDICES], INDICES) for loss in (trained, fresh)]
    assert torch.equal(*values)


@pytest.mark.parametrize("kind", LOSSES)
def test_there_are_no_anchors_and_a_name(kind):
    training, h = training_set(kind), random_h()
    targets, loss = training.targets[INDICES], make(kind, training)
    assert not loss.uses_anchors
    before = loss(h, targets, INDICES, torch.randn(CLASSES, BITS))
    loss.end_epoch()
    assert torch.equal(before, loss(h, targets, INDICES))
    assert "20" in kind.paper


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind is not GreedyHash])
def test_centers_are_a_copy(kind):
    training = training_set(kind)
    loss = make(kind, training)
    training.centers(BITS).neg_()
    assert torch.equal(loss.centers, -training.centers(BITS))


@pytest.mark.parametrize("kind", [CSQ, DPN])
def test_bits_at_which_the_centers_of_an_images_labels_tie_are_ignored(kind):
    training, h = training_set(kind), random_h()
    targets, centers = training.targets[INDICES], training.centers(BITS)
    name = {CSQ: "central", DPN: "polarization"}[kind]
    term = make(kind, training, {"margin": 2.0} if kind is DPN else {}).terms(h, targets, INDICES)[name]
    gradient = torch.autograd.grad(term, h)[0]
    assert targets[0].tolist() == [1, 1, 0, 0]
    assert torch.equal(gradient[0] == 0, centers[0] != centers[1])
    assert not gradient[1].any()  # no label at all


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_csq_charges_most_for_bits_that_are_wrong_altogether(dtype):
    loss = CSQ(torch.ones(1, 1, dtype=dtype), quantization=0.0)
    costs = [
        loss(torch.tensor([[x]], dtype=dtype), torch.ones(1, 1, dtype=dtype), torch.tensor([0])).item()
        for x in (1.0, 0.9, 0.0, -0.9, -0.9999, -1.0)
    ]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs[-1] > 15


def test_dpn_lets_go_where_the_paper_does_before_tanh():
    before_tanh = torch.tensor([[0.99, 1.01, -0.99, -1.01, 3.0, -3.0]], dtype=torch.float64)
    h = before_tanh.tanh().requires_grad_()
    loss = DPN(torch.tensor([[1.0, 1.0, -1.0, -1.0, -1.0, 1.0]]))
    loss(h, torch.ones(1, 1).double(), torch.tensor([0])).backward()
    assert (h.grad * 6).tolist() == [[-1, 0, 1, 0, 1, -1]]


@pytest.mark.parametrize("kind", [OrthoHashCos, OrthoHashArc])
def test_orthohash_scale_follows_the_number_of_classes_and_is_never_nothing(kind):
    scales = [kind(torch.ones(num_classes, 4)).scale for num_classes in (1, 2, 3, 4, 11, 101)]
    at_least = math.sqrt(2) * math.log(2)
    assert scales == pytest.approx([at_least] * 3 + [math.sqrt(2) * math.log(n) for n in (3, 10, 100)])
    assert kind(torch.ones(3, 4), scale=8.0).scale == 8.0


def test_orthohash_margins_agree_where_they_are_nothing():
    training, h = training_set(OrthoHashCos), random_h()
    values = [
        make(kind, training, {"margin": 0.0})(h, training.targets[INDICES], INDICES)
        for kind in (OrthoHashCos, OrthoHashArc)
    ]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_orthohash_angle_is_right_on_the_centers_axis(sign):
    centers = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]], dtype=torch.float64)
    h = (sign * centers[:1]).clone().requires_grad_()
    value = OrthoHashArc(centers, margin=0.4, scale=2.0)(h, torch.tensor([[1.0, 0, 0]]).double(), torch.tensor([0]))
    own = 2 * math.cos(0.4 if sign == 1 else math.pi + 0.4)
    assert value.item() == pytest.approx(math.log(math.exp(own) + 2) - own, rel=1e-12)
    value.backward()
    assert torch.isfinite(h.grad).all()


def test_orthohash_needs_no_more_than_the_direction():
    training, h = training_set(OrthoHashArc), random_h()
    targets = training.targets[INDICES]
    for kind in (OrthoHashCos, OrthoHashArc):
        loss = make(kind, training)
        torch.testing.assert_close(loss(h * 0.01, targets, INDICES), loss(h, targets, INDICES))


def test_mdsh_knows_how_sure_it_is_where_single_precision_sees_certainty():
    """An image right at the center of a class that is not its own: p is 1 up to 1e-9, and log(1 - p) still exact."""
    bits, generator = 512, torch.Generator().manual_seed(0)
    centers = torch.randint(0, 2, (5, bits), generator=generator).float() * 2 - 1
    targets = torch.eye(5)[[1]]
    loss = MDSH(centers, targets, beta=0.0, quantization=0.0)
    logits = [bits**0.5 * (centers[0] @ centers[k]).item() / bits for k in range(5)]
    total = math.fsum(math.exp(z) for z in logits)
    costs = [-math.log(math.exp(z) / total) if k == 1 else None for k, z in enumerate(logits)]
    for k in (0, 2, 3, 4):
        costs[k] = -math.log(math.fsum(math.exp(z) for j, z in enumerate(logits) if j != k) / total)
    assert costs[0] > 17  # single precision's 1 - p is 0
    assert loss(centers[:1], targets, torch.tensor([0])).item() == pytest.approx(sum(costs) / 5, rel=1e-5)


def test_mdsh_memory_holds_the_last_seen_h_of_each_image():
    training = training_set(MDSH)
    loss = make(MDSH, training, seen=False)
    expected = torch.zeros(NUM, BITS).double()
    assert torch.equal(loss.memory, expected)
    for number, indices in enumerate([torch.tensor([3, 1, 12]), torch.tensor([1, 5]), torch.tensor([3])]):
        h = random_h(len(indices), seed=number)
        loss(h, training.targets[indices], indices)
        expected[indices] = h.detach()
        assert torch.equal(loss.memory, expected)
    assert not loss.memory.requires_grad


def test_mdsh_leaves_images_not_seen_yet_out():
    training, h = training_set(MDSH), random_h()
    few = MDSH(training.centers(BITS), training.targets[INDICES])
    place_of = torch.arange(len(INDICES))
    among_unseen = make(MDSH, training, seen=False)
    value = among_unseen(h, training.targets[INDICES], INDICES)
    torch.testing.assert_close(value, few(h, training.targets[INDICES], place_of))
    seen = torch.tensor([2])
    training.targets[seen] = 1
    among_unseen = make(MDSH, training, seen=False)
    among_unseen(random_h(1, seed=3), training.targets[seen], seen)
    assert not torch.isclose(among_unseen(h, training.targets[INDICES], INDICES), value)


def test_mdsh_gradients_survive_the_next_batch():
    training = training_set(MDSH)
    loss, alone = make(MDSH, training), make(MDSH, training)
    h, again = random_h(), random_h()
    value = loss(h, training.targets[INDICES], INDICES)
    loss(random_h(seed=1), training.targets[INDICES], INDICES)
    value.backward()
    alone(again, training.targets[INDICES], INDICES).backward()
    assert torch.equal(h.grad, again.grad)


def test_mdsh_centers_and_targets_of_different_classes_are_an_error():
    with pytest.raises(ValueError, match="targets have 3 classes, expected 4"):
        MDSH(torch.ones(4, 8), torch.ones(5, 3))


@pytest.mark.parametrize("labels", [[1, 1, 0, 0], [0, 0, 0, 0]])
def test_greedyhash_refuses_images_of_several_labels_or_none(labels):
    training, h = training_set(GreedyHash), random_h()
    targets = training.targets[INDICES].clone()
    targets[2] = torch.tensor(labels)
    assert not GreedyHash.multi_label
    with pytest.raises(ValueError, match="exactly one label"):
        make(GreedyHash, training)(h, targets, INDICES)


def test_greedyhash_classifier_starts_from_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    weights = [make(GreedyHash, training_set(GreedyHash, seed)).classifier.weight for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    weight = GreedyHash(num_classes=500, bits=16).classifier.weight
    assert weight.shape == (500, 16)
    assert 0.24 < weight.abs().max() <= 0.25
    assert abs(weight.mean()) < 0.01
    assert weight.requires_grad


def test_greedyhash_sees_the_signs_and_zero_counts_as_plus_one():
    training, targets = training_set(GreedyHash), torch.eye(CLASSES).double()[[1]]
    loss = make(GreedyHash, training, seen=False)
    small, large = (torch.tensor([[x, 0.0, x, -x, -0.0, x]], dtype=torch.float64) for x in (0.01, 0.99))
    ones = torch.tensor([[1.0, 1, 1, -1, 1, 1]], dtype=torch.float64)
    values = [loss.terms(h, targets, torch.tensor([0]))["classification"] for h in (small, large, ones)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
