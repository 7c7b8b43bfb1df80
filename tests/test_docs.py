"""The README and the documentation work as they stand: their Python, their commands, the examples of docstrings.

The blocks of a page run in order, in one namespace, in a folder of their own. It holds what a reader is assumed to
have: a folder `photos` of photographs by class, a folder `holiday` of others, a few more images, the run folder
`runs/photos` of a trained model and `photos.index`, except where the page makes them itself. A comment
before a block says what to do with it:

    <!-- not run: reason -->    a block that cannot run here
    <!-- file: own.yaml -->     a block that is the content of a file
"""

import doctest
import json
import os
import re
import shlex
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nestkala.heads
import nestkala.losses
from nestkala.cli import main, train_main
from nestkala.losses import HashLoss

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "nestkala/pretrained/README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|file): (?P<about>[^>]*?) -->\s*)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
MADE = ("runs/photos", "photos.index")  # unless the page makes it


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    not_run: str | None
    file: str | None


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page):
        mark = {found["mark"]: found["about"]}
        line = page.count("\n", 0, found.start("text")) + 1
        yield Block(found["language"], found["text"], line, mark.get("not run"), mark.get("file"))


def commands(shell: str) -> list[list[str]]:
    lines = shell.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str]) -> int:
    match words:
        case ["nestkala", *args]:
            return main(args)
        case ["python", "train.py", *args]:
            return train_main(args)
        case ["python", script, *args]:
            raise AssertionError(f"{script} with {args} is not run here: mark the block, or say how")
    raise AssertionError(f"do not know how to run: {shlex.join(words)}")


def photograph(folder: Path, name: str, color: tuple[int, int, int], rng: np.random.Generator) -> None:
    pixels = np.clip(rng.normal(color, 40, (64, 64, 3)), 0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((160, 120)).save(folder / name)


def on_one_core(patch: pytest.MonkeyPatch) -> None:
    """Start no processes to decode a dozen images, which would take longer than all the rest."""
    patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a reader of the documentation has."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    colors = {"dog": (200, 60, 60), "cat": (60, 200, 60), "car": (60, 60, 200)}
    for kind, color in colors.items():
        for number in range(6):
            photograph(folder / "photos" / kind, f"{number}.jpg", color, rng)
        for number in range(2):
            photograph(folder / "labeled" / kind, f"{number}.jpg", color, rng)
    for number, color in enumerate(colors.values()):
        photograph(folder / "holiday", f"{number}.jpg", color, rng)
    for name, color in zip(("a.jpg", "b.jpg", "c.jpg", "query.jpg"), [*colors.values(), (190, 70, 70)], strict=True):
        photograph(folder, name, color, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NESTKALA_CACHE", str(folder / "cache"))
        on_one_core(patch)
        train = "train --config photos --data photos --shots 4 --output runs/photos"
        assert main(shlex.split(train)) == 0
        assert main(shlex.split("index photos photos.index --model runs/photos")) == 0
    return folder


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_page_works(page: Path, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    given = list(blocks(text))
    if not any(block.language in ("python", "bash") and block.not_run is None for block in given):
        return
    folder = tmp_path / "reader"
    shutil.copytree(reader, folder, ignore=shutil.ignore_patterns("cache"))
    for made in MADE:
        by_index = made == "photos.index" and re.search(r"^nestkala index photos( photos\.index|$)", text, re.M)
        if by_index or f"--output {made}" in text:
            (shutil.rmtree if (folder / made).is_dir() else Path.unlink)(folder / made)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("NESTKALA_CACHE", str(reader / "cache"))
    on_one_core(monkeypatch)
    names: dict[str, object] = {}
    for block in given:
        if block.file is not None:
            Path(block.file).write_text(block.text)
        if block.file is not None or block.not_run is not None:
            continue
        if block.language == "python":
            # line numbers are those of the page
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        elif block.language == "bash":
            for words in commands(block.text):
                assert run_command(words) == 0, f"{page}:{block.line}: {shlex.join(words)}"


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks(page.read_text()):
            assert block.not_run is None or len(block.not_run.split()) >= 3, f"{page}:{block.line}"


def test_every_block_is_seen() -> None:
    for page in PAGES:
        text = page.read_text()
        fences = re.findall(r"^ *(?:```|~~~)(.*)$", text, re.M)[::2]
        expected = [language for language in fences if not re.fullmatch(r"\{.*|yaml|toml|text", language)]
        assert expected == [block.language for block in blocks(text) if block.language in ("python", "bash")], page


DOCUMENTED = [
    getattr(module, name)
    for module in (nestkala.losses, nestkala.heads)
    for name in module.__all__
    if "Example:" in (getattr(module, name).__doc__ or "")
]


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda documented: documented.__name__)
def test_the_docstrings_example_works(documented: object) -> None:
    names = {"torch": torch} | {
        name: getattr(module, name) for module in (nestkala.losses, nestkala.heads) for name in module.__all__
    }
    targets = torch.eye(10)
    names |= {"h": torch.tanh(torch.randn(10, 16, requires_grad=True)), "targets": targets}
    names |= {"indices": torch.arange(10), "anchors": torch.randn(10, 16), "features": torch.randn(10, 512)}
    examples = doctest.DocTestParser().get_examples(documented.__doc__ or "")
    assert examples
    for example in examples:
        exec(example.source, names)
    if isinstance(documented, type) and issubclass(documented, HashLoss):
        value = names["value"]
        assert isinstance(value, torch.Tensor)
        assert value.shape == ()
        assert value.isfinite()


def test_every_loss_is_in_the_reference_with_an_example_and_a_citation() -> None:
    reference = (ROOT / "docs" / "api" / "losses.md").read_text()
    losses = [
        found
        for name in nestkala.losses.__all__
        if isinstance(found := getattr(nestkala.losses, name), type) and issubclass(found, HashLoss)
    ]
    for loss in losses:
        assert f":: {loss.__name__}\n" in reference, loss
        if loss is not HashLoss:
            assert "Example:" in (loss.__doc__ or ""), loss
            sources = "".join(parent.__doc__ or "" for parent in loss.__mro__ if issubclass(parent, HashLoss))
            assert re.search(r"Source: .*\(|Source: (.|\n)*?\d{4}", sources), loss
            assert loss.paper, loss


def test_the_table_of_photographs_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "measurements.md").read_text()
    trials = json.loads((ROOT / "docs" / "results_photos.json").read_text())["trials"]
    rows = re.findall(r"^\| (\d)(?: \(names only\))? \| (.*) \|$", page, re.M)
    assert [int(shots) for shots, _ in rows] == [0, 1, 2, 4, 8]
    columns = [(bits, "map_tie_aware") for bits in ("4", "8", "16", "32", "64", "128")]
    columns += [(bits, "copy_recall_at_1") for bits in ("64", "128")]
    for shots, cells in rows:
        for (bits, measure), cell in zip(columns, cells.split(" | "), strict=True):
            found = [
                100 * trial["lengths"][bits][measure]
                for trial in trials
                if (trial["data"], trial["method"], trial["shots"]) == ("Caltech-101", "NestKALA", int(shots))
            ]
            assert cell == f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}", (shots, bits, measure)
