"""Plots with matplotlib, an extra: pip install "nestkala[plots]"; as PNG, or as SVG in the page's text color."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..utils.errors import NestKALAError
from ..utils.files import check_writable, replacing
from .advice import Length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE = "#0072b2", "#d55e00"  # colorblind-safe (Okabe and Ito, Color Universal Design, 2008)
COLORS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")  # their full palette
_VISIBLE = COLORS[:6]  # both on white and on black
_INK = "#14181d"
_GRAY = "#8a94a0"
_LONGEST = 28  # characters of a name in a legend
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "nestkala",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a chart.

    Attributes:
        name: name in the legend.
        x, y: its points (n,).
        low, high: ends of the error bars (n,), if any.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Axis:
    """An axis of a line chart.

    Attributes:
        label: what it shows.
        log: whether the scale is logarithmic.
        whole: whether to label only whole numbers.
        ticks: positions of the labels, instead of matplotlib's choice.
        low, high: limits of the axis, instead of matplotlib's choice.
    """

    label: str
    log: bool = False
    whole: bool = False
    ticks: Sequence[float] | None = None
    low: float | None = None
    high: float | None = None


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise NestKALAError('pictures need matplotlib: pip install "nestkala[plots]"') from error
    return matplotlib


@contextmanager
def _style() -> Iterator[None]:
    with _matplotlib().rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, its size in inches. Raises NestKALAError if matplotlib is not installed."""
    figure: Figure = _matplotlib().figure.Figure(figsize=(width, height), layout="constrained")
    return figure


@_style()
def save_figure(figure: "Figure", path: Path) -> None:
    """Write it in the format of the path's suffix, such as .png or .svg, on white."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."), dpi=150, facecolor="white")


def check_drawable(path: Path) -> None:
    """Raise NestKALAError if it is clear in advance that `plot_lengths` could not draw to a file."""
    figure = new_figure(1, 1)
    if path.suffix.lower().removeprefix(".") not in figure.canvas.get_supported_filetypes():
        raise NestKALAError(f"cannot draw to {path}: give a file that ends in .png or .svg")
    check_writable(path)


@_style()
def line_chart(
    lines: Sequence[Line], x: Axis, y: Axis, markers: bool = False, size: tuple[float, float] = (5.2, 4.0)
) -> "Figure":
    """Lines distinguished by color, dashes and, with `markers`, markers; the size is in inches."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(*size)
    for number, line in enumerate(lines):
        look: dict[str, Any] = {
            "color": _VISIBLE[number % len(_VISIBLE)],
            "linestyle": _DASHES[number % len(_DASHES)],
            "marker": _MARKERS[number % len(_MARKERS)] if markers else None,
            "linewidth": 2,
            "markersize": 6,
        }
        if line.low is None or line.high is None:
            axes.plot(line.x, line.y, **look)
        else:
            reach = np.abs(np.array([line.low, line.high]) - np.array(line.y))
            axes.errorbar(line.x, line.y, reach, capsize=4, elinewidth=1.2, **look)
    for axis, given, set_scale, set_limits in (
        (axes.xaxis, x, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, y, axes.set_yscale, axes.set_ylim),
    ):
        if given.log:
            set_scale("log")
        if given.whole:
            axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        if given.ticks is not None:
            axis.set_ticks(given.ticks, [f"{tick:g}" for tick in given.ticks])
            axis.set_ticks([], minor=True)
        axis.set_label_text(given.label)
        set_limits(given.low, given.high)
    axes.grid(color=_INK, alpha=0.15)
    if len(lines) > 1:
        _legend(figure, axes.containers or axes.lines, [line.name for line in lines])
    return figure


