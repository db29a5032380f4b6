"""`splitcast points`: where a network can be split, what crosses there, and how much work lies before it."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from codec.layout import raw_bytes
from services.commands.settings import PointsSettings
from services.units import KB
from stream.canvas import check_size, parse_size
from stream.network.cut import Point, canvas_stride, points, strides
from stream.network.download import find_weights
from stream.network.names import MODELS
from stream.network.network import load_network, official_structure


def find_points(model: str, size: tuple[int, int]) -> tuple[Point, ...]:
    """Every split point of a named network, which needs no weights, or of the checkpoint at a path.

    `size` is (H, W) of the canvas in pixels. Raises WeightsError, CheckpointError, InvalidSize.
    """
    graph = official_structure(model).graph if model in MODELS else load_network(find_weights(model)).graph
    check_size(size, canvas_stride(strides(graph)))
    return points(graph, size)


def run_points(settings: PointsSettings) -> None:
    """Print the split points of a network, as a table or as JSON.

    Raises WeightsError, CheckpointError, InvalidSize.
    """
    size = parse_size(settings.size)
    canvas = (size, size) if isinstance(size, int) else size
    listed = find_points(settings.model, canvas)
    if settings.as_json:
        records = [_record(point) for point in listed]
        print(json.dumps({"model": settings.model, "size": canvas, "points": records}, indent=2))
        return
    Console(markup=False, emoji=False).print(_table(settings.model, canvas, listed))


def _record(point: Point) -> dict[str, object]:
    return {
        "point": point.name,
        "tensors": [
            {"name": spec.name, "shape": spec.shape, "raw_kb": spec.raw_bytes / KB} for spec in point.layout
        ],
        "raw_kb": raw_bytes(point.layout) / KB,
        "flops_share": round(point.share, 6),
    }


def _table(model: str, size: tuple[int, int], listed: tuple[Point, ...]) -> Table:
    height, width = size
    table = Table(
        title=f"Split points of {model} at {height}x{width}",
        caption="kB: 1000 bytes of float32. Work: share of the convolutions' floating-point operations.",
    )
    table.add_column("point")
    table.add_column("tensors that cross (C x h x w)")
    table.add_column("kB each", justify="right")
    table.add_column("kB", justify="right")
    table.add_column("work before", justify="right")
    for point in listed:
        table.add_row(
            point.name,
            "\n".join(f"{spec.name}: {' x '.join(map(str, spec.shape))}" for spec in point.layout),
            "\n".join(f"{spec.raw_bytes / KB:.0f}" for spec in point.layout),
            f"{raw_bytes(point.layout) / KB:.0f}",
            f"{point.share:.1%}",
        )
    return table
