"""An index of one model becomes that of another."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.cli import main
from nestkala.index import PrefixIndex
from nestkala.settings.config import Config
from nestkala.training.run import train


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(path)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 4 and 32 bits."""
    folder = tmp_path_factory.mktemp("other")
    for number in range(16):
        draw(folder / "images" / "ab"[number % 2] / f"{number}.png", 500 + number)
    small = {"queries": 2, "shots": 4, "lengths": (4, 32), "epochs": 1, "workers": 0, "cache_gb": 0}
    return train(Config(data=str(folder / "images"), output=folder / "run", head_init="random", **small))


@pytest.fixture
def photos(tmp_path: Path, noise_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in range(12):
        draw(tmp_path / "photos" / f"{number % 2}" / f"{number}.png", number)
    monkeypatch.chdir(tmp_path)
    assert main(["index", "photos", "--model", str(noise_model), "--exclude", "11.png"]) == 0
    return tmp_path / "photos"


def test_all_is_encoded_anew_by_another_model(
    photos: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(photos / "new.png", 60)
    capsys.readouterr()
    assert main(["index", "photos", "--model", str(other_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12
    index, hasher = PrefixIndex.load("photos.index"), Hasher.from_pretrained(other_model, "cpu")
    assert index.bits == 32
    assert index.about["model_fingerprint"] == hasher.fingerprint
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png") if path.name != "11.png")
    assert sorted(index.ids) == names
    codes = dict(zip(index.ids, index.codes.tolist(), strict=True))
    for name in names:
        assert codes[name] == hasher.encode([photos / name] * 3)[1].tolist()
    assert main(["search", "photos", "0/0.png"]) == 0
    assert main(["index", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unchanged"] == 12
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos", "photos.index"]


@pytest.mark.usefixtures("photos")
def test_a_model_that_has_only_moved_converts_nothing(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(noise_model, tmp_path / "copy")
    capsys.readouterr()
    assert main(["index", "photos", "--model", "copy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 11


@pytest.mark.usefixtures("photos")
def test_an_interrupted_conversion_leaves_the_index_and_goes_on(
    other_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("photos.index").read_bytes()
    encode, encoded = Hasher.encode, list[str]()

    def failing(self: Hasher, images: list[Path], **options: int) -> np.ndarray:
        if len(encoded) >= 6 and not going_on:
            raise KeyboardInterrupt
        encoded.extend(image.name for image in images)
        return encode(self, images, **options)

    going_on = False
    monkeypatch.setattr(Hasher, "encode", failing)
    monkeypatch.setattr("nestkala.search.folder.CHUNK", 3)
    assert main(["index", "photos", "--model", str(other_model), "--save-every", "3"]) == 130
    assert Path("photos.index").read_bytes() == before
    assert len(PrefixIndex.load("photos.index.converting")) == 6
    going_on = True
    assert main(["index", "photos", "--model", str(other_model)]) == 0
    assert sorted(encoded) == sorted(f"{number}.png" for number in range(11))  # each once
    assert len(PrefixIndex.load("photos.index")) == 11
    assert not Path("photos.index.converting").exists()
    capsys.readouterr()


@pytest.mark.parametrize("what", ["gone", "unlisted"])
def test_nothing_is_converted_while_images_are_missing(
    photos: Path, other_model: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("photos.index").read_bytes()
    if what == "gone":
        for path in photos.rglob("[1-9].png"):
            path.unlink()
    else:
        (photos / "0" / "0.png").unlink()
        (photos / "0" / "0.png").symlink_to("nowhere")
    capsys.readouterr()
    assert main(["index", "photos", "--model", str(other_model)]) == 2
    said = "indexed images are no longer in" if what == "gone" else "'0/0.png' cannot be listed now"
    assert said in capsys.readouterr().err
    assert Path("photos.index").read_bytes() == before
    assert not Path("photos.index.converting").exists()


@pytest.mark.usefixtures("photos")
def test_what_another_model_has_begun_is_not_taken(noise_model: Path, other_model: Path) -> None:
    shutil.copy("photos.index", "photos.index.converting")  # of the first model
    assert main(["index", "photos", "--model", str(other_model)]) == 0
    Path("photos.index.converting").write_bytes(b"no index")
    assert main(["index", "photos", "--model", str(noise_model)]) == 0
    assert PrefixIndex.load("photos.index").bits == 20
    assert not Path("photos.index.converting").exists()


@pytest.mark.usefixtures("photos")
def test_what_another_backend_has_begun_is_not_taken(other_model: Path) -> None:
    begun = Path("photos.index.converting")
    assert main(["index", "photos", "copy.index", "--model", str(other_model)]) == 0
    right = PrefixIndex.load("copy.index")
    metadata = [about for _, about in right.items()]
    about = right.about | {"backend": "onnx"}
    PrefixIndex.build(~right.codes, list(right.ids), right.bits, metadata, about).save(begun)
    assert main(["index", "photos", "--model", str(other_model)]) == 0
    converted = PrefixIndex.load("photos.index")
    codes = dict(zip(right.ids, right.codes.tolist(), strict=True))
    assert {name: codes[name] for name in converted.ids} == dict(
        zip(converted.ids, converted.codes.tolist(), strict=True)
    )


@pytest.mark.usefixtures("photos")
def test_what_a_conversion_left_at_its_end_is_deleted_and_one_that_goes_on_is_kept(other_model: Path) -> None:
    begun = Path("photos.index.converting")
    shutil.copy("photos.index", begun)  # as if it had been killed when it had replaced the index
    assert main(["index", "photos"]) == 0
    assert not begun.exists()
    assert main(["index", "photos", str(begun), "--model", str(other_model)]) == 0
    assert main(["index", "photos"]) == 0
    assert begun.exists()


@pytest.mark.slow
def test_labels_improve_an_index_of_real_photographs(
    tmp_path: Path, flowers5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index as it is, train with labels, index again: codes of a class come nearer to one another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "cache"))
    kinds = ("daisy", "roses", "tulips")
    for kind in kinds:
        files = sorted((flowers5 / kind).iterdir())
        for number, file in enumerate(files[:30]):
            folder = Path("labeled" if number < 6 else "photos", kind)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)
    assert main(["index", "photos"]) == 0
    before = _share_of_kind(PrefixIndex.load("photos.index"))
    assert main(["train", "--data", "labeled", "--archive", "photos", "--output", "runs/photos"]) == 0
    assert main(["index", "photos", "--model", "runs/photos"]) == 0
    index = PrefixIndex.load("photos.index")
    assert index.about["model"] == str(tmp_path / "runs/photos")
    after = _share_of_kind(index)
    print(f"neighbors of the same kind: {before:.2f} before, {after:.2f} after")
    assert after > before
    assert main(["search", "photos", "daisy", "-k", "5"]) == 0


def _share_of_kind(index: PrefixIndex) -> float:
    """Of the 10 nearest others of each image, how many are of its kind, on average."""
    hits = index.search(index.codes, 11)
    pairs = [(own, other) for own, found in zip(index.ids, hits.ids, strict=True) for other in found if other != own]
    return float(np.mean([own.split("/")[0] == other.split("/")[0] for own, other in pairs]))
