"""Checkpoints: all of a run's state to the bit, and nothing taken from a file that does not fit."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import SGD

from nestkala.backbones import load_backbone
from nestkala.losses import NestedLoss
from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.training.checkpoint import load_checkpoint, save_checkpoint
from nestkala.training.model_spec import spec_of_run
from nestkala.training.objective import make_loss
from nestkala.training.trainer import Trainer
from nestkala.utils import files
from nestkala.utils.errors import NestKALAError

TARGETS = torch.eye(3).repeat(4, 1)
TOKENS = torch.randn(12, 16, 256, generator=torch.Generator().manual_seed(0)).half()

Parts = tuple[HashModel, NestedLoss, SGD]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(seed: int = 0, **settings: object) -> Parts:
    """Model, loss and optimizer as a run makes them."""
    config = Config(**{"lengths": (4, 12), "seed": seed, "head_init": "random"} | settings)
    backbone = load_backbone("tiny", config.adapt_blocks if config.chosen_adapter == "clora" else 0)
    torch.manual_seed(seed)
    model = spec_of_run(config, backbone, ("cat", "dog", "owl")).build(backbone.tower, torch.randn(3, 8))
    loss = make_loss(config, model.head, TARGETS, seed=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, loss, SGD(trained, lr=0.05, momentum=config.momentum)


def train(parts: Parts, epochs: int) -> None:
    model, loss, optimizer = parts
    model.train()
    for _ in range(epochs):
        for indices in torch.arange(12).split(4):
            h, anchors = model(TOKENS[indices])
            loss(h, TARGETS[indices], indices, anchors, model.head.weight).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            loss.end_epoch(model.anchor_to_code(model.anchors))


def state(parts: Parts) -> dict[str, Tensor]:
    model, loss, optimizer = parts
    momenta = {
        f"momentum.{i}.{key}": value
        for i, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    tensors = model.trained_state() | {f"loss.{name}": value for name, value in loss.state_dict().items()} | momenta
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def save(path: Path, parts: Parts, epoch: int = 2, seconds: float = 0.1) -> None:
    save_checkpoint(path, *parts, epoch, seconds)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(NestKALAError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def trained() -> Parts:
    """Two epochs on. Not to be changed."""
    parts = build()
    train(parts, 2)
    return parts


@pytest.fixture
def path(tmp_path: Path, trained: Parts) -> Path:
    save(tmp_path / "checkpoint.safetensors", trained)
    return tmp_path / "checkpoint.safetensors"


def test_everything_comes_back_to_the_bit(path: Path, trained: Parts) -> None:
    seconds = 1 / 3
    save(path, trained, 7, seconds)
    other = build(seed=1)
    assert not same(state(other), state(trained))
    assert load_checkpoint(path, *other) == (7, seconds, [])
    assert same(state(other), state(trained))


def test_it_holds_memory_codes_momentum_and_running_statistics(path: Path, trained: Parts) -> None:
    kept = load_file(path)
    for name, tensor in state(trained).items():
        assert tensor.isfinite().all()
        assert tensor.any() or name.endswith(".bias")
    momenta = [name for name in kept if name.endswith("momentum_buffer")]
    assert len(momenta) == len([p for p in trained[0].parameters() if p.requires_grad])
    assert not [name for name in kept if "tower" in name]
    for name in ("head.norm.running_var", "head.norm.num_batches_tracked", "adapter.q.0", "anchors"):
        assert f"model.{name}" in kept
    for name in ("losses.0.memory", "losses.1.codes"):
        assert f"loss.{name}" in kept


@pytest.mark.parametrize(
    "settings",
    [{}, {"loss": "dpsh"}, {"batch_norm": False}, {"momentum": 0.0}],
    ids=str,
)
def test_training_goes_on_as_if_nothing_was(settings: dict[str, object], tmp_path: Path) -> None:
    one, other = build(**settings), build(seed=1, **settings)
    train(one, 1)
    save(tmp_path / "c", one)
    load_checkpoint(tmp_path / "c", *other)
    train(one, 1)
    train(other, 1)
    assert same(state(one), state(other))


def test_without_its_momentum_training_would_go_elsewhere(path: Path) -> None:
    kept = load_checkpoint(path, *(whole := build()))
    bare = build()
    load_checkpoint(path, *bare)
    bare[2].load_state_dict(bare[2].state_dict() | {"state": {}})
    train(whole, 1)
    train(bare, 1)
    assert kept == (2, 0.1, [])
    assert not torch.equal(whole[0].head.weight, bare[0].head.weight)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["model", "loss", "momentum"])
def test_a_state_that_is_not_finite_keeps_the_earlier_checkpoint(value: float, where: str, path: Path) -> None:
    earlier = path.read_bytes()
    model, loss, optimizer = parts = build()
    load_checkpoint(path, *parts)
    broken = {
        "model": model.head.norm.running_mean,
        "loss": loss.losses[1].memory,
        "momentum": next(iter(optimizer.state.values()))["momentum_buffer"],
    }[where]
    assert isinstance(broken, Tensor)
    broken.view(-1)[-1] = value
    message = refusal(lambda: save(path, parts, epoch=9))
    assert "epoch 9" in message
    assert str(path) in message
    assert {"model": "running_mean", "loss": "memory", "momentum": "momentum"}[where] in message
    assert path.read_bytes() == earlier
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_keeps_the_earlier_checkpoint(path: Path, trained: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, temporary: Path, __: object) -> None:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    earlier = path.read_bytes()
    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises((OSError, NestKALAError), match="No space left on device"):
        save(path, trained)
    assert path.read_bytes() == earlier
    assert not list(path.parent.glob(".writing*"))


def test_no_checkpoint(tmp_path: Path, trained: Parts) -> None:
    message = refusal(lambda: load_checkpoint(tmp_path / "checkpoint.safetensors", *trained))
    assert "there is no checkpoint" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_a_damaged_checkpoint_is_refused_by_name(size: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:size])
    message = refusal(lambda: load_checkpoint(path, *build()))
    assert str(path) in message
    assert "damaged" in message


def test_garbage_is_refused_by_name(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 9)
    assert str(path) in refusal(lambda: load_checkpoint(path, *build()))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "is not a NestKALA checkpoint"),
        ({"format": "pt"}, "is not a NestKALA checkpoint"),
        ({"format": "nestkala-checkpoint"}, "has version None, expected 3"),
        (
            {"format": "nestkala-checkpoint", "version": "2", "epoch": "1", "seconds": "1.0"},
            "has version 2, expected 3: nestkala train --config ",
        ),
    ],
)
def test_other_files_of_tensors_are_refused(metadata: dict[str, str] | None, said: str, path: Path) -> None:
    save_file(load_file(path), path, metadata)
    parts = build()
    before = state(parts)
    message = refusal(lambda: load_checkpoint(path, *parts))
    assert str(path) in message
    assert said in message
    assert same(state(parts), before)


@pytest.mark.parametrize(
    "settings",
    [
        {"lengths": (4, 16)},
        {"lengths": (12,)},
        {"rank": 2},
        {"projections": ("q", "k", "v")},
        {"adapt_blocks": 2},
        {"adapter": "none"},
        {"batch_norm": False},
        {"loss": "dpsh"},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_refused(settings: dict[str, object], path: Path) -> None:
    parts = build(**settings)
    refusal(lambda: load_checkpoint(path, *parts))


def test_a_checkpoint_of_other_training_images_is_refused(path: Path) -> None:
    model, _, optimizer = build()
    fewer = make_loss(Config(lengths=(4, 12)), model.head, TARGETS[:9], seed=0)
    assert str(path) in refusal(lambda: load_checkpoint(path, model, fewer, optimizer))


def test_the_loss_is_kept_whatever_it_remembers(tmp_path: Path, trained: Parts) -> None:
    class Counter(nn.Module):
        def __init__(self, value: int) -> None:
            super().__init__()
            self.register_buffer("seen", torch.tensor([value, 0]))

    save_checkpoint(tmp_path / "c", trained[0], Counter(41), trained[2], 1, 0.0)
    model, _, optimizer = build()
    load_checkpoint(tmp_path / "c", model, counter := Counter(0), optimizer)
    assert counter.seen.tolist() == [41, 0]


def scaled_training(scaler: torch.amp.GradScaler, steps: int, overflow: int | None = None) -> None:
    """Steps of an own optimizer, at one of which the gradient is not finite."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = SGD([parameter], lr=0.1)
    for step in range(steps):
        scaler.scale(parameter.sum()).backward()
        if step == overflow:
            assert parameter.grad is not None
            parameter.grad.fill_(torch.inf)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def make_scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)


