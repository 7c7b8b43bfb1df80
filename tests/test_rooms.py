"""The packages of `nestkala`: every import leads downwards, and no folder is large."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nestkala"

ROOMS = (
    *(
        "heads",
        "losses",
        "utils",
        "codes",
        "plugins",
        "backbone_names",
        "images",
        "data",
        "index",
        "pages",
        "evaluation",
    ),
    *("backbones", "tokens", "adapters", "modeling", "runtimes", "settings", "training", "hasher", "search", "server"),
    *("analysis", "experiments", "report", "commands", "cli"),
)
"""Each imports only what stands before it."""

ENTRANCES = ("__init__", "__main__", "encode", "relevance")
"""Modules that only pass on what others hold."""

LARGEST = 13
"""Modules in a folder; `losses` has one for every loss."""


def modules() -> dict[str, Path]:
    linked = [PACKAGE / "heads", PACKAGE / "losses"]  # links, which rglob does not enter by itself
    paths = {path for folder in (PACKAGE, *linked) for path in folder.rglob("*.py")}
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imported(name: str, path: Path) -> set[str]:
    """The rooms whose modules a module imports, anywhere in it."""
    found = set()
    here = ["nestkala", *name.split(".")[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            targets = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {target.split(".")[1] for target in targets if target.startswith("nestkala.")}
    return found


def test_every_import_leads_downwards() -> None:
    upwards = {}
    for name, path in modules().items():
        room = name.split(".")[0]
        if room in ENTRANCES:
            continue
        assert room in ROOMS, f"{name} is in no room: give it a place in the list"
        allowed = set(ROOMS[: ROOMS.index(room) + 1])
        if wrong := imported(name, path) - allowed:
            upwards[name] = wrong
    assert upwards == {}


def test_heads_and_losses_need_nothing_of_the_rest() -> None:
    for name, path in modules().items():
        room = name.split(".")[0]
        if room in ("heads", "losses"):
            assert imported(name, path) <= {room}, name


def test_the_page_on_architecture_lists_the_rooms_in_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*)\|$", page, re.MULTILINE))
    assert tuple(table) == ROOMS
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name, path in modules().items():
        if (room := name.split(".")[0]) in found:
            found[room] |= imported(name, path) & set(ROOMS) - {room}
    del table["commands"]  # what each needs
    for room, told in table.items():
        assert set(re.findall(r"`(\w+)`", told)) - {"utils"} == found[room] - {"utils"}, room


def test_no_folder_is_large() -> None:
    sizes: dict[str, int] = {}
    for name in modules():
        folder = name.rpartition(".")[0]
        sizes[folder] = sizes.get(folder, 0) + 1
    del sizes["losses"]
    assert {folder: size for folder, size in sizes.items() if size > LARGEST} == {}


def test_the_name_that_moved_warns() -> None:
    sys.modules.pop("nestkala.relevance", None)
    with pytest.warns(FutureWarning, match=r"nestkala\.evaluation\.relevance"):
        moved = importlib.import_module("nestkala.relevance")
    assert moved.bootstrap_interval is importlib.import_module("nestkala.evaluation.relevance").bootstrap_interval
