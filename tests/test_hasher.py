"""A trained model at work: what it encodes, what it refuses to load, and its way to the hub and back."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nestkala.training.run
from nestkala import Hasher, PrefixIndex
from nestkala.backbones import load_backbone
from nestkala.data.digits import load_digits
from nestkala.data.splits import load_split
from nestkala.evaluation import evaluate
from nestkala.modeling.saved_model import load_model, save_model
from nestkala.settings.config import Config
from nestkala.utils.errors import NestKALAError
from nestkala.utils.files import save_tensors

LENGTHS = (4, 12, 20)
DIGITS = load_digits().take(np.arange(60))


@pytest.fixture(autouse=True)
def no_cache_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "tokens"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short training on sixty digits."""
    folder = tmp_path_factory.mktemp("hasher")
    config = Config(
        output=folder / "run",
        lengths=LENGTHS,
        queries_per_class=2,
        epochs=5,
        workers=0,
        threads=1,
        encode_batch_size=16,
        head_init="random",
        cache=folder / "tokens",
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(nestkala.training.steps.images, "load_dataset", lambda *_: DIGITS)
        yield nestkala.training.run.train(config)
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def hasher(run_folder: Path) -> Hasher:
    return Hasher.from_pretrained(run_folder, device="cpu")


@pytest.fixture
def model(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model's two files, to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(run_folder / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [DIGITS.read(index) for index in range(20)]


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(NestKALAError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_file(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


class DenseCLoRA(nn.Module):
    """A packed projection of one image with CLoRA's update built as a matrix, for keys and values."""

    def __init__(self, qkv: nn.Linear, q: Tensor, directions: Tensor) -> None:
        super().__init__()
        self.qkv, self.q, self.directions = qkv, q, directions

    def forward(self, v: Tensor) -> Tensor:
        (tokens,) = v
        closest = max(self.directions, key=lambda k: float(F.cosine_similarity(k, tokens.mean(dim=0), dim=0)))
        update = torch.cat(
            [torch.zeros(256, 256), torch.outer(closest, self.q[0, 0]), torch.outer(closest, self.q[1, 0])]
        )
        return self.qkv(v) + v @ update.T


@torch.no_grad()
def directly(folder: Path, images: list[bytes]) -> Tensor:
    """Relaxed codes, image by image, from the file's tensors and timm's own modules."""
    state = load_file(folder / "model.safetensors")
    backbone = load_backbone("tiny", num_adapted=1)
    vit: Any = backbone.tower.vit
    *frozen, last = vit.blocks
    coordinates = state["anchor_to_token.coordinates"]
    directions = F.linear(coordinates, state["anchor_to_token.weight"], state["anchor_to_token.bias"])
    last.attn.qkv = DenseCLoRA(last.attn.qkv, state["adapter.q.0"], directions)
    features = []
    for data in images:
        x = vit.patch_embed(backbone.preprocess(Image.open(BytesIO(data)).convert("RGB"))[None])
        x = vit.norm_pre(vit._pos_embed(x))
        for block in frozen:
            x = block(x)
        features.append(vit.head(vit.fc_norm(vit.norm(last(x.half().float())).mean(dim=1))))
    z = torch.cat(features) @ state["head.linear.weight"].T + state["head.linear.bias"]
    mean, variance = state["head.norm.running_mean"], state["head.norm.running_var"]
    z = (z - mean) / (variance + 1e-5).sqrt() * state["head.norm.weight"] + state["head.norm.bias"]
    return torch.tanh(z)


def test_codes_are_those_of_a_direct_forward(hasher: Hasher, run_folder: Path, images: list[bytes]) -> None:
    expected = directly(run_folder, images[:8])
    relaxed = hasher.relaxed(images[:8])
    assert relaxed.shape == (8, 20)
    torch.testing.assert_close(torch.from_numpy(relaxed), expected, rtol=0, atol=2e-3)
    assert expected.std(dim=0).max() > 0.1
    clear = expected.abs() > 5e-3
    assert clear.float().mean() > 0.8
    signs = torch.from_numpy(np.unpackbits(hasher.encode(images[:8]), axis=1, count=20).astype(bool))
    assert (signs == (expected > 0))[clear].all()


def test_loading_leaves_the_callers_randomness_alone(run_folder: Path) -> None:
    before = torch.get_rng_state()
    Hasher.from_pretrained(run_folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_codes_are_the_packed_signs_of_the_relaxed_ones(hasher: Hasher, images: list[bytes]) -> None:
    codes = hasher.encode(images)
    assert (codes.dtype, codes.shape) == (np.uint8, (20, 3))
    expected = np.packbits(hasher.relaxed(images) >= 0, axis=1)
    assert (codes == expected).all()
    assert len(np.unique(codes, axis=0)) > 5


def test_a_shorter_code_is_the_prefix_of_the_longest(hasher: Hasher, images: list[bytes]) -> None:
    signs = np.unpackbits(hasher.encode(images[:6]), axis=1)
    assert not signs[:, 20:].any()
    for bits in range(1, 21):
        codes = hasher.encode(images[:6], bits=bits)
        assert codes.shape == (6, -(-bits // 8))
        assert (codes == np.packbits(signs[:, :bits], axis=1)).all()


def test_the_run_scored_the_codes_that_are_served(hasher: Hasher, run_folder: Path) -> None:
    split = load_split(run_folder / "split.json", DIGITS)
    queries, gallery = (hasher.encode([DIGITS.read(i) for i in part]) for part in (split.query, split.gallery))
    scores = evaluate(queries, DIGITS.targets[split.query], gallery, DIGITS.targets[split.gallery], LENGTHS)
    reported = json.loads((run_folder / "metrics.json").read_text())["lengths"]
    assert reported.keys() == {"4", "12", "20"}
    for bits in LENGTHS:
        assert reported[str(bits)]["map"] == pytest.approx(scores[bits].map, abs=1e-6)
        assert reported[str(bits)]["map_tie_aware"] == pytest.approx(scores[bits].map_tie_aware, abs=1e-6)


def test_what_it_says_of_itself(hasher: Hasher, run_folder: Path) -> None:
    assert hasher.lengths == LENGTHS
    assert hasher.class_names == DIGITS.class_names
    assert {path.name for path in run_folder.iterdir()} >= {"model.json", "model.safetensors"}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_path_bytes_and_decoded_image_are_the_same_image(mode: str, hasher: Hasher, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    pixels = {
        "RGB": random.integers(0, 256, (9, 7, 3), dtype=np.uint8),
        "L": random.integers(0, 256, (9, 7), dtype=np.uint8),
        "RGBA": random.integers(0, 256, (9, 7, 4), dtype=np.uint8),
        "I;16": random.integers(0, 65536, (9, 7), dtype=np.uint16),
    }[mode]
    image = Image.fromarray(pixels)
    assert image.mode == mode
    path = tmp_path / "image.png"
    path.write_bytes(as_file(image))
    expected = hasher.relaxed(path)
    assert expected.shape == (1, 20)
    for same in (str(path), path.read_bytes(), image, [path], (image,)):
        assert np.array_equal(hasher.relaxed(same), expected)
        assert hasher.encode(same).tolist() == np.packbits(expected >= 0, axis=1).tolist()
    together = hasher.relaxed([image, path, str(path), path.read_bytes(), Image.new("RGB", (8, 8))])
    assert (together[:4] == together[:1]).all()
    np.testing.assert_allclose(together[:1], expected, rtol=0, atol=1e-3)
    assert not np.allclose(together[4:], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("batch_size", "workers"), [(3, 0), (3, 1), (20, 0), (1000, 0)])
def test_batches_and_workers_make_no_difference(
    batch_size: int, workers: int, hasher: Hasher, images: list[bytes]
) -> None:
    relaxed = hasher.relaxed(images, batch_size=batch_size, workers=workers)
    np.testing.assert_allclose(relaxed, hasher.relaxed(images), rtol=0, atol=1e-3)
    codes = hasher.encode(images, bits=12, batch_size=batch_size, workers=workers)
    assert (codes == np.packbits(relaxed[:, :12] >= 0, axis=1)).all()


@pytest.mark.parametrize(("bits", "width"), [(None, 3), (20, 3), (9, 2), (8, 1), (1, 1)])
def test_no_images_give_no_codes(bits: int | None, width: int, hasher: Hasher) -> None:
    codes = hasher.encode([], bits=bits)
    assert (codes.dtype, codes.shape) == (np.uint8, (0, width))
    assert hasher.relaxed([]).shape == (0, 20)


@pytest.mark.parametrize("bits", [0, -1, 21, 8.0, "8", True])
def test_bits_out_of_range_are_refused(bits: Any, hasher: Hasher, images: list[bytes]) -> None:
    message = refusal(lambda: hasher.encode(images[:1], bits=bits))
    assert "1 to 20" in message
    assert repr(bits) in message


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(
    workers: int, hasher: Hasher, images: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "words.png").write_bytes(b"some words")
    (tmp_path / "half.png").write_bytes(images[0][:60])
    wrong: dict[str, Any] = {
        str(tmp_path / "absent.png"): tmp_path / "absent.png",
        str(tmp_path / "words.png"): str(tmp_path / "words.png"),
        str(tmp_path / "half.png"): tmp_path / "half.png",
        f"'{tmp_path}': Is a directory": tmp_path,
        "number 2": b"",
        "number 2 is an array float64 (8, 8, 3), not a path": np.zeros((8, 8, 3)),
    }
    for told, image in wrong.items():
        batch = [*images[:2], image, images[3]]
        assert told in refusal(lambda: hasher.encode(batch, batch_size=1, workers=workers))  # noqa: B023 - called here


def test_an_image_without_pixels_is_refused(hasher: Hasher, images: list[bytes]) -> None:
    assert "number 1" in refusal(lambda: hasher.encode([images[0], Image.new("RGB", (0, 5))]))


def test_names_are_looked_up_once_an_image(hasher: Hasher, images: list[bytes], tmp_path: Path) -> None:
    """Encoding n paths must not format n^2 names."""
    formatted: list[str] = []

    class Counted(type(tmp_path)):  # type: ignore[misc]
        def __str__(self) -> str:
            formatted.append(self.name)
            return super().__str__()

    paths = []
    for number, data in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(data)
        paths.append(Counted(tmp_path / f"{number}.png"))
    hasher.encode(paths)
    assert len(formatted) < 10 * len(images)


@pytest.fixture
def edited(model: Path) -> Callable[..., Path]:
    def edit(**values: object) -> Path:
        spec = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps(spec | values))
        return model

    return edit


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"version": 6}, ["version 6", "expected 5"]),
        ({"format": "other"}, ["format", "'other'"]),
        ({"color": "red"}, ["color", "'red'"]),
        ({"precision": "fp8"}, ["precision", "'fp8'"]),
        ({"projections": ["k", "z"]}, ["projections", "'z'"]),
        ({"lengths": "many"}, ["lengths", "'many'"]),
        ({"lengths": []}, ["lengths"]),
        ({"lengths": [20, 4]}, ["lengths"]),
        ({"lengths": [0, 20]}, ["lengths"]),
        ({"lengths": [4, 24]}, ["20", "24"]),
        ({"rank": 2}, ["adapter.q.0"]),
        ({"rank": 11}, ["rank", "11"]),
        ({"batch_norm": False}, ["head.norm"]),
        ({"adapt_blocks": 2}, ["adapter.q.1", "absent"]),
        ({"adapt_blocks": 7}, ["adapt_blocks", "7"]),
        ({"adapter": "none"}, ["adapter.q.0", "absent"]),
        ({"backbone": "tinny"}, ["'tinny'; did you mean 'tiny'?"]),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused(
    values: dict[str, object], told: list[str], edited: Callable[..., Path]
) -> None:
    folder = edited(**values)
    message = refusal(lambda: Hasher.from_pretrained(folder))
    for words in told:
        assert words in message


def test_another_backbone_of_the_same_name_is_refused(edited: Callable[..., Path]) -> None:
    fingerprint = load_backbone("tiny", 1).fingerprint
    folder = edited(fingerprint="0" * 32)
    message = refusal(lambda: Hasher.from_pretrained(folder))
    for words in (str(folder), "tiny", fingerprint, "0" * 32):
        assert words in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "{}", '{"format": "nestkala-model"}', b"\xff"])
def test_a_damaged_description_is_refused_by_file(text: str | bytes, model: Path) -> None:
    (model / "model.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert str(model / "model.json") in refusal(lambda: Hasher.from_pretrained(model))


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_damaged_tensors_are_refused_by_file(size: int, model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    message = refusal(lambda: Hasher.from_pretrained(model))
    assert str(path) in message
    assert "damaged" in message


@pytest.mark.parametrize("name", ["anchors", "head.linear.weight", "adapter.q.0", "head.norm.running_var"])
def test_an_absent_tensor_is_named(name: str, model: Path, edited: Callable[..., Path]) -> None:
    state = load_file(model / "model.safetensors")
    save_file({key: value for key, value in state.items() if key != name}, model / "model.safetensors")
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    edited(weights_sha256=digest)
    message = refusal(lambda: Hasher.from_pretrained(model))
    assert name in message
    assert "absent" in message


def test_the_weights_of_another_model_are_refused(model: Path) -> None:
    weights = model / "model.safetensors"
    said = json.loads((model / "model.json").read_text())
    assert said["version"] == 5
    assert said["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    spec, state = load_model(model)
    state["head.linear.weight"] = -state["head.linear.weight"]  # all codes would be others
    save_tensors(weights, state)
    message = refusal(lambda: Hasher.from_pretrained(model))
    assert f"{model}/model.json and model.safetensors belong to different models" in message
    save_model(model, spec, state)
    assert torch.equal(load_model(model)[1]["head.linear.weight"], state["head.linear.weight"])


@pytest.mark.parametrize("version", [1, 2, 3])
def test_models_without_a_checksum_of_the_weights_load_where_they_are_old(
    version: int, edited: Callable[..., Path], hasher: Hasher, images: list[bytes]
) -> None:
    folder = edited(version=version, weights_sha256=None)
    assert (Hasher.from_pretrained(folder).encode(images) == hasher.encode(images)).all()
    folder = edited(version=4)
    assert "it has no checksum of the weights" in refusal(lambda: Hasher.from_pretrained(folder))


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_an_absent_file_is_named(name: str, model: Path) -> None:
    (model / name).unlink()
    message = refusal(lambda: Hasher.from_pretrained(model))
    assert str(model) in message
    assert name in message


@pytest.mark.parametrize("name", ["nowhere", "owner/nowhere", "runs/no/where", "/no/where", "not a name"])
def test_what_is_neither_a_folder_nor_on_the_hub_is_one_clear_error(name: str) -> None:
    message = refusal(lambda: Hasher.from_pretrained(name))
    assert message.startswith(f"'{name}' is not a folder, and loading it")


def test_a_model_from_the_hub(
    model: Path, images: list[bytes], hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, sorted(allow_patterns)))
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    codes = Hasher.from_pretrained("owner/name").encode(images)
    assert (codes == hasher.encode(images)).all()
    assert asked == [("owner/name", ["model.json", "model.safetensors"])]


class Hub:
    """Stands for the hub: remembers what each commit held."""

    def __init__(self, failing: str | None = None) -> None:
        self.failing = failing
        self.commits: list[dict[str, bytes]] = []
        self.created: list[tuple[str, bool]] = []

    def __call__(self) -> "Hub":
        return self

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        if self.failing == "create":
            raise OSError("403 Forbidden\nno permission")
        self.created.append((repo, private))
        return f"https://hub/{repo}"

    def create_commit(
        self, repo_id: str, operations: list[huggingface_hub.CommitOperationAdd], *, commit_message: str
    ) -> None:
        assert commit_message
        assert [repo_id] == [repo for repo, _ in self.created]
        files = {}
        for operation in operations:
            if self.failing == operation.path_in_repo:
                raise ConnectionError("no network")
            with operation.as_file() as file:
                files[operation.path_in_repo] = file.read()
        self.commits.append(files)


@pytest.mark.parametrize("private", [False, True])
def test_what_is_pushed_is_the_model_and_a_card(
    private: bool,
    hasher: Hasher,
    run_folder: Path,
    tmp_path: Path,
    images: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    assert hasher.push_to_hub("owner/name", private=private) == "https://hub/owner/name"
    assert hub.created == [("owner/name", private)]
    (files,) = hub.commits  # one: nobody sees a half of it
    assert files.keys() == {"model.json", "model.safetensors", "README.md"}
    for name in ("model.json", "model.safetensors"):
        assert files[name] == (run_folder / name).read_bytes()
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: nestkala\n")
    for words in ("4, 12, 20 bits", "tiny", hasher.spec.fingerprint, "zero, one, two", '"map_tie_aware"'):
        assert words in card

    (tmp_path / "pulled").mkdir()
    for name, data in files.items():
        (tmp_path / "pulled" / name).write_bytes(data)
    pulled = Hasher.from_pretrained(tmp_path / "pulled")
    assert (pulled.encode(images) == hasher.encode(images)).all()
    assert '"map_tie_aware"' not in pulled._card()


@pytest.mark.parametrize(("failing", "reason"), [("create", "403 Forbidden"), ("model.json", "no network")])
def test_a_failed_push_is_one_clear_error(
    failing: str, reason: str, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(failing)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    message = refusal(lambda: hasher.push_to_hub("owner/name"))
    assert not hub.commits
    assert "owner/name" in message
    assert reason in message


def test_no_two_halves_are_pushed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, loaded = Hub(), Hasher.from_pretrained(model)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    state = load_file(model / "model.safetensors")
    save_tensors(model / "model.safetensors", {name: value + 1 for name, value in state.items()})  # while it was open
    assert "belong to different models" in refusal(lambda: loaded.push_to_hub("owner/name"))
    assert not hub.created


def test_a_rotated_photo_gives_the_same_code_from_its_file_and_from_an_open_image(
    hasher: Hasher, images: list[bytes], tmp_path: Path
) -> None:
    upright = Image.open(BytesIO(images[0])).convert("RGB").resize((40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    with Image.open(turned) as opened:
        assert opened.size == (20, 40)
        codes = [hasher.encode(given) for given in (upright, turned, turned.read_bytes(), opened)]
        assert opened.size == (20, 40)
    assert all((code == codes[0]).all() for code in codes)


def test_a_truncated_image_that_was_opened_is_named(hasher: Hasher, tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with Image.open(path) as opened:
        assert "number 0" in refusal(lambda: hasher.encode(opened))


def test_a_backbone_whose_weights_moved_is_named_anew(edited: Callable[..., Path], images: list[bytes]) -> None:
    folder = edited(backbone="open_clip/ViT-B-32:/gone.safetensors")
    assert "/gone.safetensors" in refusal(lambda: Hasher.from_pretrained(folder))
    assert Hasher.from_pretrained(folder, backbone="tiny").encode(images).shape == (len(images), 3)


def test_a_hasher_an_index_and_a_head_say_what_they_are(hasher: Hasher, run_folder: Path, images: list[bytes]) -> None:
    said = repr(hasher)
    assert all(word in said for word in (repr(str(run_folder)), "20 bits", "classes, backbone tiny"))
    assert repr(PrefixIndex.build(hasher.encode(images[:3]), bits=20)) == "PrefixIndex(3 codes of 20 bits)"
    assert "in_features=" in repr(hasher.model.head)
    assert f"lengths={hasher.lengths}, nested=True" in repr(hasher.model.head)
