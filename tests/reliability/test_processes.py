"""Four processes find what one finds, and none outlives another; `python -m reliability processes` takes every loss."""

from pathlib import Path

import pytest

from reliability import processes
from reliability.kills import make_model
from reliability.processes import IMAGES, dying, equal_to_one, few_images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_model(tmp_path_factory.mktemp("processes"), IMAGES)


def test_four_processes_equal_one(made: tuple[Path, Path], tmp_path: Path) -> None:
    (finding,) = equal_to_one(made[0], ["kiddo"], [4], tmp_path)
    assert finding.held, finding.measured


@pytest.mark.slow
def test_fewer_images_than_processes_are_encoded(made: tuple[Path, Path], tmp_path: Path) -> None:
    finding = few_images(*made, tmp_path)
    assert finding.held, finding.measured


@pytest.mark.slow
def test_one_process_that_dies_ends_the_others(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 600.0)  # how soon is for the harness to measure
    for finding in dying(made[0], tmp_path):
        assert finding.held, (finding.measured, finding.details)
