"""Where a network can be split, and what crosses the split there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from codec.layout import Layout, TensorSpec
from stream.canvas import STRIDE, check_size
from stream.errors import InvalidSize, UnknownSplitPoint
from stream.network.graph import INPUT
from stream.network.operations import Shape

_PROBE = 256  # side of a picture that every level divides, to measure strides on


class CutNode(Protocol):
    """A node, as far as cutting needs to know it."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Shape of what it puts out for inputs of these shapes. Raises ValueError for those it cannot have."""

    def flops(self, inputs: Sequence[Shape]) -> int:
        """Floating-point operations of its convolutions."""


Step = TypeVar("Step", bound=CutNode)
Step_co = TypeVar("Step_co", bound=CutNode, covariant=True)


class Cuttable(Protocol[Step_co]):
    """A network of nodes in execution order, of which the last is never split off alone."""

    @property
    def nodes(self) -> tuple[Step_co, ...]: ...


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


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """A tensor that crosses, for a canvas of any size."""

    name: str
    channels: int
    stride: int  # pixels per cell along one side


@dataclass(frozen=True, slots=True)
class Cut:
    """What crosses a split point: all that either half has to know of the network."""

    split: str
    tensors: tuple[LiveTensor, ...]  # in the order in which the head makes them
    stride: int  # both sides of a canvas are multiples of it, in pixels
    head_flops: float  # floating-point operations of the convolutions before it, per pixel of the canvas
    tail_flops: float  # of those after it

    def layout(self, size: tuple[int, int]) -> Layout:
        """Names and shapes (C, h, w) for a canvas of (H, W) pixels. Raises InvalidSize for one that cannot be."""
        check_size(size, self.stride)
        height, width = size
        return tuple(
            TensorSpec(tensor.name, (tensor.channels, height // tensor.stride, width // tensor.stride))
            for tensor in self.tensors
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors."""
        return tuple(tensor.name for tensor in self.tensors)


def cut_at(graph: Cuttable[CutNode], split: str) -> Cut:
    """What crosses at a split point. Raises UnknownSplitPoint."""
    halves(graph, split)
    of_nodes = strides(graph)
    (point,) = [point for point in points(graph, (_PROBE, _PROBE)) if point.name == split]
    tensors = tuple(
        LiveTensor(spec.name, spec.shape[0], {INPUT: 1, **of_nodes}[spec.name]) for spec in point.layout
    )
    head_flops, total_flops = point.flops / _PROBE**2, point.total_flops / _PROBE**2
    return Cut(split, tensors, canvas_stride(of_nodes), head_flops, total_flops - head_flops)


def split_points(graph: Cuttable[CutNode]) -> tuple[str, ...]:
    """Names of all points, in execution order: after every node but the last."""
    return tuple(node.name for node in graph.nodes[:-1])


def halves(graph: Cuttable[Step], split: str) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The nodes up to and including the split point, and the others.

    Raises UnknownSplitPoint.
    """
    points = split_points(graph)
    if split not in points:
        raise UnknownSplitPoint(split, points)
    position = points.index(split) + 1
    return graph.nodes[:position], graph.nodes[position:]


def live_set(graph: Cuttable[CutNode], split: str) -> tuple[str, ...]:
    """Names of the tensors that the head makes and the tail reads, in the order in which they are made.

    Raises UnknownSplitPoint.
    """
    head, tail = halves(graph, split)
    read = {name for node in tail for name in node.inputs}
    return tuple(name for name in (INPUT, *(node.name for node in head)) if name in read)


def layout(graph: Cuttable[CutNode], split: str, size: tuple[int, int]) -> Layout:
    """The tensors that cross the split for a canvas of (H, W) pixels: names and shapes (C, h, w).

    Raises UnknownSplitPoint, or InvalidSize for a canvas that the network cannot have.
    """
    head, _ = halves(graph, split)
    return layout_of(head, live_set(graph, split), size)


def layout_of(head: Sequence[CutNode], crossing: Sequence[str], size: tuple[int, int]) -> Layout:
    """The tensors that these nodes hand on for a canvas of (H, W) pixels, in the order of `crossing`.

    Raises InvalidSize for a canvas that the network cannot have.
    """
    shapes: dict[str, Shape] = {INPUT: (3, *size)}
    shapes |= {node.name: shape for node, _, shape in _traced(head, size)}
    return tuple(TensorSpec(name, shapes[name]) for name in crossing)


def points(graph: Cuttable[CutNode], size: tuple[int, int]) -> tuple[Point, ...]:
    """Every split point for a canvas of (H, W) pixels, in execution order.

    Counts the floating-point operations of convolutions, a multiplication and an addition each: over 99 % of the
    arithmetic. Activations, additions, pooling and the decoding of boxes are left out.
    Raises InvalidSize for a canvas that the network cannot have.
    """
    shapes: dict[str, Shape] = {INPUT: (3, *size)}
    work: list[tuple[str, int]] = []
    total = 0
    for node, inputs, shape in _traced(graph.nodes, size):
        total += node.flops(inputs)
        shapes[node.name] = shape
        work.append((node.name, total))
    return tuple(
        Point(name, tuple(TensorSpec(live, shapes[live]) for live in live_set(graph, name)), flops, total)
        for name, flops in work[:-1]
    )


def strides(graph: Cuttable[CutNode]) -> dict[str, int]:
    """Pixels per cell, along one side, of what each node but the last puts out.

    Raises ValueError where a node's output is no such grid.
    """
    result = {}
    for node, _, shape in _traced(graph.nodes[:-1], (_PROBE, _PROBE)):
        height, width = shape[-2:]
        if height != width or _PROBE % height:
            raise ValueError(
                f"layer {node.name} has {height}x{width} cells for a picture of {_PROBE}x{_PROBE}"
            )
        result[node.name] = _PROBE // height
    return result


def canvas_stride(of_nodes: Mapping[str, int]) -> int:
    """What both sides of a canvas are multiples of, in pixels: the coarsest of `strides`, but at least `STRIDE`.

    YOLOv5's own tools round to 32 also where a network is finer.
    """
    return max(STRIDE, *of_nodes.values())


def _traced(nodes: Sequence[Step], size: tuple[int, int]) -> Iterator[tuple[Step, list[Shape], Shape]]:
    """Each node with the shapes of what it reads and of what it puts out, for a canvas of (H, W) pixels."""
    shapes: dict[str, Shape] = {INPUT: (3, *size)}
    for node in nodes:
        inputs = [shapes[name] for name in node.inputs]
        try:
            shapes[node.name] = node.shape(inputs)
        except ValueError as error:
            raise InvalidSize(
                f"layer {node.name} cannot have a picture of {size[0]}x{size[1]}: {error}"
            ) from error
        yield node, inputs, shapes[node.name]
