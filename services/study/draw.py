"""How the study's figures look: matplotlib, with colors that everybody can tell apart, the same file every time."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.study.record import StudyRecord

# Okabe and Ito's colors, with gray for their yellow, which is too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#888888")
MARKS = ("o", "s", "D", "^", "v", "P", "X", "*")

RANDOM_WEIGHTS = "random weights"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",  # texts stay texts: smaller, and a reader can search and copy them
    "svg.hashsalt": "splitcast",  # else two drawings of the same records differ
}


@contextmanager
def style() -> Iterator[None]:
    """In here figures are drawn and written as the study's; matplotlib's own settings stay what they are."""
    with mpl.rc_context(_STYLE):
        yield


def panels(
    count: int = 1, width: float = 3.5, height: float = 2.8, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, each so many inches wide and high, at most so many of them in a row."""
    columns = max(min(count, columns), 1)
    rows = max(-(-count // columns), 1)
    with style():
        figure = Figure(figsize=(width * columns, height * rows))
        axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for spare in axes[count:]:
            spare.remove()
    return figure, axes[:count]


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A color and a mark for each name, as keywords for `Axes.plot`."""
    pairs = zip(dict.fromkeys(names), cycle(zip(COLORS, MARKS, strict=True)), strict=False)
    return {name: {"color": color, "marker": mark} for name, (color, mark) in pairs}


def label(record: StudyRecord) -> str:
    """The network's name for a legend, which says so where its weights are random."""
    return f"{record.network}, layer {record.split}{f' ({RANDOM_WEIGHTS})' if record.random else ''}"


def legend(axis: Axes, **options: Any) -> None:
    """A legend, where anything is drawn: records may hold no point of a panel's curves."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**options)


def stamp(figure: Figure, records: Sequence[StudyRecord]) -> None:
    """Write across a figure that weights are random, if those of any of its records are.

    Where panels name their networks, across those panels alone.
    """
    if not any(record.random for record in records):
        return
    look: dict[str, Any] = {"color": "#D55E00", "alpha": 0.22, "rotation": 18, "ha": "center", "va": "center"}
    named = [axis for axis in figure.axes if RANDOM_WEIGHTS in axis.get_title()]
    for axis in named:
        axis.text(0.5, 0.5, RANDOM_WEIGHTS, transform=axis.transAxes, fontsize=18, zorder=10, **look)
    if not named:
        figure.text(0.5, 0.5, RANDOM_WEIGHTS, fontsize=26, zorder=10, **look)


def svg(figure: Figure) -> str:
    """The figure as an SVG document, the same bytes for the same figure."""
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 300 dots per inch, fit for print."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=300, metadata={"Software": None})
    return file.getvalue()
