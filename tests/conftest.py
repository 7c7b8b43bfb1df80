"""Fixtures that several modules share: the data beside the project, a small model, a browser."""

import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from nestkala.settings.config import Config
from nestkala.training.run import train

# The same examples every time; `pytest --hypothesis-profile=thorough` tries many more, and others each time.
settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, max_examples=12, stateful_step_count=20
)
settings.register_profile("thorough", database=None, deadline=None, max_examples=100, print_blob=True)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Take Ctrl-C as usual: the background job of a shell ignores it, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let no draw of a test depend on the tests that ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data archives: the environment's NESTKALA_DATA, or ../shared/data."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NESTKALA_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder} (set NESTKALA_DATA)")
    return folder


@pytest.fixture(scope="session")
def coco256(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """254 MS-COCO images with 80 labels, in the list format."""
    return _extracted(shared_data / "coco256.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def cifar10(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as JPEG files in {train,test}/CLASS folders, 60,000 images."""
    return _extracted(shared_data / "cifar10.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def caltech101(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 100 classes in folders, shorter side 240 pixels at most."""
    return _extracted(shared_data / "caltech101.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def flowers5(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of five kinds of flowers in folders, 400 of each."""
    return _extracted(shared_data / "flowers5.tar.xz", tmp_path_factory)


def _extracted(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    name = archive.name.removesuffix(".tar.xz")
    target = tmp_path_factory.mktemp(name)
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / name


@pytest.fixture(scope="session")
def noise_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model of 4 and 20 bits, trained for a moment on images of noise."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for number in range(24):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    small = {"queries": 2, "shots": 4, "lengths": (4, 20), "epochs": 2, "workers": 0, "cache_gb": 0}
    return train(Config(data=str(folder / "images"), output=folder / "run", head_init="random", **small))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium; of the module alone, because its event loop would be in the way of other tests'."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
