"""Pictures; matplotlib is an extra, pip install "nestkala[plots]"."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .advice import Length
from .errors import NestKALAError
from .files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#d55e00"  # told apart by the colour-blind (Okabe and Ito)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, its size in inches. Raises NestKALAError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NestKALAError('pictures need matplotlib: pip install "nestkala[plots]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def plot_lengths(lengths: Sequence[Length], chosen: Length, path: Path) -> None:
    """Tie-aware mAP against bits, with the bytes an image takes above, and the chosen length marked.

    Raises:
        NestKALAError: matplotlib is not installed, or the file's suffix is of no picture that it writes.
    """
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
    if path.suffix.lower().removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise NestKALAError(f"cannot draw to {path}: say a file that ends in .png or .svg")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150)