def test_gradients_are_scaled_on_as_if_nothing_was(tmp_path: Path, trained: Parts) -> None:
    """Halved after an overflow, doubled after four steps without: wherever a checkpoint cuts these steps."""
    whole = make_scaler()
    scaled_training(whole, 7, overflow=1)
    for cut in range(1, 6):
        before, after = make_scaler(), make_scaler()
        scaled_training(before, cut, overflow=1)
        save_checkpoint(tmp_path / "c", *trained, 1, 0.0, (), before)
        load_checkpoint(tmp_path / "c", *build(), after)
        assert after.state_dict() == before.state_dict() != make_scaler().state_dict()
        scaled_training(after, 7 - cut, overflow=1 - cut)
        assert after.state_dict() == whole.state_dict()


def test_a_checkpoint_of_an_earlier_version_leaves_the_scaler_alone(path: Path) -> None:
    scaler = make_scaler()
    load_checkpoint(path, *build(), scaler)
    assert scaler.state_dict() == make_scaler().state_dict()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"scale": 0}', '{"scale": NaN}', "[" * 100_000])
def test_a_scaling_that_is_none_is_refused_by_name(text: str, path: Path) -> None:
    tensors = load_file(path)
    given = {"format": "nestkala-checkpoint", "version": "3", "epoch": "1", "seconds": "1.0", "history": "[]"}
    save_file(tensors, path, given | {"scaler": text})
    parts = build()
    before = state(parts)
    message = refusal(lambda: load_checkpoint(path, *parts, make_scaler()))
    assert message == f"the checkpoint {path} does not record how gradients are scaled"
    assert same(state(parts), before)