@_style()
def scatter_chart(places: NDArray[np.float64], names: Sequence[str], numbers: NDArray[np.int64]) -> "Figure":
    """Points (n, 2), with groups by number (n,), -1 for none, distinguished by color and marker."""
    figure, axes = _figure(5.2, 5.2)
    rest = places[numbers == -1]
    axes.scatter(rest[:, 0], rest[:, 1], s=10, color=_GRAY, alpha=0.5, linewidths=0)
    shown = []
    for number in range(len(names)):
        x, y = places[numbers == number].T
        color, marker = _VISIBLE[number % len(_VISIBLE)], _MARKERS[number % len(_MARKERS)]
        shown.append(axes.scatter(x, y, s=20, color=color, marker=marker, alpha=0.85, linewidths=0))
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    if names:
        _legend(figure, shown, names)
    return figure


@_style()
def balance_chart(shares: Sequence[float]) -> "Figure":
    """The share of ones of each bit, compared to one half."""
    figure, axes = _figure(5.2, 4.0)
    bits = np.arange(len(shares))
    axes.bar(bits, np.array(shares) - 0.5, bottom=0.5, color=_VISIBLE[0], width=0.8)
    axes.axhline(0.5, color=_INK, linewidth=1)
    axes.set(xlabel="bit", ylabel="share of ones", ylim=(0, 1), xlim=(-0.7, len(shares) - 0.3))
    axes.grid(axis="y", color=_INK, alpha=0.15)
    return figure


@_style()
def heat_map(values: NDArray[np.float64], label: str) -> "Figure":
    """Values (b, b) in 0..1 of every two bits; NaN is gray."""
    figure, axes = _figure(5.2, 4.3)
    from matplotlib import colormaps

    shown = axes.imshow(values, vmin=0, vmax=1, cmap=colormaps["cividis"].with_extremes(bad=_GRAY), aspect="equal")
    axes.set(xlabel="bit", ylabel="bit")
    bar = figure.colorbar(shown, label=label)
    bar.outline.set_visible(False)
    return figure


@_style()
def as_svg(figure: "Figure") -> str:
    """An <svg> element whose ink has the color of the surrounding text."""
    text = StringIO()
    nothing_said = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing_said)
    svg = text.getvalue()
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg[svg.index("<svg") :])  # ids of parts, which repeat across pictures
    return svg.replace(_INK, "currentColor")


@_style()
def plot_lengths(lengths: Sequence[Length], chosen: Length, path: Path) -> None:
    """Tie-aware mAP against bits, with the bytes per image at the top, and the chosen length marked.

    Raises:
        NestKALAError: as `check_drawable` does.
    """
    check_drawable(path)
    line = Line("", [length.bits for length in lengths], [length.map_tie_aware for length in lengths])
    x = Axis("prefix length in bits", low=0, high=lengths[-1].bits + 1)
    figure = line_chart([line], x, Axis("mAP, tie-aware", low=0), size=(7, 4))
    (axes,) = figure.axes
    place = chosen.bits, chosen.map_tie_aware
    axes.plot(*place, "o", color=ORANGE, markersize=9)
    label = f"{chosen.bits} bits: {chosen.map_tie_aware:.3f}"
    axes.annotate(label, place, (8, -16), textcoords="offset points", color=ORANGE)
    above = axes.secondary_xaxis("top", functions=(partial(np.multiply, 1 / 8), partial(np.multiply, 8)))
    above.set_xlabel("bytes per image")
    save_figure(figure, path)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure, its size in inches, and its axes."""
    figure = new_figure(width, height)
    return figure, figure.subplots()


def _legend(figure: "Figure", handles: Sequence[Any], names: Sequence[str]) -> None:
    """Below the axes, with as many columns as fit; the figure grows if there are more than a few rows."""
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    columns = max(1, min(len(names), 55 // (4 + max(map(len, names)))))
    rows = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.22 * max(0, rows - 4))
    numbers = [str(number) for number in range(len(names))]
    legend = figure.legend(handles, numbers, loc="outside lower center", ncols=columns, fontsize=10, columnspacing=1.2)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # a name may contain $ or start with _
        text.set_text(name)
