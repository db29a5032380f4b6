"""What the study's figures are made of: panels, labels, legends and the stamp of random weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.evaluation.plot import COLORS, style
from services.study.record import StudyRecord

RANDOM_WEIGHTS = "random weights"


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
    look: dict[str, Any] = {"color": COLORS[1], "alpha": 0.22, "rotation": 18, "ha": "center", "va": "center"}
    named = [axis for axis in figure.axes if RANDOM_WEIGHTS in axis.get_title()]
    for axis in named:
        axis.text(0.5, 0.5, RANDOM_WEIGHTS, transform=axis.transAxes, fontsize=18, zorder=10, **look)
    if not named:
        figure.text(0.5, 0.5, RANDOM_WEIGHTS, fontsize=26, zorder=10, **look)


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 300 dots per inch, fit for print."""
    return _saved(figure, format="png", dpi=300, metadata={"Software": None})


def jpeg(figure: Figure) -> bytes:
    """The figure as a JPEG of 120 dots per inch, for photographs."""
    return _saved(figure, format="jpeg", dpi=120, pil_kwargs={"quality": 80})


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    with style():
        figure.savefig(file, **options)
    return file.getvalue()
