"""Every loss under every weighting against passes over one length at a time: losses, weights, gradients, state."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from nestkala.heads import NestedHashHead
from nestkala.losses import NestedLoss
from nestkala.plugins import plugins
from nestkala.settings.config import Config
from nestkala.training.objective import make_loss
from tests.losses.test_distillation import slow_distill

NUM, CLASSES, BATCH, FEATURES = 12, 4, 5, 7
LENGTHS = (2, 4, 8, 11)
TARGETS = torch.eye(CLASSES).double()[torch.arange(NUM) % CLASSES]
INDICES = torch.tensor([3, 0, 11, 7, 5])
LOSSES = [name + suffix for name in plugins("losses") for suffix in ("", "-hswd")]


class Step:
    """A head on features, the anchors, and what a step differentiates by."""

    def __init__(self, seed: int, batch_norm: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(BATCH, FEATURES, generator=generator).double().requires_grad_()
        self.anchors = torch.randn(CLASSES, LENGTHS[-1], generator=generator).double().requires_grad_()
        self.head = NestedHashHead(FEATURES, LENGTHS, batch_norm).double()
        with torch.no_grad():
            self.head.weight.copy_(0.4 * torch.randn(LENGTHS[-1], FEATURES, generator=generator))

    def gradients(self, total: Tensor, nested: NestedLoss) -> list[Tensor]:
        leaves = [self.features, self.anchors, *self.head.parameters(), *nested.parameters()]
        return list(torch.autograd.grad(total, leaves, materialize_grads=True))


def slow_weights(weighting: str, values: list[Tensor], weight: Tensor) -> list[float]:
    m = len(values)
    if weighting == "uniform":
        return [1.0] * m
    if weighting == "halving":
        return [m * 2.0 ** (m - 1 - k) / (2**m - 1) for k in range(m)]
    g = [torch.autograd.grad(value, weight, retain_graph=True)[0] for value in values]
    weights = [1.0] * m
    for k, bits in enumerate(LENGTHS):
        norm, factor = (g[k][:bits] ** 2).sum().item(), 1.0
        for j in range(k + 1, m):
            dot = (g[k][:bits] * g[j][:bits]).sum().item()
            if -dot > norm / (m - 1):
                factor = min(factor, norm / ((m - 1) * -dot))
            weights[j] *= factor
    return [w * m / sum(weights) for w in weights]


def slow_step(step: Step, nested: NestedLoss, weighting: str, distillation: float) -> tuple[list[Tensor], list[float]]:
    """Each length's loss by a call of its own, with its distillation, and the weights."""
    h = step.head(step.features)
    values = [
        loss(h[:, :bits], TARGETS[INDICES], INDICES, step.anchors[:, :bits])
        for bits, loss in zip(LENGTHS, nested.losses, strict=True)
    ]
    for k in range(len(LENGTHS) - 1):
        values[k] = values[k] + distillation * slow_distill(h[:, : LENGTHS[k]], h[:, : LENGTHS[k + 1]])
    return values, slow_weights(weighting, values, step.head.weight)


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("weighting", ["adaptive", "uniform", "halving"])
@pytest.mark.parametrize("name", LOSSES)
def test_one_pass_gives_what_a_pass_for_each_length_gives(name: str, weighting: str) -> None:
    config = Config(loss=name, weighting=weighting, lengths=LENGTHS, head_init="random", distillation=0.7)
    for seed, batch_norm in ((0, False), (1, True)):
        step = Step(seed, batch_norm)
        nested = make_loss(config, step.head, TARGETS, seed=seed).double()
        slow = copy.deepcopy(nested)
        for _ in range(2):  # the second step sees what the first left in memories and, after an epoch, in codes
            values, weights = slow_step(step, slow, weighting, 0.7)
            h = step.head(step.features)
            ours = nested.terms(h, TARGETS[INDICES], INDICES, step.anchors, step.head.weight)
            close(ours.sums, torch.stack(values).detach())
            close(ours.weights, torch.tensor(weights, dtype=torch.float64))
            expected = sum(w * value for w, value in zip(weights, values, strict=True))
            close(ours.total, expected)
            for found, wanted in zip(step.gradients(ours.total, nested), step.gradients(expected, slow), strict=True):
                close(found, wanted)
            nested.end_epoch(step.anchors)
            for bits, loss in zip(LENGTHS, slow.losses, strict=True):
                with torch.no_grad():
                    loss.end_epoch(step.anchors[:, :bits])
            for key, tensor in slow.state_dict().items():
                close(nested.state_dict()[key], tensor)
