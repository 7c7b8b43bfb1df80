"""An index that follows a folder, against an index built anew from what the folder holds."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.images.decoding import FORMATS
from nestkala.images.listing import LeftOut
from nestkala.index import PrefixIndex
from nestkala.search.folder import Changes, update_from_folder
from nestkala.utils.errors import NestKALAError


@pytest.fixture(scope="module")
def hasher(noise_model: Path) -> Hasher:
    return Hasher.from_pretrained(noise_model, "cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(12):
        draw(tmp_path / "photos" / f"day {number % 3}" / f"{number}.png", number)
    return tmp_path / "photos"


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(path)


def empty(hasher: Hasher) -> PrefixIndex:
    return PrefixIndex.build(hasher.encode([]), bits=20)


def assert_holds(index: PrefixIndex, photos: Path, names: list[str], hasher: Hasher) -> None:
    """The index has these images, each with the code that the model gives it alone of all."""
    assert sorted(index.ids) == sorted(names)
    codes = dict(zip(index.ids, index.codes.tolist(), strict=True))
    for name in names:
        assert codes[name] == hasher.encode([photos / name] * 3)[1].tolist()


def all_images(photos: Path) -> list[str]:
    return [path.relative_to(photos).as_posix() for path in photos.rglob("*.png")]


def test_a_new_index_holds_every_image_below_the_folder(hasher: Hasher, photos: Path) -> None:
    (photos / "notes.txt").write_text("no image")
    draw(photos / ".hidden" / "x.png", 1)
    draw(photos / ".x.png", 1)
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "loop").symlink_to(photos)
    index = empty(hasher)
    changes = update_from_folder(index, photos, hasher)
    names = [f"day {n % 3}/{n}.png" for n in range(12)]
    left_out = LeftOut(unlisted={"gone.png": "No such file or directory"}, linked_folders=1)
    assert changes == Changes(added=sorted(names), left_out=left_out)
    assert_holds(index, photos, names, hasher)


def test_only_what_changed_is_encoded_anew(hasher: Hasher, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    draw(photos / "day 0" / "0.png", 100)
    draw(photos / "new" / "ä 'q' <b>.png", 101)
    (photos / "day 1" / "4.png").unlink()
    os.utime(photos / "day 2" / "5.png", ns=(1, 1))
    encoded: list[str] = []
    encode: Callable[..., np.ndarray] = hasher.encode

    def noted(images: list[Path], **options: int) -> np.ndarray:
        encoded.extend(path.relative_to(photos).as_posix() for path in images)
        return encode(images, **options)

    monkeypatch.setattr(hasher, "encode", noted)
    changes = update_from_folder(index, photos, hasher)
    assert changes == Changes(
        added=["new/ä 'q' <b>.png"], changed=["day 0/0.png", "day 2/5.png"], removed=["day 1/4.png"], unchanged=9
    )
    assert sorted(encoded) == sorted(changes.added + changes.changed)
    monkeypatch.undo()
    assert_holds(index, photos, all_images(photos), hasher)
    assert update_from_folder(index, photos, hasher) == Changes(unchanged=12)


def test_what_cannot_be_read_is_told_and_left_out_until_it_can(hasher: Hasher, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    whole = (photos / "day 0" / "3.png").read_bytes()
    index = empty(hasher)
    assert update_from_folder(index, photos, hasher).broken == ["broken.jpg"]
    (photos / "day 0" / "3.png").write_bytes(whole[:50])
    changes = update_from_folder(index, photos, hasher)
    assert changes == Changes(unchanged=11, broken=["broken.jpg", "day 0/3.png"])
    assert "day 0/3.png" not in set(index.ids)
    (photos / "day 0" / "3.png").write_bytes(whole)
    (photos / "broken.jpg").unlink()
    assert update_from_folder(index, photos, hasher) == Changes(added=["day 0/3.png"], unchanged=11)
    assert_holds(index, photos, all_images(photos), hasher)


def test_all_may_be_broken(hasher: Hasher, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    index = empty(hasher)
    assert update_from_folder(index, tmp_path, hasher) == Changes(broken=["a.png"])
    assert len(index) == 0


def test_it_is_kept_on_the_way(hasher: Hasher, photos: Path) -> None:
    index, kept = empty(hasher), []
    update_from_folder(index, photos, hasher, keep=lambda: kept.append(len(index)), keep_every=5)
    assert kept == [5, 10, 12]


def test_no_more_than_asked_for_is_unsaved(hasher: Hasher, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestkala.search.folder.CHUNK", 2)
    index, kept = empty(hasher), []
    update_from_folder(index, photos, hasher, keep=lambda: kept.append(len(index)), keep_every=5)
    assert kept == [5, 10, 12]
    assert_holds(index, photos, all_images(photos), hasher)


def removed(index: PrefixIndex, photos: Path, hasher: Hasher, allow_removal: bool = False) -> list[str]:
    """Which images an update takes out of the index."""
    before = set(index.ids)
    changes = update_from_folder(index, photos, hasher, allow_removal=allow_removal)
    assert before - set(index.ids) == set(changes.removed)
    return changes.removed


def refuse(index: PrefixIndex, photos: Path, hasher: Hasher, message: str) -> None:
    """An update must end with this message, and change nothing."""
    ids, codes = list(index.ids), index.codes.tolist()
    with pytest.raises(NestKALAError, match=message):
        update_from_folder(index, photos, hasher)
    assert (list(index.ids), index.codes.tolist()) == (ids, codes)


def test_a_folder_that_has_lost_most_of_its_images_removes_nothing_unasked(hasher: Hasher, photos: Path) -> None:
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    for name in all_images(photos)[:7]:
        (photos / name).unlink()
    draw(photos / "new.png", 1)
    refuse(index, photos, hasher, r"7 of 12 indexed images are no longer in .*photos: .*use --allow-removal")
    assert len(removed(index, photos, hasher, allow_removal=True)) == 7
    assert_holds(index, photos, all_images(photos), hasher)


@pytest.mark.parametrize("left", ["no folder", "empty folders", "other files"])
def test_an_empty_folder_removes_nothing_unasked(hasher: Hasher, tmp_path: Path, left: str) -> None:
    draw(tmp_path / "photos" / "a" / "1.png", 1)
    index = empty(hasher)
    update_from_folder(index, tmp_path / "photos", hasher)
    (tmp_path / "photos" / "a" / "1.png").unlink()
    if left == "no folder":
        (tmp_path / "photos" / "a").rmdir()
    elif left == "other files":
        (tmp_path / "photos" / "lost+found").mkdir()
        (tmp_path / "photos" / "notes.txt").write_text("")
    refuse(index, tmp_path / "photos", hasher, "1 of 1 indexed images are no longer in")
    assert removed(index, tmp_path / "photos", hasher, allow_removal=True) == ["a/1.png"]


def test_a_subfolder_that_is_there_and_empty_removes_nothing_unasked(hasher: Hasher, photos: Path) -> None:
    for number in range(5):
        draw(photos / "disk" / "deep" / f"{number}.png", number)
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    shutil.rmtree(photos / "disk" / "deep")  # what a folder looks like whose disk is not mounted
    refuse(index, photos, hasher, r"all 5 indexed images in .*disk are gone, but the folder still exists")
    (photos / "disk").rmdir()  # somebody has deleted it
    assert len(removed(index, photos, hasher)) == 5


def test_a_few_images_are_removed_unasked(hasher: Hasher, photos: Path) -> None:
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    (photos / "day 0" / "0.png").unlink()
    shutil.rmtree(photos / "day 1")
    assert removed(index, photos, hasher) == ["day 0/0.png", *(f"day 1/{n}.png" for n in (1, 10, 4, 7))]


class Failing:
    """`os.scandir` that breaks off one folder after some entries."""

    def __init__(self, folder: Path, after: int, error: int) -> None:
        self.folder, self.after, self.error, self.scandir = folder, after, error, os.scandir

    def __call__(self, folder: Path | int) -> Any:
        entries = self.scandir(folder)
        return self.broken(entries) if not isinstance(folder, int) and Path(folder) == self.folder else entries

    @contextmanager
    def broken(self, entries: Any) -> Iterator[Iterator[Any]]:
        def some() -> Iterator[Any]:
            yield from sorted(entries, key=lambda entry: entry.name)[: self.after]
            raise OSError(self.error, os.strerror(self.error))

        yield some()


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_what_cannot_be_listed_keeps_its_codes_and_is_told(
    hasher: Hasher, photos: Path, after: int, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    codes = dict(zip(index.ids, index.codes.tolist(), strict=True))
    (photos / "day 0" / "0.png").unlink()
    draw(photos / "day 2" / "new.png", 1)
    monkeypatch.setattr(os, "scandir", Failing(photos / "day 1", after, error))
    changes = update_from_folder(index, photos, hasher)
    assert changes.left_out.unlisted == {"day 1": os.strerror(error)}
    assert (changes.added, changes.removed, changes.unchanged) == (["day 2/new.png"], ["day 0/0.png"], 11)
    kept = dict(zip(index.ids, index.codes.tolist(), strict=True))
    assert {name: kept[name] for name in codes if name.startswith("day 1")} == {
        name: code for name, code in codes.items() if name.startswith("day 1")
    }
    monkeypatch.undo()
    assert_holds(index, photos, all_images(photos), hasher)
    assert update_from_folder(index, photos, hasher) == Changes(unchanged=12)


@pytest.mark.parametrize("after", [0, 2])
def test_a_folder_that_cannot_be_listed_itself(
    hasher: Hasher, photos: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    monkeypatch.setattr(os, "scandir", Failing(photos, after, errno.EIO))
    if after:
        assert update_from_folder(index, photos, hasher).unchanged == len(index) == 12
    else:
        refuse(index, photos, hasher, "cannot list .*photos: Input/output error")


def test_a_link_to_an_image_that_is_away_keeps_its_code(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    draw(tmp_path / "disk" / "far.png", 50)
    (photos / "far.png").symlink_to(tmp_path / "disk" / "far.png")
    index = empty(hasher)
    update_from_folder(index, photos, hasher)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    changes = update_from_folder(index, photos, hasher)
    assert changes == Changes(unchanged=13, left_out=LeftOut(unlisted={"far.png": "No such file or directory"}))
    (photos / "far.png").unlink()
    assert removed(index, photos, hasher) == ["far.png"]


def test_photographs_in_other_formats_and_links_to_folders_are_counted(hasher: Hasher, photos: Path) -> None:
    for name in ("a.jxl", "day 0/b.CR2", "day 0/c.dng", "d.mp4", ".e.mp4", "f.txt", "day 1/g.psd"):
        (photos / name).write_bytes(b"x")
    (photos / "link").symlink_to(photos / "day 0")
    left_out = update_from_folder(empty(hasher), photos, hasher).left_out
    assert left_out == LeftOut(other_formats={"JPEG XL": 1, "raw": 2, "video": 1, "Photoshop": 1}, linked_folders=1)
    assert left_out.in_words() == [
        "note: skipped 5 files in unsupported formats (1 JPEG XL, 1 Photoshop, 2 raw, 1 video)",
        "note: skipped 1 link to folders, which are not followed",
    ]


def test_heic_is_read_or_counted_with_advice(hasher: Hasher, photos: Path) -> None:
    (photos / "a.heic").write_bytes(b"x")
    changes = update_from_folder(empty(hasher), photos, hasher)
    if "HEIF" in FORMATS:
        assert changes.broken == ["a.heic"]
    else:
        assert changes.left_out.other_formats == {"HEIC": 1}
        assert 'pip install "nestkala[heic]"' in changes.left_out.in_words()[0]


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="nestkala-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


UPDATED_BY_NOBODY = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from nestkala import Hasher
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder

hasher, photos = Hasher.from_pretrained(sys.argv[1], "cpu"), Path(sys.argv[2])
index = PrefixIndex.build(hasher.encode([]), bits=20)
update_from_folder(index, photos, hasher)
if os.geteuid() == 0:  # who need not obey permissions
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for mode in (0o000, 0o444):  # not to be listed, or not to be entered
    os.chmod(photos / "day 1", mode)
    print(json.dumps(asdict(update_from_folder(index, photos, hasher)) | {"images": len(index)}))
    os.chmod(photos / "day 1", 0o755)
"""


