"""The cost that CLoRA adds to a forward pass of the whole frozen backbone.

python -m benchmarks.clora_forward
"""

import statistics
import time

import torch
import tyro
from PIL import Image

from nestkala.adapters import CLoRA
from nestkala.backbones import load_backbone


@torch.no_grad()
def main(
    backbone: str = "open_clip/ViT-B-32-quickgelu:random",
    batch_size: int = 64,
    num_classes: int = 10,
    repeats: int = 20,
) -> None:
    """Time the whole frozen backbone, and its last block with and without CLoRA in turn (key and value, rank 1).

    The earlier blocks run the same code either way, so only the last block differs; timed alone, its difference is not
    lost in the noise of the others.

    Args:
        backbone: any value of train.py's `--backbone`; random weights work as well.
        batch_size: images per pass.
        num_classes: number of class directions.
        repeats: pairs of runs of the last block; the whole backbone runs a fifth as often.
    """
    loaded = load_backbone(backbone, num_adapted=1)
    tower = loaded.tower
    adapter = CLoRA(tower.width, num_blocks=1, num_prefix_tokens=tower.num_prefix_tokens)
    anchors, anchor_to_token = torch.randn(num_classes, 512), torch.nn.Linear(512, tower.width)
    height, width = loaded.preprocess(Image.new("RGB", (64, 64))).shape[1:]
    images = torch.randn(batch_size, 3, height, width)
    tokens = tower.trunk(images).float()

    def seconds(whole: bool, adapted: bool) -> float:
        started = time.perf_counter()
        entering = tower.trunk(images).float() if whole else tokens
        tower.tail(entering, adapter.bind(anchor_to_token(anchors)) if adapted else None)
        return time.perf_counter() - started

    full = statistics.median(seconds(whole=True, adapted=False) for _ in range(max(3, repeats // 5)))
    differences = []
    for _ in range(repeats + 2):
        frozen = seconds(whole=False, adapted=False)
        differences.append(seconds(whole=False, adapted=True) - frozen)
    added = statistics.median(differences[2:])
    print(f"{backbone}, batch {batch_size}, {torch.get_num_threads()} threads, medians")
    print(f"whole frozen backbone {full:.3f} s, CLoRA adds {1e3 * added:.1f} ms: ratio {1 + added / full:.3f}")


if __name__ == "__main__":
    tyro.cli(main)
