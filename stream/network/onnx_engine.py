"""A network in ONNX Runtime, which computes float32 exactly and, on a CPU, faster than torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from codec.layout import FloatArray
from stream.canvas import check_picture
from stream.errors import WrongTensors
from stream.network.cut import Cut, cut_at, halves, split_points
from stream.network.graph import INPUT
from stream.network.levels import Logits
from stream.network.network import Network
from stream.network.onnx_graph import onnx_model
from stream.network.onnx_session import OnnxSession


class OnnxHead:
    """The layers up to the split, see `Head`."""

    def __init__(self, session: OnnxSession, cut: Cut, size: tuple[int, int]) -> None:
        """Raises InvalidSize."""
        self._session, self._cut = session, cut
        self.split, self.size, self.layout = cut.split, size, cut.layout(size)

    def resized(self, size: tuple[int, int]) -> OnnxHead:
        """The same layers for a canvas of another size (H, W). Raises InvalidSize."""
        other = copy(self)
        other.size, other.layout = size, self._cut.layout(size)
        return other

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, FloatArray]:
        """See `Head`."""
        check_picture(image, self.size)
        tensors = self._session({INPUT: picture_array(image)})
        return {name: tensor[0] for name, tensor in zip(self._session.outputs, tensors, strict=True)}


class OnnxTail:
    """The layers after the split, see `Tail`."""

    def __init__(self, session: OnnxSession, cut: Cut) -> None:
        self._session = session
        self.split, self.crossing = cut.split, cut.names

    def __call__(self, frames: Sequence[Mapping[str, FloatArray]]) -> list[Logits]:
        """See `Tail`."""
        for frame in frames:
            if frame.keys() != set(self.crossing):
                raise WrongTensors(self.crossing, tuple(frame))
        batches = {
            name: np.stack([frame[name] for frame in frames]) if len(frames) > 1 else frames[0][name][None]
            for name in self.crossing
        }
        levels = self._session(batches)
        return [tuple(level[number] for level in levels) for number in range(len(frames))]


class OnnxNetwork:
    """A network from which heads and tails are made, each a model of its own. See `RunnableNetwork`."""

    device = "cpu"

    def __init__(self, network: Network, threads: int = 1) -> None:
        self._network, self._threads = network, threads
        self.names, self.weights_hash, self.levels = network.names, network.weights_hash, network.levels
        self.stride, self.unnamed = network.stride, network.unnamed
        self.split_points = split_points(network.graph)

    def cut(self, split: str) -> Cut:
        return cut_at(self._network.graph, split)

    def head(self, split: str, size: tuple[int, int]) -> OnnxHead:
        return OnnxHead(
            OnnxSession(self.head_model(split), self._threads, keep_memory=True), self.cut(split), size
        )

    def tail(self, split: str) -> OnnxTail:
        return OnnxTail(OnnxSession(self.tail_model(split), self._threads), self.cut(split))

    def head_model(self, split: str) -> bytes:
        """The head as an ONNX file. Raises UnknownSplitPoint."""
        nodes, _ = halves(self._network.graph, split)
        return onnx_model(nodes, self._network.weights, {INPUT: 3}, self.cut(split).names)

    def tail_model(self, split: str) -> bytes:
        """The tail as an ONNX file. Raises UnknownSplitPoint."""
        _, nodes = halves(self._network.graph, split)
        inputs = {tensor.name: tensor.channels for tensor in self.cut(split).tensors}
        return onnx_model(nodes, self._network.weights, inputs, ())


def picture_array(image: NDArray[np.uint8]) -> FloatArray:
    """The network's input float32 (1, 3, H, W), RGB, 0 to 1, for a picture uint8 (H, W, 3), BGR."""
    rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
    result: FloatArray = rgb[None].astype(np.float32) / np.float32(255)
    return result
