"""Draws what photographs find, run beside run: a page of thumbnails, one row a code length.

python scripts/neighbors.py RUN [RUN ...] --output neighbors.jpg

The runs must share queries and gallery (same data, same protocol seed). Frames are green where the class is right.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw
from tyro.conf import Positional

from nestkala.analysis.finished_run import FinishedRun
from nestkala.codes import columns, hamming
from nestkala.images.decoding import decode_image
from nestkala.utils.files import replacing

SIDE, GAP, LABEL = 84, 4, 60
RIGHT, WRONG = (30, 140, 60), (200, 60, 50)


@dataclass
class Found:
    """What one query finds in one run at one length: names, and whether each shares its class."""

    label: str
    names: list[str]
    right: list[bool]


def main(
    runs: Positional[tuple[Path, ...]],
    output: Path,
    lengths: Annotated[tuple[int, ...], tyro.conf.arg(help="bits")] = (8, 16, 64, 128),
    queries: int = 6,
    k: int = 8,
    seed: int = 1,
) -> None:
    """Draw the first k results of some queries, drawn by the seed, at every length that a run has."""
    opened = [FinishedRun.open(run) for run in runs]
    dataset, split = opened[0].data
    chosen = np.sort(np.random.default_rng(seed).choice(len(split.query), queries, replace=False))
    pages: list[list[Found]] = [[] for _ in chosen]
    for run in opened:
        codes = run.encode(progress=True)
        for bits in (b for b in lengths if b <= run.hasher.lengths[-1]):
            where = run.hasher.columns(bits)
            distances = hamming(columns(codes.queries, where)[chosen], columns(codes.gallery, where), bits)
            for page, query, row in zip(pages, chosen, distances, strict=True):
                best = np.argsort(row, kind="stable")[:k]
                right = (codes.gallery_labels[best] & codes.query_labels[query]).any(axis=1)
                names = [dataset.names[split.gallery[item]] for item in best]
                page.append(Found(f"{bits} bits", names, right.tolist()))

    def thumbnail(name: str) -> Image.Image:
        image = decode_image(dataset.read(dataset.names.index(name)), name)
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        return image.crop((left, top, left + edge, top + edge)).resize((SIDE, SIDE))

    rows = len(pages[0])
    height = rows * (SIDE + GAP) + 3 * GAP
    canvas = Image.new("RGB", ((k + 1) * (SIDE + GAP) + LABEL + 3 * GAP, queries * height), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (query, page) in enumerate(zip(chosen, pages, strict=True)):
        top = number * height
        canvas.paste(thumbnail(dataset.names[split.query[query]]), (GAP, top + GAP))
        for place, found in enumerate(page):
            y = top + GAP + place * (SIDE + GAP)
            draw.text((SIDE + 3 * GAP, y + SIDE // 2 - 6), found.label, fill="black")
            for column, (name, right) in enumerate(zip(found.names, found.right, strict=True)):
                x = SIDE + 2 * GAP + LABEL + column * (SIDE + GAP)
                canvas.paste(thumbnail(name), (x, y))
                draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=RIGHT if right else WRONG, width=3)
    buffer = BytesIO()
    canvas.save(buffer, "JPEG", quality=80)
    with replacing(output) as temporary:
        temporary.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
