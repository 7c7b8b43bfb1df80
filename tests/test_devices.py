"""Whether any tensor is left on the wrong device, without a GPU.

Under FakeTensorMode tensors pretend to be on "cuda", and an operation that mixes devices raises. Autograd refuses such
tensors where there is no GPU, so whole steps with their backward passes run on "meta". Neither holds values, so
whatever looks at one raises as well: no step waits for its device. What has to look at values is not run here whole:

- `multi_hot` of class indices whose number of classes is not known: the largest index makes the number of columns.
- `dcc`, once an epoch: it checks its codes, and ends when nothing flips. Here it is told that all is well.
- ADSH's `end_epoch`: whether a round ends. Told likewise.
- `closed_form`, once a run: assignments by scipy, choices by likelihood, and draws. Its parts run here.
- `Tower.trunk`: whether tokens are finite. `unchecked_trunk` runs here.
- `evaluation.gpu.rank`: results for numpy. `rank_there` runs here.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from nestkala.adapters import Adapter, CLoRA, LoRA, Prompts
from nestkala.backbones import load_backbone
from nestkala.evaluation import gpu
from nestkala.heads import CascadeHashHead, FlatHashHead, HashHead, NestedHashHead
from nestkala.losses import NestedLoss
from nestkala.modeling.class_layer import ClassLayer
from nestkala.modeling.model import HashModel
from nestkala.plugins import plugins
from nestkala.settings.config import Config
from nestkala.training.closed_form import arrangement, bits, classes, mixture, text
from nestkala.training.history import EpochSteps
from nestkala.training.objective import make_loss
from nestkala.utils.seeding import seeded

NUM, CLASSES, BATCH, WIDTH = 12, 5, 6, 24
LENGTHS = (3, 8, 16)
TARGETS = torch.eye(CLASSES)[torch.arange(NUM) % CLASSES]
HEADS = (NestedHashHead, FlatHashHead, CascadeHashHead)
LOSSES = [name + suffix for name in plugins("losses") for suffix in ("", "-hswd")]


def moved(module: Any, mode: FakeTensorMode) -> Any:
    """The module, which from now on pretends to be on a GPU."""
    for part in module.modules():
        for kept in (part._parameters, part._buffers):
            for name, tensor in kept.items():
                kept[name] = None if tensor is None else mode.from_tensor(tensor).detach().to("cuda")
    return module


def on(device: str, *shape: int) -> Tensor:
    return torch.rand(*shape, device=device)


def objective(name: str, head: HashHead, **settings: Any) -> NestedLoss:
    return make_loss(Config(loss=name, lengths=LENGTHS, head_init="random", **settings), head, TARGETS, seed=0)


def batch(device: str, head: HashHead) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, numbers and anchors."""
    numbers = torch.arange(BATCH, device=device)
    return torch.ones(BATCH, CLASSES, device=device), numbers, on(device, CLASSES, head.width)


def test_mixing_devices_is_noticed() -> None:
    with FakeTensorMode(), pytest.raises((RuntimeError, ValueError), match="device"):
        on("cuda", 3) + torch.arange(3)
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        nn.functional.linear(on("cuda", 3, 2), torch.rand(4, 2))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_computes_where_its_batch_is(name: str) -> None:
    head = NestedHashHead(WIDTH, LENGTHS)
    nested = objective(name, head)
    with FakeTensorMode() as mode, torch.no_grad():
        nested, head = moved(nested, mode), moved(head, mode)
        targets, numbers, anchors = batch("cuda", head)
        result = nested.terms(head(on("cuda", BATCH, WIDTH)), targets, numbers, anchors, head.weight)
        for value in (result.total, result.sums, result.weights):
            assert value.device.type == "cuda"


@pytest.mark.parametrize("name", LOSSES)
def test_the_end_of_an_epoch_computes_where_the_loss_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = objective(name, NestedHashHead(WIDTH, LENGTHS))
    monkeypatch.setattr(FakeTensor, "__bool__", lambda _: True)
    monkeypatch.setattr(FakeTensor, "item", lambda _: 3)  # of ADSH's epochs: a round ends
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    with FakeTensorMode() as mode:
        nested, anchors = moved(nested, mode), on("cuda", CLASSES, LENGTHS[-1])
        nested.end_epoch(anchors)
        found = nested.discrete_objectives(anchors)
        assert found is None or found.device.type == "cuda"
        assert all(buffer.device.type == "cuda" for buffer in nested.buffers())


