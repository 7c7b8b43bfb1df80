"""Indexes of folders that are moved, of several folders, and with patterns: through the commands."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.cli import main
from nestkala.index import PrefixIndex
from nestkala.search.places import ImageFolders, folders_of
from nestkala.utils.errors import NestKALAError


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(path)


@pytest.fixture
def home(tmp_path: Path, noise_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two folders of images, photos and family, and an index of the first."""
    home = tmp_path / "home"
    for number in range(8):
        draw(home / "photos" / f"{2019 + number % 2}" / f"{number}.png", number)
    for number in range(6):
        draw(home / "family" / "2019" / f"{number}.png", 100 + number)
    monkeypatch.chdir(home)
    assert main(["index", "photos", "--model", str(noise_model)]) == 0
    return home


def told(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, object]:
    capsys.readouterr()
    assert main([*map(str, args), "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert main([*map(str, args)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def codes_of(where: Path | str) -> dict[str, list[int]]:
    index = PrefixIndex.load(where)
    return dict(zip(index.ids, index.codes.tolist(), strict=True))


def test_an_index_and_its_folder_can_be_moved_together(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = home.rename(home.with_name("elsewhere"))
    os.chdir(moved)
    answer = told(capsys, "index", "photos")
    assert (answer["unchanged"], answer["added"]) == (8, [])
    assert main(["search", "photos", "2019/0.png", "--html", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 9
    assert f"{moved.as_uri()}/photos/2019/0.png" in page


def test_an_index_that_is_moved_alone_finds_its_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "a" / "b").mkdir(parents=True)
    Path("photos.index").rename("a/b/c.index")
    assert told(capsys, "index", "a/b/c.index")["unchanged"] == 8


def test_a_missing_folder_is_told_with_advice(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").rename("pictures")
    for command in (
        ["index", "photos.index"],
        ["search", "photos.index", "2019/0.png", "--html", "page.html"],
        ["duplicates", "photos.index", "--html", "page.html"],
        ["serve", "photos.index"],
    ):
        line = refused(capsys, *command)
        assert f"the image folder {home}/photos of photos.index does not exist" in line
        assert line.endswith("give its location with --root FOLDER")
    assert not Path("page.html").exists()
    assert len(told(capsys, "search", "photos.index", "2019/0.png")["results"]) == 8  # type: ignore[arg-type]
    assert "--root pictures" in refused(capsys, "index", "pictures", "photos.index")
    assert "is not a folder" in refused(capsys, "index", "photos.index", "--root", "absent")


def test_root_says_where_a_folder_is_and_an_update_remembers_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").rename("pictures")
    page = told(capsys, "search", "photos.index", "2019/0.png", "--html", "page.html", "--root", "pictures")["html"]
    assert Path(str(page)).read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 9
    draw(home / "pictures" / "new.png", 50)
    answer = told(capsys, "index", "photos.index", "--root", "pictures")
    assert (answer["added"], answer["unchanged"]) == (["new.png"], 8)
    assert told(capsys, "index", "photos.index")["unchanged"] == 9
    assert told(capsys, "index", "pictures", "photos.index")["unchanged"] == 9


def test_an_index_of_an_earlier_version_works(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = PrefixIndex.load("photos.index")
    index.about = {key: said for key, said in index.about.items() if key != "near"}
    index.save("photos.index")
    assert folders_of(index, "photos.index").file("a/b.png") == home / "photos" / "a" / "b.png"
    assert told(capsys, "index", "photos")["unchanged"] == 8
    assert PrefixIndex.load("photos.index").about["near"] == "photos"


@pytest.mark.parametrize("several", [["photos", "family", "--index", "all.index"], ["photos", "family", "all.index"]])
def test_an_index_of_several_folders(
    home: Path, noise_model: Path, several: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = told(capsys, "index", *several, "--model", noise_model)
    assert answer["images"] == 14
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    codes = codes_of("all.index")
    assert sorted(codes) == sorted(
        path.relative_to(home).as_posix()
        for folder in ("photos", "family")
        for path in Path(home, folder).rglob("*.png")
    )
    for name in ("photos/2019/0.png", "family/2019/3.png"):
        assert codes[name] == hasher.encode([home / name] * 3)[1].tolist()
    (found,) = told(capsys, "search", "all.index", "family/2019/3.png", "-k", 1)["results"]  # type: ignore[misc]
    assert found["image"] == "family/2019/3.png"  # type: ignore[index]
    # an update of one of them leaves the other alone
    shutil.rmtree("photos/2019")
    draw(home / "family" / "new.png", 200)
    answer = told(capsys, "index", "family", "all.index")
    assert (answer["added"], answer["removed"], answer["images"]) == (["family/new.png"], [], 15)
    moved = home.rename(home.with_name("elsewhere"))
    os.chdir(moved)
    answer = told(capsys, "index", "all.index")
    assert len(answer["removed"]) == 4  # type: ignore[arg-type]


def test_a_folder_joins_an_index_and_nothing_is_encoded_again(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = codes_of("photos.index")
    encoded: list[str] = []
    encode = Hasher.encode

    def noted(self: Hasher, images: list[Path], **options: int) -> np.ndarray:
        encoded.extend(map(str, images))
        return encode(self, images, **options)

    monkeypatch.setattr(Hasher, "encode", noted)
    answer = told(capsys, "index", "photos", "family", "photos.index")
    assert (answer["unchanged"], answer["images"]) == (8, 14)
    assert sorted(encoded) == sorted(map(str, (home / "family").rglob("*.png")))
    after = codes_of("photos.index")
    assert {name: after[f"photos/{name}"] for name in before} == before


def test_a_missing_folder_of_several_removes_nothing(
    home: Path, noise_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "index", "photos", "family", "all.index", "--model", noise_model)
    for path in (home / "family").rglob("*.png"):
        path.unlink()
    assert f"6 of 6 indexed images are no longer in {home}/family" in refused(capsys, "index", "all.index")
    shutil.rmtree("family")
    assert refused(capsys, "index", "all.index").endswith("give its location with --root family=FOLDER")
    draw(home / "kin" / "2019" / "0.png", 100)
    line = refused(capsys, "index", "all.index", "--root", "relatives=kin")
    assert "unknown folder for --root, which takes NAME=FOLDER: 'relatives'" in line
    assert len(codes_of("all.index")) == 14
    answer = told(capsys, "index", "all.index", "--root", "family=kin", "--allow-removal")
    assert (answer["changed"], answer["images"]) == (["family/2019/0.png"], 9)


def test_folders_that_cannot_be_told_apart_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(home / "other" / "photos" / "1.png", 1)
    assert "two folders are named 'photos'" in refused(capsys, "index", "photos", "other/photos", "all.index")
    assert "one is inside the other" in refused(capsys, "index", "photos", "photos/2019", "all.index")
    assert "name their index with --index FILE" in refused(capsys, "index", "photos", "family")
    assert "is an index of" in refused(capsys, "index", "family", "photos.index")
    assert not Path("all.index").exists()


def test_ids_lead_to_no_file_elsewhere(tmp_path: Path) -> None:
    several = ImageFolders({"a": tmp_path / "a", "b": tmp_path / "c"})
    assert several.file("b/1.png") == tmp_path / "c" / "1.png"
    for name in ("1.png", "c/1.png", "a", "a/", "../a/1.png", "a/../../1.png", "/a/1.png"):
        assert several.file(name) is None, name
    with pytest.raises(NestKALAError, match="its list of folders is damaged"):
        folders_of(PrefixIndex.empty(8, {"folders": '{"a": 3}'}))


@pytest.mark.usefixtures("home")
def test_patterns_are_remembered_until_others_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    answer = told(capsys, "index", "photos", "--exclude", "/2019/", "--exclude", "1.png")
    assert answer["left_out"]["excluded"] == {"folders": 1, "images": 1}  # type: ignore[index]
    assert answer["images"] == 3
    assert told(capsys, "index", "photos")["images"] == 3
    assert told(capsys, "index", "photos", "--exclude", "/2020/")["images"] == 4
    Path("photos/.nestkalaignore").write_text("0.png\n")
    assert told(capsys, "index", "photos")["images"] == 3
    assert told(capsys, "index", "photos", "--exclude", "")["images"] == 7
    assert told(capsys, "index", "photos")["images"] == 7
    assert "not a valid pattern in .gitignore syntax: '!'" in refused(capsys, "index", "photos", "--exclude", "!")
