"""An index that follows a folder, against an index built anew from what the folder holds."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.errors import NestKALAError
from nestkala.index import PrefixIndex
from nestkala.index.folder import Changes, update_from_folder


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
    assert changes == Changes(added=sorted(names))
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
    monkeypatch.setattr("nestkala.index.folder.CHUNK", 2)
    index, kept = empty(hasher), []
    update_from_folder(index, photos, hasher, keep=lambda: kept.append(len(index)), keep_every=5)
    assert kept == [5, 10, 12]
    assert_holds(index, photos, all_images(photos), hasher)


def test_a_folder_that_is_none_and_codes_that_do_not_fit_are_refused(hasher: Hasher, photos: Path) -> None:
    with pytest.raises(NestKALAError, match="absent is no folder"):
        update_from_folder(empty(hasher), photos / "absent", hasher)
    with pytest.raises(NestKALAError, match="holds nested codes of 16 bits, and the model gives 20 bits"):
        update_from_folder(PrefixIndex.build(np.empty((0, 2), np.uint8)), photos, hasher)
