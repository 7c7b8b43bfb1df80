"""Draws what photographs find, run beside run: a page of thumbnails, one row a code length.

python scripts/neighbors.py RUN [RUN ...] --output neighbors.jpg

The runs must share queries and gallery (same data, same protocol seed). Frames are green where the class is right.
"""

from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image, ImageDraw, ImageOps
from tyro.conf import Positional

from nestkala.analysis.finished_run import FinishedRun
from nestkala.report.examples import RESULTS, Picture, find_examples
from nestkala.utils.files import replacing

SIDE, GAP, LABEL = 84, 4, 60
RIGHT, WRONG = (30, 140, 60), (200, 60, 50)


def main(
    runs: Positional[tuple[Path, ...]],
    output: Path,
    lengths: Annotated[tuple[int, ...], tyro.conf.arg(help="bits")] = (8, 16, 64, 128),
    seed: int = 1,
) -> None:
    """Draw the first results of some queries, drawn by the seed, at every length that a run has."""
    opened = [FinishedRun.open(run) for run in runs]
    encoded = [(run, run.encode(progress=True)) for run in opened]
    asked = [
        (f"{run.folder}, {bits} bits", run, codes, bits)
        for run, codes in encoded
        for bits in lengths
        if bits <= run.hasher.lengths[-1]
    ]
    examples = list(find_examples(asked, seed))
    height = len(asked) * (SIDE + GAP) + 3 * GAP
    canvas = Image.new("RGB", ((RESULTS + 1) * (SIDE + GAP) + LABEL + 3 * GAP, len(examples) * height), "white")
    draw = ImageDraw.Draw(canvas)
    for number, example in enumerate(examples):
        top = number * height + GAP
        canvas.paste(_square(example.query), (GAP, top))
        for row, (name, found) in enumerate(example.found.items()):
            y = top + row * (SIDE + GAP)
            draw.text((SIDE + 3 * GAP, y + SIDE // 2 - 6), name.rpartition(", ")[2], fill="black")
            for column, picture in enumerate(found):
                x = SIDE + 2 * GAP + LABEL + column * (SIDE + GAP)
                canvas.paste(_square(picture), (x, y))
                color = RIGHT if picture.relevant else WRONG
                draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=color, width=3)
    with replacing(output) as temporary:
        canvas.save(temporary, "JPEG", quality=80)


def _square(picture: Picture) -> Image.Image:
    """The middle of a thumbnail, which is a data URL."""
    return ImageOps.fit(Image.open(BytesIO(b64decode(picture.image.partition(",")[2]))), (SIDE, SIDE))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
