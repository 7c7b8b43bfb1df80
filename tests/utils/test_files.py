"""Files that are replaced whole: after success, an error, or a kill."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from leftovers import unfinished
from safetensors.torch import save_file

from nestkala.index import PrefixIndex
from nestkala.search.opening import save_index
from nestkala.utils.errors import NestKALAError
from nestkala.utils.files import is_unfinished, load_tensors, remove_unfinished, replacing, save_tensors, write_text

KILLED = """
import sys
from pathlib import Path
from nestkala.utils.files import replacing

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


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder of another file system."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system in /dev/shm")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_stays_one_and_the_file_that_it_leads_to_is_replaced(path: Path, relative: bool, tmp_path: Path) -> None:
    middle, link = tmp_path / "middle", tmp_path / "link.txt"
    middle.symlink_to(Path("folder", "file.txt") if relative else path)
    link.symlink_to(middle)
    write_text(link, "new")
    assert link.is_symlink()
    assert middle.is_symlink()
    assert files(path) == {"file.txt": "new"}
    assert {each.name for each in tmp_path.iterdir()} == {"folder", "middle", "link.txt"}


def test_a_link_to_another_file_system_stays_one(elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "file.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(elsewhere / "file.txt")
    with replacing(tmp_path / "link.txt") as temporary:
        assert (temporary.name, temporary.parent.parent) == ("link.txt", elsewhere)
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert files(elsewhere / "file.txt") == {"file.txt": "new"}


def test_a_link_to_nothing_makes_its_file_but_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file.txt")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file.txt").read_text() == "new"
    (tmp_path / "astray").symlink_to(tmp_path / "unmounted" / "file.txt")
    with pytest.raises(NestKALAError, match=r"astray is a link to .*unmounted/file.txt, but there is no folder"):
        write_text(tmp_path / "astray", "new")
    assert not (tmp_path / "unmounted").exists()


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(NestKALAError, match="a is a circular link"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755, 0o666])
def test_a_file_keeps_its_mode(path: Path, mode: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        for write in (write_text, lambda where, _: save_tensors(where, {"a": torch.zeros(2)})):
            path.chmod(mode)
            write(name, "new")
            assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only a superuser gives files away")
def test_a_file_keeps_its_owner(path: Path) -> None:
    os.chown(path, 65534, 65533)
    path.chmod(0o660)
    write_text(path, "new")
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (65534, 65533, 0o660)


def test_nobody_else_sees_what_replaces_a_private_file(path: Path) -> None:
    path.chmod(0o600)
    with replacing(path) as temporary:
        assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700
        temporary.write_text("new")


def test_folders_pipes_and_devices_are_refused_and_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "to a folder").symlink_to(tmp_path)
    for name in ("pipe", "null"):
        with pytest.raises(NestKALAError, match=f"{name} is a device or a pipe: give a file"):
            write_text(tmp_path / name, "new")
    for folder in (tmp_path, tmp_path / "to a folder"):
        with pytest.raises(NestKALAError, match="is a folder: give a file"):
            write_text(folder, "new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert not Path("/dev/null").is_file()


def test_an_index_that_is_a_link_leaves_nothing_of_killed_processes_beside_its_file(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "photos.index"
    link.symlink_to(path)
    index = PrefixIndex.build(np.zeros((3, 2), np.uint8))
    young, old = unfinished(path, 60), unfinished(path, 7200)
    path.unlink()
    save_index(index, str(link))
    assert link.is_symlink()
    assert {*path.parent.iterdir()} == {path, young}
    assert not old.exists()
    assert len(PrefixIndex.load(link)) == 3


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
