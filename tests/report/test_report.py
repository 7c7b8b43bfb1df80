"""The report: figures against slow ways to the same, the page in a browser, runs side by side, what is refused."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestkala.analysis import plots
from nestkala.analysis.finished_run import FinishedRun
from nestkala.cli import main
from nestkala.codes import pack, unpack
from nestkala.images.decoding import data_url, thumbnail
from nestkala.report import write_report
from nestkala.report.code_statistics import bit_statistics, embed, silhouette
from nestkala.report.examples import find_examples, nearest_lengths
from nestkala.report.groups import group_runs
from nestkala.report.measurements import RunMeasurements, first_labels, measure
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError

MARKUP = "<img src=x onerror=document.title='hacked'> $x^$"


def random_signs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).choice([-1, 1], shape)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 rows of three classes, one of which has markup for a name."""
    folder = tmp_path_factory.mktemp("features")
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    np.save(folder / "features.npy", rng.normal(size=(3, 8))[labels] + 0.5 * rng.normal(size=(90, 8)))
    np.save(folder / "labels.npy", labels)
    (folder / "classnames.txt").write_text(f"_cat\n{MARKUP}\ndog\n")
    return folder


def train_on_features(features: Path, name: str, **changes: object) -> Path:
    own = {"data": str(features), "backbone": "features:8", "adapter": "none", "anchors": "orthonormal"}
    small = {"lengths": (4, 12), "shots": 5, "epochs": 3, "queries_per_class": 6, "workers": 0}
    folder = features.parent / f"{features.name}-runs" / name
    return train(Config(**{**own, **small, "output": folder, **changes}))


@pytest.fixture(scope="module")
def run(features: Path) -> Path:
    return train_on_features(features, "kiddo-seed0")


@pytest.fixture(scope="module")
def second_seed(features: Path) -> Path:
    return train_on_features(features, "kiddo-seed1", seed=1)


@pytest.fixture(scope="module")
def other_loss(features: Path) -> Path:
    return train_on_features(features, "dpsh", loss="dpsh")


@pytest.fixture(scope="module")
def report(noise_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on images."""
    output = tmp_path_factory.mktemp("report") / "report"
    assert write_report([noise_model], output) == output / "index.html"
    return output


class Loads(HTMLParser):
    """Collects every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")]


def test_balance_and_correlation_are_numpys() -> None:
    signs = random_signs(70_000, 11)
    signs[:, 3] = signs[:, 2]
    signs[:60_000, 5] = 1
    signs[:, 7] = -1
    balance, correlation = bit_statistics(pack(signs), 11)
    np.testing.assert_allclose(balance, (signs > 0).mean(axis=0))
    kept = np.arange(11) != 7
    np.testing.assert_allclose(correlation[kept][:, kept], np.corrcoef(signs[:, kept].T), atol=1e-9)
    assert np.isnan(correlation[7]).all()
    assert np.isnan(correlation[:, 7]).all()


def test_silhouette_is_that_of_the_definition() -> None:
    signs, classes = random_signs(30, 9), np.arange(30) % 4
    signs[classes == 0, :4] = 1
    distances = (signs[:, None] != signs).sum(axis=2)
    coefficients = []
    for i in range(30):
        own = [distances[i, j] for j in range(30) if j != i and classes[j] == classes[i]]
        others = [np.mean([distances[i, j] for j in range(30) if classes[j] == c]) for c in range(4) if c != classes[i]]
        a, b = np.mean(own), min(others)
        coefficients.append((b - a) / max(a, b))
    assert silhouette(pack(signs), classes) == pytest.approx(50 * (np.mean(coefficients) + 1))


def test_of_one_class_or_of_lone_items_there_is_no_silhouette() -> None:
    codes = pack(random_signs(6, 9))
    assert silhouette(codes, np.zeros(6, int)) is None
    assert silhouette(codes, np.arange(6)) is None
    apart = pack(np.repeat([[1] * 8, [-1] * 8], 3, axis=0))
    assert silhouette(apart, np.repeat([0, 1], 3)) == 100


def test_the_map_keeps_clusters_apart_and_is_the_same_each_time() -> None:
    signs = np.repeat([[1] * 32, [-1] * 32], 20, axis=0)
    flips = np.random.default_rng(0).random(signs.shape) < 0.1
    codes = pack(np.where(flips, -signs, signs))
    places = embed(codes)
    assert places is not None
    assert (embed(codes) == places).all()
    centers = places[:20].mean(axis=0), places[20:].mean(axis=0)
    for place, own in zip(places, [0] * 20 + [1] * 20, strict=True):
        assert np.linalg.norm(place - centers[own]) < np.linalg.norm(place - centers[1 - own])
    assert embed(codes[:4]) is None
    assert np.isfinite(embed(np.zeros((9, 1), np.uint8))).all()


def test_first_labels() -> None:
    assert first_labels(np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)).tolist() == [1, -1, 0]


