"""Encoding by other backends, against the codes that torch gives."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import nestkala.runtimes.choice
from nestkala import Hasher, PrefixIndex
from nestkala.backbones import load_backbone
from nestkala.cli import main
from nestkala.codes import unpack
from nestkala.modeling.saved_model import ModelSpec, save_model
from nestkala.runtimes.agreement import differing_bits, sample_images
from nestkala.runtimes.cache import ExportCache
from nestkala.runtimes.libraries import import_openvino
from nestkala.runtimes.names import missing_packages
from nestkala.search.export import export_onnx
from nestkala.search.shards import encode_folder
from nestkala.utils.errors import NestKALAError

BITS = 64
TOWERS: dict[str, Mapping[str, Any]] = {
    "tiny": {"adapter": "clora", "projections": ("k", "v")},
    "photo": {"adapter": "clora", "projections": ("head",)},
    "open_clip/ViT-S-32-alt:random": {"adapter": "prompts"},
    "timm/vit_tiny_patch16_224:random": {"adapter": "lora", "adapt_blocks": 2},
    "timm/resnet18:random": {"adapter": "none"},
}
"""One model on each kind of tower, an adapter of each kind among them."""


def make_model(folder: Path, backbone: str, precision: str = "fp32", **settings: Any) -> Path:
    """A model with a random head and adapter."""
    adapted = 0 if settings["adapter"] == "none" else settings.get("adapt_blocks", 1)
    frozen = load_backbone(backbone, adapted)
    given: dict[str, Any] = {"adapt_blocks": 1, "projections": (), "rank": 1, "adapter_scale": 1.0} | settings
    spec = ModelSpec(
        backbone=backbone,
        fingerprint=frozen.fingerprint,
        precision=precision,  # type: ignore[arg-type]
        class_names=("a", "b", "c"),
        lengths=(8, BITS),
        batch_norm=False,
        adapter_init="linear",
        **(given | {"projections": given["projections"] or frozen.tower.projections[:1]}),
    )
    model = spec.build(frozen.tower, torch.randn(3, 16))
    save_model(folder, spec, model.trained_state())
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    return {name: make_model(tmp_path_factory.mktemp("model"), name, **settings) for name, settings in TOWERS.items()}


@pytest.fixture(scope="module")
def tiny(models: dict[str, Path]) -> Path:
    return models["tiny"]


@pytest.mark.parametrize("tower", TOWERS)
def test_codes_are_those_of_torch_but_for_bits_that_are_nearly_zero(
    backend: str, tower: str, models: dict[str, Path]
) -> None:
    images = list(sample_images()[::3])  # 11, which no number of images a call divides
    expected = Hasher.from_pretrained(models[tower], "cpu").relaxed(images)
    hasher = Hasher.from_pretrained(models[tower], backend=backend)
    bound = 1e-3 * expected.std()
    np.testing.assert_allclose(hasher.relaxed(images), expected, atol=bound, rtol=0)
    sure = np.abs(expected) > bound
    assert sure.mean() > 0.99
    signs = unpack(hasher.encode(images), BITS)
    np.testing.assert_array_equal(signs[sure], np.where(expected >= 0, 1, -1)[sure])
    assert hasher.backend == backend


@pytest.mark.parametrize("tower", ["photo", "tiny"])
def test_bfloat16_changes_few_bits(tower: str, models: dict[str, Path]) -> None:
    if missing := missing_packages("openvino-bf16"):
        pytest.skip(f"{', '.join(missing)} not installed")
    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(NestKALAError, match="does not support bfloat16: use backend openvino"):
            Hasher.from_pretrained(models[tower], backend="openvino-bf16")
        pytest.skip("this processor does not compute in bfloat16")
    hasher = Hasher.from_pretrained(models[tower], backend="openvino-bf16")
    images = list(sample_images())
    expected, found = Hasher.from_pretrained(models[tower], "cpu").relaxed(images), hasher.relaxed(images)
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99
    assert ((expected >= 0) != (found >= 0)).mean() < 0.05


def test_probabilities_and_batches_of_one_are_those_of_torch(backend: str, tiny: Path) -> None:
    images = list(sample_images()[:5])
    plain, other = Hasher.from_pretrained(tiny, "cpu"), Hasher.from_pretrained(tiny, backend=backend)
    together, alone = other.relaxed(images), np.concatenate([other.relaxed(image) for image in images])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    for hasher in (plain, other):
        hasher.spec = hasher.spec.model_copy(update={"has_text_codes": True})
    expected, found = plain.class_probabilities(images), other.class_probabilities(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_model_is_exported_once(backend: str, tiny: Path, own_exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = list(sample_images()[:3])
    first = Hasher.from_pretrained(tiny, backend=backend).encode(images)
    (kept,) = own_exports.glob("*.safetensors")
    content = kept.read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("exported again")

    with monkeypatch.context() as patched:
        patched.setattr(nestkala.runtimes.choice, "to_onnx", refuse)
        np.testing.assert_array_equal(Hasher.from_pretrained(tiny, backend=backend).encode(images), first)
    for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b""):
        kept.write_bytes(damaged)
        np.testing.assert_array_equal(Hasher.from_pretrained(tiny, backend=backend).encode(images), first)
        assert kept.stat().st_size == len(content)


def test_models_without_an_adapter_share_an_export(
    models: dict[str, Path], tmp_path: Path, own_exports: Path, backend: str
) -> None:
    torch.manual_seed(1)
    for number in range(2):
        other = make_model(tmp_path / str(number), "tiny", adapter="none")
        Hasher.from_pretrained(other, backend=backend)
    assert len([*own_exports.glob("*.safetensors")]) == 1
    Hasher.from_pretrained(models["tiny"], backend=backend)
    assert len([*own_exports.glob("*.safetensors")]) == 2


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = ExportCache(tmp_path, max_bytes=5000)
    made: list[str] = []

    def get(name: str) -> bytes:
        def make() -> bytes:
            made.append(name)
            return name.encode() * 2000

        return cache.get({"network": name}, make)

    assert [get(name) for name in "aab"] == [b"a" * 2000, b"a" * 2000, b"b" * 2000]
    os.utime(cache.path({"network": "b"}), (1, 1))
    assert get("c") == b"c" * 2000  # for which b goes
    get("a")
    get("b")
    assert made == ["a", "b", "c", "b"]


def test_clearing_the_cache_deletes_exports_and_nothing_else(
    backend: str, tiny: Path, own_exports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Hasher.from_pretrained(tiny, "cpu", backend=backend)
    Hasher.from_pretrained(tiny, "cpu", backend="auto")
    (own_exports / "mine.txt").write_text("mine")
    (kept,) = own_exports.glob("*.safetensors")
    size = kept.stat().st_size
    for action in ("show", "clear"):
        assert main(["cache", action, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["exported_models"], told["exported_bytes"]) == (1, size)
    assert [path.name for path in own_exports.iterdir()] == ["mine.txt"]


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert ExportCache(tmp_path / "file").get({"network": "a"}, lambda: b"made") == b"made"


def test_an_unknown_backend_is_told_with_the_nearest(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NestKALAError, match="unknown backend 'openvin'; did you mean 'openvino'"):
        Hasher.from_pretrained(tiny, backend="openvin")
    with pytest.raises(SystemExit):
        main(["classify", str(tiny), "a.jpg", "--backend", "openvin"])
    assert "openvino" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backend", "extra"), [("onnx", "onnx"), ("openvino", "openvino"), ("openvino-bf16", "openvino")]
)
def test_a_backend_that_is_not_installed_says_what_to_install(
    backend: str, extra: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestkala.runtimes.names.find_spec", lambda _: None)
    with pytest.raises(NestKALAError, match=rf'pip install "nestkala\[{extra}\]"'):
        Hasher.from_pretrained(tiny, backend=backend)


def test_auto_without_another_backend_is_torch(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nestkala.runtimes.names.find_spec", lambda _: None)
    hasher = Hasher.from_pretrained(tiny, "cpu", backend="auto")
    assert hasher.backend == "torch"
    assert "neither openvino nor onnx is installed" in caplog.text


def test_auto_takes_another_backend_whose_codes_agree(
    backend: str, tiny: Path, own_exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nestkala.runtimes.choice, "FASTEST_FIRST", (backend,))
    assert Hasher.from_pretrained(tiny, "cpu", backend="auto").backend == backend
    (remembered,) = own_exports.glob("*.json")
    images = list(sample_images())
    codes = [Hasher.from_pretrained(tiny, "cpu", backend=name).encode(images) for name in ("torch", backend)]
    unequal = (np.unpackbits(codes[0], axis=1) != np.unpackbits(codes[1], axis=1)).mean()
    assert json.loads(remembered.read_text())["differing_bits"] == pytest.approx(unequal)
    remembered.write_text('{"differing_bits": 0.5}')
    assert Hasher.from_pretrained(tiny, "cpu", backend="auto").backend == "torch"


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every backend but torch compute something else."""

    def load(*_: object) -> object:
        return lambda images: torch.randn(len(images), 384, generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(nestkala.runtimes.choice, "load", load)


@pytest.mark.usefixtures("wrong", "own_exports")
def test_auto_leaves_a_backend_whose_codes_do_not_agree(
    backend: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nestkala.runtimes.choice, "FASTEST_FIRST", (backend,))
    hasher = Hasher.from_pretrained(tiny, "cpu", backend="auto")
    assert hasher.backend == "torch"
    assert f"backend auto uses torch: {backend} changes" in caplog.text
    images = list(sample_images()[:3])
    np.testing.assert_array_equal(hasher.encode(images), Hasher.from_pretrained(tiny, "cpu").encode(images))


def test_what_cannot_be_exported_is_an_error_or_left_to_torch(
    backend: str, tiny: Path, own_exports: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def untraceable(_: object, images: Tensor) -> Tensor:
        raise TypeError(f"nothing for\n{tuple(images.shape)}")

    monkeypatch.setattr(nestkala.runtimes.export.FeatureEncoder, "forward", untraceable)
    with pytest.raises(NestKALAError, match="torch cannot export this model") as caught:
        Hasher.from_pretrained(tiny, backend=backend)
    assert "\n" not in str(caught.value)
    assert Hasher.from_pretrained(tiny, "cpu", backend="auto").backend == "torch"
    assert "torch cannot export this model" in caplog.text
    assert not [*own_exports.glob("*.safetensors")]


def test_other_precisions_and_features_are_left_to_torch(
    backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = make_model(tmp_path / "half", "tiny", precision="bf16", adapter="none")
    own = make_model(tmp_path / "own", "features:16", adapter="none", projections=("k",))
    for model, reason in ((half, "computes in bf16"), (own, "takes features")):
        with pytest.raises(NestKALAError, match=f"backend {backend} cannot run this model: it {reason}"):
            Hasher.from_pretrained(model, backend=backend)
        assert Hasher.from_pretrained(model, "cpu", backend="auto").backend == "torch"
        assert reason in caplog.text


def test_only_torch_can_be_exported_for_others(backend: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match="only backend torch can be exported"):
        export_onnx(Hasher.from_pretrained(tiny, backend=backend), tmp_path / "model.onnx")


def test_openvino_reports_nothing_to_its_makers() -> None:
    if missing_packages("openvino"):
        pytest.skip("openvino is not installed")
    code = (
        "import sys; from nestkala.runtimes.libraries import load\n"
        "try: load('openvino', b'')\n"
        "except ValueError: pass\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(sample_images()[:8]):
        image.save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_an_index_says_what_made_it_and_what_added_to_it(
    backend: str, tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "photos.index"
    assert main(["index", str(photos), str(index), "--model", str(tiny)]) == 0
    assert PrefixIndex.load(index).about["backend"] == "torch"
    sample_images()[20].save(photos / "new.png")
    capsys.readouterr()
    assert main(["index", str(photos), str(index), "--backend", backend, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (note,) = [line for line in told["warnings"] if "backend" in line]
    files = sorted(photos.iterdir())
    plain, other = (Hasher.from_pretrained(tiny, "cpu", backend=name) for name in ("torch", backend))
    share = np.unpackbits(plain.encode(files) ^ other.encode(files)).mean()
    assert f"{share:.3%} of the bits of 9 images differ" in note
    held = PrefixIndex.load(index)
    assert held.about["backend"] == f"torch+{backend}"
    code = held.codes[list(held.ids).index("new.png")]
    np.testing.assert_array_equal(code, other.encode(photos / "new.png")[0])
    assert main(["index", str(photos), str(index), "--backend", backend, "--json"]) == 0
    assert "backend" not in capsys.readouterr().out


@pytest.mark.usefixtures("wrong")
def test_codes_that_do_not_fit_an_index_are_refused(
    backend: str, tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "photos.index"
    assert main(["index", str(photos), str(index), "--model", str(tiny)]) == 0
    before = index.read_bytes()
    assert main(["index", str(photos), str(index), "--backend", backend]) == 2
    assert "of the bits of 8 images differ" in capsys.readouterr().err
    assert index.read_bytes() == before


def test_shards_of_several_backends_are_refused(backend: str, tiny: Path, photos: Path, tmp_path: Path) -> None:
    encode_folder(photos, tmp_path / "out", str(tiny), workers=0, backend=backend)
    with pytest.raises(NestKALAError, match=f"was started with backend {backend}, not torch"):
        encode_folder(photos, tmp_path / "out", str(tiny), workers=0)


def test_every_command_takes_a_backend(
    backend: str, tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, index = ["--backend", backend], str(tmp_path / "photos.index")
    assert main(["encode", str(photos), str(tmp_path / "out"), "--model", str(tiny), "--workers", "0", *flag]) == 0
    assert main(["index", str(tmp_path / "out"), index]) == 0
    capsys.readouterr()
    assert main(["search", index, str(photos / "3.png"), "-k", "1", "--json", *flag]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0].items() >= {"distance": 0, "image": "3.png"}.items()


def test_share_of_differing_bits() -> None:
    codes = np.array([[0b11110000, 0b10000000], [0, 0]], np.uint8)
    assert differing_bits(codes, codes, 9) == 0
    assert differing_bits(codes, np.zeros_like(codes), 9) == 5 / 18


def test_sample_images_are_pieces_of_photographs() -> None:
    images = sample_images()
    assert len({image.tobytes() for image in images}) == 32
    assert all(image.width == image.height >= 100 and isinstance(image, Image.Image) for image in images)
