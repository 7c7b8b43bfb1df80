"""`nestkala index` and `nestkala search`, from a folder of images to rankings and a page of thumbnails."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.cli import main
from nestkala.codes import hamming, unpack
from nestkala.index import PrefixIndex

MARKUP = "<b onload='x'>&amp; ä.png"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, name in enumerate([*(f"{n}.png" for n in range(15)), f"sub/{MARKUP}"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((50, 30)).save(path)
    return folder


@pytest.fixture
def index(photos: Path, noise_model: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = photos.with_name("photos.index")
    assert main(["index", str(photos), str(path), "--model", str(noise_model)]) == 0
    assert "16 images, 20 bits each; 16 added, 0 changed, 0 removed, 0 unreadable" in capsys.readouterr().out
    return path


def searched(capsys: pytest.CaptureFixture[str], *args: object) -> list[dict[str, object]]:
    assert main(["search", *map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["results"]


@pytest.mark.parametrize("bits", [None, 1, 7, 20])
def test_search_ranks_as_the_hamming_distances_of_the_models_codes(
    index: Path, photos: Path, noise_model: Path, bits: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--bits", bits] if bits else []
    results = searched(capsys, index, photos / "3.png", "-k", 16, *asked)
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    names = [str(found["image"]) for found in results]
    codes = hasher.encode([photos / name for name in names])
    expected = hamming(hasher.encode(photos / "3.png"), codes, bits or 20)[0].tolist()
    assert [found["distance"] for found in results] == expected == sorted(expected)
    assert sorted(names) == sorted([*(f"{n}.png" for n in range(15)), f"sub/{MARKUP}"])


def test_coarse_to_fine_and_rescoring_reach_the_index(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = searched(capsys, index, photos / "3.png", "-k", 4)
    assert searched(capsys, index, photos / "3.png", "-k", 4, "--bits", 2, "--shortlist", 16) == whole
    rescored = searched(capsys, index, photos / "3.png", "-k", 4, "--rescore")
    assert (rescored[0]["distance"], rescored[0]["image"]) == (0.0, "3.png")
    assert all(found["distance"] < 20 and found["distance"] % 1 for found in rescored[1:])


def test_radius_finds_all_within_a_distance(index: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = searched(capsys, index, photos / "3.png", "-k", 16, "--bits", 9)
    within = searched(capsys, index, photos / "3.png", "--radius", 3, "--bits", 9)
    assert within == [found for found in everything if int(str(found["distance"])) <= 3]
    assert 0 < len(within) < 16


def test_the_table_shows_place_distance_and_image(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = searched(capsys, index, photos / "0.png", "-k", 3)
    assert main(["search", str(index), str(photos / "0.png"), "-k", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    for row, (n, result) in zip(rows, enumerate(results, start=1), strict=True):
        date = str(result["date"]).replace("T", " ")[:16].split()
        similarity = f"{result['similarity']:.2f}", "%"
        assert row == [str(n), str(result["distance"]), *similarity, *date, *str(result["image"]).split()]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_holds_thumbnails_and_names_as_text_and_loads_nothing(
    index: Path, photos: Path, tmp_path: Path
) -> None:
    query = tmp_path / "<i>query.png"
    shutil.copy(photos / "3.png", query)
    (photos / "5.png").write_bytes(b"no image any more")
    page_file = tmp_path / "out.html"
    assert main(["search", str(index), str(query), "-k", "16", "--bits", "9", "--html", str(page_file)]) == 0
    text = page_file.read_text(encoding="utf-8")
    page = Page(text)
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 17
    assert sum(picture.startswith("data:image/jpeg;base64,") for picture in pictures) == 16
    assert {tag for tag, _ in page.tags} <= {
        *("html", "meta", "title", "style", "header", "img", "div", "h1", "p", "ol", "li"),
        *("figure", "figcaption", "span", "a"),
    }
    links = [unquote(str(attributes["href"])) for tag, attributes in page.tags if tag == "a"]
    assert f"file://{photos}/sub/{MARKUP}" in links
    assert len(links) == 16
    assert f"sub/{MARKUP}" in page.texts
    assert "<i>query.png" in page.texts
    assert any("the first 9 of 20 bits" in said for said in page.texts)
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", text)


def test_an_index_is_brought_up_to_date_by_the_model_that_it_knows(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "1.png").unlink()
    (photos / "broken.jpg").write_bytes(b"")
    assert main(["index", str(photos), str(index), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (doubt,) = said.pop("warnings")
    assert "class names mean nothing to a text tower ('a', 'b')" in doubt
    assert said == {
        **{"index": str(index), "images": 15, "added": [], "changed": [], "removed": ["1.png"]},
        **{"unchanged": 15, "broken": ["broken.jpg"]},
        "left_out": {"unlisted": {}, "other_formats": {}, "linked_folders": 0, "excluded": {}},
    }
    assert "1.png" not in set(PrefixIndex.load(index).ids)


def test_a_model_that_moved_is_named_and_another_is_refused(
    index: Path, photos: Path, noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(noise_model, moved)
    expected = searched(capsys, index, photos / "0.png")
    assert searched(capsys, index, photos / "0.png", "--model", moved) == expected
    text = (moved / "model.json").read_text().replace('"rank": 1', '"rank": 1 ')
    (moved / "model.json").write_text(text)
    assert main(["search", str(index), str(photos / "0.png"), "--model", str(moved)]) == 2
    assert "the index was made with a different model than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["search", "INDEX", "PHOTOS/0.png", "--bits", "21"], "bits must be a whole number from 1 to 20"),
        (["search", "INDEX", "PHOTOS/absent.png"], "cannot read image"),
        (["search", "PHOTOS/0.png", "PHOTOS/0.png"], "0.png is not a NestKALA index"),
        (["search", "absent.index", "PHOTOS/0.png"], "there is no index absent.index"),
        (["search", "INDEX", "PHOTOS/0.png", "--html", "."], "is a folder: give a file"),
        (["search", "INDEX", "--text", " "], "--text is empty"),
        (["serve", "INDEX", "--port", "65536"], "port must be 0 (any free port) to 65535, not 65536"),
        (["serve", "INDEX", "--host", "no.such.host.invalid"], ""),
        (["search", "absent.db", "PHOTOS/0.png"], "there is no index absent.db"),
        (["search", "INDEX"], "give an image or a sentence to search for"),
        (["search", "INDEX", " "], "a query is empty"),
        (["search", "INDEX", "PHOTOS"], "is a folder: search for an image"),
        (["search", "PHOTOS/sub", "PHOTOS/0.png"], "is a folder without an index"),
        (["search", "INDEX", "a dog", "--rescore"], "leave it out for sentences"),
        (["search", "INDEX", "3.png", "--not", "4.png", "--bits", "4"], "leave out --bits, --radius and --rescore"),
        (["search", "INDEX", "3.png", "--not", "absent.png"], "cannot read image"),
        (["duplicates", "INDEX", "--max-distance", "20"], "--max-distance must be 0 to 19, not 20"),
        (["duplicates", "PHOTOS/sub"], "is a folder without an index"),
        (["duplicates", "absent.index"], "there is no index absent.index"),
        (["classify", "MODEL"], "give an image or a folder of images"),
        (["classify", "MODEL", "PHOTOS/empty"], "no images in"),
        (["classify", "MODEL", "PHOTOS/0.png", "--top", "0"], "--top must be 1 or more, not 0"),
        (["classify", "MODEL", "PHOTOS/0.png", "--min-probability", "2"], "--min-probability must be 0 to 1, not 2"),
        (["classify", "MODEL", "PHOTOS/0.png", "--top", "2", "--bits", "4"], "leave out --top and --min-probability"),
        (["search", "INDEX", "--text", "a dog", "--rescore"], "leave it out with --text"),
        (["search", "INDEX", "PHOTOS/0.png", "--radius", "2", "-k", "5"], "leave out --k, --shortlist and --rescore"),
        (["search", "INDEX", "PHOTOS/0.png", "--shortlist", "50"], "say how many with --bits"),
        (["classify", "PHOTOS", "PHOTOS/0.png"], "photos contains no trained model: there is no model.json"),
        (["classify", "MODEL", "PHOTOS/absent.png"], "cannot read image"),
        (["index", "PHOTOS/empty", "new.index"], "holds no images: there is nothing to fit codes to"),
        (["index", "PHOTOS/sub", "INDEX"], "is an index of"),
        (["index", "PHOTOS", "INDEX", "--workers", "-1"], "workers must be 0 or more, not -1"),
        (["index", "PHOTOS/absent", "new.index", "--model", "MODEL"], "photos/absent is not a folder"),
    ],
)
def test_mistakes_are_told_in_a_line(
    index: Path, photos: Path, noise_model: Path, args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"INDEX": str(index), "PHOTOS": str(photos), "MODEL": str(noise_model)}
    (photos / "empty").mkdir()
    assert main([re.sub("INDEX|PHOTOS|MODEL", lambda name: places[name[0]], arg) for arg in args]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.startswith("error: ")
    assert "\n" not in error


def test_names_that_do_not_print_are_shown_by_their_codes(
    photos: Path, noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"no \xff\n\x1b[31m.png")
    (photos / "3.png").rename(photos / odd)
    index = str(tmp_path / "odd.index")
    assert main(["index", str(photos), index, "--model", str(noise_model)]) == 0
    assert main(["search", index, str(photos / odd), "-k", "1"]) == 0
    assert "no \\udcff\\n\\x1b[31m.png" in capsys.readouterr().out
    assert searched(capsys, index, photos / odd, "-k", 1)[0]["image"] == odd
    assert main(["classify", str(noise_model), str(photos / odd)]) == 0
    assert "\\udcff\\n\\x1b[31m.png" in capsys.readouterr().out


def test_who_reads_the_output_may_stop(index: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "nestkala", "search", str(index), str(photos / "0.png"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr is not None
        assert b"rror" not in process.stderr.read()


def test_a_sentence_finds_what_its_code_is_nearest_to(
    index: Path, photos: Path, noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "a photo of a dog."
    results = searched(capsys, index, "--text", said, "-k", 16, "--bits", 9)
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    codes = hasher.encode([photos / str(found["image"]) for found in results])
    expected = hamming(hasher.encode_text(said), codes, 9)[0].tolist()
    assert [found["distance"] for found in results] == expected == sorted(expected)
    out = tmp_path / "out.html"
    assert main(["search", str(index), "--text", said, "-k", "2", "--html", str(out)]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert said in page.texts
    assert sum(tag == "img" for tag, _ in page.tags) == 2


def test_images_are_classified_by_codes(photos: Path, noise_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(photos / f"{n}.png") for n in range(4)]
    expected = dict(zip(paths, Hasher.from_pretrained(noise_model, "cpu").classify(paths, 7), strict=True))
    assert main(["classify", str(noise_model), *paths, "--bits", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["classify", str(noise_model), *paths, "--bits", "7"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [list(row) for row in expected.items()]


def test_classes_come_with_probabilities(photos: Path, noise_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    below = sorted(photos.rglob("*.png"))
    products = hasher.relaxed(below) @ unpack(hasher.class_codes(), 20).T.astype(np.float32)  # (16, 2)
    exact = np.exp(products / 2) / np.exp(products / 2).sum(axis=1, keepdims=True)
    assert main(["classify", str(noise_model), str(photos), "--top", "5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [str(path) for path in sorted(below, key=lambda path: (path.parent != photos, path.name))]
    for path, row in zip(below, exact, strict=True):
        ranked = said[str(path)]
        assert [each["class"] for each in ranked] == [hasher.class_names[place] for place in np.argsort(-row)]
        assert [each["probability"] for each in ranked] == pytest.approx(sorted(row, reverse=True), abs=1e-5)
    assert main(["classify", str(noise_model), str(below[0]), "--min-probability", "1"]) == 0
    assert "(none of the classes)" in capsys.readouterr().out


def test_broken_files_are_left_out_of_classes_and_counted(
    photos: Path, noise_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "5.png").write_bytes(b"no image")
    (photos / "6.png").write_bytes(b"")
    assert main(["classify", str(noise_model), str(photos), str(photos / "absent.png"), "--json"]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 14
    assert "note: skipped 3 of 17 images, which cannot be read" in told.err
    assert told.err.count("warning: ") == 3


def test_several_queries_are_answered_one_after_the_other(
    index: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [searched(capsys, index, said, "-k", 3) for said in (photos / "3.png", "a photo of a dog.", "7.png")]
    page_file = tmp_path / "out.html"
    args = [photos / "3.png", "a photo of a dog.", "7.png", "-k", 3]
    assert main(["search", *map(str, [index, *args]), "--json", "--html", str(page_file)]) == 0
    together = json.loads(capsys.readouterr().out)
    assert [each["results"] for each in together] == alone
    page = Page(page_file.read_text(encoding="utf-8"))
    assert sum(tag == "img" for tag, _ in page.tags) == 2 + 9
    assert sum(tag == "h1" for tag, _ in page.tags) == 3
    assert main(["search", *map(str, [index, *args])]) == 0
    assert "\na photo of a dog.\n" in capsys.readouterr().out


def test_an_image_of_the_index_asks_by_its_code_when_its_file_is_gone(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = searched(capsys, index, photos / "3.png")
    (photos / "3.png").unlink()
    assert searched(capsys, index, "3.png") == expected
    (found,) = searched(capsys, index, f"sub/{MARKUP}", "-k", 1)
    assert (found["distance"], found["image"]) == (0, f"sub/{MARKUP}")


def test_like_this_and_that_but_not_that(
    index: Path, photos: Path, noise_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = searched(capsys, index, "3.png", "--also", photos / "4.png", "--not", "5.png", "-k", 16)
    names = [str(each["image"]) for each in results]
    assert len(set(names)) == 16
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    codes = {name: unpack(hasher.encode(photos / name), 20)[0].astype(float) for name in names}
    mixed = codes["3.png"] + codes["4.png"] - codes["5.png"] / 2
    products = [float(mixed @ codes[name]) for name in names]
    assert products == sorted(products, reverse=True)
    assert [each["distance"] for each in results] == pytest.approx([(np.abs(mixed).sum() - p) / 2 for p in products])


def test_duplicates_are_grouped(index: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for copy in ("copy.png", "sub/copy.png"):
        shutil.copy(photos / "3.png", photos / copy)
    shutil.copy(photos / "4.png", photos / "4 again.png")
    assert main(["index", str(photos), str(index)]) == 0
    capsys.readouterr()
    page_file = tmp_path / "out.html"
    assert main(["duplicates", str(index), "--max-distance", "0", "--json", "--html", str(page_file)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        **{"bits": 20, "max_distance": 0, "html": str(page_file)},
        "groups": [["3.png", "copy.png", "sub/copy.png"], ["4 again.png", "4.png"]],
    }
    page = Page(page_file.read_text(encoding="utf-8"))
    assert sum(tag == "img" for tag, _ in page.tags) == 5
    assert main(["duplicates", str(index), "--max-distance", "0"]) == 0
    assert "5 of 19 images in 2 groups, within 0 of 20 bits" in capsys.readouterr().out


def test_an_update_of_an_empty_folder_changes_nothing_unasked(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = index.read_bytes()
    for path in photos.rglob("*.png"):
        path.unlink()
    capsys.readouterr()
    assert main(["index", str(photos), str(index)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 16 of 16 indexed images are no longer in")
    assert "--allow-removal" in line
    assert index.read_bytes() == before
    assert main(["index", str(photos), str(index), "--allow-removal"]) == 0
    assert "0 images, 20 bits each; 0 added, 0 changed, 16 removed" in capsys.readouterr().out


def test_an_update_says_what_it_left_out(index: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "a.nef").write_bytes(b"x")
    (photos / "far.png").symlink_to("nothing")
    capsys.readouterr()
    assert main(["index", str(photos), str(index)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "warning: cannot list 'far.png': No such file or directory" in said
    assert "note: images that cannot be listed stay in the index" in said
    assert "note: skipped 1 file in unsupported formats (1 raw)" in said


def test_searches_are_narrowed_by_folder_and_date(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(photos / "4.png", ns=(0, 1_715_949_000 * 10**9))  # in May 2024, everywhere on Earth
    assert main(["index", str(photos), str(index)]) == 0
    capsys.readouterr()
    everything = searched(capsys, index, photos / "3.png", "-k", 16)
    in_may = searched(capsys, index, photos / "3.png", "--where", "date>=2024-05", "--where", "date<=2024-05")
    assert [each["image"] for each in in_may] == ["4.png"]
    assert str(in_may[0]["date"]).startswith("2024-05-17T")
    assert in_may == [each for each in everything if each["image"] == "4.png"]
    in_sub = ["--where", "folder=sub"]
    assert [each["image"] for each in searched(capsys, index, photos / "3.png", *in_sub)] == [f"sub/{MARKUP}"]
    assert [each["image"] for each in searched(capsys, index, "3.png", "--not", "4.png", *in_sub)] == [f"sub/{MARKUP}"]
    assert [each["image"] for each in searched(capsys, index, "3.png", "--radius", 20, *in_sub)] == [f"sub/{MARKUP}"]
    assert searched(capsys, index, "a photo of a dog.", "--where", "date<2024") == []
    assert main(["search", str(index), "3.png", "--where", "date<2024"]) == 0
    assert capsys.readouterr().out == "nothing matches\n"


def test_only_what_is_nearer_than_chance(index: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for copy in ("copy.png", "sub/copy.png"):
        shutil.copy(photos / "3.png", photos / copy)
    assert main(["index", str(photos), str(index)]) == 0
    capsys.readouterr()
    everything = searched(capsys, index, photos / "3.png", "-k", 18)
    relevant = searched(capsys, index, photos / "3.png", "-k", 18, "--relevant")
    assert relevant == everything[: len(relevant)]
    assert {"3.png", "copy.png", "sub/copy.png"} <= {each["image"] for each in relevant}
    assert len(relevant) < 18
    similarities = [float(str(each["similarity"])) for each in everything]
    assert similarities == sorted(similarities, reverse=True)
    assert main(["search", str(index), "a photo of a dog.", "--relevant"]) == 0
    assert capsys.readouterr().out == "nothing matches\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", ""), ("NO_COLOR", "1"), ("TERM", "dumb")])
def test_names_open_their_files_in_a_terminal(
    index: Path, photos: Path, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["search", str(index), "3.png", "-k", "1"]) == 0
    shown = sys.stdout.getvalue().splitlines()[2]  # type: ignore[attr-defined]
    link = f"\x1b]8;;{(photos / '3.png').as_uri()}\x1b\\3.png\x1b]8;;\x1b\\"
    assert shown.endswith("3.png" if value else link)
    assert ("\x1b" in shown) == (not value)
