"""Loaders of untrusted files, each with valid files to start from."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nestkala import Hasher, PrefixIndex
from nestkala.backbones import load_backbone
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.experiments import load_experiment
from nestkala.images.decoding import decode_image
from nestkala.images.digests import FILE, Digests
from nestkala.index.prefix_index import Method
from nestkala.search.shards import read_plan, read_shards, shard_images, unreadable
from nestkala.settings.config import Config
from nestkala.settings.loading import load_config
from nestkala.tokens.cache import TokenCache, image_key
from nestkala.training.anchors import class_anchors, class_sentences
from nestkala.training.checkpoint import load_checkpoint
from nestkala.training.history import load_history
from nestkala.training.metrics_file import load_metrics
from nestkala.training.objective import make_loss
from nestkala.utils.files import save_tensors

from ..bad_inputs.good import OF_FEATURES, WIDTH, Good, copied
from ..pictures import encoded, noise

_FEW = 12
_METHODS: tuple[Method, ...] = ("slices", "tables", "scan")


@dataclass(frozen=True)
class Target:
    """A loader.

    Attributes:
        name: name of its input.
        seeds: valid contents.
        path: path that contents are written to before each trial.
        load: reads the file.
    """

    name: str
    seeds: Sequence[bytes]
    path: Path
    load: Callable[[], object]


def make_targets(good: Good, folder: Path) -> list[Target]:
    """All loaders; each damages its own files below `folder`."""
    return [
        _images(folder / "image"),
        *_indexes(good, folder / "index"),
        *_models(good, folder / "model"),
        _checkpoints(good, folder / "checkpoint"),
        *_lists(folder / "lists"),
        _class_folders(folder / "classes"),
        *_settings(folder / "settings"),
        *_runs(good, folder / "run"),
        *_shards(good, folder / "shards"),
        *_arrays(good, folder / "arrays"),
        _tokens(folder / "tokens"),
        _digests(folder / "digests"),
    ]


def _images(path: Path) -> Target:
    exif = Image.Exif()
    exif[0x0112] = 6
    images: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((noise(0, 32), form, {}) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM")),
        *((noise(0, 32).convert(mode), "PNG", {}) for mode in ("L", "P", "RGBA", "LA", "1")),
        *((noise(0, 32).convert("CMYK"), form, {}) for form in ("JPEG", "TIFF")),
        *((noise(0, 32).convert("L").convert(mode), "TIFF", {}) for mode in ("F", "I", "I;16")),
        (noise(0, 32), "JPEG", {"exif": exif, "progressive": True}),
    ]
    seeds = [encoded(image, form, **options) for image, form, options in images]
    return Target("images", seeds, path, lambda: decode_image(path.read_bytes(), "image"))


def _indexes(good: Good, path: Path) -> list[Target]:
    small = path.with_name("small.index")
    codes = np.random.default_rng(0).integers(0, 256, (_FEW, 9), np.uint8)
    PrefixIndex.build(codes, bits=70, metadata=[{"size": n} for n in range(_FEW)]).save(small)
    seeds = [good.index.read_bytes(), small.read_bytes()]

    def search(verify: bool) -> None:
        index = PrefixIndex.load(path, verify)
        queries = np.zeros((2, -(-index.bits // 8)), np.uint8)
        for bits in {1, index.bits // 2 + 1, index.bits}:
            for method in _METHODS:
                index.search(queries, 3, bits, method=method)
        index.search(queries, 3, 1, shortlist=5)
        index.search_radius(queries, 1)
        index.without({"1"})
        list(index.items())

    return [
        Target("indexes", seeds, path, lambda: search(True)),
        Target("indexes, unverified", seeds, path, lambda: search(False)),
    ]


def _models(good: Good, folder: Path) -> list[Target]:
    """Weights are damaged next to a model.json of version 3, without their checksum, which would catch everything."""
    run = copied(good.feature_run, _made(folder))
    earlier = copied(good.feature_run, _made(folder / "earlier"))
    spec = json.loads((earlier / "model.json").read_text(encoding="utf-8"))
    del spec["weights_sha256"]
    (earlier / "model.json").write_text(json.dumps(spec | {"version": 3}), encoding="utf-8")
    tensors = earlier / "model.safetensors"
    weights = [tensors.read_bytes(), _without_checksum(tensors)]
    return [
        Target("model.json", [(run / "model.json").read_bytes()], run / "model.json", partial(_encode, run)),
        Target("model.safetensors", weights, tensors, partial(_encode, earlier)),
    ]


def _encode(run: Path) -> None:
    hasher = Hasher.from_pretrained(run, "cpu")
    hasher.encode(np.zeros((2, WIDTH), np.float32))
    hasher.class_codes()


def _checkpoints(good: Good, folder: Path) -> Target:
    path = copied(good.feature_run / "checkpoint.safetensors", _made(folder))
    config = load_config(str(good.feature_run / "config.yaml"))

    def load() -> None:
        model = Hasher.from_pretrained(good.feature_run, "cpu").model
        loss = make_loss(config, model.head, torch.eye(2).repeat(4, 1), seed=config.seed)
        parameters = [p for p in (*model.parameters(), *loss.parameters()) if p.requires_grad]
        load_checkpoint(path, model, loss, torch.optim.SGD(parameters, lr=0.1, momentum=0.9))

    return Target("checkpoints", [path.read_bytes()], path, load)


def _without_checksum(path: Path) -> bytes:
    plain = path.with_name("plain.safetensors")
    save_file(load_file(path), plain)
    return plain.read_bytes()


def _lists(folder: Path) -> list[Target]:
    for number in range(_FEW):
        noise(number).save(_made(folder) / f"{number}.png")
    contents = {
        "train.txt": b"".join(b"%d.png %d %d\n" % (n, n % 2, 1 - n % 2) for n in range(8)),
        "test.txt": "\ufeff8.png\t0\t1\r\n9.png\t1\t0\r\n".encode(),
        "classnames.txt": b"cat\nhot dog\n",
    }

    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return _in_folder(folder, contents, lambda: load_dataset(str(folder), folder), "lists: ")


def _class_folders(folder: Path) -> Target:
    path = _made(folder) / "name"

    def load() -> None:
        name = path.read_bytes()[:255].replace(b"/", b"").replace(b"\0", b"").strip(b".") or b"x"
        root = folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        for label in (os.fsdecode(name), "another class"):
            (root / label).mkdir(parents=True, exist_ok=True)
            noise(0).save(root / label / "0.png")
        names = load_dataset(str(root), root).class_names
        class_sentences(names, ("{}",))
        "".join(names).encode()

    return Target("class folders", [b"cat", b"hot dog", "Eichh\u00f6rnchen".encode()], path, load)


def _settings(folder: Path) -> list[Target]:
    _made(folder)
    experiment = b"title: T\nbase: digits\ndata: {D: {data: digits}}\nshots: [1, 2]\nlengths: [8]\nmethods:\n"
    experiment += b"  M: {loss: csq}\n  N: {sweep: {alpha: [1, 2]}}\n"
    config = b"data: digits\nlengths: [8, 16]\nloss: csq\nepochs: 2\nloss_args: {quantization: 0.3}\n"
    config += b"prompts:\n- a {}.\nlr: 0.1\nqueries: 5\n"
    descriptions = b'cat: a cat\n"hot dog": [a dog, "two"]\n'
    return [
        Target("configs", [config], folder / "c.yaml", lambda: load_config(str(folder / "c.yaml"))),
        Target("experiments", [experiment], folder / "e.yaml", lambda: load_experiment(str(folder / "e.yaml")).rows),
        Target(
            "descriptions",
            [descriptions, b'{"cat": "a", "hot dog": ["b"]}'],
            folder / "d.yaml",
            lambda: class_sentences(("cat", "hot dog"), ("{}",), folder / "d.yaml"),
        ),
    ]


def _runs(good: Good, folder: Path) -> list[Target]:
    run = copied(good.feature_run, _made(folder))
    dataset = load_dataset(str(good.features), folder)
    loads: dict[str, Callable[[], object]] = {
        "split.json": lambda: load_split(run / "split.json", dataset),
        "metrics.json": lambda: load_metrics(run),
        "history.json": lambda: load_history(run),
    }
    return [Target(name, [(run / name).read_bytes()], run / name, load) for name, load in loads.items()]


def _shards(good: Good, folder: Path) -> list[Target]:
    shards = copied(good.shards, _made(folder))

    def read() -> None:
        plan = read_plan(shards)
        for shard in read_shards(shards, verify=False):
            unreadable(shard)
        for _, images in shard_images(shards, plan, {0, 1}):
            list(images)

    return _in_folder(shards, ("encoding.json", "images.jsonl", "000001.index"), read, "shards: ")


def _arrays(good: Good, folder: Path) -> list[Target]:
    features = copied(good.features, _made(folder))
    anchors = folder / "anchors.npy"
    np.save(anchors, np.eye(2, 5, dtype=np.float32))
    backbone = load_backbone(OF_FEATURES["backbone"], 0)
    config = Config(anchors=str(anchors), backbone=backbone.name, adapter="none")

    def read() -> None:
        dataset = load_dataset(str(features), folder)
        for index in range(min(_FEW, len(dataset))):
            backbone.prepare(dataset.read(index), dataset.names[index])

    return [
        *_in_folder(features, ("features.npy", "labels.npy"), read),
        Target(
            "anchors", [anchors.read_bytes()], anchors, lambda: class_anchors(config, backbone, ("cat", "dog"), seed=0)
        ),
    ]


def _tokens(folder: Path) -> Target:
    keys = [image_key(b"%d" % number) for number in range(3)]
    cache = TokenCache(folder, "tokens", 1e9)
    for key in keys:
        cache.add(key, torch.ones(4, 8).half())
    cache.flush()
    (path,) = folder.glob("*/*.safetensors")

    def read() -> None:
        read = TokenCache(folder, "tokens", 1e9)
        torch.stack([read[key] for key in keys if key in read] or [torch.zeros(1)])

    return Target("token cache", [path.read_bytes()], path, read)


def _digests(folder: Path) -> Target:
    image, path = _made(folder) / "image.png", folder / FILE
    image.write_bytes(b"an image")
    digests = torch.arange(64, dtype=torch.uint8).view(2, 32)
    save_tensors(path, {"digests": digests}, {"version": "1"})
    return Target("digest cache", [path.read_bytes()], path, lambda: Digests(folder).of(image))


def _in_folder(folder: Path, names: Iterable[str], load: Callable[[], object], kind: str = "") -> list[Target]:
    """Each file of these names, which are loaded together; after a trial, all are restored."""
    contents = {name: (folder / name).read_bytes() for name in names}

    def restoring() -> None:
        try:
            load()
        finally:
            for name, content in contents.items():
                (folder / name).write_bytes(content)

    return [Target(kind + name, [content], folder / name, restoring) for name, content in contents.items()]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