def figures_of(folder: Path, lengths: tuple[int, ...] = (4, 12)) -> RunMeasurements:
    opened = FinishedRun.open(folder)
    return measure(opened, opened.encode(), lengths)


def test_figures_are_those_of_codes_ranked_one_by_one(run: Path) -> None:
    figures = figures_of(run)
    codes = FinishedRun.open(run).encode()
    assert (figures.num_train, figures.num_queries, figures.num_gallery) == (15, 18, 72)
    assert figures.places[0] == 1
    assert figures.places[-1] == 72
    assert figures.map is not None
    assert figures.map.classes == codes.query_labels.argmax(axis=1).tolist()
    same = codes.query_labels.argmax(axis=1)[:, None] == codes.gallery_labels.argmax(axis=1)
    for bits in (4, 12):
        q, g = unpack(codes.queries, bits).astype(int), unpack(codes.gallery, bits).astype(int)
        distances = (bits - q @ g.T) // 2
        found = figures.lengths[bits]
        for radius in range(bits + 1):
            within = distances <= radius
            precision = [same[i][within[i]].mean() if within[i].any() else 0 for i in range(18)]
            recall = [(same[i] & within[i]).sum() / same[i].sum() for i in range(18)]
            assert found.radius_precision[radius] == pytest.approx(np.mean(precision))
            assert found.radius_recall[radius] == pytest.approx(np.mean(recall))
        rng, shuffled = np.random.default_rng(0), []
        for _ in range(2000):
            order = rng.permutation(72)
            ranked = order[np.argsort(distances[:, order], kind="stable")]
            shuffled.append(np.take_along_axis(same, ranked, axis=1).mean(axis=0))
        hits = np.mean(shuffled, axis=0).cumsum()
        for n, precision_at in zip(figures.places, found.precision_at, strict=True):
            assert precision_at == pytest.approx(hits[n - 1] / n, abs=0.01)
    assert figures.balance == pytest.approx((unpack(codes.gallery, 12) > 0).mean(axis=0))
    assert figures.constant_bits == [i for i, share in enumerate(figures.balance) if share in (0, 1)]


def test_the_folder_holds_page_pictures_and_all_figures(report: Path, noise_model: Path) -> None:
    pictures = {path.name for path in report.glob("*.png")}
    assert pictures == {  # no tsne.png: of 2 queries there is no map
        *("map.png", "precision-recall.png", "precision-at.png", "bit-balance.png", "bit-correlation.png"),
        *("weights.png", "loss.png", "objective.png"),
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.glob("*.png"))
    assert {path.name for path in report.iterdir()} == {*pictures, "index.html", "report.json"}
    (figures,) = json.loads((report / "report.json").read_text())["runs"]
    assert figures["folder"] == str(noise_model)
    assert list(figures["lengths"]) == ["4", "20"]
    metrics = json.loads((noise_model / "metrics.json").read_text())["lengths"]
    for bits, of_length in figures["lengths"].items():
        assert of_length["scores"]["map"] == metrics[bits]["map"]
        assert of_length["scores"]["map_tie_aware"] == metrics[bits]["map_tie_aware"]
    assert figures["history"] == json.loads((noise_model / "history.json").read_text())
    assert figures["config"]["lengths"] == [4, 20]


