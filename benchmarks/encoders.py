"""Encoding a folder as rclip and clip-retrieval do, compared to `Hasher.encode`: the same files, the same network.

Their loops are written anew here, after rclip (github.com/yurijmikhalevich/rclip, `rclip/main.py` and `model.py`) and
clip-retrieval (github.com/rom1504/clip-retrieval, `clip_inference/reader.py` and `mapper.py`). Both use CLIP's ViT-B/32
by default; here they compute the network `photo` in float32, eagerly.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nestkala import Hasher
from nestkala.backbones import load_backbone
from nestkala.runtimes.export import FeatureEncoder
from nestkala.search.fitted import model_without_names, save_without_names, set_shipped
from nestkala.utils.machine import decoding_workers

from .comparison import Row, Timing
from .decoding import large_photographs

PHOTOGRAPHS, REPEATS = 1000, 2
RCLIP_BATCH = 8
CLIP_RETRIEVAL_BATCH, CLIP_RETRIEVAL_WORKERS = 256, 4
BASELINES = {"rclip": "rclip's loop", "clip_retrieval": "clip-retrieval's loop"}
OURS = ("torch", "auto")

Encode = Callable[[Sequence[Path]], np.ndarray]
Found = dict[str, dict[str, float]]


class Files(Dataset[Tensor]):
    """The files, decoded in full and preprocessed."""

    def __init__(self, paths: Sequence[Path], preprocess: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocess(Image.open(self.paths[index]).convert("RGB"))


def run(photographs: Path) -> list[Row]:
    """Small photographs, drawn with seed 0, and large ones; every run is a process, and they take turns."""
    with tempfile.TemporaryDirectory() as folder:
        spec, model = model_without_names(load_backbone("photo", num_adapted=0))
        set_shipped(model)
        save_without_names(Path(folder, "model"), spec, model)
        small = sorted(photographs.absolute().glob("*/*.jpg"))
        drawn = np.sort(np.random.default_rng(0).permutation(len(small))[:PHOTOGRAPHS])
        sets = {
            "small photographs": [small[i] for i in drawn],
            "photographs of 12 megapixels": large_photographs(photographs, Path(folder)),
        }
        return [row for what, paths in sets.items() for row in _rows(what, paths, Path(folder))]


def _rows(what: str, paths: Sequence[Path], folder: Path) -> list[Row]:
    listed = folder / "files.json"
    listed.write_text(json.dumps([str(path) for path in paths]))
    rounds: list[Found] = [{name: _measured(name, folder) for name in (*BASELINES, *OURS)} for _ in range(REPEATS)]
    return [_row(f"{len(paths):,} {what}", ours, plain, rounds) for ours in OURS for plain in BASELINES]


def _row(what: str, ours: str, plain: str, rounds: Sequence[Found]) -> Row:
    timing = Timing([of[plain]["seconds"] for of in rounds], [of[ours]["seconds"] for of in rounds])
    memory = [statistics.median(of[name]["megabytes"] for of in rounds) for name in (plain, ours)]
    workers = statistics.median(of[plain]["worker_megabytes"] for of in rounds)
    also = f" and {CLIP_RETRIEVAL_WORKERS} workers of up to {workers:.0f}" if workers else ""
    stored = [rounds[0][name]["bytes_per_image"] for name in (plain, ours)]
    return Row(
        f"{what}, file to code, photo, backend {ours}",
        BASELINES[plain],
        f"{timing.text}; memory at most {memory[0]:.0f}{also}, {memory[1]:.0f} MB; "
        f"{stored[0]:,.0f}, {stored[1]:,.0f} bytes stored per photograph",
        "1 time",
        min(timing.ratios) >= 1,
        {"rounds": [{plain: of[plain], ours: of[ours]} for of in rounds]},
    )


def _measured(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.encoders", name, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _child(name: str, folder: Path) -> None:
    """Encode the listed files once, after a few that do not count, and print time, memory and size."""
    paths = [Path(path) for path in json.loads((folder / "files.json").read_text())]
    baselines: dict[str, Callable[[Hasher], Encode]] = {"rclip": _rclip, "clip_retrieval": _clip_retrieval}
    hasher = Hasher.from_pretrained(folder / "model", "cpu", backend="torch" if name in baselines else name)
    encode = baselines[name](hasher) if name in baselines else _ours(hasher)
    encode(paths[:RCLIP_BATCH])
    started = time.perf_counter()
    stored = encode(paths)
    seconds = time.perf_counter() - started
    own, workers = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "megabytes": own,
                "worker_megabytes": workers if name == "clip_retrieval" else 0,
                "bytes_per_image": stored.nbytes / len(paths),
            }
        )
    )


def _rclip(hasher: Hasher) -> Encode:
    """One image after the other in one process, eight through the network at once; float32, as its SQLite rows."""
    encoder, files = FeatureEncoder(hasher.model).eval(), hasher.backbone.preprocess

    @torch.no_grad()
    def encode(paths: Sequence[Path]) -> np.ndarray:
        found = []
        for start in range(0, len(paths), RCLIP_BATCH):
            opened = [Image.open(path) for path in paths[start : start + RCLIP_BATCH]]
            found.append(_normalized(encoder(torch.stack([files(image.convert("RGB")) for image in opened]))))
        return torch.cat(found).numpy()

    return encode


def _clip_retrieval(hasher: Hasher) -> Encode:
    """A DataLoader with worker processes, and large batches; float16, as its NumPy files."""
    encoder = FeatureEncoder(hasher.model).eval()

    @torch.no_grad()
    def encode(paths: Sequence[Path]) -> np.ndarray:
        files = Files(paths, hasher.backbone.preprocess)
        loader = DataLoader(files, CLIP_RETRIEVAL_BATCH, num_workers=CLIP_RETRIEVAL_WORKERS)
        return torch.cat([_normalized(encoder(images)).half() for images in loader]).numpy()

    return encode


def _ours(hasher: Hasher) -> Encode:
    workers = decoding_workers(None)
    return lambda paths: hasher.encode(paths, workers=workers)


def _normalized(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
