"""`nestkala classify`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Classify:
    """Say which class each image shows: that whose code, made of its name, is nearest."""

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """run folder, or "owner/name" on the Hugging Face hub; one of --shots 0 has seen no labels"""

    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE")]]
    """one or several"""

    bits: int | None = None
    """prefix length that is compared; by default the whole code"""

    workers: int | None = None
    """processes that decode images, 0 for none; by default one for every two cores, 8 at most"""

    json: bool = False
    """print {image: class} as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..hasher import Hasher
        from ..index.strings import as_line
        from ..machine import decoding_workers

        found = Hasher.from_pretrained(self.model).classify(
            self.images, self.bits, workers=decoding_workers(self.workers)
        )
        by_image = dict(zip(map(str, self.images), found, strict=True))
        if self.json:
            print(json.dumps(by_image))
        else:
            rows = [(as_line(image), name) for image, name in by_image.items()]
            print(tabulate(rows, ("image", "class"), tablefmt="simple"))
