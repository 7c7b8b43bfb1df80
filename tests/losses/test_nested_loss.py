"""The nested loss against its sum written out, with weights from gradients taken one length at a time."""

import pytest
import torch

from nestkala.heads import NestedHashHead
from nestkala.losses import DPSH, KIDDO, HashLoss, NestedLoss, random_codes

NUM, CLASSES, FEATURES, BATCH = 12, 4, 6, 7
LENGTHS = (2, 3, 5, 8)
INDICES = torch.tensor([3, 0, 11, 7, 5, 1, 9])


class Setting:
    """A training set, anchors, and a head on features that a linear layer makes."""

    def __init__(self, lengths=LENGTHS, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.lengths = lengths
        self.targets = (torch.rand(NUM, CLASSES, generator=generator) < 0.4).double()
        self.codes = random_codes(NUM, lengths[-1], generator).double()
        self.inputs = torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
        self.anchors = torch.randn(CLASSES, lengths[-1], generator=generator, dtype=torch.float64).requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone = torch.nn.Linear(4, FEATURES).double()
            self.head = NestedHashHead(FEATURES, lengths).double()
        with torch.no_grad():
            self.head.weight.mul_(30)  # away from the flat start
        self.leaves = [*self.backbone.parameters(), *self.head.parameters(), self.anchors]

    def kiddo(self, bits):
        return KIDDO(self.targets, self.codes[:, :bits])

    def opposed(self, bits):
        """Neighboring lengths pull their bits to opposite codes."""
        sign = 1 if self.lengths.index(bits) % 2 else -1
        return KIDDO(self.targets, sign * self.codes[:, :bits], quantization=2.0, gamma=0.3)

    def dpsh(self, bits):  # noqa: ARG002
        return DPSH(quantization=0.5)

    def forward(self):
        return self.head(self.backbone(self.inputs))

    def call(self, nested, method="__call__"):
        return getattr(nested, method)(
            self.forward(), self.targets[INDICES], INDICES, self.anchors, weight=self.head.weight
        )

    def sums(self, make_loss, distillation):
        """Each length's loss and distillation, from the definitions."""
        h = self.forward()
        values = [
            make_loss(bits)(h[:, :bits], self.targets[INDICES], INDICES, self.anchors[:, :bits])
            for bits in self.lengths
        ]
        for k in range(len(self.lengths) - 1):
            student, teacher = h[:, : self.lengths[k]], h[:, : self.lengths[k + 1]].detach()
            student, teacher = (s / s.norm(dim=1, keepdim=True) for s in (student @ student.T, teacher @ teacher.T))
            values[k] = values[k] + distillation * ((student - teacher) ** 2).sum() / BATCH**2
        return values

    def slow_weights(self, values):
        m = len(values)
        g = [torch.autograd.grad(value, self.head.weight, retain_graph=True)[0] for value in values]
        weights = [1.0] * m
        for k, bits in enumerate(self.lengths):
            norm, a = (g[k][:bits] ** 2).sum().item(), 1.0
            for j in range(k + 1, m):
                dot = (g[k][:bits] * g[j][:bits]).sum().item()
                if dot < 0 and -dot > norm / (m - 1):
                    a = min(a, norm / ((m - 1) * -dot))
                weights[j] *= a
        return [w * m / sum(weights) for w in weights]

    def gradients(self, value):
        return torch.autograd.grad(value, self.leaves, allow_unused=True, materialize_grads=True)


class Recorder(HashLoss):
    """Notes what it is given; its loss is the mean of h."""

    def __init__(self, bits, uses_anchors=False):
        super().__init__()
        self.bits, self.uses_anchors = bits, uses_anchors
        self.calls, self.epochs = [], []

    def terms(self, h, targets, indices, anchors=None):
        self.calls.append((h, targets, indices, anchors))
        return {"mean": h.mean()}

    def end_epoch(self, anchors=None):
        self.epochs.append((anchors, torch.is_grad_enabled()))


@pytest.mark.parametrize("distillation", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("weighting", ["adaptive", "uniform"])
@pytest.mark.parametrize("loss", ["kiddo", "opposed", "dpsh"])
def test_total_and_every_gradient_equal_the_weighted_sum(loss, weighting, distillation):
    acted = 0  # in how many draws the lengths do conflict
    for seed in range(6):
        setting = Setting(seed=seed)
        make_loss = getattr(setting, loss)
        values = setting.sums(make_loss, distillation)
        weights = setting.slow_weights(values) if weighting == "adaptive" else [1.0] * 4
        expected = sum(w * value for w, value in zip(weights, values, strict=True))

        terms = setting.call(NestedLoss(LENGTHS, make_loss, weighting, distillation), "terms")
        torch.testing.assert_close(terms.weights, torch.tensor(weights, dtype=torch.float64), rtol=1e-9, atol=0)
        torch.testing.assert_close(terms.sums, torch.stack(values).detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(terms.total, expected, rtol=1e-10, atol=0)
        for ours, theirs in zip(setting.gradients(terms.total), setting.gradients(expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
        acted += max(weights) - min(weights) > 0.05
    assert acted >= (5 if loss == "opposed" and weighting == "adaptive" else 0)


def test_calling_it_gives_the_total():
    setting = Setting()
    nested = NestedLoss(LENGTHS, setting.kiddo)
    assert torch.equal(setting.call(nested), setting.call(nested, "terms").total)


def test_adaptive_weighting_and_distillation_of_weight_one_unless_told_otherwise():
    setting = Setting()
    explicit = NestedLoss(LENGTHS, setting.kiddo, weighting="adaptive", distillation=1.0)
    assert torch.equal(setting.call(NestedLoss(LENGTHS, setting.kiddo)), setting.call(explicit))


@pytest.mark.parametrize("weighting", ["adaptive", "uniform"])
def test_one_length_alone_is_the_plain_loss(weighting):
    setting = Setting(lengths=(5,))
    nested = NestedLoss((5,), setting.kiddo, weighting, distillation=3.0)
    total = nested(setting.forward(), setting.targets[INDICES], INDICES, setting.anchors)
    plain = setting.kiddo(5)(setting.forward(), setting.targets[INDICES], INDICES, setting.anchors)
    assert torch.equal(total, plain)
    for ours, theirs in zip(setting.gradients(total), setting.gradients(plain), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_terms_are_named_by_length_and_sum_up(distillation):
    setting = Setting()
    terms = setting.call(NestedLoss(LENGTHS, setting.dpsh, distillation=distillation), "terms")
    assert tuple(terms.terms) == LENGTHS
    for bits, of_length, total in zip(LENGTHS, terms.terms.values(), terms.sums, strict=True):
        distilled = {"distillation"} if distillation and bits != LENGTHS[-1] else set()
        assert of_length.keys() == {"similarity", "quantization"} | distilled
        torch.testing.assert_close(sum(of_length.values()), total)


def test_sums_and_weights_carry_no_gradient():
    setting = Setting()
    terms = setting.call(NestedLoss(LENGTHS, setting.kiddo), "terms")
    assert terms.total.requires_grad
    assert not terms.sums.requires_grad
    assert not terms.weights.requires_grad


def test_computing_the_weights_stops_at_the_head():
    setting = Setting()
    passes = []
    features = setting.backbone(setting.inputs)
    features.register_hook(lambda _: passes.append(1))
    nested = NestedLoss(LENGTHS, setting.kiddo)
    total = nested(
        setting.head(features), setting.targets[INDICES], INDICES, setting.anchors, weight=setting.head.weight
    )
    assert not passes
    assert all(leaf.grad is None for leaf in setting.leaves)
    total.backward()
    assert len(passes) == 1
    assert all(leaf.grad.abs().sum() > 0 for leaf in setting.leaves)


def test_every_length_gets_its_own_prefix_of_codes_and_anchors():
    setting = Setting()
    nested = NestedLoss(LENGTHS, Recorder, weighting="uniform", distillation=0.0)
    h, targets = setting.forward(), setting.targets[INDICES].bool()
    nested(h, targets, INDICES, setting.anchors)
    for bits, loss in zip(LENGTHS, nested.losses, strict=True):
        assert loss.bits == bits
        ((seen, labels, indices, anchors),) = loss.calls
        assert torch.equal(seen, h[:, :bits])
        assert seen.data_ptr() == h.data_ptr()
        assert labels.dtype == h.dtype
        assert torch.equal(labels.bool(), targets)
        assert torch.equal(indices, INDICES)
        assert torch.equal(anchors, setting.anchors[:, :bits])


@pytest.mark.parametrize("given", [True, False])
def test_the_end_of_an_epoch_reaches_every_length(given):
    nested = NestedLoss(LENGTHS, Recorder)
    anchors = torch.randn(CLASSES, 8, requires_grad=True) if given else None
    nested.end_epoch(anchors)
    for bits, loss in zip(LENGTHS, nested.losses, strict=True):
        ((seen, gradients_on),) = loss.epochs
        assert not gradients_on
        assert seen is None if anchors is None else torch.equal(seen, anchors[:, :bits])


def test_the_end_of_an_epoch_renews_the_codes_of_every_length():
    setting = Setting()
    nested = NestedLoss(LENGTHS, setting.kiddo)
    setting.call(nested)
    nested.end_epoch(setting.anchors)
    for bits, loss in zip(LENGTHS, nested.losses, strict=True):
        alone = setting.kiddo(bits)
        h = setting.forward()[:, :bits].clone()
        alone(h, setting.targets[INDICES], INDICES, setting.anchors[:, :bits])
        alone.end_epoch(setting.anchors[:, :bits].clone())
        assert torch.equal(loss.codes, alone.codes)
        assert not torch.equal(loss.codes, setting.codes[:, :bits])


def test_state_dict_holds_the_state_of_every_length():
    setting = Setting()
    trained, fresh = (NestedLoss(LENGTHS, setting.kiddo) for _ in range(2))
    setting.call(trained)
    trained.end_epoch(setting.anchors)
    assert not torch.equal(setting.call(trained), setting.call(fresh))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(setting.call(trained), setting.call(fresh))


def test_it_uses_anchors_where_any_length_does():
    setting = Setting()
    assert NestedLoss(LENGTHS, setting.kiddo).uses_anchors
    assert not NestedLoss(LENGTHS, setting.dpsh).uses_anchors
    assert NestedLoss(LENGTHS, lambda bits: Recorder(bits, uses_anchors=bits == 3)).uses_anchors


@pytest.mark.parametrize("columns", [5, 9])
def test_codes_of_another_width_are_an_error(columns):
    setting = Setting()
    with pytest.raises(ValueError, match=f"h has {columns} columns, but codes of .* bits need 8"):
        NestedLoss(LENGTHS, setting.dpsh)(torch.zeros(BATCH, columns), setting.targets[INDICES], INDICES)


def test_adaptive_weighting_without_the_weight_is_an_error():
    setting = Setting()
    with pytest.raises(ValueError, match=r"needs the hash layer's weight: pass weight=head.weight"):
        NestedLoss(LENGTHS, setting.dpsh)(setting.forward(), setting.targets[INDICES], INDICES)


def test_an_unknown_weighting_is_an_error():
    with pytest.raises(ValueError, match="'adaptive', 'uniform' or 'halving', not 'adaptve'"):
        NestedLoss(LENGTHS, Setting().dpsh, weighting="adaptve")


@pytest.mark.parametrize("lengths", [(), (8, 4), (4, 4)])
def test_lengths_that_do_not_ascend_are_refused(lengths):
    with pytest.raises(ValueError, match="ascending"):
        NestedLoss(lengths, lambda _: DPSH())


@pytest.mark.parametrize("loss_inside", [False, True])
def test_mixed_precision_stays_close_to_full(loss_inside):
    setting = Setting()
    nested = NestedLoss(LENGTHS, lambda _: DPSH())
    head, features = setting.head.float(), torch.randn(BATCH, FEATURES)
    targets = setting.targets[INDICES].float()
    exact = nested(head(features), targets, INDICES, weight=head.weight)
    with torch.autocast("cpu", torch.bfloat16):
        h = head(features)
        inside = nested(h, targets, INDICES, weight=head.weight) if loss_inside else None
    total = nested(h, targets, INDICES, weight=head.weight) if inside is None else inside
    total.backward()
    assert torch.isfinite(head.weight.grad).all()
    torch.testing.assert_close(total.float(), exact, rtol=0.05, atol=0.05)
