"""Commands on a console whose encoding lacks letters: they are told by their codes, and nothing ends early."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("猫", "größe")

COMMANDS = """
import json, sys
from nestkala.cli import main

assert sys.stdout.errors == "strict"
for command in json.load(sys.stdin):
    print("command", *map(ascii, command), flush=True)
    code = main(command)
    assert code == 0, (command, code)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of noise whose names, and those of some files, are beyond ASCII and cp1252."""
    rng, photos = np.random.default_rng(0), tmp_path / "фото"
    for number in range(24):
        path = photos / CLASSES[number % 2] / f"{number} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return photos


def said(encoding: str, *commands: list[object]) -> list[str]:
    """What each of these commands prints, one process having run them all."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
    given = json.dumps([[str(word) for word in command] for command in commands])
    child = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(child, input=given.encode("ascii"), capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode("ascii", "replace")
    return done.stdout.decode(encoding).split("command ")[1:]


@pytest.mark.parametrize(
    ("encoding", "cat", "size"),
    [("ascii", r"\u732b", r"gr\xf6\xdfe"), ("cp1252", r"\u732b", "größe"), ("utf-8", "猫", "größe")],
)
def test_every_command_says_all_it_has_to(encoding: str, cat: str, size: str, photos: Path, tmp_path: Path) -> None:
    run, index, queries = (
        tmp_path / "run 猫",
        tmp_path / "猫.index",
        [f"{name}/{n} é.png" for n, name in enumerate(CLASSES)],
    )
    small = ("--queries", 2, "--shots", 4, "--lengths", "4,20", "--epochs", 2, "--workers", 0, "--cache-gb", 0)
    anchors = ("--anchors", "orthonormal", "--head-init", "random", "--loss", "dpsh")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "猫.png").write_bytes(b"no image")
    trained, indexed, found, json_found, classified, shards, broken, scored, exported, shown = said(
        encoding,
        ["train", "--data", photos, "--output", run, *small, *anchors],
        ["index", photos, index, "--model", run, "--workers", 0],
        ["search", index, photos / queries[0]],
        ["search", index, photos / queries[0], "--json"],
        ["search", index, photos / queries[0], "--html", tmp_path / "猫.html"],
        ["encode", photos, tmp_path / "shards 猫", "--model", run, "--workers", 0],
        ["index", tmp_path / "broken", tmp_path / "broken.index", "--model", run, "--workers", 0],
        ["eval", run, "--json"],
        ["export", index, tmp_path / "猫.npy"],
        ["cache", "show", "--folder", tmp_path / "猫"],
    )
    assert f"run folder: {tmp_path}/run {cat}" in trained
    assert (run / "metrics.json").is_file()
    for text in (indexed, shards, exported, shown):
        assert cat in text
    assert size in found
    assert f"warning: cannot read '{cat}.png'" in broken
    assert json.loads(json_found.splitlines()[-1])["query"] == str(photos / queries[0])
    assert size in classified
    assert json.loads(scored.splitlines()[-1])[0]["run"] == str(run)


def test_a_name_that_is_no_text_is_printed_as_it_is(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "nestkala", "cache", "show", "--folder", os.fsencode(tmp_path) + b"/\xff"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert done.stdout.startswith(os.fsencode(tmp_path) + b"/\xff: 0 segments")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_half_a_letter_is_told_by_its_code(encoding: str) -> None:
    script = "from nestkala.cli import guarded; guarded(lambda: print('a \\ud83d b'))"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert done.stdout == rb"a \ud83d b" + os.linesep.encode()
