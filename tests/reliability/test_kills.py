"""Work that is killed at a random moment goes on to the same bits; `python -m reliability kills` does it more often."""

import time
from pathlib import Path

import pytest
from depth import first_and_slow

from reliability.kills import Work, all_work, make_model, survive
from reliability.workers import Call

WORK = all_work(Path("images"), Path("model"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_model(tmp_path_factory.mktemp("kills"), 80)


@pytest.mark.parametrize("number", first_and_slow([work.what for work in WORK]))
def test_work_that_is_killed_goes_on_to_the_same_bits(number: int, made: tuple[Path, Path], tmp_path: Path) -> None:
    finding = survive(all_work(*made)[number], kills=1, folder=tmp_path / "work")
    assert finding.held, finding.measured


def begin_again(folder: Path) -> list[Call]:
    """Adds a line to a file every time that it is begun, which nothing takes back."""
    folder.mkdir(exist_ok=True)
    with (folder / "lines").open("a") as file:
        file.write("begun\n")
    return [Call(time.sleep, (1.0,))]


@pytest.mark.slow
def test_the_harness_notices_work_that_does_not_go_on(tmp_path: Path) -> None:
    adding = Work("adding to a file", begin_again, lambda place: (place / "lines").read_text())
    finding = survive(adding, kills=3, folder=tmp_path / "work")
    assert not finding.held
    assert finding.details["kills"] == 3
