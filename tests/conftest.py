"""Fixtures for the data that lies beside the project."""

import os
import tarfile
from pathlib import Path

import pytest


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


def _extracted(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    name = archive.name.removesuffix(".tar.xz")
    target = tmp_path_factory.mktemp(name)
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / name
