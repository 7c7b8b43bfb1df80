"""Images a second through the built-in backbone: decoding, trunk, tail and head, from image files to packed codes.

python benchmarks/encoding.py --images cifar10/test
"""

import statistics
import time
from pathlib import Path

import torch
import tyro

from nestkala.backbones import load_backbone
from nestkala.codes import pack
from nestkala.heads import NestedHashHead
from nestkala.images import decode_image


def main(images: Path, backbone: str = "tiny", count: int = 5000, batch_size: int = 256, repeats: int = 5) -> None:
    """Encode the first images below a folder several times and print the median rate, and the network's alone.

    Args:
        images: folder of image files.
        backbone: any that `--backbone` of train.py takes.
        count: images, at most.
        batch_size: images a pass.
        repeats: passes over all, after one that does not count.
    """
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    loaded = load_backbone(backbone, num_adapted=1)
    head = NestedHashHead(loaded.tower.feature_dim, (64,), batch_norm=True).eval()

    def decoded(batch: list[Path]) -> torch.Tensor:
        return torch.stack([loaded.preprocess(decode_image(path.read_bytes(), str(path))) for path in batch])

    @torch.no_grad()
    def codes(pixels: torch.Tensor) -> None:
        pack(head(loaded.tower.tail(loaded.tower.trunk(pixels).float())))

    batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    whole, network = [], []
    for _ in range(repeats + 1):
        started, inside = time.perf_counter(), 0.0
        for batch in batches:
            pixels = decoded(batch)
            ready = time.perf_counter()
            codes(pixels)
            inside += time.perf_counter() - ready
        whole.append(len(paths) / (time.perf_counter() - started))
        network.append(len(paths) / inside)
    print(
        f"{backbone}: {statistics.median(whole[1:]):.0f} images/s from file to code, "
        f"{statistics.median(network[1:]):.0f} without decoding; {len(paths)} images, batches of {batch_size}, "
        f"{torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    tyro.cli(main)
