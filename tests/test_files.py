"""Files that are replaced whole: after success, an error, or a kill."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nestkala.files import TEMPORARY, replacing, save_tensors, write_text

KILLED = """
import sys
from pathlib import Path
from nestkala.files import replacing

with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of it")
    print("writing", flush=True)
    input()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file.txt"
    path.parent.mkdir()
    path.write_text("old")
    return path


def files(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.parent.iterdir()}


def test_the_old_file_is_there_until_the_new_one_is_whole(path: Path) -> None:
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(TEMPORARY)
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert files(path) == {"file.txt": "new"}


def test_the_folder_is_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file.txt", "größer\n")
    assert (tmp_path / "a" / "b" / "file.txt").read_bytes() == "größer\n".encode()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_leaves_the_old_file_alone(path: Path, error: type[BaseException]) -> None:
    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of it")
            raise error("while writing")

    with pytest.raises(error, match="while writing"):
        write_half()
    assert files(path) == {"file.txt": "old"}


def test_nothing_written_leaves_the_old_file_alone(path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert files(path) == {"file.txt": "old"}


def test_text_that_cannot_be_encoded_leaves_the_old_file_alone(path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert files(path) == {"file.txt": "old"}


def test_two_writers_do_not_share_a_temporary_file(path: Path) -> None:
    with replacing(path) as first:
        with replacing(path) as second:
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert files(path) == {"file.txt": "first"}


def test_a_kill_leaves_the_old_file_alone(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = files(path)
    assert kept.pop("file.txt") == "old"
    assert [(name.startswith(TEMPORARY), text) for name, text in kept.items()] == [(True, "half of it")]


def test_the_data_is_on_the_disk_before_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: synced.append(path.read_text()))
    write_text(path, "new")
    assert synced[0] == "old"
    assert path.read_text() == "new"


def test_tensors_are_readable_by_whom_other_files_are(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "")
    save_tensors(tmp_path / "tensors", {"a": torch.zeros(2)})
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "text").stat().st_mode
