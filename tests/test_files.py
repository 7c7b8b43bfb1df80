"""Files that are replaced whole: after success, an error, or a kill."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from leftovers import unfinished
from safetensors.torch import save_file

from nestkala.errors import NestKALAError
from nestkala.files import is_unfinished, load_tensors, remove_unfinished, replacing, save_tensors, write_text

KILLED = """
import sys
from pathlib import Path
from nestkala.files import replacing

with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of it")
    temporary.with_name(".tmpA1b2C3").write_text("as a library writes it on its way")
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
        assert temporary.name == path.name
        assert temporary.parent.parent == path.parent
        assert is_unfinished(temporary.parent)
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
    (left,) = set(path.parent.iterdir()) - {path}
    assert is_unfinished(left)
    assert (left / path.name).read_text() == "half of it"
    assert path.read_text() == "old"
    remove_unfinished(path.parent)
    assert files(path) == {"file.txt": "old"}


def test_unfinished_files_go_by_age_where_one_is_given_and_whatever_the_clock_says_where_none_is(path: Path) -> None:
    young, of_tomorrow, long = unfinished(path, 60), unfinished(path, -86400), unfinished(path, 7200, written=60)
    others = {unfinished(path.with_name(name), 7200) for name in ("other.txt", "my-file.txt")}
    unfinished(path, 7200)
    remove_unfinished(path.parent, "file.txt", older_than=3600)
    assert {*path.parent.iterdir()} == {path, young, of_tomorrow, long, *others}
    remove_unfinished(path.parent, "file.txt")
    assert {*path.parent.iterdir()} == {path, *others}


@pytest.mark.parametrize("name", [".writing-my-novel", ".writing-", f".writing-{'g' * 32}-a", f".writing-{'0' * 31}-a"])
def test_folders_of_somebody_else_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "chapter 1.txt").write_text("It was a dark and stormy night.")
    remove_unfinished(tmp_path)
    assert not is_unfinished(tmp_path / name)
    assert (tmp_path / name / "chapter 1.txt").exists()


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


def test_tensors_are_kept_where_permissions_may_not_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    save_tensors(tmp_path / "tensors", {"a": torch.ones(2)})
    assert load_tensors(tmp_path / "tensors", "they")[0]["a"].tolist() == [1, 1]


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "t", {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bool)}, {"k": "v"})
    return tmp_path / "t"


def test_tensors_come_back_with_their_metadata(tensors: Path) -> None:
    found, metadata = load_tensors(tensors, "it")
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["b"].tolist() == [True, True]
    assert metadata == {"k": "v"}


def test_no_flipped_bit_of_tensors_or_metadata_goes_unnoticed(tensors: Path) -> None:
    content, whole = tensors.read_bytes(), load_tensors(tensors, "it")
    for place in range(len(content)):
        for bit in range(0, 8, 3):
            tensors.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                found, metadata = load_tensors(tensors, "it")
            except NestKALAError as error:
                assert "it is damaged" in str(error)  # noqa: PT017 - a flip in the word «checksum» takes it away
                continue
            assert "checksum" not in metadata
            assert {name: value.tolist() for name, value in found.items()} == {
                name: value.tolist() for name, value in whole[0].items()
            }


def test_tensors_without_a_checksum_are_taken(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "old")
    found, metadata = load_tensors(tmp_path / "old", "it")
    assert found["a"].tolist() == [1, 1]
    assert metadata == {}
