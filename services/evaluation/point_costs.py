"""What each split point of a network costs: the time on either side of it, and the tensors that cross."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import accumulate

import torch

from codec.layout import raw_bytes
from stream.latency import StageClock, StageDurations
from stream.network.cut import layout, split_points
from stream.network.graph import INPUT
from stream.torch_network.graph import ModuleGraph
from stream.torch_network.model import Model

ROUNDS = 5  # traversals of the network whose times count, after one to warm up


def node_times_ms(graph: ModuleGraph, picture: torch.Tensor, rounds: int = ROUNDS) -> dict[str, float]:
    """How long each node takes, in execution order: medians over traversals of the network."""
    durations = StageDurations()
    with torch.inference_mode():
        for number in range(rounds + 1):
            tensors = {INPUT: picture}
            clock = StageClock(time.monotonic_ns())
            for node in graph.nodes:
                tensors[node.name] = node(tensors)
                if picture.is_cuda:
                    torch.cuda.synchronize()
                clock.lap(node.name, time.monotonic_ns())
            if number:  # the first one warms up
                durations.add(clock.durations_ns)
    return durations.medians_ms()


@dataclass(frozen=True, slots=True)
class PointCost:
    """What a split point costs, before any codec."""

    point: str
    head_ms: float
    tail_ms: float
    raw_bytes: int


def point_costs(model: Model, picture: torch.Tensor) -> list[PointCost]:
    """Every split point in execution order; the times of nodes are measured here and now."""
    times = node_times_ms(model.graph, picture)
    size = (picture.shape[2], picture.shape[3])
    before = dict(zip(times, accumulate(times.values()), strict=True))
    whole = sum(times.values())
    return [
        PointCost(point, before[point], whole - before[point], raw_bytes(layout(model.graph, point, size)))
        for point in split_points(model.graph)
    ]
