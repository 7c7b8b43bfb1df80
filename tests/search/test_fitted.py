"""`nestkala index` without a model: codes that are fitted to a folder of which nothing is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import nestkala.search.fitted
from nestkala import Hasher
from nestkala.backbones import load_backbone
from nestkala.cli import main
from nestkala.codes import hamming, pack, unpack
from nestkala.index import PrefixIndex
from nestkala.modeling.saved_model import load_model
from nestkala.search.fitted import codes_of, model_without_names, set_shipped, shipped_tensors
from nestkala.training.closed_form import closed_form_of_kinds
from nestkala.training.closed_form.unnamed import number_of_kinds
from nestkala.utils.errors import NestKALAError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures: patterns of four kinds, and noise on them."""
    folder = tmp_path_factory.mktemp("fitted") / "photos"
    rng = np.random.default_rng(0)
    grid = np.indices((64, 64)).sum(axis=0)
    for number in range(40):
        base = np.full((64, 64, 3), [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)][number % 4])
        if number % 2:
            base[grid // 8 % 2 == 0] = 255
        noisy = np.clip(base + rng.integers(-40, 40, base.shape), 0, 255).astype(np.uint8)
        path = folder / ("sub" if number % 5 == 0 else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def index(photos: Path) -> Path:
    """Made by no more than `nestkala index photos`."""
    assert main(["index", str(photos), "--workers", "0"]) == 0
    return photos.with_name("photos.index")


def test_the_index_holds_the_codes_that_its_model_gives(index: Path, photos: Path) -> None:
    held = PrefixIndex.load(index)
    hasher = Hasher.from_pretrained(f"{index}.model", "cpu")
    assert held.bits == 128
    assert sorted(held.ids) == sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    codes = hasher.encode([photos / name for name in held.ids])
    assert (np.diag(hamming(codes, held.codes)) <= 1).all()  # a value near 0 may round to either side
    assert dict(held.items())["1.png"]["size"] == (photos / "1.png").stat().st_size


def test_what_was_fitted_counts_as_added(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["index", str(photos), str(tmp_path / "new.index"), "--workers", "0", "--json"]
    assert main(args) == 0
    said = json.loads(capsys.readouterr().out)
    assert (len(said["added"]), said["unchanged"], said["broken"]) == (40, 0, ["broken.jpg"])
    assert main(args) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["added"], said["unchanged"]) == ([], 40)


def test_a_folder_stands_for_the_index_beside_it(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for where in (index, photos):
        assert main(["search", str(where), str(photos / "3.png"), "-k", "5", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["results"])
    assert answers[0] == answers[1]
    assert answers[0][0]["image"] == "3.png"
    monkeypatch.chdir(photos)
    assert main(["search", ".", "3.png", "-k", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == answers[0]


def test_index_and_model_move_together(
    index: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere" / "photos.index"
    moved.parent.mkdir()
    shutil.copy(index, moved)
    shutil.copytree(f"{index}.model", f"{moved}.model")
    away = Path(f"{index}.model").rename(tmp_path / "away")
    try:
        assert main(["search", str(moved), str(photos / "3.png"), "-k", "1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["results"][0]["image"] == "3.png"
    finally:
        away.rename(f"{index}.model")


def test_text_has_the_code_of_an_image_in_its_direction(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hasher = Hasher.from_pretrained(f"{index}.model", "cpu")
    layer, head = hasher.model.class_layer, hasher.model.head
    assert layer is not None
    embed = hasher.backbone.embed_text
    assert embed is not None
    from nestkala.training.anchors import ALL_SORTS

    midst = embed([f"a photo of a {name}." for name in ALL_SORTS]).mean(dim=0)
    image = layer.mean + 3 * (embed(["a photo of a dog."]) - midst)
    with torch.no_grad():
        expected = head(layer(image))
    certain = expected[0].abs() > 1e-3
    for said in ("a photo of a dog.", "dog", "A dog"):
        code = unpack(hasher.encode_text(said), 128)[0]
        assert (code[certain] == expected[0].sign().numpy()[certain]).all()
    assert main(["search", str(index), "dog", "-k", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == "dog"


def test_it_cannot_classify(index: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--bits", "8"]):
        assert main(["classify", f"{index}.model", str(photos / "3.png"), *more]) == 2
        assert "was fitted without classes: it can search but not classify" in capsys.readouterr().err


def test_few_images_and_equal_ones_get_the_shipped_codes(photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "few").mkdir(exist_ok=True)
        shutil.copy(photos / f"{number + 1}.png", tmp_path / "few")
    for number in range(33):
        (tmp_path / "same").mkdir(exist_ok=True)
        shutil.copy(photos / "1.png", tmp_path / "same" / f"{number}.png")
    _, expected = model_without_names(load_backbone("photo", 0))
    set_shipped(expected)
    for name in ("few", "same"):
        assert main(["index", str(tmp_path / name), "--workers", "0"]) == 0
        spec, state = load_model(tmp_path / f"{name}.index.model")
        assert spec.class_names == ()
        own = expected.trained_state()
        assert all(torch.equal(state[key], own[key]) for key in own if not key.startswith("anchor"))


def families(number: int, each: int, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Features in well-parted families, in random order, and the family of each."""
    generator = torch.Generator().manual_seed(1)
    centers = 3 * torch.randn(number, width, generator=generator)
    which = torch.arange(number).repeat(each)[torch.randperm(number * each, generator=generator)]
    return centers[which] + 0.5 * torch.randn(len(which), width, generator=generator), which


def test_held_out_images_tell_how_many_kinds_there_are() -> None:
    features, _ = families(12, 60)
    units = F.normalize(features - features.mean(dim=0), dim=1)
    assert number_of_kinds(units, torch.Generator().manual_seed(0)) in (12, 18)
    assert number_of_kinds(units[:100], torch.Generator().manual_seed(0)) >= 25


def features_model(width: int = 40) -> nestkala.search.fitted.HashModel:
    return model_without_names(load_backbone(f"features:{width}", 0))[1]


def test_short_codes_are_those_of_the_kinds() -> None:
    features, which = families(12, 60)
    model = features_model()
    closed_form_of_kinds(model, features, torch.Generator().manual_seed(0))
    codes = codes_of(model, features)
    distances = hamming(codes, codes, bits=16)
    same = which[:, None] == which
    assert distances[same].mean() < 1
    assert distances[~same].mean() > 5


def test_images_that_are_alike_are_refused() -> None:
    with pytest.raises(NestKALAError, match="images that differ"):
        closed_form_of_kinds(features_model(), torch.ones(50, 40), torch.Generator())


def test_the_shipped_form_gives_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = families(12, 60)
    features[:, 30:] = 0  # 30 directions are all there is
    model = features_model()
    closed_form_of_kinds(model, features, torch.Generator().manual_seed(0))
    assert model.class_layer is not None
    tensors = shipped_tensors(model.head, model.class_layer, 30)  # type: ignore[arg-type]
    monkeypatch.setattr(nestkala.search.fitted, "load_shipped", lambda *_: (tensors, {}))
    again = features_model()
    set_shipped(again)
    with torch.no_grad():
        before, after = (each.head(each.class_layer(features)) for each in (model, again))  # type: ignore[misc]
    certain = before.abs() > 0.05  # half precision moves the rest
    assert (before.sign() == after.sign())[certain].all()
    assert pack(after).shape == (720, 16)
