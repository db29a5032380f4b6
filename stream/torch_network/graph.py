"""A network as torch modules, in the form that it is cut in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.modules import Concat

from stream.network.graph import INPUT, Graph
from stream.network.operations import Bottleneck, Conv, Detect, Join, Operation, Shape
from stream.network.operations import Concat as Joining


@dataclass(frozen=True, slots=True)
class ModuleNode:
    """One step of the network: a module and the tensors it reads, by the names of the nodes that made them."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    takes_list: bool  # the module takes its inputs as one list, as Concat and Detect do

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        values = [tensors[name] for name in self.inputs]
        result: torch.Tensor = self.module(values if self.takes_list else values[0])
        return result

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Shape of what it puts out, as it is run on the meta device, where tensors have no values.

        Raises ValueError for inputs that it cannot have.
        """
        tensors = [torch.empty(1, *shape, device="meta") for shape in inputs]
        # A copy, since another thread may be running the module.
        weights = (*self.module.parameters(), *self.module.buffers())
        module = deepcopy(self.module, {id(weight): weight.to("meta") for weight in weights})
        try:
            with torch.no_grad():
                result = module(tensors if self.takes_list else tensors[0])
        except RuntimeError as error:  # layers that differ in size where they are joined
            raise ValueError(str(error)) from error
        return tuple(result.shape[1:])

    def flops(self, inputs: Sequence[Shape]) -> int:
        """Floating-point operations of its convolutions and matrices."""
        with FlopCounterMode(display=False) as counter:
            self.shape(inputs)
        return int(counter.get_total_flops())


@dataclass(frozen=True, slots=True)
class ModuleGraph:
    """All nodes in execution order; of a detector the last one is Detect."""

    nodes: tuple[ModuleNode, ...]

    @classmethod
    def from_modules(cls, graph: Graph, modules: nn.ModuleDict) -> ModuleGraph:
        """The nodes of a graph, with the modules that are found by the paths of its convolutions."""
        return cls(tuple(_node(node.name, node.operation, node.inputs, modules) for node in graph.nodes))

    @property
    def output(self) -> str:
        """Name of the last node, whose tensor holds the predictions."""
        return self.nodes[-1].name

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Predictions float32 (B, 4 + classes, N) for pictures float32 (B, 3, H, W): the network without a split."""
        return run(self.nodes, {INPUT: picture}, (self.output,))[self.output]


def run(
    nodes: Sequence[ModuleNode], tensors: Mapping[str, torch.Tensor], outputs: Collection[str]
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


def _node(name: str, operation: Operation, inputs: tuple[str, ...], modules: nn.ModuleDict) -> ModuleNode:
    match operation:
        case Conv(path=path):
            module = modules.get_submodule(path)
        case Bottleneck(first=first):
            module = modules.get_submodule(first.path.removesuffix(".cv1"))
        case Join(conv=conv):
            module = nn.Sequential(Concat(1), modules.get_submodule(conv.path))
        case _:
            module = modules.get_submodule(f"model.{name}")
    return ModuleNode(name, module, inputs, isinstance(operation, Join | Joining | Detect))
