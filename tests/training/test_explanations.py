"""What runs say of themselves: codes that say little, names that say nothing, chance, queries, reasons and files."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestkala.analysis.advice import Length, reason, recommend
from nestkala.cli import main
from nestkala.codes import pack
from nestkala.data.class_names import names_in_doubt, says_nothing
from nestkala.evaluation.collapse import Collapse
from nestkala.evaluation.copies import NearCopies
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError
from nestkala.utils.files import check_writable, write_text


def random_signs(number: int, bits: int) -> np.ndarray:
    return np.where(np.random.default_rng(number).random((number, bits)) < 0.5, -1, 1)


@pytest.mark.parametrize("bits", [13, 16, 70])
def test_what_codes_lack_is_found_by_going_through_them(bits: int) -> None:
    signs = random_signs(300, bits)
    signs[:, 4], signs[:, 7], signs[:, 11] = signs[:, 1], -signs[:, 1], 1
    signs[100:200] = signs[:100]
    found = Collapse.of(pack(signs), bits)
    same = [
        (i, j)
        for j in range(bits)
        for i in range(j)
        if (signs[:, i] == signs[:, j]).all() or (signs[:, i] == -signs[:, j]).all()
    ]
    assert found.repeated == {4: 1, 7: 1}
    assert {j for _, j in same} == {4, 7}
    assert found.constant == [11]
    numbers = Counter(map(tuple, signs.tolist()))
    assert found.distinct == len(numbers)
    # The first place of a random order of equal codes is each image's own in 1 of n cases.
    assert found.found_first == pytest.approx(np.mean([1 / numbers[tuple(row)] for row in signs.tolist()]))


def test_only_what_counts_of_a_code_is_looked_at() -> None:
    signs = random_signs(200, 24)
    assert Collapse.of(pack(signs), 4).distinct == len({tuple(row) for row in signs[:, :4].tolist()})


def test_codes_that_lack_nothing_have_no_warning_and_others_have_one_each() -> None:
    signs = random_signs(400, 32)
    assert Collapse.of(pack(signs), 32).warnings() == []
    assert Collapse.of(pack(signs), 6).warnings() == []  # there are no 400 codes of 6 bits
    assert Collapse.of(pack(np.ones((10, 32))), 32).warnings() == []  # too few to tell
    assert Collapse.of(np.empty((0, 4), np.uint8), 32).warnings() == []
    signs[:, 5], signs[:, 9] = -signs[:, 3], 1
    constant, repeated = Collapse.of(pack(signs), 32).warnings()
    assert constant == "warning: 1 of 32 bits are the same in all codes (numbers 9)"
    assert repeated == "warning: 1 of 32 bits repeat or invert another in all codes (5 = 3)"
    few = np.repeat(random_signs(100, 32), 4, axis=0)
    (told,) = Collapse.of(pack(few), 32).warnings()
    assert "400 images have only 100 different codes of 32 bits" in told
    assert "in 0.25 of cases" in told


@pytest.mark.parametrize("name", ["IMG_cars", "class1", "Class 07", "12", "n01440764", "label-3", "new folder 2", "a"])
def test_names_that_say_nothing(name: str) -> None:
    assert says_nothing(name)
    (line,) = names_in_doubt(["cat", name])
    assert line.startswith(f"warning: 1 of 2 class names mean nothing to a text tower ({name!r})")


@pytest.mark.parametrize("name", ["cat", "hot dog", "picture frame", "photo booth", "747 jet", "class room", "beaver"])
def test_names_that_say_something(name: str) -> None:
    assert not says_nothing(name)


def test_data_sets_have_names_that_say_something() -> None:
    from nestkala.data.cifar10 import _CLASSES
    from nestkala.data.digits import load_digits

    assert names_in_doubt([*load_digits().class_names, *_CLASSES]) == []


CURVE = [
    Length(bits, -(-bits // 8), 0.0, quality, ms)
    for bits, quality, ms in [(1, 0.2, 0.1), (8, 0.5, 0.1), (16, 0.6, 0.3), (32, 0.62, 0.9)]
]


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (
            {},
            "It is the shortest length that keeps 0.95 of the best mAP, 0.6200 at 32 bits. "
            "All 32 bits take 4 bytes and reach 0.6200.",
        ),
        (
            {"min_map": 0.4},
            "It is the shortest length with a tie-aware mAP of 0.4 or more. All 32 bits take 4 bytes and reach 0.6200.",
        ),
        (
            {"min_map": 0.4, "max_ms": 0.5},
            "It is the shortest length within 0.5 ms per search with a tie-aware mAP of 0.4 or more. "
            "All 32 bits take 4 bytes and reach 0.6200.",
        ),
        (
            {"max_bytes": 1},
            "It has the best mAP within 1 byte per image; the best of all is 0.6200 at 32 bits. "
            "All 32 bits take 4 bytes and reach 0.6200.",
        ),
        ({"max_bytes": 9, "max_ms": 5}, "It has the best mAP within 5 ms per search and 9 bytes per image."),
    ],
)
def test_advice_has_a_reason(bounds: dict[str, float], why: str) -> None:
    assert reason(CURVE, recommend(CURVE, **bounds), **bounds) == why


def test_advice_says_what_short_codes_cost_where_copies_are_sought() -> None:
    short = Length(8, 1, 0.6, 0.6, 0.1, copy_recall_at_1=0.1, copy_recall_at_10=0.2)
    long = Length(128, 16, 0.5, 0.5, 0.1, copy_recall_at_1=0.9, copy_recall_at_10=1.0)
    assert reason([short, long], short).endswith(
        "of the re-saved copies, 0.9000 find their original first with them, 0.1000 with 8 bits."
    )


def by_hand(run: Path) -> tuple[int, int, float]:
    """Queries, images that are searched, and the share of relevant ones, of a run on class folders."""
    names = json.loads((run / "split.json").read_text())
    kinds = [[Path(name).parent.name for name in names[part]] for part in ("query", "gallery")]
    return len(kinds[0]), len(kinds[1]), float(np.mean([kinds[1].count(kind) / len(kinds[1]) for kind in kinds[0]]))


def test_chance_and_queries_stand_beside_every_score(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries, gallery, chance = by_hand(noise_model)
    line = f"chance level of the mAP: {chance:.4f} ({queries} queries, {gallery} images searched)"
    for command in ("eval", "advise"):
        assert main([command, str(noise_model)]) == 0
        assert line in capsys.readouterr().out.splitlines()
        assert main([command, str(noise_model), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        answer = answer[0] if command == "eval" else answer
        assert (answer["queries"], answer["gallery"]) == (queries, gallery)
        assert answer["chance"] == pytest.approx(chance)
    assert answer["reason"].startswith("It is the shortest length that keeps 0.95 of the best mAP")
    metrics = json.loads((noise_model / "metrics.json").read_text())
    assert (metrics["queries"], metrics["gallery"]) == (queries, gallery)
    assert metrics["chance"] == pytest.approx(chance)
    assert main(["report", str(noise_model), "--output", str(tmp_path / "report")]) == 0
    (figures,) = json.loads((tmp_path / "report" / "report.json").read_text())["runs"]
    assert figures["chance"] == pytest.approx(chance)
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"Chance level of the mAP: {100 * chance:.1f} ({queries} queries)." in page
    assert "precision@100" not in page


def test_precision_at_100_is_left_out_where_there_are_no_100(
    noise_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(noise_model), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {of["precision_at_100"] for of in answer["lengths"]} == {None}
    assert main(["eval", str(noise_model)]) == 0
    assert "precision@100" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def vague(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four pictures, twenty times each, in folders whose names say nothing, and a run on them."""
    folder = tmp_path_factory.mktemp("vague")
    for number in range(80):
        path = folder / "images" / ("class1", "IMG_cars")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number % 4).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    small = {"queries": 4, "shots": 2, "lengths": (4, 20), "epochs": 0, "workers": 0, "cache_gb": 0}
    names = {"class1": "dog", "IMG_cars": "cars"}
    run = train(Config(data=str(folder / "images"), output=folder / "run", class_words=names, **small))
    return folder / "images", run


