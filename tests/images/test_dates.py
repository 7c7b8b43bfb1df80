"""Dates of photographs, from their headers or their files."""

import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.images.dates import date_taken, with_date
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder

TAKEN = "2019:07:30 23:59:01"


def photograph(path: Path, taken: str | None, tag: int = 0x9003) -> Path:
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(0x8769)[tag] = taken
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "green").save(path, exif=exif.tobytes())
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_date_of_exposure_is_read(tmp_path: Path, suffix: str) -> None:
    assert date_taken(photograph(tmp_path / f"a.{suffix}", TAKEN)) == "2019-07-30T23:59:01"


@pytest.mark.parametrize("taken", [None, "", "0000:00:00 00:00:00", "    :  :     :  :  ", "2019:13:30 12:00:00", "x"])
def test_without_a_date_of_exposure_it_is_the_files(
    tmp_path: Path, taken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        file = photograph(tmp_path / "a.jpg", taken)
        assert date_taken(file) is None
        # 2024-05-17 12:30:00 in UTC, when New York is four hours behind
        known = {"size": 7, "mtime_ns": 1_715_949_000 * 10**9 + 5}
        assert with_date(file, known) == {**known, "date": "2024-05-17T08:30:00"}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_date_that_a_file_was_digitized_does_not_count(tmp_path: Path) -> None:
    assert date_taken(photograph(tmp_path / "a.jpg", TAKEN, 0x9004)) is None


@pytest.mark.parametrize("mtime_ns", [-(10**18), 10**30])
def test_times_that_no_calendar_has_are_dates_still(tmp_path: Path, mtime_ns: int) -> None:
    datetime.fromisoformat(with_date(tmp_path / "absent.jpg", {"mtime_ns": mtime_ns})["date"])


def test_what_cannot_be_read_has_no_date_of_exposure(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe1")
    assert date_taken(tmp_path / "a.jpg") is None
    assert date_taken(tmp_path / "absent.jpg") is None


def test_an_index_without_dates_gets_them_and_nothing_is_encoded(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    photograph(tmp_path / "taken.jpg", TAKEN)
    os.utime(photograph(tmp_path / "copied.png", None), ns=(0, 1_715_949_000 * 10**9))
    index = PrefixIndex.empty(20)
    update_from_folder(index, tmp_path, hasher)
    assert dict(index.items())["taken.jpg"]["date"] == "2019-07-30T23:59:01"
    dated = {name: metadata["date"] for name, metadata in index.items()}

    names, codes = list(index.ids), index.codes
    without = [{key: metadata[key] for key in ("size", "mtime_ns")} for _, metadata in index.items()]
    old = PrefixIndex.build(codes, names, 20, without)
    monkeypatch.setattr(hasher, "encode", lambda images, **_: pytest.fail(str(images)) if images else codes[:0])
    changes = update_from_folder(old, tmp_path, hasher)
    assert (changes.unchanged, changes.changed) == (2, [])
    assert {name: metadata["date"] for name, metadata in old.items()} == dated
    assert dict(zip(old.ids, old.codes.tolist(), strict=True)) == dict(zip(names, codes.tolist(), strict=True))
