"""The harness of the property tests tells what it ran, and what failed."""

from pathlib import Path

from reliability.properties import run

BROKEN = """
from hypothesis import given, settings, strategies as st

@settings(max_examples=30, database=None, derandomize=True)
@given(st.integers())
def test_fine(number):
    assert number == number

@settings(max_examples=30, database=None, derandomize=True)
@given(st.integers())
def test_wrong(number):
    assert number < 100
"""


def test_properties_are_counted_and_a_failing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_properties_broken.py").write_text(BROKEN)
    (finding,) = run("default", [tmp_path / "test_properties_broken.py"])
    assert (finding.what, finding.held, finding.details["properties"]) == ("properties of broken", False, 2)
    assert "1 failed, 1 passed" in str(finding.details["pytest"])
    assert int(str(finding.details["examples"])) > 30  # all of the one, and some until the other fails
