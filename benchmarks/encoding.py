"""Images per second from image files to packed codes, and through the network alone.

python -m benchmarks.encoding --images cifar10/test
"""

from pathlib import Path

import torch
import tyro
from PIL import Image

from nestkala.backbones import load_backbone
from nestkala.data import load_dataset
from nestkala.modeling.image_codes import packed_codes
from nestkala.modeling.model import HashModel
from nestkala.tokens.source import TokenSource

from .comparison import Work, medians


def main(
    images: Path, backbone: str = "tiny", count: int = 5120, batch_size: int = 256, workers: int = 1, repeats: int = 3
) -> None:
    """Encode the first images of a folder to 64 bits several times and print the median rates.

    Args:
        images: folder of class folders.
        backbone: any value of train.py's `--backbone`.
        count: maximum number of images; best a multiple of batch_size.
        batch_size: images per pass.
        workers: number of decoding threads.
        repeats: repetitions of each, after one that does not count.
    """
    dataset = load_dataset(str(images.absolute()), Path())
    indices = range(min(count, len(dataset)))
    loaded = load_backbone(backbone, num_adapted=1)
    model = HashModel(loaded.tower, torch.randn(10, loaded.tower.feature_dim), lengths=(64,)).eval()
    source = TokenSource(loaded, "fp32", batch_size, workers)
    pixels = loaded.preprocess(Image.new("RGB", (64, 64))).expand(batch_size, -1, -1, -1).contiguous()

    @torch.no_grad()
    def network() -> None:
        for _ in range(0, len(indices), batch_size):
            model(loaded.tower.trunk(pixels).float())

    works: list[Work] = [lambda: packed_codes(model, source, dataset, indices), network]
    whole, alone = (len(indices) / medians(work, repeats=repeats)[0] for work in works)
    print(
        f"{backbone}: {whole:.0f} images/s from file to code, {alone:.0f} through the network alone; "
        f"{len(indices)} images, batches of {batch_size}, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    tyro.cli(main)
