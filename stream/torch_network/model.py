"""A YOLOv5 network in torch, built with ultralytics' modules: the reference for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from ultralytics.nn import modules as ultralytics

from stream.errors import UnknownModel
from stream.network.levels import BINS, Family, Levels
from stream.network.network import (
    ANCHORS,
    Network,
    Structure,
    load_network,
    official_structure,
    random_network,
)
from stream.network.operations import C3, SPPF, Activation, Concat, Conv, Detect, Operation, Upsample
from stream.torch_network.anchor_free_head import AnchorFreeDetect
from stream.torch_network.anchor_head import AnchorDetect
from stream.torch_network.graph import ModuleGraph


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network in evaluation mode, float32, with batch normalization folded into its convolutions."""

    graph: ModuleGraph
    names: tuple[str, ...]  # of the classes
    weights_hash: str  # as Network.weights_hash
    levels: Levels  # what the logits mean
    stride: int  # both sides of a canvas are multiples of it, in pixels: 32, or 64 for a P6 network
    unnamed: int = 0  # classes that the checkpoint does not name: class0, class1 and so on, by their numbers

    @property
    def family(self) -> Family:
        """The original YOLOv5 or YOLOv5u."""
        return self.levels.family

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.graph.nodes[0].module.parameters()).device


def torch_model(network: Network, device: str | torch.device = "cpu") -> Model:
    """The network on a device of torch's."""
    modules = _modules(network.structure)
    for conv in network.graph.convolutions:
        weight, bias = (
            nn.Parameter(torch.tensor(values), requires_grad=False) for values in network.weights[conv.path]
        )
        module = modules.get_submodule(conv.path)
        plain = module if conv.plain else module.conv
        assert isinstance(plain, nn.Conv2d)
        plain.weight, plain.bias = weight, bias
        if not conv.plain:
            del module.bn
            module.forward = module.forward_fuse  # type: ignore[assignment]
    head = modules.get_submodule(network.graph.detect.path)
    if isinstance(head, AnchorDetect):
        strides = torch.tensor(network.levels.strides).view(-1, 1, 1)
        head.anchors = torch.tensor(network.levels.anchors) / strides
    else:
        assert isinstance(head, AnchorFreeDetect)
        bins = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)
        head.dfl.conv.weight = nn.Parameter(bins, requires_grad=False)
    # Channels-last weights make convolutions 1.1 to 1.4 times faster on a CPU.
    modules.eval().to(device).to(memory_format=torch.channels_last)
    return Model(
        ModuleGraph.from_modules(network.graph, modules),
        network.names,
        network.weights_hash,
        network.levels,
        network.stride,
        network.unnamed,
    )


def load_model(weights: Path, device: str | torch.device = "cpu") -> Model:
    """The network in a checkpoint or safetensors file, as `load_network` reads it. Raises CheckpointError."""
    return torch_model(load_network(weights), device)


def random_model(name: str, seed: int = 0, device: str | torch.device = "cpu") -> Model:
    """An official network (`yolov5n` ... `yolov5xu`) with the random weights of `random_network`.

    Raises UnknownModel.
    """
    return torch_model(random_network(name, seed), device)


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A network whose batch normalization is its own layer still, with values yet to be set."""

    modules: nn.ModuleDict  # parameters are named as in the checkpoints: "model.0.conv.weight"
    graph: ModuleGraph


def trainable(name: str, classes: Sequence[str]) -> Trainable:
    """An original YOLOv5 (`yolov5n` ... `yolov5x`) for other classes; only the anchors have their values.

    Raises UnknownModel.
    """
    structure = official_structure(name, len(classes))
    if structure.graph.detect.family != "yolov5":
        raise UnknownModel(name)
    modules = _modules(structure)
    modules.to_empty(device="cpu")
    strides = torch.tensor([float(stride) for stride in structure.strides]).view(-1, 1, 1)
    modules.get_buffer("model.24.anchors").copy_(torch.tensor(ANCHORS) / strides)
    return Trainable(modules, ModuleGraph.from_modules(structure.graph, modules))


def _modules(structure: Structure) -> nn.ModuleDict:
    """The layers of a structure on the meta device, batch normalization and all, named as in the checkpoints."""
    with torch.device("meta"):
        layers = [_module(layer.operation) for layer in structure.layers]
    layers[-1].stride = tuple(map(float, structure.strides))  # type: ignore[assignment] # a plain attribute of both
    modules = nn.ModuleDict({"model": nn.Sequential(*layers)}).eval()
    for conv in structure.graph.convolutions:
        if not conv.plain:
            modules.get_submodule(conv.path).act = _activation(conv.activation)
    return modules


def _module(operation: Operation | C3) -> nn.Module:
    module: nn.Module
    match operation:
        case Conv() as conv:
            module = ultralytics.Conv(
                conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.padding, conv.groups
            )
        case C3(cv1=cv1, cv3=cv3, bottlenecks=blocks):
            shortcut, groups = blocks[0].shortcut, blocks[0].second.groups
            module = ultralytics.C3(cv1.inputs, cv3.outputs, len(blocks), shortcut, groups)
        case SPPF(first=first, kernel=kernel, second=second):
            module = ultralytics.SPPF(first.inputs, second.outputs, kernel)
        case Upsample():
            module = nn.Upsample(scale_factor=2, mode="nearest")
        case Concat():
            module = ultralytics.Concat(1)
        case Detect() as detect:
            channels = [level[0][0].inputs for level in detect.rows]
            if detect.family == "yolov5":
                module = AnchorDetect(detect.classes, channels, detect.anchors)
            else:
                module = AnchorFreeDetect(nc=detect.classes, ch=channels)
    return module


def _activation(activation: Activation) -> nn.Module:
    match activation.kind:
        case "SiLU":
            return nn.SiLU(inplace=True)
        case "ReLU":
            return nn.ReLU(inplace=True)
        case "Hardswish":
            return nn.Hardswish(inplace=True)
        case "LeakyReLU":
            return nn.LeakyReLU(activation.slope, inplace=True)
        case "Identity":
            return nn.Identity()
