"""What each split point of a network costs: the time on either side of it, and the tensors that cross."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import TypeVar

from codec.layout import raw_bytes
from services.evaluation.pixel_codecs import Canvas
from stream.network.engine import RunnableNetwork

Given = TypeVar("Given")

ROUNDS = 3  # runs of each head whose times count, after one to warm up


@dataclass(frozen=True, slots=True)
class PointCost:
    """What a split point costs, before any codec."""

    point: str
    head_ms: float
    tail_ms: float
    raw_bytes: int


def point_costs(
    network: RunnableNetwork,
    canvas: Canvas,
    rounds: int = ROUNDS,
    *,
    watch: Callable[[], None] = lambda: None,
) -> list[PointCost]:
    """Every split point in execution order; the times of heads are measured here and now, tails are what is left.

    A head's time is at least that of the head before it, as it does all that and more. `watch` is told of each point.
    """
    heads, sizes = [], []
    for point in network.split_points:
        head = network.head(point, (canvas.shape[0], canvas.shape[1]))
        heads.append(_median_ms(head, canvas, rounds))
        sizes.append(raw_bytes(head.layout))
        watch()
    tensors, tail = head(canvas), network.tail(point)
    whole_ms = max(heads) + _median_ms(tail, [tensors], rounds)
    return [
        PointCost(point, head_ms, whole_ms - head_ms, size)
        for point, head_ms, size in zip(network.split_points, accumulate(heads, max), sizes, strict=True)
    ]


def _median_ms(half: Callable[[Given], object], given: Given, rounds: int) -> float:
    half(given)  # which warms up
    times_ns = []
    for _ in range(rounds):
        started_ns = time.monotonic_ns()
        half(given)
        times_ns.append(time.monotonic_ns() - started_ns)
    return median(times_ns) / 1e6
