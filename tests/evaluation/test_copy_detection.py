"""Near copies and how often they find their originals, against orders gone through one by one; in runs and commands."""

import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from nestkala import Hasher
from nestkala.cli import main
from nestkala.codes import pack, unpack
from nestkala.data import ImageDataset, load_dataset
from nestkala.data.features import FeatureDataset
from nestkala.evaluation import copies as copy_detection
from nestkala.evaluation.copies import copy_recall, draw_originals, near_copy
from nestkala.settings.config import Config
from nestkala.training.metrics_file import load_metrics
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError

BOTH = ("copy_recall_at_1", "copy_recall_at_10")


def png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def test_a_near_copy_is_the_middle_of_its_image_smaller_and_worse() -> None:
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    data = png(np.stack([x, 2 * y, np.zeros_like(x)], axis=2))  # the color tells the place
    copy = opened(near_copy(data, "a"))
    assert (copy.format, copy.mode, copy.size) == ("JPEG", "RGB", (127, 63))  # 3/4 of 170 and 85, rounded down
    pixels = np.asarray(copy).astype(int)
    for row, column, place in ((2, 2, (23, 8)), (60, 124, (187, 87)), (31, 63, (105, 47))):
        assert abs(pixels[row, column, 0] - place[0]) < 12
        assert abs(pixels[row, column, 1] - 2 * place[1]) < 12
    half = BytesIO()
    Image.new("RGB", (8, 8)).save(half, "JPEG", quality=50)
    assert copy.quantization == opened(half.getvalue()).quantization  # type: ignore[attr-defined]
    assert near_copy(data, "a") == near_copy(data, "a")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((3, 2), (1, 1)), ((8, 8), (5, 5)), ((1, 40), (1, 25)), ((150_000, 1), None)],
)
def test_images_of_any_size_have_near_copies(size: tuple[int, int], expected: tuple[int, int] | None) -> None:
    found = opened(near_copy(png(np.full((size[1], size[0]), 200)), "a"))
    assert found.size == (expected or (65_500, 1))
    assert abs(int(np.asarray(found).mean()) - 200) < 4


def test_what_cannot_be_decoded_is_named() -> None:
    with pytest.raises(NestKALAError, match=r"cannot decode image 'b\.png'"):
        near_copy(b"nothing", "b.png")


def ranks(copy: np.ndarray, gallery: np.ndarray, original: int) -> Iterator[int]:
    """The original's place, from 0, in every order of the gallery that is sorted by distance, of codes in +-1."""
    distances = (gallery != copy).sum(axis=1)
    for order in permutations(range(len(gallery))):
        yield sorted(order, key=lambda item: distances[item]).index(original)


@pytest.mark.parametrize("seed", range(5))
def test_recall_is_that_of_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = rng.choice([-1, 1], (6, 11))
    gallery[3] = gallery[0]  # an image that is there twice
    originals = np.array([0, 5, 3, 2])
    copies = np.where(rng.random((4, 11)) < 0.2, -1, 1) * gallery[originals]
    found = copy_recall(pack(copies), pack(gallery), originals, (9, 2, 11))
    assert list(found) == [9, 2, 11]
    for bits, recall in found.items():
        first = [
            np.mean([rank == 0 for rank in ranks(copy[:bits], gallery[:, :bits], original)])
            for copy, original in zip(copies, originals, strict=True)
        ]
        assert recall.at_1 == pytest.approx(np.mean(first))
        assert recall.at_10 == pytest.approx(1)  # of six


def slow_recall(copies: np.ndarray, gallery: np.ndarray, originals: np.ndarray, places: int) -> float:
    """The same by the places that the original takes among those of its distance, each as likely, of codes in +-1."""
    shares = []
    for copy, original in zip(copies, originals, strict=True):
        distances = (gallery != copy).sum(axis=1).tolist()
        nearer = sum(distance < distances[original] for distance in distances)
        taken = range(nearer, nearer + distances.count(distances[original]))
        shares.append(np.mean([place < places for place in taken]))
    return float(np.mean(shares))


def test_recall_among_ten_of_many_ties() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.choice([-1, 1], (300, 70))
    originals = rng.choice(300, 40, replace=False)
    copies = np.where(rng.random((40, 70)) < 0.1, -1, 1) * gallery[originals]
    found = copy_recall(pack(copies), pack(gallery), originals, range(1, 71))
    for bits, recall in found.items():
        for places, value in ((1, recall.at_1), (10, recall.at_10)):
            assert value == pytest.approx(slow_recall(copies[:, :bits], gallery[:, :bits], originals, places))
    assert found[1].at_10 < 0.2
    assert 0.9 < found[70].at_1 <= found[70].at_10 <= 1


