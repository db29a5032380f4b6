"""How figures look, and how they become SVG: by matplotlib, in colors that everybody can tell apart.

A page shows a figure in the page's own colors, light or dark, and says what a point is where the pointer rests on it.
"""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator

# Okabe and Ito's colors, with gray for their yellow, which is too pale for a line on white; then two of Tol's.
COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222", "#888888", "#882255", "#44aa99",
)  # fmt: skip
MARKS = ("o", "s", "D", "^", "v", "P", "X", "*", "p", "h")
_GRID = "#dddddd"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",  # texts stay texts: smaller, and a reader can search and copy them
    "svg.hashsalt": "splitcast",  # else two drawings of the same records differ
}

# What a page shows instead of a figure's colors: its style sheet gives them for light and for dark.
_VARIABLES = {
    _GRID: "var(--line)",
    **{color: f"var(--c{number})" for number, color in enumerate(COLORS)},
    COLORS[6]: "var(--ink)",
    "#000000": "var(--ink)",  # of axes
}

_HEX = re.compile("#[0-9a-f]{6}")


@contextmanager
def style() -> Iterator[None]:
    """In here figures are drawn and written as all are; matplotlib's own settings stay what they are."""
    with mpl.rc_context(_STYLE):
        yield


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A color and a mark for each name, as keywords for `Axes.plot`."""
    pairs = zip(dict.fromkeys(names), cycle(zip(COLORS, MARKS, strict=True)), strict=False)
    return {name: {"color": color, "marker": mark} for name, (color, mark) in pairs}


def svg(figure: Figure, **options: Any) -> str:
    """The figure as an SVG document, the same bytes for the same figure; `options` are matplotlib's."""
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, **options)
    return file.getvalue()


def page_svg(figure: Figure, caption: str, notes: Mapping[str, str] | None = None) -> str:
    """The figure as an element of HTML, escaped, in the page's colors.

    `notes` are what the pointer is told, by the gids of artists.
    """
    document = svg(figure, transparent=True)
    root = ET.fromstring(document)  # noqa: S314 - written a line before
    referred = {*re.findall(r'href="#([^"]+)"', document), *re.findall(r"url\(#([^)]+)\)", document)}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # a page needs no namespaces
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        if "style" in attributes:
            attributes["style"] = re.sub(
                _HEX, lambda color: _VARIABLES.get(color[0], color[0]), attributes["style"]
            )
        if note := (notes or {}).get(attributes.get("id", "")):
            title = ET.Element("title")
            title.text = note
            element.insert(0, title)
        if attributes.get("id") not in referred:
            attributes.pop("id", None)  # other figures of the page have the same
        element.attrib = attributes
    for child in list(root):
        if child.tag == "metadata" or child.find("style") is not None:
            root.remove(child)  # says who made it; joins lines as the page's style sheet does
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "width": root.attrib["width"],
        "role": "img",
        "aria-label": caption,
    }
    return ET.tostring(root, encoding="unicode")


@dataclass(frozen=True, slots=True)
class Series:
    """The settings of one codec."""

    name: str
    kind: int  # which of COLORS and MARKS
    points: Sequence[tuple[float, float, str]]  # kB per frame, quality, and what the pointer is told there


def plot(
    series: Sequence[Series], quality: str, ceiling: float | None, caption: str, least: float | None = None
) -> str | None:
    """An SVG element: kB per frame on a logarithmic axis, `quality` on a straight one. None without points.

    `ceiling` is drawn as a line across. What lies below `least` is left out.
    """
    shown = [
        replace(codec, points=[point for point in codec.points if least is None or point[1] >= least])
        for codec in series
    ]
    shown = [codec for codec in shown if codec.points]
    if not shown:
        return None
    notes = {}
    # So small, with letters so large, that it can be read on a phone; a page shows it larger where there is room.
    with style(), mpl.rc_context({"font.size": 10, "legend.fontsize": 9}):
        figure = Figure(figsize=(4.8, 3.5))
        axis = figure.subplots()
        for codec in shown:
            look: dict[str, Any] = {
                "color": COLORS[codec.kind % len(COLORS)],
                "marker": MARKS[codec.kind % len(MARKS)],
            }
            points = sorted(codec.points)
            # The first kind is what the page is about.
            width = 2.4 if codec.kind == 0 else 1.2
            axis.plot(
                [kb for kb, _, _ in points],
                [value for _, value, _ in points],
                lw=width,
                label=codec.name,
                **look,
            )
            for number, (kb, value, note) in enumerate(codec.points):
                gid = f"{codec.name}/{number}"
                notes[gid] = note
                axis.plot([kb], [value], ls="", gid=gid, **look)
        if ceiling:
            axis.axhline(ceiling, color=COLORS[7], ls="--", lw=0.8)
        qualities = [value for codec in shown for _, value, _ in codec.points] + (
            [ceiling] if ceiling else []
        )
        _scale(axis, [kb for codec in shown for kb, _, _ in codec.points], qualities)
        axis.set(xlabel="kB per frame", ylabel=quality)
        figure.legend(loc="outside lower center", ncols=4)
    return page_svg(figure, caption, notes)


def _scale(axis: Axes, rates: Sequence[float], qualities: Sequence[float]) -> None:
    """Round limits and ticks: 1, 2 and 5 times powers of ten, and multiples of .05."""
    axis.set_xscale("log")
    axis.set_xlim(min(rates) / 1.15, max(rates) * 1.15)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    bottom, top = math.floor(min(qualities) * 20 - 1e-9) / 20, math.ceil(max(qualities) * 20 + 1e-9) / 20
    steps = round((top - bottom) * 20)
    axis.set_ylim(bottom, top)
    axis.yaxis.set_major_locator(
        MultipleLocator(0.05 * (1 if steps <= 8 else 2 if steps <= 14 else 4), bottom)
    )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
