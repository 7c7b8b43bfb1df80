"""Readers see one state of an index while a writer changes it; `python -m reliability readers` takes a minute."""

from pathlib import Path

import pytest

from reliability import readers


@pytest.mark.slow
def test_readers_of_a_changing_index_see_one_state_each(tmp_path: Path) -> None:
    (finding,) = readers.run(tmp_path / "work", seconds=6.0)
    assert finding.held, finding.measured


@pytest.mark.slow
def test_the_harness_notices_a_result_of_no_state(tmp_path: Path) -> None:
    index = readers.state(3)
    index.remove(["50"])
    index.save(tmp_path / "changing.index")
    with pytest.raises(AssertionError):
        readers.read(tmp_path / "changing.index", 5.0, tmp_path / "report", seed=0)
