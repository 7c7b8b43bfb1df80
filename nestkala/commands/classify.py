"""`nestkala classify`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Classify:
    """Say which class each image shows: that whose code, made of its name, is nearest; or that none of them is."""

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """run folder, or "owner/name" on the Hugging Face hub; one of --shots 0 has seen no labels"""

    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE")]]
    """one or several, or folders of them"""

    bits: int | None = None
    """prefix length that is compared; by default the whole code"""

    workers: int | None = None
    """processes that decode images, 0 for none; by default one for every two cores, 8 at most"""

    json: bool = False
    """print {image: class} as JSON; null for none"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..hasher import Hasher
        from ..utils.errors import as_line
        from ..utils.machine import decoding_workers

        images = [image for path in self.images for image in _images(path)]
        hasher = Hasher.from_pretrained(self.model)
        found = hasher.classify(images, self.bits, workers=decoding_workers(self.workers))
        by_image = dict(zip(map(str, images), found, strict=True))
        if self.json:
            print(json.dumps(by_image))
        else:
            rows = [(as_line(image), as_line(name or "(none of the classes)")) for image, name in by_image.items()]
            print(tabulate(rows, ("image", "class"), tablefmt="simple"))


def _images(path: Path) -> list[Path]:
    """The image, or those below the folder."""
    from ..images.listing import LeftOut, images_below

    if not path.is_dir():
        return [path]
    left_out = LeftOut()
    images = [path / name for name, _ in images_below(path, left_out)]
    for line in left_out.in_words():
        print(line, file=sys.stderr)
    return images