def test_one_code_for_all_finds_by_chance() -> None:
    same = np.zeros((40, 2), np.uint8)
    found = copy_recall(same[:5], same, np.arange(5), (16,))[16]
    assert (found.at_1, found.at_10) == pytest.approx((1 / 40, 10 / 40))


@pytest.mark.parametrize(
    ("originals", "said"),
    [
        ([0, 4], "got position 4, but the gallery has 4 images"),
        ([-1, 0], "got position -1"),
        ([0], "need the positions of 2 images"),
        ([0.0, 1.0], "got float64"),
    ],
)
def test_places_that_are_not_in_the_gallery_are_told(originals: list[float], said: str) -> None:
    codes = np.zeros((4, 1), np.uint8)
    with pytest.raises(NestKALAError, match=said):
        copy_recall(codes[:2], codes, np.array(originals), (8,))


def test_originals_are_drawn_by_the_protocols_seed() -> None:
    digits = load_dataset("digits", Path())
    gallery = np.arange(1797)
    drawn = draw_originals(digits, gallery, 0)
    assert len(set(drawn.tolist())) == 400
    assert drawn.tolist() == sorted(drawn.tolist())
    assert 0 <= drawn[0] < drawn[-1] < 1797
    assert abs(drawn.mean() - 898) < 5 * 1797 / np.sqrt(12 * 400)  # of the whole gallery
    assert draw_originals(digits, gallery, 0).tolist() == drawn.tolist()
    assert draw_originals(digits, gallery, 1).tolist() != drawn.tolist()
    assert draw_originals(digits, gallery[:37], 0).tolist() == list(range(37))
    assert not len(draw_originals(digits, gallery[:1], 0))
    features = FeatureDataset(
        names=["a", "b"], targets=np.eye(2, dtype=bool), class_names=("a", "b"), features=np.eye(2)
    )
    assert not len(draw_originals(features, gallery[:2], 0))


SMALL = {"lengths": (4, 12, 20), "shots": 2, "epochs": 1, "batch_size": 4, "queries_per_class": 3, "workers": 0}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 digits as a class-folder tree, one of them twice."""
    folder = tmp_path_factory.mktemp("digits") / "images"
    dataset = load_dataset("digits", Path())
    for index in range(90):
        path = folder / dataset.class_names[int(dataset.targets[index].argmax())] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.read(index))
    shutil.copy(folder / "zero" / "0.png", folder / "zero" / "again.png")
    return folder


@pytest.fixture(scope="module")
def run(digits: Path) -> Iterator[Path]:
    """Scored by near copies of 25 images of 61."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy_detection, "COPIES", 25)
        yield train(Config(data=str(digits), output=digits.parent / "run", cache_gb=0, head_init="random", **SMALL))


def encoded_one_by_one(run: Path, images: ImageDataset, bits: int, protocol_seed: int = 0) -> dict[str, float]:
    """What metrics.json should say of a length."""
    gallery = json.loads((run / "split.json").read_text())["gallery"]
    index = {name: place for place, name in enumerate(images.names)}
    originals = draw_originals(images, np.arange(len(gallery)), protocol_seed)
    hasher = Hasher.from_pretrained(run, "cpu")
    copies = [near_copy(images.read(index[gallery[place]]), "copy") for place in originals]
    codes = [unpack(hasher.encode(of, bits), bits) for of in (copies, [images.read(index[n]) for n in gallery])]
    return {f"copy_recall_at_{n}": pytest.approx(slow_recall(*codes, originals, n)) for n in (1, 10)}


def test_a_run_says_how_often_near_copies_find_their_originals(run: Path, digits: Path) -> None:
    lengths = json.loads((run / "metrics.json").read_text())["lengths"]
    dataset = load_dataset(str(digits), Path())
    assert list(lengths) == ["4", "12", "20"]
    for bits, scores in lengths.items():
        assert {name: scores[name] for name in BOTH} == encoded_one_by_one(run, dataset, int(bits))
        assert 0 < scores["copy_recall_at_10"] < 1
    assert lengths["20"]["copy_recall_at_10"] > 10 / 61  # better than chance
    assert len({scores["copy_recall_at_10"] for scores in lengths.values()}) == 3


