"""Work that meets a full disk says so, keeps what there was, and goes on once there is room."""

from pathlib import Path

import pytest

from reliability.full_disk import all_attempts, run_full, small_disk
from reliability.kills import make_images, training
from reliability.workers import done

ATTEMPTS = [attempt.what for attempt in all_attempts(Path("images"), Path("model"), Path("log"))]


@pytest.fixture(scope="module", autouse=True)
def mountable() -> None:
    try:
        with small_disk():
            pass
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("disk") / "images", 100)


@pytest.fixture(scope="module")
def model(images: Path) -> Path:
    folder = images.parent / "model"
    done([training(images, folder, epochs=1)], images.parent / "log")
    return folder


@pytest.mark.parametrize("number", range(len(ATTEMPTS)), ids=ATTEMPTS)
def test_a_full_disk_is_told_and_nothing_is_lost(number: int, images: Path, model: Path, tmp_path: Path) -> None:
    figure = run_full(all_attempts(images, model, tmp_path / "log")[number], tmp_path / "log")
    assert figure.held, (figure.measured, figure.details)
