"""Encoding of phone-sized photographs, from files to packed codes."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nestkala import Hasher
from nestkala.backbones import load_backbone
from nestkala.codes import pack
from nestkala.search.fitted import model_without_names, save_without_names, set_shipped
from nestkala.utils.machine import decoding_workers

from .comparison import Row, in_turn

COUNT, PIXELS, BATCH = 100, (4000, 3000), 32


def run(photographs: Path) -> list[Row]:
    """Compared to a loop that opens, decodes and scales each photograph in full, then encodes a batch."""
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone("photo", num_adapted=0)
        spec, model = model_without_names(backbone)
        set_shipped(model)
        save_without_names(Path(folder, "model"), spec, model)
        hasher = Hasher.from_pretrained(Path(folder, "model"))
        paths = large_photographs(photographs, Path(folder))
        found: dict[str, np.ndarray] = {}

        @torch.no_grad()
        def plain() -> None:
            codes = []
            for start in range(0, len(paths), BATCH):
                opened = (Image.open(path).convert("RGB") for path in paths[start : start + BATCH])
                images = torch.stack([backbone.preprocess(image) for image in opened])
                codes.append(pack(hasher.model(backbone.tower.trunk(images).float())[0]))
            found["plain"] = np.concatenate(codes)

        def ours() -> None:
            found["ours"] = hasher.encode(paths, batch_size=BATCH, workers=decoding_workers(None))

        timing = in_turn(plain, ours, repeats=2)
    share = float(np.bitwise_count(found["plain"] ^ found["ours"]).sum() / (8 * found["plain"].size))
    return [
        Row(
            f"{len(paths)} photographs of 12 megapixels, file to code, photo",
            "each decoded and scaled in full, encoded in batches of the same size",
            f"{timing.text}; {share:.2%} of the bits differ",
            "8 times faster",
            min(timing.ratios) >= 8,
            {"plain_s": timing.plain, "ours_s": timing.ours, "differing": share},
        )
    ]


def large_photographs(photographs: Path, folder: Path) -> list[Path]:
    """Photographs from class folders, enlarged, with sensor-like noise, saved as JPEG at quality 92."""
    sources = sorted(photographs.glob("*/*.jpg"))
    paths = [folder / f"{number}.jpg" for number in range(min(COUNT, len(sources)))]
    for number, path in enumerate(paths):
        source = sources[number * len(sources) // len(paths)]
        with Image.open(source) as image:
            size = PIXELS if image.width > image.height else PIXELS[::-1]
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.int16)
        noise = np.random.default_rng(number).integers(-8, 9, (*pixels.shape[:2], 1), dtype=np.int16)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return paths
