"""The tokens of a run from other backends, against those that torch gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

import nestkala.runtimes.choice
from nestkala import Hasher
from nestkala.backbones import load_backbone
from nestkala.cli import main
from nestkala.runtimes.agreement import sample_images
from nestkala.runtimes.trunk import trunk_on
from nestkala.settings.config import Config
from nestkala.tokens.source import TokenSource
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError


@pytest.mark.parametrize("num_adapted", [0, 1])
@pytest.mark.parametrize("name", ["photo", "tiny", "open_clip/ViT-S-32-alt:random"])
def test_tokens_are_those_of_torch(backend: str, name: str, num_adapted: int) -> None:
    frozen = load_backbone(name, num_adapted)
    images = torch.stack([frozen.preprocess(image) for image in sample_images()[:11]])
    chosen, trunk = trunk_on(backend, frozen, "fp32")
    expected, found = frozen.tower.trunk(images), trunk(images)
    assert (chosen, found.dtype, found.shape) == (backend, torch.float16, expected.shape)
    assert (found.float() - expected.float()).norm() < 2e-3 * expected.float().norm()


def test_torch_is_the_towers_own_trunk() -> None:
    frozen = load_backbone("tiny", 1)
    assert trunk_on("torch", frozen, "fp32") == ("torch", frozen.tower.trunk)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_auto_takes_a_backend_whose_tokens_agree(
    backend: str, factor: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = nestkala.runtimes.choice.load

    def scaled(name: str, onnx: bytes) -> object:
        compute = load(name, onnx)
        return lambda images: factor * compute(images)

    monkeypatch.setattr(nestkala.runtimes.choice, "load", scaled)
    monkeypatch.setattr(nestkala.runtimes.choice, "FASTEST_FIRST", (backend,))
    chosen, _ = trunk_on("auto", load_backbone("tiny", 0), "fp32")
    assert chosen == (backend if factor == 1 else "torch")
    assert ("changes the tokens by 1.0%, more than 0.1%" in caplog.text) == (factor != 1)


@pytest.mark.parametrize(
    ("name", "precision", "reason"), [("tiny", "bf16", "bf16"), ("features:8", "fp32", "features")]
)
def test_what_only_torch_computes_is_refused(backend: str, name: str, precision: str, reason: str) -> None:
    frozen = load_backbone(name, 0)
    with pytest.raises(NestKALAError, match=f"backend {backend} cannot run this model: it .*{reason}"):
        trunk_on(backend, frozen, precision)
    assert trunk_on("auto", frozen, precision)[0] == "torch"


def test_tokens_beyond_half_precision_are_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nestkala.runtimes.choice, "load", lambda *_: lambda images: torch.full((len(images), 384), 7e4))
    _, trunk = trunk_on(backend, load_backbone("tiny", 0), "fp32")
    with pytest.raises(NestKALAError, match=r"not finite in half precision \(largest magnitude 7e\+04"):
        trunk(torch.zeros(2, 3, 32, 32))


def test_a_source_takes_the_trunk_that_it_is_given() -> None:
    frozen = load_backbone("tiny", 0)
    source = TokenSource(frozen, "fp32", 4, 0, trunk=lambda images: images.flatten(1)[:, :384].half())
    images = torch.randn(6, 3, 32, 32)
    assert torch.equal(source.trunk(images), images.flatten(1)[:, :384].half())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pieces of photographs in two class folders."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, image in enumerate(sample_images()[6:26]):
        path = folder / ("temple" if number < 10 else "flower") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return folder


def test_a_run_gives_the_codes_of_torch_and_says_what_it_used(backend: str, photographs: Path, tmp_path: Path) -> None:
    codes, cache = {}, tmp_path / "cache"
    for name in ("torch", backend):
        run = tmp_path / name
        shared = {"backbone": "photo", "lengths": (8, 32), "shots": 4, "queries": 0, "workers": 0, "cache": cache}
        train(Config(data=str(photographs), output=run, backend=name, **shared))
        AcceleratorState._reset_state()
        codes[name] = Hasher.from_pretrained(run).encode(sorted(photographs.glob("*/*.png")))
        assert f"backend: {name}" in (run / "config.yaml").read_text()
    assert np.bitwise_count(codes["torch"] ^ codes[backend]).sum() <= 0.02 * 32 * 20
    assert len({path.parent.name for path in cache.glob("*/*.safetensors")}) == 2  # their tokens are kept apart


def test_a_run_that_it_cannot_compute_leaves_no_folder(backend: str, photographs: Path, tmp_path: Path) -> None:
    flags = ["--shots", "2", "--backend", backend, "--precision", "bf16", "--output", str(tmp_path / "run")]
    assert main(["train", str(photographs), *flags]) == 2
    assert not (tmp_path / "run").exists()


def test_the_command_takes_it(backend: str, photographs: Path, tmp_path: Path) -> None:
    flags = ["--backbone", "tiny", "--shots", "2", "--queries", "0", "--lengths", "8", "--backend", backend]
    assert main(["train", str(photographs), *flags, "--output", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "model.json").read_text())["lengths"] == [8]
    with pytest.raises(SystemExit):
        main(["train", str(photographs), *flags[:-1], "openvine"])