def test_a_subfolder_without_permission_keeps_its_codes(noise_model: Path, photos: Path, others_folder: Path) -> None:
    shutil.copytree(photos, others_folder / "photos")
    if os.geteuid() == 0:
        os.chown(others_folder / "photos" / "day 1", 65534, 65534)
    script = [sys.executable, "-c", UPDATED_BY_NOBODY, str(noise_model), str(others_folder / "photos")]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    for line, unlisted in zip(
        done.stdout.splitlines(), (["day 1"], [f"day 1/{n}.png" for n in (1, 10, 4, 7)]), strict=True
    ):
        found = json.loads(line)
        assert (found["images"], found["removed"], found["unchanged"]) == (12, [], 12)
        assert found["left_out"]["unlisted"] == dict.fromkeys(unlisted, "Permission denied")


def test_a_folder_that_is_none_and_codes_that_do_not_fit_are_refused(hasher: Hasher, photos: Path) -> None:
    with pytest.raises(NestKALAError, match="absent is not a folder"):
        update_from_folder(empty(hasher), photos / "absent", hasher)
    with pytest.raises(NestKALAError, match="nested codes of 16 bits, but the model makes nested codes of 20"):
        update_from_folder(PrefixIndex.build(np.empty((0, 2), np.uint8)), photos, hasher)
