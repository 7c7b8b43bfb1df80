"""docs/deviations.md: its figures are those that were measured, and the losses do differ as it says."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from strategies import general, training_set

ROOT = Path(__file__).parents[2]
FOUND = json.loads((ROOT / "docs" / "deviations.json").read_text())
PAGE = (ROOT / "docs" / "deviations.md").read_text()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "deviations.py"
    spec = importlib.util.spec_from_file_location("deviations", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["deviations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_comparison_was_measured_and_is_on_the_page(script: ModuleType) -> None:
    assert list(FOUND) == list(script.COMPARISONS)
    told = re.findall(r"[+-]\d+\.\d ± \d+\.\d", PAGE)
    assert sorted(told) == sorted(found["difference"] for found in FOUND.values())


@pytest.mark.parametrize("name", ["dbdh", "dch", "dpsh", "dsh", "dtsh", "mdsh"])
def test_gradients_of_common_implementations_are_not_proportional_to_ours(script: ModuleType, name: str) -> None:
    here, published = script.COMPARISONS[f"common {name}"]
    training = training_set(torch.eye(3)[torch.arange(12) % 3], 8)
    directions = []
    for side in (here, published):
        loss, h = side.loss.for_training(8, training), general(6, 8).float().requires_grad_()
        loss(general(6, 8, seed=4).float(), training.targets[:6], torch.arange(6))  # so that memories hold something
        loss(h, training.targets[3:9], torch.arange(3, 9)).backward()
        directions.append(h.grad.flatten() / h.grad.norm())
    assert directions[0] @ directions[1] < 0.999


def test_a_sweep_over_codes_is_that_of_the_library_where_none_is_zero(script: ModuleType) -> None:
    from nestkala.losses import dcc, random_codes

    generator = torch.Generator().manual_seed(0)
    codes, linear = random_codes(20, 6, generator), torch.randn(20, 6, generator=generator)
    gram = linear.T @ linear
    assert torch.equal(script.plain_sweep(codes, linear, gram), dcc(codes, linear, gram, sweeps=1))
    assert script.plain_sweep(0 * codes, 0 * linear, gram).abs().sum() == 0


def test_the_published_weights_are_the_rule_that_fails_at_three_lengths(script: ModuleType) -> None:
    class Given(torch.nn.Module):
        num_classes = None

    loss = script.PublishedWeights((1, 2, 3), lambda bits: Given())  # noqa: ARG005
    gradients = torch.tensor([[10.0, 0, 0], [0, 1, 0], [0, -20, 0]])[..., None]  # by a weight (3, 1)
    assert loss._balanced([*gradients]).tolist() == [1, 1, 1]
