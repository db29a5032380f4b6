"""Where the network can be split, and what crosses the split there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from codec.layout import Layout, TensorSpec
from stream.canvas import STRIDE
from stream.errors import InvalidSize, UnknownSplitPoint
from stream.network.graph import INPUT, Graph, Node

_PROBE = 256  # side of a picture that every level divides, to measure strides on


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

    Raises UnknownSplitPoint, or InvalidSize for a canvas that the network cannot have.
    """
    head, _ = halves(graph, split)
    return layout_of(head, live_set(graph, split), size)


def layout_of(head: Sequence[Node], crossing: Sequence[str], size: tuple[int, int]) -> Layout:
    """The tensors that these layers hand on for a canvas of (H, W) pixels, in the order of `crossing`.

    Raises InvalidSize for a canvas that the network cannot have.
    """
    shapes = dict(_trace(head, size))
    return tuple(TensorSpec(name, shapes[name]) for name in crossing)


def points(graph: Graph, size: tuple[int, int]) -> tuple[Point, ...]:
    """Every split point for a canvas of (H, W) pixels, in execution order.

    Counts the floating-point operations of convolutions, a multiplication and an addition each: over 99 % of the
    arithmetic. Activations, additions, pooling and the decoding of boxes are left out.
    Raises InvalidSize for a canvas that the network cannot have.
    """
    with FlopCounterMode(display=False) as counter:
        steps = [(name, shape, counter.get_total_flops()) for name, shape in _trace(graph.nodes, size)]
    shapes = {name: shape for name, shape, _ in steps}
    _, _, total = steps[-1]
    return tuple(
        Point(name, tuple(TensorSpec(live, shapes[live]) for live in live_set(graph, name)), flops, total)
        for name, _, flops in steps[:-1]
    )


def strides(graph: Graph) -> dict[str, int]:
    """Pixels per cell, along one side, of what each node but the final Detect puts out.

    Raises ValueError where a node's output is no such grid.
    """
    result = {}
    for name, shape in _trace(graph.nodes[:-1], (_PROBE, _PROBE)):
        height, width = shape[-2:]
        if height != width or _PROBE % height:
            raise ValueError(f"layer {name} has {height}x{width} cells for a picture of {_PROBE}x{_PROBE}")
        result[name] = _PROBE // height
    return result


def canvas_stride(of_nodes: Mapping[str, int]) -> int:
    """What both sides of a canvas are multiples of, in pixels: the coarsest of `strides`, but at least `STRIDE`.

    YOLOv5's own tools round to 32 also where a network is finer.
    """
    return max(STRIDE, *of_nodes.values())


def _trace(nodes: Sequence[Node], size: tuple[int, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and output shape, without the batch axis, of each node, as it is run on the meta device.

    Tensors have shapes there but no values, and the weights of the network stay where they are.
    """
    tensors = {INPUT: torch.empty(1, 3, *size, device="meta")}
    for node in nodes:
        try:
            with torch.no_grad():
                tensors[node.name] = replace(node, module=_on_meta(node.module))(tensors)
        except RuntimeError as error:  # layers that differ in size where they are joined
            raise InvalidSize(
                f"layer {node.name} cannot have a picture of {size[0]}x{size[1]}: {error}"
            ) from error
        yield node.name, tuple(tensors[node.name].shape[1:])


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy without weights. The module itself is left alone: another thread may be running it."""
    weights = (*module.parameters(), *module.buffers())
    return deepcopy(module, {id(weight): weight.to("meta") for weight in weights})
