"""The network as a flat list of nodes in execution order, fine enough to be cut inside a C3 block."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from ultralytics.nn.modules import C3, Concat

from stream.network.architecture import Layer

INPUT = "input"
"""Name of the picture's own tensor: float32 (B, 3, H, W), RGB, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Node:
    """One step of the network: a module and the tensors it reads, by the names of the nodes that made them."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    takes_list: bool  # the module takes its inputs as one list, as Concat and Detect do

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        values = [tensors[name] for name in self.inputs]
        result: torch.Tensor = self.module(values if self.takes_list else values[0])
        return result


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
            if isinstance(layer.module, C3):
                nodes += _c3_nodes(name, layer.module, inputs)
            else:
                takes_list = isinstance(layer.module, Concat) or index == len(layers) - 1
                nodes.append(Node(name, layer.module, inputs, takes_list))
        return cls(tuple(nodes))

    @property
    def output(self) -> str:
        """Name of the last node, whose tensor holds the predictions."""
        return self.nodes[-1].name

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Predictions float32 (B, 4 + classes, N) for pictures float32 (B, 3, H, W): the network without a split."""
        return run(self.nodes, {INPUT: picture}, (self.output,))[self.output]


def run(
    nodes: Sequence[Node], tensors: Mapping[str, torch.Tensor], outputs: Collection[str]
) -> dict[str, torch.Tensor]:
    """The tensors named by `outputs`, in their order, after running the nodes on the given tensors.

    Each other tensor is dropped after its last use, so that its memory can be used again.
    """
    held = dict(tensors)
    last_reader = {name: position for position, node in enumerate(nodes) for name in node.inputs}
    for position, node in enumerate(nodes):
        held[node.name] = node(held)
        for name in node.inputs:
            if last_reader[name] == position and name not in outputs:
                held.pop(name, None)
    return {name: held[name] for name in outputs}


def _c3_nodes(name: str, block: nn.Module, inputs: tuple[str, ...]) -> list[Node]:
    cv1, cv2, cv3, bottlenecks = (getattr(block, part) for part in ("cv1", "cv2", "cv3", "m"))
    nodes = [
        Node(f"{name}.cv2", cv2, inputs, takes_list=False),
        Node(f"{name}.cv1", cv1, inputs, takes_list=False),
    ]
    for position, bottleneck in enumerate(bottlenecks):
        is_last = position == len(bottlenecks) - 1
        step = f"{name}.m" if is_last else f"{name}.m.{position}"
        nodes.append(Node(step, bottleneck, (nodes[-1].name,), takes_list=False))
    nodes.append(
        Node(name, nn.Sequential(Concat(1), cv3), (f"{name}.m", f"{name}.cv2"), takes_list=True),
    )
    return nodes
