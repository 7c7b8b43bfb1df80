"""The command line: its commands, exit codes, and errors in one line."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nestkala
import nestkala.training.run
from nestkala.cli import main, train_main
from nestkala.tokens.cache import TokenCache, image_key
from nestkala.utils.errors import NestKALAError


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "token-cache"
    monkeypatch.setenv("NESTKALA_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of five images."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(5):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def fill(folder: Path) -> int:
    """Keep tokens of two kinds; return the bytes of the files."""
    for kind in ("one", "other"):
        cache = TokenCache(folder, kind, 1e9)
        cache.add(image_key(b"image"), torch.zeros(64, 192).half())
        cache.flush()
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr().err
    errors = captured[captured.index("error: ") :]
    assert errors.count("\n") == 1
    assert errors.endswith("\n")
    assert "Traceback" not in captured
    return errors.strip()


COMMANDS = ["train", "encode", "index", "search", "serve", "classify", "advise", "eval", "experiment", "export"]
COMMANDS += ["list", "cache", "duplicates"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--help"], [*COMMANDS, "Binary image codes"]),
        (["train", "--help"], ["--lengths", "--config", "--resume"]),
        (["cache", "--help"], ["show", "clear", "--folder", "NESTKALA_CACHE"]),
    ],
)
def test_help(args: list[str], told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for words in told:
        assert words in captured.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["trian"], ["trian", "train"]),
        ([], ["train", "cache"]),
        (["cache", "shw"], ["shw", "show"]),
        (["cache", "show", "--foldr", "x"], ["--foldr", "--folder"]),
        (["train", "--config"], ["--config"]),
        (["train", "--lengths", "8,x"], ["--lengths", "x"]),
    ],
)
def test_a_wrong_command_exits_with_2_and_says_what_there_is(
    args: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    for words in told:
        assert words in captured.err


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nestkala", "cache", "show"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{os.environ['NESTKALA_CACHE']}: 0 segments, 0.00 GB\n"
    assert done.stderr == ""


def test_the_exit_code_reaches_the_shell() -> None:
    command = [sys.executable, "-m", "nestkala", "train", "--config", "nope"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown config 'nope' (known: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("args", [["cache"], ["cache", "show"]])
def test_cache_show(args: list[str], cache_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = fill(cache_folder)
    assert main(args) == 0
    assert capsys.readouterr().out == f"{cache_folder}: 2 segments, {size / 1e9:.2f} GB\n"
    assert len(list(cache_folder.glob("*/*"))) == 2


def test_cache_show_of_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "show", "--folder", str(tmp_path / "absent")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'absent'}: 0 segments, 0.00 GB\n"
    assert not (tmp_path / "absent").exists()


def test_what_is_shown_can_be_had_as_json(cache_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = fill(cache_folder)
    for action in ("show", "clear"):
        assert main(["cache", action, "--json"]) == 0
        told = {"folder": str(cache_folder), "action": action, "segments": 2, "bytes": size}
        told |= {"exported_models": 0, "exported_bytes": 0}
        assert json.loads(capsys.readouterr().out) == told
    assert main(["list", "heads", "--json"]) == 0
    assert {"nested", "flat", "cascade"} <= {head["name"] for head in json.loads(capsys.readouterr().out)}


def test_cache_clear(cache_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(cache_folder)
    fill(tmp_path / "other")
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith(f"{cache_folder}: deleted 2 segments, ")
    assert not list(cache_folder.glob("*"))
    assert len(list((tmp_path / "other").glob("*/*"))) == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--config", "nope"], "nope"),
        (["--config", "nope.yaml"], "nope.yaml"),
        (["--resume", "nowhere"], "nowhere"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "file"], "file"),
        (["--output", "full"], "full"),
        (["--output", "file"], "file"),
        (["--output", "file/run"], "file/run"),
        (["--split", "nosplit.json"], "nosplit.json"),
        (["--anchors", "absent.npy"], "absent.npy"),
        (["--rank", "11", "--head-init", "random"], "rank is 11"),
        (["--adapt-blocks", "7", "--head-init", "random"], "adapt_blocks is 7"),
        (["--loss", "kido"], "did you mean 'kiddo'"),
        (["--tracker", "swanlab"], "swanlab"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full", "notes.txt").touch()
    Path("file").touch()
    few = [] if "--split" in args else ["--queries-per-class", "1"]
    assert train_main([*few, "--encode-batch-size", "10", "--threads", "1", *args]) == 2
    assert told in one_line_error(capsys)


def test_an_error_of_several_lines_is_told_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise NestKALAError("first line\n  second line\n")

    monkeypatch.setattr(nestkala.training.run, "train", fail)
    assert train_main([]) == 2
    assert one_line_error(capsys) == "error: first line second line"


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_broken_image_is_named_in_one_line(workers: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "owl" / "broken.png").write_bytes(b"no image")
    args = ["--data", str(images), "--queries-per-class", "1", "--batch-size", "2", "--epochs", "1", "--output", "run"]
    assert train_main([*args, "--encode-batch-size", "2", "--threads", "1", "--workers", workers]) == 2
    error = one_line_error(capsys)
    assert error.startswith("error: cannot decode image 'owl/broken.png': not an image in a supported format (JPEG,")
    assert "\n" not in error


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("raise ImportError('libc10.so: cannot open\\n  shared object file')", "cannot open shared object file"),
    ],
)
def test_a_torchvision_of_another_source_says_what_to_reinstall(
    failure: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torchvision.py").write_text(failure)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert train_main(["--epochs", "1"]) == 2
    error = one_line_error(capsys)
    assert reason in error
    assert torch.__version__ in error
    assert "pip install --force-reinstall -c constraints.txt torch torchvision" in error


def test_an_interrupt_gives_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(nestkala.training.run, "train", interrupt)
    assert main(["train"]) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "doing", "said"),
    [
        (["encode", "a", "b", "--model", "c"], "nestkala.search.shards.encode_folder", "missing shards"),
        (["index", "a", "b"], "nestkala.search.opening.find_index", "run the same command again"),
        (["search", "a", "b"], "nestkala.search.opening.open_index", "interrupted\n"),
    ],
)
def test_an_interrupt_of_other_commands_says_what_stays(
    args: list[str], doing: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(doing, interrupt)
    assert main(args) == 130
    error = capsys.readouterr().err
    assert said in error
    assert "--resume" not in error


@pytest.mark.slow
def test_an_interrupted_training_leaves_a_whole_checkpoint(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ["--data", str(images), "--queries-per-class", "1", "--batch-size", "2", "--checkpoint-every", "1"]
    args += ["--encode-batch-size", "2", "--workers", "0", "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "nestkala", "train", *args, "--epochs", "1000000", "--output", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (run / "checkpoint.safetensors").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert load_file(run / "checkpoint.safetensors")
    assert not (run / "metrics.json").exists()


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nestkala {nestkala.__version__}\n"
    assert nestkala.__version__ == importlib.metadata.version("nestkala")
