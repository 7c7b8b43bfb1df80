"""The token cache: what is kept, for whom, within which bound, and what writers, kills and damage do to it."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from leftovers import last_used, unfinished
from safetensors.torch import save_file
from torch import Tensor

from nestkala.tokens import cache as token_cache
from nestkala.tokens.cache import CacheSize, TokenCache, cache_size, clear_cache, default_folder, image_key
from nestkala.utils.errors import NestKALAError

GB = 1e9
TOKENS = (16, 64)

WRITER = """
import sys
import torch
from pathlib import Path
from nestkala.tokens.cache import CacheSize, TokenCache, image_key

cache = TokenCache(Path(sys.argv[1]), "kind", 1e9)
print("ready", flush=True)
input()
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    cache.add(image_key(str(number).encode()), torch.full((4, 8), number).half())
    cache.flush()
"""

KILLED = """
import sys
import torch
from pathlib import Path
from nestkala.tokens import cache as token_cache

def save_half(tensors, path, metadata):
    save_file(tensors, path, metadata)
    path.write_bytes(path.read_bytes()[:-100])
    print("writing", flush=True)
    input()

save_file, token_cache.save_file = token_cache.save_file, save_half
cache = token_cache.TokenCache(Path(sys.argv[1]), "kind", 1e9)
cache.add(token_cache.image_key(b"lost"), torch.zeros(4, 8).half())
cache.flush()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def tokens_of(number: int) -> Tensor:
    return torch.randn(TOKENS, generator=torch.Generator().manual_seed(number)).half()


def key_of(number: int) -> bytes:
    return image_key(str(number).encode())


def keep(folder: Path, numbers: range | list[int], kind: str = "kind", max_bytes: float = GB) -> TokenCache:
    """One segment with the tokens of these images."""
    cache = TokenCache(folder, kind, max_bytes)
    for number in numbers:
        cache.add(key_of(number), tokens_of(number))
    cache.flush()
    return cache


def kept(folder: Path, numbers: range | list[int], kind: str = "kind") -> list[int]:
    """Which of these images a newly opened cache has; their tokens must be the right ones."""
    cache = TokenCache(folder, kind, GB)
    found = [number for number in numbers if key_of(number) in cache]
    for number in found:
        assert torch.equal(cache[key_of(number)], tokens_of(number))
    return found


def segments(folder: Path) -> set[Path]:
    return set(folder.glob("*/*.safetensors"))


@pytest.fixture
def child() -> Iterator[list[subprocess.Popen[str]]]:
    children: list[subprocess.Popen[str]] = []
    yield children
    for process in children:
        process.kill()
        process.communicate()


