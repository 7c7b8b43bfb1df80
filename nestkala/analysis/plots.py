"""Pictures; matplotlib is an extra, pip install "nestkala[plots]"."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..utils.errors import NestKALAError
from ..utils.files import check_writable, replacing
from .advice import Length

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#d55e00"  # told apart by the colour-blind (Okabe and Ito, Color Universal Design, 2008)
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")  # all of theirs


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, its size in inches. Raises NestKALAError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NestKALAError('pictures need matplotlib: pip install "nestkala[plots]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write it in the format of the path's suffix, such as .png or .svg, on white."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150, facecolor="white")


def check_drawable(path: Path) -> None:
    """Raise NestKALAError where `plot_lengths` could not draw to a file, as far as is seen beforehand."""
    figure = new_figure(1, 1)
    if path.suffix.lower().removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise NestKALAError(f"cannot draw to {path}: say a file that ends in .png or .svg")
    check_writable(path)


def plot_lengths(lengths: Sequence[Length], chosen: Length, path: Path) -> None:
    """Tie-aware mAP against bits, with the bytes an image takes above, and the chosen length marked.

    Raises:
        NestKALAError: as `check_drawable` does.
    """
    check_drawable(path)
    figure = new_figure(7, 4)
    axes = figure.subplots()
    bits = [length.bits for length in lengths]
    axes.plot(bits, [length.map_tie_aware for length in lengths], color=BLUE, linewidth=2)
    axes.plot(chosen.bits, chosen.map_tie_aware, "o", color=ORANGE, markersize=9)
    axes.annotate(
        f"{chosen.bits} bits: {chosen.map_tie_aware:.3f}",
        (chosen.bits, chosen.map_tie_aware),
        (8, -16),
        textcoords="offset points",
        color=ORANGE,
    )
    axes.set(xlabel="prefix length in bits", ylabel="mAP, tie-aware", xlim=(0, bits[-1] + 1), ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.spines[["right"]].set_visible(False)
    above = axes.secondary_xaxis("top", functions=(partial(np.multiply, 1 / 8), partial(np.multiply, 8)))
    above.set_xlabel("bytes an image")
    save_figure(figure, path)
