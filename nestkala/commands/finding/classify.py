"""`nestkala classify`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from ...utils.console import linked
from ...utils.errors import NestKALAError
from ..backend_flag import BackendFlag

if TYPE_CHECKING:
    from torch import Tensor

    from ...hasher import Hasher

_CHUNK = 1024


@dataclass(frozen=True)
class Classify:
    """Classify images with a trained model.

    Prints the most likely classes of each image with their probabilities, or that it shows none of the classes.
    Given --bits, prints the class whose code, computed from its name, is nearest instead. Images that cannot be read
    are reported and skipped.
    """

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """run folder, or "owner/name" on the Hugging Face Hub; a run trained with --shots 0 needs no labels"""

    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE")]] = ()
    """images, or folders of images"""

    top: int | None = None
    """how many of the most likely classes to print for each image (default: 1)"""

    min_probability: float | None = None
    """below this probability, answer "none of the classes" (default: 0). Models trained on an archive with unnamed
    kinds of things can also give this answer on their own"""

    bits: int | None = None
    """compare codes of this length instead of class probabilities"""

    workers: int | None = None
    """number of threads that decode images, 0 for none (default: one per core, at most 8)"""

    backend: BackendFlag = "torch"

    json: bool = False
    """print {image: [{"class": ..., "probability": ...}, ...]} as JSON, most likely first; class null means none of the
    classes. With --bits, print {image: class}"""

    def run(self) -> None:
        from tabulate import tabulate

        from ...hasher import Hasher
        from ...search.image_folder import why_unreadable
        from ...utils.errors import as_line
        from ...utils.machine import decoding_workers

        self._check()
        images = [image for path in self.images for image in _images(path)]
        if not images:
            raise NestKALAError(f"no images in {', '.join(map(str, self.images))}")
        workers = decoding_workers(self.workers)
        hasher = Hasher.from_pretrained(self.model, backend=self.backend)
        answers: dict[str, list[tuple[str | None, float | None]]] = {}
        broken = list[str]()
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            try:
                found = self._answers(hasher, chunk, workers)
            except NestKALAError:  # rare, so only now try each image on its own
                wrong = {image: message for image in chunk if (message := why_unreadable(hasher, image))}
                broken += wrong.values()
                chunk = [image for image in chunk if image not in wrong]
                found = self._answers(hasher, chunk, workers)
            answers |= dict(zip(map(str, chunk), found, strict=True))
        if not answers:
            more = f" (nor can {len(broken) - 1} others)" if len(broken) > 1 else ""
            raise NestKALAError(f"{broken[0]}{more}")
        for message in broken:
            print(f"warning: {message}", file=sys.stderr)
        if broken:
            print(f"note: skipped {len(broken)} of {len(images)} images, which cannot be read", file=sys.stderr)
        if self.json:
            print(json.dumps({image: self._as_json(ranked) for image, ranked in answers.items()}))
            return
        rows = []
        for image, ranked in answers.items():
            for place, (name, probability) in enumerate(ranked):
                shown = "" if probability is None else f"{probability:.2f}"
                rows.append(
                    (
                        "" if place else linked(as_line(image), Path(image)),
                        as_line(name or "(none of the classes)"),
                        shown,
                    )
                )
        headers = ("image", "class", "probability")
        if self.bits is not None:
            rows, headers = [row[:2] for row in rows], headers[:2]  # type: ignore[misc, assignment]
        print(tabulate(rows, headers, tablefmt="simple"))

    def _check(self) -> None:
        """Raise NestKALAError for invalid or conflicting arguments."""
        if not self.images:
            raise NestKALAError("give an image or a folder of images")
        if self.bits is not None and (self.top is not None or self.min_probability is not None):
            raise NestKALAError(
                "--bits compares codes, which have no probabilities: leave out --top and --min-probability"
            )
        if self.top is not None and self.top < 1:
            raise NestKALAError(f"--top must be 1 or more, not {self.top}")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise NestKALAError(f"--min-probability must be 0 to 1, not {self.min_probability:g}")

    def _answers(
        self, hasher: "Hasher", images: Sequence[Path], workers: int
    ) -> list[list[tuple[str | None, float | None]]]:
        """The classes of each image with their probabilities, most likely first; None is "none of the classes"."""
        if self.bits is not None:
            return [[(name, None)] for name in hasher.classify(images, self.bits, workers=workers)]
        return [self._ranked(row, hasher.class_names) for row in hasher.class_probabilities(images, workers=workers)]

    def _ranked(self, probabilities: "Tensor", names: Sequence[str]) -> list[tuple[str | None, float | None]]:
        """The most likely classes of one image, from probabilities (C + 1,); the last is for "none of the classes"."""
        best = probabilities.sort(descending=True, stable=True)
        ranked: list[tuple[str | None, float | None]] = [
            (names[place] if place < len(names) else None, value)
            for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if place < len(names) or value > 0
        ]
        if ranked[0][0] is not None and float(ranked[0][1] or 0) < (self.min_probability or 0):
            ranked = [(None, None), *ranked]
        return ranked[: self.top or 1]

    def _as_json(self, ranked: list[tuple[str | None, float | None]]) -> object:
        if self.bits is not None:
            return ranked[0][0]
        return [{"class": name, "probability": value} for name, value in ranked]


def _images(path: Path) -> list[Path]:
    """The image itself, or all images below the folder."""
    from ...images.listing import LeftOut, images_below

    if not path.is_dir():
        return [path]
    left_out = LeftOut()
    images = [path / name for name, _ in images_below(path, left_out)]
    for line in left_out.in_words():
        print(line, file=sys.stderr)
    return images
