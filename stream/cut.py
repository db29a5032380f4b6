"""Where the network can be split, and what crosses the split there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from codec.layout import Layout, TensorSpec
from stream.graph import INPUT, Graph, Node

DEFAULT_SPLIT = "4.m"


class UnknownSplitPoint(ValueError):
    """A name that is not a split point of this network."""

    def __init__(self, split: str, points: Sequence[str]) -> None:
        layer = split.partition(".")[0]
        near = [point for point in points if point.partition(".")[0] == layer]
        near = near or difflib.get_close_matches(split, points, cutoff=0) or list(points)
        super().__init__(f"unknown split point {split!r}; near it are {', '.join(near)}")
        self.split, self.near = split, tuple(near)


@dataclass(frozen=True, slots=True)
class Point:
    """A place to split the network, and what that costs for one picture size."""

    name: str
    layout: Layout  # tensors that cross, in the order in which the head makes them
    flops: int  # floating-point operations of all convolutions up to and including this point
    total_flops: int  # of the whole network

    @property
    def share(self) -> float:
        """Share of the network's work that is done left of the split, 0 to 1."""
        return self.flops / self.total_flops


def split_points(graph: Graph) -> tuple[str, ...]:
    """Names of all points, in execution order: after every node but the final Detect."""
    return tuple(node.name for node in graph.nodes[:-1])


def halves(graph: Graph, split: str) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The nodes up to and including the split point, and the others.

    Raises UnknownSplitPoint.
    """
    points = split_points(graph)
    if split not in points:
        raise UnknownSplitPoint(split, points)
    position = points.index(split) + 1
    return graph.nodes[:position], graph.nodes[position:]


def live_set(graph: Graph, split: str) -> tuple[str, ...]:
    """Names of the tensors that the head makes and the tail reads, in the order in which they are made.

    Raises UnknownSplitPoint.
    """
    head, tail = halves(graph, split)
    read = {name for node in tail for name in node.inputs}
    return tuple(name for name in (INPUT, *(node.name for node in head)) if name in read)


def layout(graph: Graph, split: str, size: tuple[int, int]) -> Layout:
    """The tensors that cross the split for a canvas of (H, W) pixels: names and shapes (C, h, w).

    Raises UnknownSplitPoint.
    """
    head, _ = halves(graph, split)
    shapes = {step.name: step.shape for step in _trace(head, size)}
    return tuple(TensorSpec(name, shapes[name]) for name in live_set(graph, split))


def points(graph: Graph, size: tuple[int, int]) -> tuple[Point, ...]:
    """Every split point for a canvas of (H, W) pixels, in execution order.

    Counts the floating-point operations of convolutions, a multiplication and an addition each: over 99 % of the
    arithmetic. Activations, additions, pooling and the decoding of boxes are left out.
    """
    steps = _trace(graph.nodes, size)
    shapes = {step.name: step.shape for step in steps}
    total = sum(step.flops for step in steps)
    result = []
    done = 0
    for step in steps[:-1]:
        done += step.flops
        crossing = tuple(TensorSpec(name, shapes[name]) for name in live_set(graph, step.name))
        result.append(Point(step.name, crossing, done, total))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    shape: tuple[int, ...]  # of the output, without the batch axis
    flops: int


def _trace(nodes: Sequence[Node], size: tuple[int, int]) -> list[_Step]:
    """What each node makes and costs, found on the meta device, where tensors have shapes but no values."""
    tensors = {INPUT: torch.empty(1, 3, *size, device="meta")}
    steps = []
    for node in nodes:
        weights = {name: value.to("meta") for name, value in node.module.state_dict().items()}
        values = [tensors[name] for name in node.inputs]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            output = functional_call(node.module, weights, ((values if node.takes_list else values[0]),))
        tensors[node.name] = output
        steps.append(_Step(node.name, tuple(output.shape[1:]), counter.get_total_flops()))
    return steps