def test_the_page_loads_nothing(report: Path) -> None:
    page = (report / "index.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert all(address.startswith(("data:", "#")) for address in loads.found)
    assert any(address.startswith("data:image/jpeg") for address in loads.found)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert "<script" not in page
    scores = json.loads((report / "report.json").read_text())["runs"][0]["lengths"]
    for of_length in scores.values():
        assert f"{100 * of_length['scores']['map']:.1f}</td>" in page


def test_examples_are_the_nearest_images(noise_model: Path) -> None:
    run = FinishedRun.open(noise_model)
    codes = run.encode()
    assert nearest_lengths(run) == [8, 16, 20]
    dataset, split = run.data
    examples = list(find_examples([("8", run, codes, 8), ("20", run, codes, 20)]))
    assert len(examples) == len(set(dataset.targets[split.query].argmax(axis=1)))  # one of a class
    for example in examples:
        shown = [data_url(thumbnail(dataset.read(index), 144)) for index in split.query]
        query = shown.index(example.query.image)
        for bits in (8, 20):
            q, g = unpack(codes.queries, bits)[query].astype(int), unpack(codes.gallery, bits).astype(int)
            ranking = sorted(range(len(g)), key=lambda place: ((bits - g[place] @ q) // 2, place))
            found = example.found[str(bits)]
            assert [picture.distance for picture in found] == [int(bits - g[i] @ q) // 2 for i in ranking[:8]]
            names = [dataset.class_names[codes.gallery_labels[i].argmax()] for i in ranking[:8]]
            assert [picture.label for picture in found] == names
            assert [picture.relevant for picture in found] == [name == example.query.label for name in names]
            assert all(picture.image.startswith("data:image/jpeg") for picture in found)


def test_seeds_are_one_group_named_by_what_sets_it_apart(run: Path, second_seed: Path, other_loss: Path) -> None:
    runs = [figures_of(folder) for folder in (run, other_loss, second_seed)]
    groups = group_runs(runs)
    assert [(group.name, group.runs) for group in groups] == [
        ("loss kiddo", [runs[0], runs[2]]),
        ("loss dpsh", [runs[1]]),
    ]
    assert [group.name for group in group_runs([runs[0], runs[2]])] == ["kiddo-seed0 and 1 more"]
    assert [group.name for group in group_runs(runs[:1])] == ["kiddo-seed0"]
    with pytest.raises(NestKALAError, match=r"kiddo-seed0 and .*kiddo-seed0 have the same settings and seed"):
        group_runs([runs[0], runs[1], figures_of(run)])


def test_a_long_legend_leaves_the_picture_its_height() -> None:
    rng = np.random.default_rng(0)
    names = [f"a class whose name goes on and on, number {number}" for number in range(20)]
    places, numbers = rng.normal(size=(60, 2)), rng.integers(20, size=60)
    many, few = (plots.scatter_chart(places, shown, numbers % len(shown)) for shown in (names, ["a", "b"]))
    heights = []
    for figure in (many, few):
        figure.canvas.draw()
        heights.append(figure.axes[0].get_window_extent().height)
    assert heights[0] > 0.6 * heights[1]
    assert all(len(text.get_text()) <= 28 for text in many.legends[0].get_texts())


def test_several_runs_are_compared(
    run: Path, second_seed: Path, other_loss: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "compared"
    asked = [str(run), str(second_seed), str(other_loss), "--output", str(output), "--lengths", "12,3"]
    assert main(["report", *asked]) == 0
    assert capsys.readouterr().out == f"report: {output / 'index.html'}\n"
    page = (output / "index.html").read_text()
    rows = [re.findall(r"<td[^>]*> *(.*?) *</td>", row) for row in re.findall(r"<tr>.*?</tr>", page)]
    scores = [row for row in rows if row[:1] in (["3"], ["12"])]
    assert [row[:2] for row in scores] == [[b, loss] for b in ("3", "12") for loss in ("loss kiddo", "loss dpsh")]
    kiddo = [figures_of(folder, (12,)).lengths[12].scores.map for folder in (run, second_seed)]
    assert scores[2][2] == f"{50 * sum(kiddo):.1f} ± {100 * abs(kiddo[0] - kiddo[1]) / 2**0.5:.1f}"
    assert (output / "precision-recall-12bits.png").exists()
    assert (output / "weights-2.png").exists()
    assert not (output / "objective-2.png").exists()  # dpsh has no discrete codes
    assert len(json.loads((output / "report.json").read_text())["runs"]) == 3
    assert "consists of features rather than images" in page


def test_by_default_it_is_in_the_run_or_beside_the_first(run: Path, second_seed: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in (run, second_seed)]
    assert write_report(folders[:1]) == folders[0] / "report" / "index.html"
    assert write_report(folders) == tmp_path / "report" / "index.html"
    assert write_report(folders[:1]).exists()  # in place of the earlier one


def test_without_history_the_page_says_why(run: Path, tmp_path: Path) -> None:
    older = shutil.copytree(run, tmp_path / "older")
    (older / "history.json").unlink()
    page = write_report([older]).read_text()
    assert "No history for older" in page
    assert not (older / "report" / "weights.png").exists()
    assert (older / "report" / "tsne.png").exists()


def test_several_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "features.npy", rng.normal(size=(60, 8)))
    labels = rng.random((60, 3)) < 0.5
    np.save(tmp_path / "labels.npy", labels.astype(int))
    folder = train_on_features(tmp_path, "several", queries_per_class=None, queries=12, shots=2, batch_size=2)
    figures = figures_of(folder)
    assert figures.multi_label
    assert all(of.silhouette is None for of in figures.lengths.values())
    page = write_report([folder]).read_text()
    assert "No silhouette: images with several labels" in page
    assert "Colored by the first label of each image" in page
    assert "silhouette</th>" not in page


@pytest.mark.parametrize("width", [390, 1280])
def test_names_are_text_and_the_page_fits_its_width(run: Path, browser: Any, tmp_path: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    index = write_report([run], tmp_path / "report")
    page.goto(index.as_uri())
    assert page.title() == "kiddo-seed0"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert {f"{MARKUP[:27]}…", "_cat", "dog"} <= set(page.locator("svg text").all_text_contents())
    assert [url for url in asked if not url.startswith("data:")] == [index.as_uri()]
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_charts_have_the_color_of_the_text(report: Path, browser: Any, dark: bool) -> None:
    page = browser.new_page(color_scheme="dark" if dark else "light")
    page.goto((report / "index.html").as_uri())
    fill = page.locator("svg text").first.evaluate("text => getComputedStyle(text).fill")
    assert fill == page.evaluate("getComputedStyle(document.body).color")
    assert fill == ("rgb(232, 236, 241)" if dark else "rgb(20, 24, 29)")
    page.close()


def test_runs_of_other_questions_are_refused(run: Path, noise_model: Path, features: Path, tmp_path: Path) -> None:
    fewer = train_on_features(features, "fewer", queries_per_class=5)
    first_ten = train_on_features(features, "first-ten", top_k=10)
    for folder, reason in (
        (noise_model, "classes differ"),
        (fewer, "queries differ"),
        (first_ten, "top_k is 10, not None"),
    ):
        with pytest.raises(NestKALAError, match=f"{folder.name} cannot be compared with .*: its {reason}"):
            write_report([run, folder], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_mistakes_are_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("my site")
    for arguments, told in (
        ([], "give one or more run folders"),
        ([str(tmp_path)], "is not a run folder: it contains no config.yaml"),
        ([str(run), "--lengths", "13"], "1 to 12"),
        ([str(run), "--output", str(tmp_path)], "holds a page that is not a report"),
    ):
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert (tmp_path / "index.html").read_text() == "my site"


def test_without_matplotlib_it_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(NestKALAError, match=r'pip install "nestkala\[plots\]"'):
        write_report([run])
