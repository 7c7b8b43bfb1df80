"""Encoding a collection over processes: every image once, whatever interrupts it, with the codes the model gives."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from leftovers import unfinished
from PIL import Image

from nestkala import Hasher, PrefixIndex
from nestkala.cli import main
from nestkala.search.shards import encode_folder, read_shards, unreadable
from nestkala.utils.errors import NestKALAError
from reliability.launching import Launch

NAMES = [*(f"day {n % 3}/{n}.png" for n in range(29)), "line\nbreak 'ä' <b>.png", os.fsdecode(b"no \xff text.png")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encode") / "photos"
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 40)).save(path)
    (folder / "day 1" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, noise_model: Path) -> dict[str, str]:
    codes = Hasher.from_pretrained(noise_model, "cpu").encode([photos / name for name in NAMES])
    return {name: code.tobytes().hex() for name, code in zip(NAMES, codes, strict=True)}


def held(shards: list[PrefixIndex]) -> dict[str, str]:
    """{name: code}, each name once."""
    names = [name for shard in shards for name in shard.ids]
    assert len(set(names)) == len(names)
    codes = [code.tobytes().hex() for shard in shards for code in shard.codes]
    return dict(zip(names, codes, strict=True))


@pytest.mark.parametrize("shard_size", [1, 7, 32, 100])
def test_every_image_is_encoded_once(
    photos: Path, expected: dict[str, str], noise_model: Path, tmp_path: Path, shard_size: int
) -> None:
    plan = encode_folder(photos, tmp_path / "out", str(noise_model), shard_size, workers=0)
    shards = list(read_shards(tmp_path / "out"))
    assert (plan.images, len(shards)) == (32, -(-32 // shard_size))
    assert held(shards) == expected
    assert not [*(tmp_path / "out").glob(".writing*")]


def test_what_is_missing_is_done_and_nothing_else(
    photos: Path, expected: dict[str, str], noise_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    encode_folder(photos, out, str(noise_model), 5, workers=0)
    written = {path: path.stat().st_mtime_ns for path in sorted(out.glob("*.index"))}
    gone = list(written)[2::3]
    for path in gone:
        path.unlink()
    unfinished(out / "000002.index")
    with pytest.raises(NestKALAError, match="is not finished: 2 of 7 shards are missing"):
        read_shards(out)
    encode_folder(photos, out, str(noise_model), 5, workers=0)
    assert held(list(read_shards(out))) == expected
    assert all((path.stat().st_mtime_ns == when) == (path not in gone) for path, when in written.items())
    assert not [*out.glob(".writing*")]


@pytest.mark.slow
def test_two_processes_that_are_killed_and_two_that_go_on(photos: Path, noise_model: Path, tmp_path: Path) -> None:
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    for number in range(400):
        os.link(photos / NAMES[number % len(NAMES)], many / f"{number}.png")
    arguments = ["-m", "nestkala.encode", many, out, "--model", noise_model, "--shard-size", 1, "--workers", 0]
    with Launch(2, *arguments, folder=tmp_path / "killed") as launch:
        launch.wait_until(lambda: len([*out.glob("[0-9]*.index")]) >= 10)
        launch.kill()
    assert 10 <= len([*out.glob("[0-9]*.index")]) < 400
    with Launch(2, *arguments, folder=tmp_path / "going on") as launch:
        assert "400 images in 400 shards, 0 unreadable" in launch.done()
    codes = Hasher.from_pretrained(noise_model, "cpu").encode([many / f"{number}.png" for number in range(400)])
    expected = {f"{number}.png": code.tobytes().hex() for number, code in enumerate(codes)}
    assert held(list(read_shards(out))) == expected


def test_one_index_is_made_of_the_shards_and_follows_the_folder(
    photos: Path, expected: dict[str, str], noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "out", tmp_path / "photos.index"
    arguments = ["encode", str(photos), str(out), "--model", str(noise_model), "--shard-size", "6", "--json"]
    assert main(arguments) == 0
    answer: dict[str, object] = {"output": str(out), "images": 32, "unreadable": ["day 1/broken.png"]}
    answer["left_out"] = {"unlisted": {}, "other_formats": {}, "linked_folders": 0, "excluded": {}}
    assert json.loads(capsys.readouterr().out) == answer
    for added in (31, 0):  # made, and made again
        assert main(["index", str(out), str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"index": str(path), "images": 31, "added": added}
        assert held([PrefixIndex.load(path)]) == expected
    part = PrefixIndex.load(path)
    newer, gone = np.zeros((1, 3), np.uint8), [NAMES[0], NAMES[5], NAMES[7]]
    part.remove(gone)
    part.add(newer, gone[:1])
    part.save(tmp_path / "part.index")
    for flag in ("--workers", "--save-every"):
        assert main(["index", str(out), str(tmp_path / "part.index"), flag, "2"]) == 2
        assert "already holds codes: leave out --workers, --save-every and --backend" in capsys.readouterr().err
    assert main(["index", str(out), str(tmp_path / "part.index"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 2
    assert held([PrefixIndex.load(tmp_path / "part.index")]) == expected | {NAMES[0]: "000000"}
    assert main(["index", str(photos), str(path), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)
    assert (changes["added"], changes["changed"], changes["unchanged"]) == ([], [], 31)
    assert main(["search", str(path), str(photos / NAMES[0]), "-k", "1", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert (found["distance"], found["image"]) == (0, NAMES[0])


def test_what_does_not_fit_is_refused(
    photos: Path, noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    encode_folder(photos, out, str(noise_model), 40, workers=0)

    def refused(*args: object) -> str:
        assert main([str(arg) for arg in args]) == 2
        return capsys.readouterr().err

    model = ["--model", noise_model]
    assert "was started with shard size 40, not 41" in refused("encode", photos, out, *model, "--shard-size", 41)
    assert f"was started with folder {photos}, not {other}" in refused("encode", other, out, *model, "--shard-size", 40)
    assert "exists but does not hold encoded images" in refused("encode", photos, photos, *model)
    assert "absent is not a folder" in refused("encode", tmp_path / "absent", tmp_path / "new", *model)
    assert not (tmp_path / "new").exists()
    assert "shard size must be 1 to 2,147,483,647, not 0" in refused("encode", photos, out, *model, "--shard-size", 0)
    assert "leave out --model" in refused("index", out, tmp_path / "photos.index", *model)
    (out / "000000.index").write_bytes((out / "000000.index").read_bytes()[:-1])
    said = refused("index", out, tmp_path / "photos.index")
    assert "000000.index is not a NestKALA index" in said
    assert "delete it and encode again" in said
    plan = json.loads((out / "encoding.json").read_text())
    mistakes = ({"images": "x"}, {"images": -1}, {"shard_size": 0}, {"about": []})
    for wrong in ({}, [], *(plan | mistake for mistake in mistakes)):
        (out / "encoding.json").write_text(json.dumps(wrong))
        assert "does not hold encoded images" in refused("index", out, tmp_path / "photos.index")
    (out / "encoding.json").write_text(json.dumps(plan | {"version": 2}))
    assert "has version 2, expected 1" in refused("index", out, tmp_path / "photos.index")
    assert not (tmp_path / "photos.index").exists()


def test_a_damaged_list_is_noticed(photos: Path, noise_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode_folder(photos, out, str(noise_model), 5, workers=0)
    lines = (out / "images.jsonl").read_text().splitlines(keepends=True)
    (out / "000002.index").unlink()
    for wrong in (lines[:12], [*lines[:11], "{", *lines[12:]], [*lines[:11], lines[10], *lines[12:]], []):
        (out / "images.jsonl").write_text("".join(wrong))
        with pytest.raises(NestKALAError, match=r"images\.jsonl is damaged"):
            encode_folder(photos, out, str(noise_model), 5, workers=0)
    assert not (out / "000002.index").exists()


def test_a_kill_while_listing_and_a_model_that_moved_do_not_matter(
    photos: Path, expected: dict[str, str], noise_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    unfinished(out / "images.jsonl")
    (out / "images.jsonl").write_text('["half')
    encode_folder(photos, out, str(noise_model), 20, workers=0)
    (out / "000001.index").unlink()
    shutil.copytree(noise_model, tmp_path / "moved")
    encode_folder(photos, out, str(tmp_path / "moved"), 20, workers=0)
    shards = list(read_shards(out))
    assert held(shards) == expected
    assert {shard.about["model"] for shard in shards} == {str(noise_model)}


def test_a_shard_holds_many_long_names_that_cannot_be_read(tmp_path: Path) -> None:
    names = [f"{n} {'猫' * 80}.jpg" for n in range(8192)]
    index = PrefixIndex.empty(8, {"unreadable": json.dumps(names)})
    index.save(tmp_path / "000000.index")
    assert unreadable(PrefixIndex.load(tmp_path / "000000.index")) == names


def test_a_folder_without_images_is_refused_and_nothing_kept(noise_model: Path, tmp_path: Path) -> None:
    """As of a disk that is not mounted: the list would be kept for good."""
    (tmp_path / "none").mkdir()
    with pytest.raises(NestKALAError, match=r"none holds no images: is a disk not mounted\?"):
        encode_folder(tmp_path / "none", tmp_path / "out", str(noise_model))
    (tmp_path / "none" / "a.jxl").write_bytes(b"x")
    with pytest.raises(NestKALAError, match=r"none holds no images, only 1 file in unsupported formats \(1 JPEG XL"):
        encode_folder(tmp_path / "none", tmp_path / "out", str(noise_model))
    assert not (tmp_path / "out").exists()
    Image.new("L", (8, 8)).save(tmp_path / "none" / "a.png")
    assert encode_folder(tmp_path / "none", tmp_path / "out", str(noise_model), workers=0).images == 1


def test_a_broken_listing_is_not_kept(
    photos: Path, expected: dict[str, str], noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def failing(folder: Path | int) -> object:
        if not isinstance(folder, int) and Path(folder).name == "day 1":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    message = r"cannot list '.*day 1' \(Input/output error\): nothing was encoded; use --skip-unlisted to skip it"
    with pytest.raises(NestKALAError, match=message):
        encode_folder(photos, tmp_path / "out", str(noise_model), workers=0)
    assert not (tmp_path / "out").exists()
    plan = encode_folder(photos, tmp_path / "some", str(noise_model), workers=0, skip_unlisted=True)
    assert plan.left_out.unlisted == {"day 1": "Input/output error"}
    listed = held(list(read_shards(tmp_path / "some")))
    assert listed == {name: code for name, code in expected.items() if not name.startswith("day 1/")}
    monkeypatch.undo()
    encode_folder(photos, tmp_path / "out", str(noise_model), workers=0)
    assert held(list(read_shards(tmp_path / "out"))) == expected


def test_a_shard_of_images_that_are_all_gone_is_not_written(
    photos: Path, expected: dict[str, str], noise_model: Path, tmp_path: Path
) -> None:
    """As where a disk is not mounted any more: its images would be unreadable for good."""
    shutil.copytree(photos, tmp_path / "mount")
    out = tmp_path / "out"
    encode_folder(tmp_path / "mount", out, str(noise_model), 10, workers=0)
    (out / "000001.index").unlink()
    (tmp_path / "mount").rename(tmp_path / "away")
    (tmp_path / "mount").mkdir()
    with pytest.raises(NestKALAError, match=r"all 10 images of a shard are gone from .*mount, starting with"):
        encode_folder(tmp_path / "mount", out, str(noise_model), 10, workers=0)
    assert not (out / "000001.index").exists()
    (tmp_path / "mount").rmdir()
    (tmp_path / "away").rename(tmp_path / "mount")
    encode_folder(tmp_path / "mount", out, str(noise_model), 10, workers=0)
    assert held(list(read_shards(out))) == expected


def test_what_was_left_out_is_told_by_every_run(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    (folder / "b.cr3").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path)
    (folder / os.fsdecode(b"\xff.png")).symlink_to("nothing")
    command = ["encode", str(folder), str(tmp_path / "out"), "--model", str(noise_model), "--workers", "0"]
    assert main(command) == 2
    assert "cannot list" in capsys.readouterr().err
    for _ in range(2):
        assert main([*command, "--skip-unlisted"]) == 0
        said = capsys.readouterr().out
        assert "warning: cannot list '\\\\udcff.png': No such file or directory" in said
        assert "note: skipped 1 file in unsupported formats (1 raw)" in said
        assert "note: skipped 1 link to folders" in said
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"]["other_formats"] == {"raw": 1}
