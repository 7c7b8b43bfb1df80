"""What commands load: large libraries are imported where they are needed, since that takes longer than a search."""

import subprocess
import sys
from pathlib import Path

import pytest

from nestkala.cli import main

HEAVY = ("accelerate", "huggingface_hub.hf_api", "jinja2", "numba", "open_clip", "scipy", "timm", "torchvision")
"""Of these a search needs none."""
HEAVIER = (*HEAVY, "numpy", "torch", "PIL")

SCRIPT = """
import sys
from nestkala.cli import main
code = main(sys.argv[2:])
print([name for name in sys.argv[1].split(",") if name in sys.modules])
sys.exit(code)
"""


def loaded(libraries: tuple[str, ...], *command: object) -> str:
    """Which of these a process of its own has imported when `nestkala` with these arguments is done."""
    arguments = [sys.executable, "-c", SCRIPT, ",".join(libraries), *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_help_loads_no_library_that_computes() -> None:
    script = f"""
import sys
from nestkala.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in {HEAVIER} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def photos(caltech101: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs, and its index with a model beside it."""
    folder = tmp_path_factory.mktemp("start") / "photos"
    folder.mkdir()
    for path in sorted(caltech101.glob("*/0001.jpg"))[:40]:
        (folder / f"{path.parent.name}.jpg").symlink_to(path)
    assert main(["index", str(folder), "--json"]) == 0
    return folder


@pytest.mark.parametrize("query", ["a dog", "accordion.jpg", "FILE"])
@pytest.mark.parametrize("bits", [(), ("--bits", 8)])
def test_a_search_in_a_small_index_loads_no_library_that_it_does_not_need(
    query: str, bits: tuple[object, ...], photos: Path
) -> None:
    asked = photos / "accordion.jpg" if query == "FILE" else query
    assert loaded(HEAVY, "search", photos, asked, *bits) == "[]"
