"""The network as a flat list of nodes in execution order, fine enough to be cut inside a C3 block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.network.architecture import Layer
from stream.network.operations import C3, Conv, Detect, Join, Operation, Shape

INPUT = "input"
"""Name of the picture's own tensor: float32 (B, 3, H, W), RGB, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the network: an operation and the tensors it reads, by the names of the nodes that made them."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Shape of what it puts out for inputs of these shapes. Raises ValueError for those it cannot have."""
        return self.operation.shape(inputs)

    def flops(self, inputs: Sequence[Shape]) -> int:
        """Floating-point operations of its convolutions."""
        return self.operation.flops(inputs)


@dataclass(frozen=True, slots=True)
class Graph:
    """All nodes in execution order; the last one is Detect."""

    nodes: tuple[Node, ...]

    @classmethod
    def from_layers(cls, layers: Sequence[Layer]) -> Graph:
        """Names layers by their index and takes each C3 apart.

        `cv3(cat(m(cv1(x)), cv2(x)))` becomes `i.cv2`, `i.cv1`, `i.m.0` ... `i.m` and `i`, where `i.m` is the last
        bottleneck. `cv2` runs first, so that a cut after `i.m` crosses no more than the two tensors which `cv3`
        needs.
        """
        nodes: list[Node] = []
        for index, layer in enumerate(layers):
            name = str(index)
            inputs = tuple(INPUT if source < 0 else str(source) for source in layer.sources)
            if isinstance(layer.operation, C3):
                nodes += _c3_nodes(name, layer.operation, inputs)
            else:
                nodes.append(Node(name, layer.operation, inputs))
        return cls(tuple(nodes))

    @property
    def detect(self) -> Detect:
        """What the last node computes."""
        operation = self.nodes[-1].operation
        assert isinstance(operation, Detect)
        return operation

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        """Of all nodes, in execution order."""
        return tuple(conv for node in self.nodes for conv in node.operation.convolutions)


def _c3_nodes(name: str, block: C3, inputs: tuple[str, ...]) -> list[Node]:
    nodes = [Node(f"{name}.cv2", block.cv2, inputs), Node(f"{name}.cv1", block.cv1, inputs)]
    for position, bottleneck in enumerate(block.bottlenecks):
        is_last = position == len(block.bottlenecks) - 1
        step = f"{name}.m" if is_last else f"{name}.m.{position}"
        nodes.append(Node(step, bottleneck, (nodes[-1].name,)))
    nodes.append(Node(name, Join(block.cv3), (f"{name}.m", f"{name}.cv2")))
    return nodes
