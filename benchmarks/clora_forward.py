"""What CLoRA adds to a forward pass of the whole frozen backbone.

python benchmarks/clora_forward.py
"""

import statistics
import time

import torch
import tyro

from nestkala.adapters import CLoRA
from nestkala.backbones import load_backbone


@torch.no_grad()
def main(
    backbone: str = "open_clip/ViT-B-32-quickgelu:random",
    batch_size: int = 64,
    num_classes: int = 10,
    repeats: int = 10,
) -> None:
    """Run the backbone with and without CLoRA (key and value of the last block, rank 1) in turn; print the ratio.

    Args:
        backbone: any that `--backbone` of train.py takes; random weights serve as well here.
        batch_size: images a pass.
        num_classes: of the class directions.
        repeats: pairs of passes, after one that does not count.
    """
    loaded = load_backbone(backbone, num_adapted=1)
    tower = loaded.tower
    adapters = CLoRA(tower.width, num_blocks=1, num_prefix_tokens=tower.num_prefix_tokens).bind(
        torch.randn(num_classes, tower.width)
    )
    images = torch.randn(batch_size, 3, *_image_size(loaded.preprocess))

    def seconds(adapted: bool) -> float:
        started = time.perf_counter()
        tower.tail(tower.trunk(images).float(), adapters if adapted else None)
        return time.perf_counter() - started

    pairs = [(seconds(False), seconds(True)) for _ in range(repeats + 1)][1:]
    frozen, adapted = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{backbone}, batch {batch_size}, {torch.get_num_threads()} threads, medians of {repeats}")
    print(f"frozen {frozen:.3f} s, with CLoRA {adapted:.3f} s; median ratio of pairs {ratio:.3f} (target 1.02 at most)")


def _image_size(preprocess: object) -> tuple[int, int]:
    from PIL import Image

    height, width = preprocess(Image.new("RGB", (64, 64))).shape[1:]  # type: ignore[operator]
    return height, width


if __name__ == "__main__":
    tyro.cli(main)
