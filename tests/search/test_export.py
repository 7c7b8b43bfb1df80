"""What is taken elsewhere, against what it was here: ONNX by onnxruntime, codes by numpy and faiss."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from PIL import Image

from nestkala import Hasher, PrefixIndex
from nestkala.cli import main
from nestkala.codes import hamming, prefix, unpack
from nestkala.search.export import export_codes, export_onnx
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")
NEAR_ZERO = 1e-4


def run_onnx(path: Path, images: torch.Tensor, batch: int) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    outputs = [session.run(None, {"images": part.numpy()}) for part in images.split(batch)]
    return np.concatenate([codes for codes, _ in outputs]), np.concatenate([h for _, h in outputs])


def assert_same(hasher: Hasher, given: list[Image.Image] | list[np.ndarray], path: Path, bits: int, batch: int) -> None:
    """The codes but for bits whose relaxed value is nearly 0, and those values."""
    data = [each.astype(np.float32).tobytes() if isinstance(each, np.ndarray) else each for each in given]
    images = torch.stack([hasher.backbone.prepare(each, "image") for each in data])
    codes, h = run_onnx(path, images, batch)
    relaxed = hasher.relaxed(given, bits=bits)  # type: ignore[arg-type]
    np.testing.assert_allclose(h, relaxed, atol=NEAR_ZERO)
    differ = unpack(codes, bits) != unpack(hasher.encode(given, bits), bits)  # type: ignore[arg-type]
    assert (np.abs(relaxed[differ]) < NEAR_ZERO).all()
    assert differ.sum() <= (np.abs(relaxed) < NEAR_ZERO).sum()
    spare = np.unpackbits(codes, axis=1)[:, bits:]
    assert codes.shape == (len(given), -(-bits // 8))
    assert not spare.any()


@pytest.mark.parametrize("bits", [None, 9])
def test_onnx_gives_the_codes_of_a_thousand_images(noise_model: Path, tmp_path: Path, bits: int | None) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(1000)]
    path, hasher = tmp_path / "model.onnx", Hasher.from_pretrained(noise_model, "cpu")
    asked = [] if bits is None else ["--bits", str(bits)]
    assert main(["export", str(noise_model), str(path), *asked]) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    assert_same(hasher, images, path, bits or 20, batch=300)
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert about["bits"] == str(bits or 20)
    assert about["fingerprint"] == hasher.fingerprint
    assert json.loads(about["preprocessing"])["input_size"] == [3, 32, 32]


def test_onnx_of_own_features_and_of_heads_that_do_not_nest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "features.npy", rng.normal(size=(40, 12)).astype(np.float32))
    np.save(tmp_path / "data" / "labels.npy", np.arange(40) % 2)
    own = {"backbone": "features:12", "adapter": "none", "anchors": "orthonormal", "head": "flat"}
    small = {"queries": 4, "shots": 8, "lengths": (4, 12), "epochs": 1, "batch_size": 4, "head_init": "random"}
    run = train(Config(data=str(tmp_path / "data"), output=tmp_path / "run", **own, **small))
    hasher, path = Hasher.from_pretrained(run, "cpu"), tmp_path / "model.onnx"
    for bits in (4, 12):
        export_onnx(hasher, path, bits)
        assert_same(hasher, list(rng.normal(size=(50, 12)).astype(np.float32)), path, bits, batch=7)
    with pytest.raises(NestKALAError, match="5"):
        export_onnx(hasher, path, 5)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, PrefixIndex]:
    codes = np.random.default_rng(0).integers(0, 256, (300, 3), dtype=np.uint8)
    index = PrefixIndex.build(codes, [f"ä {n}\n.jpg" for n in range(300)], 20)
    index.save(tmp_path / "photos.index")
    return tmp_path / "photos.index", index


@pytest.mark.parametrize("bits", [None, 8, 13])
def test_numpy_reads_the_codes(saved: tuple[Path, PrefixIndex], tmp_path: Path, bits: int | None) -> None:
    asked = [] if bits is None else ["--bits", str(bits)]
    assert main(["export", str(saved[0]), str(tmp_path / "codes.npy"), *asked]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), prefix(saved[1].codes, bits or 20))
    assert json.loads((tmp_path / "codes.ids.json").read_text()) == list(saved[1].ids)


def test_faiss_searches_the_codes(
    saved: tuple[Path, PrefixIndex], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, index = tmp_path / "codes.faiss", saved[1]
    assert main(["export", str(saved[0]), str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": [str(path), str(tmp_path / "codes.ids.json")]}
    distances, places = faiss.read_index_binary(str(path)).search(index.codes[:5], 40)
    expected = hamming(index.codes[:5], index.codes)
    np.testing.assert_array_equal(distances, np.sort(expected, axis=1)[:, :40])
    np.testing.assert_array_equal(np.take_along_axis(expected, places, axis=1), distances)


def test_what_cannot_be_exported_is_told(saved: tuple[Path, PrefixIndex], tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match=r"the file name must end in \.npy or \.faiss"):
        export_codes(saved[1], tmp_path / "codes.csv")
    with pytest.raises(NestKALAError, match=r"bits must be a whole number from 1 to 20 \(the code length\), not 21"):
        export_codes(saved[1], tmp_path / "codes.npy", 21)
    assert [path.name for path in tmp_path.iterdir()] == ["photos.index"]
