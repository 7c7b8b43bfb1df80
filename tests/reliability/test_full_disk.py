"""Work that meets a full disk says so, keeps what there was, and goes on once there is room."""

from pathlib import Path

import pytest
from depth import first_and_slow

from reliability.full_disk import IMAGES, all_attempts, run_full, small_disk
from reliability.kills import make_model

ATTEMPTS = [attempt.what for attempt in all_attempts(Path("images"), Path("model"), Path("log"))]


@pytest.fixture(scope="module", autouse=True)
def mountable() -> None:
    try:
        with small_disk():
            pass
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_model(tmp_path_factory.mktemp("disk"), IMAGES)


@pytest.mark.parametrize("number", first_and_slow(ATTEMPTS))
def test_a_full_disk_is_told_and_nothing_is_lost(number: int, made: tuple[Path, Path], tmp_path: Path) -> None:
    finding = run_full(all_attempts(*made, tmp_path / "log")[number], tmp_path / "log")
    assert finding.held, (finding.measured, finding.details)