def start(children: list[subprocess.Popen[str]], script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    return children[-1]


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_was_kept_is_read_back_bit_for_bit(folder: Path) -> None:
    special = torch.tensor([[0.0, -0.0, 65504.0, 2**-24, -1 / 3, 1e-3, 1.0, -65504.0]] * 4).half()
    cache = keep(folder, range(5))
    cache.add(image_key(b"special"), special)
    cache.flush()
    assert kept(folder, range(6)) == [0, 1, 2, 3, 4]
    read = TokenCache(folder, "kind", GB)[image_key(b"special")]
    assert read.dtype == torch.float16
    assert torch.equal(read.view(torch.int16), special.view(torch.int16))
    assert torch.equal(cache[image_key(b"special")], special)


def test_what_was_added_is_served_after_the_flush_and_counted_once(folder: Path) -> None:
    cache = keep(folder, [1, 2])
    cache.add(key_of(1), tokens_of(1))
    cache.flush()
    assert len(segments(folder)) == 1
    assert key_of(1) in cache
    assert key_of(3) not in cache
    with pytest.raises(KeyError):
        cache[key_of(3)]


def test_keys_are_of_the_bytes_alone() -> None:
    assert image_key(b"one") == image_key(bytes(bytearray(b"one")))
    assert len({image_key(data) for data in (b"one", b"two", b"one\0", b"")}) == 4


def test_kinds_are_apart(folder: Path) -> None:
    keep(folder, [1, 2], "fp32 of a backbone")
    keep(folder, [3], "bf16 of a backbone")
    assert kept(folder, [1, 2, 3], "fp32 of a backbone") == [1, 2]
    assert kept(folder, [1, 2, 3], "bf16 of a backbone") == [3]
    assert kept(folder, [1, 2, 3], "another") == []
    assert cache_size(folder).segments == 2


def test_a_full_segment_is_written_before_the_flush(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_SEGMENT_BYTES", 3 * tokens_of(0).nbytes)
    cache = TokenCache(folder, "kind", GB)
    for number in range(7):
        cache.add(key_of(number), tokens_of(number))
    assert len(segments(folder)) == 2
    assert kept(folder, range(7)) == [0, 1, 2, 3, 4, 5]


def test_another_process_segments_are_seen_at_a_refresh(folder: Path) -> None:
    first = TokenCache(folder, "kind", GB)
    keep(folder, [1])
    assert key_of(1) not in first
    first.refresh()
    assert torch.equal(first[key_of(1)], tokens_of(1))


def test_two_caches_writing_in_turn_lose_nothing(folder: Path) -> None:
    caches = [TokenCache(folder, "kind", GB) for _ in range(2)]
    for number in range(20):
        for cache in caches if number % 5 == 0 else caches[number % 2 : number % 2 + 1]:
            cache.add(key_of(number), tokens_of(number))
        if number % 3 == 0:
            caches[number % 2].flush()
    for cache in caches:
        cache.flush()
    assert kept(folder, range(20)) == list(range(20))


def test_two_processes_writing_at_once_lose_nothing(folder: Path, child: list[subprocess.Popen[str]]) -> None:
    writers = [start(child, WRITER, folder, *part) for part in ((0, 30), (20, 50))]
    assert [said(writer) for writer in writers] == ["ready", "ready"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait() for writer in writers] == [0, 0]
    cache = TokenCache(folder, "kind", GB)
    for number in range(50):
        assert (cache[key_of(number)] == number).all()
    assert not list(folder.glob("*/.writing*"))


def test_segments_are_readable_by_whom_other_files_are(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        keep(folder, [1])
    finally:
        os.umask(before)
    (segment,) = segments(folder)
    assert stat.S_IMODE(segment.stat().st_mode) == 0o640


def test_a_kill_while_writing_leaves_whole_segments_only(
    folder: Path, child: list[subprocess.Popen[str]], caplog: pytest.LogCaptureFixture
) -> None:
    keep(folder, [1, 2])
    process = start(child, KILLED, folder)
    assert said(process) == "writing"
    process.kill()
    assert process.wait() == -signal.SIGKILL

    (left,) = folder.glob("*/.writing*")
    assert kept(folder, [1, 2]) == [1, 2]
    assert image_key(b"lost") not in TokenCache(folder, "kind", GB)
    assert cache_size(folder).segments == 1
    assert not caplog.records
    assert left.exists()

    for path in (left, *left.iterdir()):
        last_used(path, 3500)
    TokenCache(folder, "another kind", GB)
    assert left.exists()
    for path in (left, *left.iterdir()):
        last_used(path, 3700)
    TokenCache(folder, "another kind", GB)
    assert not left.exists()
    assert kept(folder, [1, 2]) == [1, 2]


def test_clearing_deletes_tokens_and_unfinished_ones(folder: Path) -> None:
    keep(folder, [1], "one")
    keep(folder, [2], "other")
    size = cache_size(folder)
    assert size == CacheSize(2, sum(path.stat().st_size for path in segments(folder)))
    for path in segments(folder):
        unfinished(path)
    assert cache_size(folder) == size
    assert clear_cache(folder) == size
    assert not list(folder.iterdir())
    assert cache_size(folder) == clear_cache(folder) == CacheSize(0, 0)


def test_clearing_a_folder_that_is_not_there(folder: Path) -> None:
    assert clear_cache(folder).segments == 0
    assert not folder.exists()


FOREIGN = [
    "notes.txt",
    "model.safetensors",
    "digits-1shot/model.safetensors",
    "digits-1shot/checkpoint.safetensors",
    "digits-1shot/.writing-notes",
    "digits-1shot/deeper/model.safetensors",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_clearing_leaves_other_peoples_files(name: str, folder: Path) -> None:
    keep(folder, [1])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.zeros(3)}, folder / name)
    assert clear_cache(folder).segments == 1
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [Path(name).name]


def test_clearing_leaves_other_peoples_empty_folders(folder: Path) -> None:
    keep(folder, [1])
    (folder / "photos").mkdir()
    clear_cache(folder)
    assert [path.name for path in folder.iterdir()] == ["photos"]


def test_making_room_leaves_other_peoples_files(folder: Path) -> None:
    foreign = folder / "digits-1shot" / "model.safetensors"
    foreign.parent.mkdir(parents=True)
    save_file({"weight": torch.zeros(1000)}, foreign)
    keep(folder, [1], max_bytes=5000)
    assert foreign.exists()


def aged(folder: Path, kind: str, age: float, numbers: range = range(10)) -> Path:
    """A segment of a kind, last used `age` seconds ago."""
    before = segments(folder)
    keep(folder, numbers, kind)
    (path,) = segments(folder) - before
    last_used(path, age)
    return path


def test_other_kinds_are_evicted_the_least_recently_used_first(folder: Path) -> None:
    old, older, new = (aged(folder, kind, age) for kind, age in (("old", 300), ("older", 400), ("new", 100)))
    mine = aged(folder, "mine", 500)
    bound = 3.5 * mine.stat().st_size
    keep(folder, range(10, 20), "mine", bound)
    assert cache_size(folder).bytes <= bound
    assert (old.exists(), older.exists(), new.exists(), mine.exists()) == (False, False, True, True)
    assert kept(folder, range(20), "mine") == list(range(20))


def test_nothing_is_evicted_while_there_is_room(folder: Path) -> None:
    one, other = aged(folder, "one", 300), aged(folder, "other", 200)
    keep(folder, range(10), "mine", one.stat().st_size * 3.5)
    assert one.exists()
    assert other.exists()
    assert cache_size(folder).segments == 3


def test_reading_tokens_counts_as_use(folder: Path) -> None:
    read, unread = aged(folder, "read", 500), aged(folder, "unread", 300)
    TokenCache(folder, "read", GB)
    keep(folder, range(10), "mine", read.stat().st_size * 2.5)
    assert (read.exists(), unread.exists()) == (True, False)


def test_the_own_kind_is_never_evicted_and_the_rest_not_for_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, other = aged(folder, "mine", 500), aged(folder, "other", 100)
    cache = keep(folder, range(10, 40), "mine", mine.stat().st_size * 2.5)
    assert mine.exists()
    assert other.exists()
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text
    assert kept(folder, range(40), "mine") == list(range(10))
    cache.add(key_of(50), tokens_of(50))
    cache.flush()
    assert len(caplog.records) == 1
    assert cache_size(folder).segments == 2


def test_tokens_of_evicted_segments_that_are_open_can_still_be_read(folder: Path) -> None:
    aged(folder, "reading", 500)
    reading = TokenCache(folder, "reading", GB)
    size = cache_size(folder).bytes
    keep(folder, range(10), "mine", 1.5 * size)
    assert kept(folder, range(10), "reading") == []
    for number in range(10):
        assert torch.equal(reading[key_of(number)], tokens_of(number))


@pytest.mark.parametrize("excess", [-100, -16, -1, 4096])
def test_the_files_never_exceed_the_bound(excess: int, folder: Path, tmp_path: Path) -> None:
    keep(tmp_path / "measured", range(10))
    size = cache_size(tmp_path / "measured").bytes
    keep(folder, range(10), max_bytes=size + excess)
    assert cache_size(folder) == (CacheSize(1, size) if excess >= 0 else CacheSize(0, 0))


def test_the_bound_holds_over_many_kinds_and_segments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_SEGMENT_BYTES", 2 * tokens_of(0).nbytes)
    bound = 30_000
    for kind in ("one", "two", "three"):
        cache = TokenCache(folder, kind, bound)
        for number in range(20):
            cache.add(key_of(number), tokens_of(number))
            assert cache_size(folder).bytes <= bound
        cache.flush()
        assert 0 < cache_size(folder).bytes <= bound
        found = kept(folder, range(20), kind)
        assert found
        assert found == list(range(len(found)))


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    match how:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(whole[:-1])
        case "only a header":
            path.write_bytes(whole[:100])
        case "garbage":
            path.write_bytes(bytes(range(256)) * 4)
        case "other tensors":
            save_file({"weight": torch.zeros(3)}, path)
        case "a folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize("how", ["empty", "truncated", "only a header", "garbage", "other tensors", "a folder"])
def test_a_damaged_segment_is_left_out_with_a_warning(how: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep(folder, [1, 2])
    (path,) = segments(folder)
    keep(folder, [3, 4])
    damaged(path, how)
    assert kept(folder, range(6)) == [3, 4]
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_a_damaged_segment_is_replaced_when_its_images_are_computed_again(folder: Path) -> None:
    keep(folder, [1, 2])
    (path,) = segments(folder)
    damaged(path, "truncated")
    keep(folder, [1, 2])
    assert kept(folder, [1, 2]) == [1, 2]


def test_a_full_disk_ends_the_keeping_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = keep(folder, [1])
    monkeypatch.setattr(token_cache, "save_file", fail)
    for number in (2, 3):
        cache.add(key_of(number), tokens_of(number))
        cache.flush()
    monkeypatch.undo()
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    assert torch.equal(cache[key_of(1)], tokens_of(1))
    assert kept(folder, [1, 2, 3]) == [1]
    assert not list(folder.glob("*/.writing*"))


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = keep(tmp_path / "file", [1])
    assert key_of(1) not in cache
    assert len(caplog.records) == 1


def test_a_cache_that_may_only_be_read_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    keep(folder, [1, 2])
    monkeypatch.setattr(os, "utime", refuse)
    assert kept(folder, [1, 2]) == [1, 2]
    assert "damaged" not in caplog.text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"NESTKALA_CACHE": "/n", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/n"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/nestkala/tokens"),
        ({"NESTKALA_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/nestkala/tokens"),
        ({"HOME": "/h"}, "/h/.cache/nestkala/tokens"),
    ],
)
def test_the_default_folder(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NESTKALA_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_folder() == Path(expected)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NESTKALA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(
        NestKALAError, match="there is no home folder to keep tokens in: set NESTKALA_CACHE to a folder"
    ):
        default_folder()