def test_eval_advise_and_report_say_the_same(
    run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())["lengths"]
    dataset = load_dataset(str(digits), Path())
    older = shutil.copytree(run, tmp_path / "older")
    found = json.loads((older / "metrics.json").read_text())
    found["lengths"] = {
        bits: {name: score for name, score in scores.items() if name not in BOTH}
        for bits, scores in found["lengths"].items()
    }
    (older / "metrics.json").write_text(json.dumps(found))
    assert load_metrics(older) is not None
    capsys.readouterr()
    for folder in (run, older):
        assert main(["eval", str(folder), "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        for scores in answer["lengths"]:
            assert {name: scores[name] for name in BOTH} == {name: metrics[str(scores["bits"])][name] for name in BOTH}
    assert main(["eval", str(run), "--lengths", "7"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    head, _, row = ([cell.strip() for cell in line.split("|")] for line in shown)
    seven = encoded_one_by_one(run, dataset, 7)
    cells = dict(zip(head, row, strict=True))
    for title, value in (("copy@1", seven[BOTH[0]].expected), ("copy@10", seven[BOTH[1]].expected)):
        assert cells[title] == f"{value:.4f}"

    assert main(["advise", str(run), "--json"]) == 0
    lengths = {length["bits"]: length for length in json.loads(capsys.readouterr().out)["lengths"]}
    assert len(lengths) == 20
    assert {name: lengths[7][name] for name in BOTH} == seven
    assert {name: lengths[20][name] for name in BOTH} == {name: metrics["20"][name] for name in BOTH}
    assert main(["advise", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "copy@1" in lines[0]
    assert f"{lengths[7]['copy_recall_at_1']:.4f}" in next(line for line in lines if line.split()[0] == "7")

    assert main(["report", str(older), "--output", str(tmp_path / "report")]) == 0
    (figures,) = json.loads((tmp_path / "report" / "report.json").read_text())["runs"]
    for bits, of_length in figures["lengths"].items():
        assert {name: of_length["scores"][name] for name in BOTH} == {name: metrics[bits][name] for name in BOTH}
    page = (tmp_path / "report" / "index.html").read_text()
    assert "copy@1</th>" in page.replace(" ", "")
    assert "finds itself first" in page


def test_heads_whose_codes_do_not_nest_are_scored_too(digits: Path, tmp_path: Path) -> None:
    flat = SMALL | {"head": "flat", "loss": "dpsh", "head_init": "random", "weighting": "uniform", "distillation": 0.0}
    AcceleratorState._reset_state()
    run = train(Config(data=str(digits), output=tmp_path / "run", cache_gb=0, protocol_seed=3, **flat))
    dataset = load_dataset(str(digits), Path())
    for bits, scores in json.loads((run / "metrics.json").read_text())["lengths"].items():
        assert {name: scores[name] for name in BOTH} == encoded_one_by_one(run, dataset, int(bits), protocol_seed=3)


def test_learned_codes_of_the_gallery_are_not_searched_by_near_copies(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = SMALL | {"loss": "adsh", "gallery": "labeled", "head_init": "random", "epochs": 3}
    AcceleratorState._reset_state()
    run = train(Config(data=str(digits), output=tmp_path / "run", cache_gb=0, **learned))
    assert "copy@" not in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["searched"] == "learned codes"
    assert all(set(scores) == {"map", "map_tie_aware"} for scores in metrics["lengths"].values())
    assert main(["eval", str(run), "--json"]) == 0  # by codes of the network
    (answer,) = json.loads(capsys.readouterr().out)
    dataset = load_dataset(str(digits), Path())
    for scores in answer["lengths"]:
        assert {name: scores[name] for name in BOTH} == encoded_one_by_one(run, dataset, scores["bits"])


def test_own_features_have_no_near_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(60, 6)))
    np.save(tmp_path / "labels.npy", np.repeat(np.arange(3), 20))
    own = {"backbone": "features:6", "adapter": "none", "anchors": "orthonormal"}
    AcceleratorState._reset_state()
    run = train(Config(data=str(tmp_path), output=tmp_path / "run", **own, **SMALL))
    assert "copy@" not in capsys.readouterr().out
    for scores in json.loads((run / "metrics.json").read_text())["lengths"].values():
        assert set(scores) == {"map", "map_tie_aware"}
    assert main(["advise", str(run)]) == 0
    assert "copy@" not in capsys.readouterr().out
    assert main(["eval", str(run), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert all(scores[name] is None for scores in answer["lengths"] for name in BOTH)
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "index.html").read_text()
    assert "copy@" not in page