def test_the_trainer_keeps_the_scaler_of_its_accelerator(tmp_path: Path) -> None:
    """Accelerate has a scaler on GPUs alone: here it is given one."""
    scales = []
    for resumes in (False, True):
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = make_scaler()
        model, loss, _ = build()
        config = Config(lengths=(4, 12), head_init="random", epochs=1, batch_size=4)
        trainer = Trainer(config, accelerator, model, loss, TOKENS, TARGETS, tmp_path / "c")
        if resumes:
            trainer.resume()
        else:
            scaled_training(accelerator.scaler, 2, overflow=0)
            trainer._save()
        scales.append(accelerator.scaler.state_dict())
    assert scales[0] == scales[1] != make_scaler().state_dict()


def test_a_checkpoint_that_spells_centers_as_earlier_versions_did_is_read(tmp_path: Path) -> None:
    parts, path = build(loss="csq"), tmp_path / "checkpoint.safetensors"
    train(parts, 1)
    save_checkpoint(path, *parts, epoch=1, seconds=1.0, history=[])
    with safe_open(path, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    assert any("centers" in name for name in tensors)
    older = {key: value for key, value in metadata.items() if key != "checksum"}  # which is optional
    save_file({name.replace("centers", "centres"): value for name, value in tensors.items()}, path, older)
    other = build(seed=1, loss="csq")
    load_checkpoint(path, *other)
    for name, value in parts[1].state_dict().items():
        assert torch.equal(other[1].state_dict()[name], value), name
