"""Pictures; matplotlib is an extra, pip install "nestkala[plots]"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
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
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150)


@dataclass(frozen=True)
class Panel:
    """Lines over the values of one setting.

    Attributes:
        title: above it.
        setting: name of the setting.
        values: of the setting, in order.
        lines: {label: mean and standard deviation at each value}, in points.
    """

    title: str
    setting: str
    values: Sequence[float]
    lines: Mapping[str, Sequence[tuple[float, float]]]


def plot_panels(panels: Sequence[Panel], measure: str, path: Path) -> None:
    """Write a PNG of panels, three in a row: their values evenly spaced, a line with its spread for each label.

    Args:
        panels: at least one.
        measure: what the lines show.
        path: of the PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 4 * columns, 3 * height), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(height, columns, place)
        places = np.arange(len(panel.values))
        for (label, points), colour in zip(panel.lines.items(), cycle(COLOURS), strict=False):
            means, spreads = np.array(points).T
            axes.plot(places, means, "o-", color=colour, linewidth=2, markersize=4, label=label)
            axes.fill_between(places, means - spreads, means + spreads, color=colour, alpha=0.15, linewidth=0)
        axes.set_xticks(places, [f"{value:g}" for value in panel.values])
        axes.set(title=panel.title, xlabel=panel.setting, ylabel=measure)
        axes.grid(alpha=0.25)
        axes.spines[["right", "top"]].set_visible(False)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
