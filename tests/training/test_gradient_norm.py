"""The norm that gradients are cut to: one step by hand, and training that features of large scale do not end."""

import copy
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn

from nestkala.adapters import CLoRA
from nestkala.backbones import Tower
from nestkala.codes import pack
from nestkala.evaluation import evaluate
from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.training.objective import make_loss
from nestkala.training.trainer import Trainer

CLASSES, WIDTH, BITS = 10, 512, 32


class Pointwise(nn.Module):
    """A linear map of each token, to which an adapter of values adds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, x, adapter=None):
        return self.linear(x) + sum(adapter(x, ("v",)).values()) if adapter is not None else self.linear(x)


class PointwiseTower(Tower):
    """Nothing but such a map, and the mean of its tokens."""

    def __init__(self) -> None:
        block = Pointwise()
        sizes = {"width": WIDTH, "feature_dim": WIDTH, "num_prefix_tokens": 0, "num_adapted": 1}
        super().__init__(block, [block], lambda block: block, **sizes)

    def embed(self, images: Tensor) -> Tensor:
        return images

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


def settings(**changes: object) -> Config:
    """As published, of all lengths at once."""
    given: dict[str, object] = {"lengths": (8, BITS), "head_init": "random", "batch_norm": False, "projections": ("v",)}
    return Config(**(given | changes))


def shaped_like_clip(scale: float, images_per_class: int) -> tuple[Tensor, Tensor]:
    """Tokens (N, 4, 512), whose means are of norm 10 * scale and lie about their class, and labels (N, C)."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat(images_per_class)
    centers, shared = torch.randn(CLASSES, 1, WIDTH, generator=draw), torch.randn(1, 1, WIDTH, generator=draw)
    noise = torch.randn(len(labels), 4, WIDTH, generator=draw)
    tokens = shared + 0.7 * centers[labels] + noise
    tokens = tokens * (10 * scale / tokens.mean(dim=1).norm(dim=1).mean())
    return tokens.half(), nn.functional.one_hot(labels, CLASSES).float()


def trainer(folder: Path, config: Config, tokens: Tensor, targets: Tensor) -> Trainer:
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True)
    )
    anchors = 10 * nn.functional.normalize(torch.randn(CLASSES, WIDTH), dim=1)
    clora = CLoRA(WIDTH, 1, ("v",), num_prefix_tokens=0)
    model = HashModel(PointwiseTower(), anchors, config.lengths, clora, config.batch_norm)
    if config.precision == "fp64":
        model, targets = model.double(), targets.double()
    loss = make_loss(config, model.head, targets, seed=0)
    return Trainer(config, accelerator, model, loss, tokens, targets, folder / "checkpoint.safetensors")


def scores_after_training(folder: Path, scale: float, **changes: object) -> list[float]:
    """Tie-aware mAP at each length of images that were not trained on among themselves; by chance 0.1."""
    tokens, targets = shaped_like_clip(scale, images_per_class=21)
    config = settings(epochs=60, **changes)
    torch.manual_seed(1)
    trained = trainer(folder, config, tokens[:CLASSES], targets[:CLASSES])
    trained.fit()
    with torch.no_grad():
        codes = pack(trained.model.eval()(tokens[CLASSES:])[0].numpy())
    labels = targets[CLASSES:].numpy()
    scores = evaluate(codes[:50], labels[:50], codes[50:], labels[50:], config.lengths)
    return [scores[bits].map_tie_aware for bits in config.lengths]


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_clora_learns_from_features_of_any_scale(tmp_path, scale):
    assert min(scores_after_training(tmp_path, scale, max_grad_norm=1)) > 0.3
    assert min(scores_after_training(tmp_path, scale)) > 0.2  # at the default, twice the level of chance


def test_without_a_limit_it_collapses_at_the_largest_scale(tmp_path):
    assert max(scores_after_training(tmp_path, 100, max_grad_norm=0)) < 0.25


def moved(folder: Path, limit: float | None, **changes: object) -> list[Tensor]:
    """How far one step of SGD moves each parameter, in units of the learning rate."""
    torch.manual_seed(0)
    given: dict[str, object] = {"epochs": 1, "lr": 1.0, "momentum": 0, "weight_decay": 0, "precision": "fp64"}
    config = settings(max_grad_norm=limit, **(given | changes))
    one = trainer(folder, config, *shaped_like_clip(1.0, images_per_class=1))
    parameters = [p for p in (*one.model.parameters(), *one.loss.parameters()) if p.requires_grad]
    before = copy.deepcopy(parameters)
    one.fit()
    return [(now.detach() - then.detach()) / config.learning_rate for now, then in zip(parameters, before, strict=True)]


@pytest.mark.parametrize("loss", ["kiddo", "greedyhash"])
def test_a_step_has_the_length_asked_for_and_its_direction(tmp_path, loss):
    whole = moved(tmp_path, None, loss=loss)
    norm = math.sqrt(sum(float(x) ** 2 for step in whole for x in step.flatten()))
    assert norm > 1
    for limit in (1.0, norm / 2):
        for ours, theirs in zip(moved(tmp_path, limit, loss=loss), whole, strict=True):
            torch.testing.assert_close(ours, theirs * (limit / norm), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 1e9])
def test_a_shorter_gradient_stays_as_it_is(tmp_path, limit):
    for ours, theirs in zip(moved(tmp_path, limit), moved(tmp_path, None), strict=True):
        assert torch.equal(ours, theirs)
