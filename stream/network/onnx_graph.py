"""Writes any part of a network as an ONNX model, for pictures of any size and any number of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from codec.layout import FloatArray
from stream.network.graph import Node
from stream.network.operations import (
    SPPF,
    Bottleneck,
    Concat,
    Conv,
    Detect,
    Join,
    Upsample,
)

OPSET = 17
_IR_VERSION = 8  # of ONNX 1.13, as old as the operators are


def onnx_model(
    nodes: Sequence[Node],
    weights: Mapping[str, tuple[FloatArray, FloatArray]],
    inputs: Mapping[str, int],
    outputs: Sequence[str],
) -> bytes:
    """These nodes as an ONNX file, a model that reads tensors float32 (B, C, h, w) and puts out such tensors.

    `weights` are `Network.weights`, `inputs` the names and channels of what the nodes read, and `outputs` the names of
    nodes. If Detect is among the nodes, the logits of each level follow, as `level_names` calls them.
    """
    writer = _Writer(weights)
    for node in nodes:
        writer.add(node)
    last = nodes[-1].operation
    names = [*outputs, *(level_names(last) if isinstance(last, Detect) else ())]
    graph = helper.make_graph(
        writer.nodes,
        "splitcast",
        [_tensor(name, channels) for name, channels in inputs.items()],
        [_tensor(name, None) for name in names],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="splitcast",
    )
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def level_names(detect: Detect) -> tuple[str, ...]:
    """Names of the tensors that hold the levels' logits, finest first."""
    return tuple(f"logits{level}" for level in range(len(detect.rows)))


def _tensor(name: str, channels: int | None) -> ValueInfoProto:
    """A tensor of which only the channels are known, if they are."""
    sizes = ["batch", channels, f"{name}_height", f"{name}_width"]
    value: ValueInfoProto = helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
    return value


class _Writer:
    """Collects a model's nodes and constants; each method takes the names of tensors and returns that of a new one."""

    def __init__(self, weights: Mapping[str, tuple[FloatArray, FloatArray]]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._weights = weights

    def add(self, node: Node) -> None:
        """What a node computes; its output has the node's name."""
        first = node.inputs[0]
        match node.operation:
            case Conv() as conv:
                self._conv(conv, first, node.name)
            case Bottleneck() as block:
                inner = self._conv(
                    block.second, self._conv(block.first, first), None if block.shortcut else node.name
                )
                if block.shortcut:
                    self._node("Add", [first, inner], node.name)
            case Join() as join:
                self._conv(join.conv, self._concat(node.inputs, f"{node.name}/joined"), node.name)
            case SPPF() as pooling:
                self._pooling(pooling, first, node.name)
            case Upsample():
                self._upsample(first, node.name)
            case Concat():
                self._concat(node.inputs, node.name)
            case Detect() as detect:
                self._detect(detect, node.inputs)

    def _conv(self, conv: Conv, x: str, name: str | None = None) -> str:
        name = name or conv.path
        plain = name if conv.activation.kind == "Identity" else f"{name}/conv"
        weight, bias = self._weights[conv.path]
        self._node(
            "Conv",
            [x, self._constant(f"{conv.path}.weight", weight), self._constant(f"{conv.path}.bias", bias)],
            plain,
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[conv.padding] * 4,
            group=conv.groups,
        )
        match conv.activation.kind:
            case "SiLU":
                self._node("Sigmoid", [plain], f"{name}/sigmoid")
                self._node("Mul", [plain, f"{name}/sigmoid"], name)
            case "ReLU":
                self._node("Relu", [plain], name)
            case "Hardswish":
                self._node("HardSwish", [plain], name)
            case "LeakyReLU":
                self._node("LeakyRelu", [plain], name, alpha=conv.activation.slope)
        return name

    def _pooling(self, pooling: SPPF, x: str, name: str) -> None:
        levels = [self._conv(pooling.first, x)]
        for number in range(3):
            levels.append(
                self._node(
                    "MaxPool",
                    levels[-1:],
                    f"{name}/pool{number}",
                    kernel_shape=[pooling.kernel] * 2,
                    pads=[pooling.kernel // 2] * 4,
                    strides=[1, 1],
                )
            )
        self._conv(pooling.second, self._concat(levels, f"{name}/pooled"), name)

    def _upsample(self, x: str, name: str) -> None:
        scales = self._constant(f"{name}/scales", np.array([1, 1, 2, 2], np.float32))
        self._node(
            "Resize",
            [x, "", scales],
            name,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _detect(self, detect: Detect, features: Sequence[str]) -> None:
        for rows, feature, name in zip(detect.rows, features, level_names(detect), strict=True):
            ends = []
            for row in rows:
                x = feature
                for conv in row:
                    x = self._conv(conv, x, name if len(rows) == 1 else None)
                ends.append(x)
            if len(rows) > 1:
                self._concat(ends, name)

    def _concat(self, inputs: Sequence[str], name: str) -> str:
        return self._node("Concat", list(inputs), name, axis=1)

    def _constant(self, name: str, values: FloatArray) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name
