"""The ledger of measurements: what is kept beside what is measured anew, and that the pages show what was kept."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import benchmarks.__main__
import reliability.__main__
from benchmarks.ledger import Rows, measure, table
from nestkala.utils.errors import NestKALAError

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    met: bool


def page(found: dict[str, Rows], machine: str) -> str:
    return f"{machine}: {', '.join(found)}"


def test_what_is_not_measured_again_stays(tmp_path: Path) -> None:
    output = tmp_path / "found"
    values = iter("12345")
    known = {name: lambda name=name: [Row(name, next(values), True)] for name in ("one", "two")}
    measure("benchmark", known, (), output, page)
    measure("benchmark", known, ["two"], output, page)
    kept = json.loads(output.with_suffix(".json").read_text())
    assert {name: [row["measured"] for row in entry["rows"]] for name, entry in kept.items()} == {
        "one": ["1"],
        "two": ["3"],
    }
    assert output.with_suffix(".md").read_text() == f"{kept['one']['machine']}: one, two"


def test_an_unknown_name_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match=r"unknown benchmark 'tow'.*two"):
        measure("benchmark", {"two": lambda: pytest.fail("measured")}, ["tow"], tmp_path / "found", page)
    assert not any(tmp_path.iterdir())


def test_what_was_not_met_stands_out() -> None:
    rows = [{"what": "a", "met": True}, {"what": "b", "met": False}]
    lines = table(rows, {"what": "what", "met": "met"}).split("\n")[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [["a", "yes"], ["b", "**no**"]]


@pytest.mark.parametrize("module", [benchmarks.__main__, reliability.__main__], ids=["benchmarks", "reliability"])
def test_the_page_shows_every_row_that_was_kept(module: ModuleType) -> None:
    name = module.__package__
    kept = json.loads((DOCS / f"{name}.json").read_text())
    shown = (DOCS / f"{name}.md").read_text()
    for entry in kept.values():
        assert entry["machine"] in shown
        for row in entry["rows"]:
            assert f"| {row['what']} " in shown
            assert f"| {row['measured']} " in shown
    assert module.page({key: entry["rows"] for key, entry in kept.items()}, "here").count("\n| ") == shown.count("\n| ")