@pytest.mark.parametrize("weighting", ["adaptive", "uniform", "halving"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_whole_step_looks_at_no_value(name: str, weighting: str) -> None:
    head = NestedHashHead(WIDTH, LENGTHS, batch_norm=True)
    nested = objective(name, head, weighting=weighting).to("meta")
    step(head.to("meta"), nested, head(on("meta", BATCH, WIDTH)))


@pytest.mark.parametrize("kind", [FlatHashHead, CascadeHashHead])
@pytest.mark.parametrize("weighting", ["uniform", "halving"])
def test_a_whole_step_of_codes_that_do_not_nest_looks_at_no_value(kind: type[HashHead], weighting: str) -> None:
    head = kind(WIDTH, LENGTHS)
    nested = objective("dpsh", head, weighting=weighting).to("meta")
    step(head.to("meta"), nested, head(on("meta", BATCH, WIDTH)))


def step(model: nn.Module, nested: NestedLoss, h: Tensor, head: HashHead | None = None) -> None:
    head = model if isinstance(model, HashHead) else head
    assert head is not None
    targets, numbers, anchors = batch("meta", head)
    parameters = [p for p in (*model.parameters(), *nested.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    result = nested.terms(h, targets, numbers, anchors.requires_grad_(), head.weight)
    result.total.backward()
    nn.utils.clip_grad_norm_(parameters, 3.0)
    optimizer.step()
    EpochSteps(LENGTHS).add(result)
    assert head.linear.weight.grad is not None if isinstance(head, NestedHashHead) else True


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_computes_where_its_features_are(kind: type[HashHead], batch_norm: bool) -> None:
    head = kind(WIDTH, LENGTHS, batch_norm)
    with FakeTensorMode() as mode, torch.no_grad():
        assert moved(head, mode)(on("cuda", BATCH, WIDTH)).device.type == "cuda"


ADAPTERS: dict[str, Callable[..., Adapter]] = {
    "clora": lambda *given, **named: CLoRA(*given, rank=2, **named),
    "lora": lambda *given, **named: LoRA(*given, rank=2, **named),
}


def adapted(backbone: str, adapter: str, class_layer: bool = False) -> HashModel:
    tower = load_backbone(backbone, num_adapted=int(adapter != "none")).tower
    made: Adapter | None = None
    if adapter == "prompts":
        made = Prompts(tower.width, 1)
    elif adapter != "none":
        projections = ("k", "v") if backbone == "tiny" else ("head",)
        more = {"projected_width": tower.projected_width} if adapter == "lora" else {}
        made = ADAPTERS[adapter](tower.width, 1, projections, **more)
    return HashModel(tower, torch.randn(CLASSES, 7), LENGTHS, made, class_layer=class_layer)


MODELS = [("tiny", "clora"), ("tiny", "lora"), ("tiny", "prompts"), ("tiny", "none")]
MODELS += [("photo", "clora"), ("photo", "lora"), ("photo", "none")]
SIZES = {"tiny": 32, "photo": 224}


@pytest.mark.parametrize(("backbone", "adapter"), MODELS)
def test_a_model_computes_where_its_images_are(backbone: str, adapter: str) -> None:
    model = adapted(backbone, adapter, class_layer=True)
    with FakeTensorMode() as mode, torch.no_grad():
        model = moved(model, mode)
        tokens = model.tower.unchecked_trunk(on("cuda", BATCH, 3, SIZES[backbone], SIZES[backbone]))
        for found in model(tokens):
            assert found.device.type == "cuda"


@pytest.mark.parametrize(("backbone", "adapter"), MODELS)
def test_a_whole_step_of_a_model_looks_at_no_value(
    backbone: str, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    model = adapted(backbone, adapter)
    nested = objective("kiddo", model.head).to("meta")
    model = model.to("meta")
    tokens = model.tower.unchecked_trunk(on("meta", BATCH, 3, SIZES[backbone], SIZES[backbone]))
    step(model, nested, model(tokens)[0], model.head)


def test_evaluation_ranks_where_it_is_told_to() -> None:
    rng = np.random.default_rng(0)
    codes, labels = rng.integers(0, 256, (9, 2), np.uint8), rng.integers(0, 256, (9, 1), np.uint8)
    with FakeTensorMode():
        found = gpu.rank_there(codes[:4], labels[:4], [(codes, labels)], LENGTHS, 5, torch.device("cuda"))
        assert all(part.device.type == "cuda" for part in found)


def closed_form_parts(units: Tensor, layer: ClassLayer, generator: torch.Generator) -> Iterator[Tensor]:
    """What `closed_form` computes, but for what looks at values."""
    prototypes = mixture.clusters(units, CLASSES, generator)
    posteriors = mixture.posteriors_of(units, lambda rows: mixture.log_densities(prototypes, rows))
    yield posteriors
    yield mixture.weighted_sums(posteriors, units)
    whitening = classes._inverse_root(units.T @ units)
    yield whitening
    yield from classes._Space.of(units)
    centers = torch.ones(CLASSES, 8, device=units.device)
    probabilities = posteriors.to(units)
    yield bits.class_rows(units, whitening, centers, generator)
    yield bits.rotated_components(units, 8, generator)
    similarity = centers @ centers.T
    yield arrangement._gains(similarity, similarity)
    yield from text.fit_text(prototypes, centers, units, probabilities @ centers)
    yield layer(units)
    yield layer.typical()


def test_parts_of_the_closed_form_compute_where_the_images_are() -> None:
    layer, generator = ClassLayer(WIDTH, CLASSES), torch.Generator().manual_seed(0)
    with FakeTensorMode() as mode, torch.no_grad():
        for found in closed_form_parts(on("cuda", NUM, WIDTH), moved(layer, mode), generator):
            assert found.device.type == "cuda"


def test_a_seed_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (torch.cuda, torch.mps, torch.xpu):
        for name in ("manual_seed", "manual_seed_all"):
            monkeypatch.setattr(backend, name, lambda _: pytest.fail("a GPU was seeded"), raising=False)
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)
    torch.random.default_generator.manual_seed(5)
    assert torch.equal(torch.rand(3), first)
