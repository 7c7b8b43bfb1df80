"""Four processes find what one finds, and none outlives another; `python -m reliability processes` takes every loss."""

from pathlib import Path

import pytest

from reliability.kills import make_images
from reliability.processes import IMAGES, dying, equal_to_one


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("processes") / "images", IMAGES)


def test_four_processes_equal_one(images: Path, tmp_path: Path) -> None:
    (figure,) = equal_to_one(images, ["kiddo"], [4], tmp_path)
    assert figure.held, figure.measured


def test_one_process_that_dies_ends_the_others(images: Path, tmp_path: Path) -> None:
    for figure in dying(images, tmp_path):
        assert figure.held, figure.measured