def test_train_index_and_report_warn(
    vague: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = vague
    metrics = json.loads((run / "metrics.json").read_text())
    assert any("76 images have only 4 different codes of 20 bits" in line for line in metrics["warnings"])
    capsys.readouterr()
    index = str(tmp_path / "photos.index")
    assert main(["index", str(images), index, "--model", str(run), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "80 images have only 4 different codes of 20 bits: an image finds itself first in 0.05 of cases" in shown
    assert "2 of 2 class names mean nothing to a text tower ('IMG_cars', 'class1')" in shown
    assert main(["index", str(images), index, "--workers", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["warnings"]) >= 2
    assert all(line in shown for line in answer["warnings"])
    assert main(["report", str(run), "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Warning: 76 images have only 4 different codes" in page
    assert "class names mean nothing" not in page  # the prompts call them otherwise


def test_train_tells_names_that_say_nothing(
    vague: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--data", str(vague[0]), "--shots", "2", "--queries", "4", "--lengths", "4,20", "--workers", "0"]
    telling = "class names mean nothing to a text tower ('IMG_cars', 'class1')"
    for more, told in (([], True), (["--class-words", "class1", "dog", "IMG_cars", "car"], False)):
        assert main([*given, "--cache-gb", "0", "--output", str(tmp_path / str(told)), *more]) == 0
        assert (telling in capsys.readouterr().out) == told


# Files


def test_what_cannot_be_written_is_told_before_the_work(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestkala.analysis.finished_run.FinishedRun.open", pytest.fail)
    monkeypatch.setattr("nestkala.hasher.Hasher.from_pretrained", pytest.fail)
    (tmp_path / "file").write_text("")
    run, images = str(noise_model), str(noise_model.parent / "images")
    for command in (
        ["advise", run, "--plot", str(tmp_path / "file" / "plot.png")],
        ["export", run, str(tmp_path / "file" / "model.onnx")],
        ["index", images, str(tmp_path / "file" / "photos.index"), "--model", run],
        ["report", run, "--output", str(tmp_path / "file")],
    ):
        assert main(command) == 2
        told = capsys.readouterr().err
        assert f"{tmp_path / 'file'} is not a folder" in told
        assert told.count("\n") == 1


def test_a_file_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "there.txt", "before")
    check_writable(tmp_path / "there.txt")
    check_writable(tmp_path / "new" / "folder" / "file.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]
    assert (tmp_path / "there.txt").read_text() == "before"
    with pytest.raises(NestKALAError, match="is a folder: give a file"):
        check_writable(tmp_path)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(NestKALAError, match="circle"):
        check_writable(tmp_path / "circle")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NestKALAError, match="is a device or a pipe"):
        check_writable(tmp_path / "pipe")


def test_a_folder_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # the superuser may write everywhere
    with pytest.raises(NestKALAError, match="is not writable"):
        check_writable(tmp_path / "new" / "file.txt")


def test_the_plot_is_named_and_json_stays_clean(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    assert main(["advise", str(noise_model), "--plot", str(plot)]) == 0
    assert f"plot: {plot}" in capsys.readouterr().out.splitlines()
    assert main(["advise", str(noise_model), "--plot", str(plot), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plot"] == str(plot)


# Near copies


def test_near_copies_are_made_once(noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nestkala.backbones import load_backbone
    from nestkala.data import load_dataset
    from nestkala.evaluation import copies
    from nestkala.tokens.cache import TokenCache
    from nestkala.tokens.source import TokenSource

    made: list[str] = []

    def counted(data: bytes, name: str) -> bytes:
        made.append(name)
        return original(data, name)

    original = copies.near_copy
    monkeypatch.setattr(copies, "near_copy", counted)
    dataset = load_dataset(str(noise_model.parent / "images"), tmp_path)
    backbone = load_backbone("tiny", 1)

    def tokens(cache: TokenCache | None) -> np.ndarray:
        source = TokenSource(backbone, "fp32", 4, 0, cache)
        return np.concatenate([batch.float().numpy() for batch in source.batches(NearCopies(dataset), [3, 0, 5])])

    first = tokens(TokenCache(tmp_path, "k", 1e9))
    again, plain = tokens(TokenCache(tmp_path, "k", 1e9)), tokens(None)
    assert len(made) == 6  # three for the cache, three without one
    assert (first == again).all()
    np.testing.assert_allclose(first, plain, atol=1e-2)
    whole = TokenSource(backbone, "fp32", 4, 0, TokenCache(tmp_path, "k", 1e9))
    images = np.concatenate([batch.float().numpy() for batch in whole.batches(dataset, [3, 0, 5])])
    assert not np.allclose(images, first, atol=1e-2)  # the originals have tokens of their own
