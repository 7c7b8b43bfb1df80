"""Bad inputs are refused in one line that names them and leave the rest as it was; odd ones give the right result.

A third of the corpus; `reliability.bad_inputs.corpus.run` meets all of it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reliability.bad_inputs.case import Case, complaint, refused
from reliability.bad_inputs.corpus import CASES
from reliability.bad_inputs.good import Good, make_good


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "out-tokens"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return make_good(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_slow][::3], ids=lambda case: case.name)
def test_a_third_of_the_inputs_meets_no_complaint(case: Case, good: Good, tmp_path: Path) -> None:
    assert complaint(case, good, tmp_path) == ""


def test_names_tell_cases_apart() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def _harmless(here: Path, _: Good) -> list[str | Path]:
    return ["cache", "show", "--folder", here]


def test_the_harness_notices_what_it_is_there_for(good: Good, tmp_path: Path) -> None:
    def leaves_a_file(here: Path, _: Good) -> list[str | Path]:
        return ["export", good.index, here / "codes.npy"]

    assert "exit code 0" in complaint(refused("no mistake", _harmless, "x"), good, tmp_path)
    assert "does not name 'elephant'" in complaint(
        refused("unnamed", lambda h, _: ["eval", h], "elephant"), good, tmp_path
    )
    assert "codes.ids.json" in complaint(refused("left behind", leaves_a_file, "x"), good, tmp_path)
