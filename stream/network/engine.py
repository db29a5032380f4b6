"""Whatever runs a network in halves: the seam between services and the libraries that compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.layout import FloatArray, Layout
from stream.errors import UnreadableCheckpoint
from stream.network.cut import Cut
from stream.network.exported import ExportedNetwork
from stream.network.levels import Levels, Logits
from stream.network.network import load_network
from stream.network.onnx_engine import OnnxNetwork

EngineName: TypeAlias = Literal["onnxruntime", "torch", "torch-half"]


class Head(Protocol):
    """The layers up to the split: from a picture to the tensors that cross. Several threads may call it at once."""

    @property
    def split(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the canvas, in pixels."""

    @property
    def layout(self) -> Layout:
        """The tensors that cross, in the order in which they are made."""

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, FloatArray]:
        """The tensors of a canvas, by name in the order of the layout: float32 (C, h, w), contiguous.

        `image` is uint8 (H, W, 3), BGR, of this head's size. Raises ValueError if it is not.
        """

    def resized(self, size: tuple[int, int]) -> Head:
        """The same layers for a canvas of another size (H, W). Raises InvalidSize."""


class Tail(Protocol):
    """The layers after the split: from the tensors that crossed to the logits of the levels.

    Keeps nothing between calls: it takes any frame, of any size, from several threads at once.
    """

    @property
    def split(self) -> str: ...

    @property
    def crossing(self) -> tuple[str, ...]:
        """Names of the tensors that cross."""

    def __call__(self, frames: Sequence[Mapping[str, FloatArray]]) -> list[Logits]:
        """The logits of each frame of a batch: pictures of one canvas, their tensors float32 (C, h, w) each.

        Raises WrongTensors if the names are not those that cross; shapes are compared in the handshake.
        """


class RunnableNetwork(Protocol):
    """A network in an engine: it makes heads and tails, and says what both ends have to agree on."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights, 64 hexadecimal digits."""

    @property
    def levels(self) -> Levels:
        """What the logits mean."""

    @property
    def stride(self) -> int:
        """Both sides of a canvas are multiples of it, in pixels."""

    @property
    def unnamed(self) -> int:
        """Classes that the checkpoint does not name."""

    @property
    def device(self) -> str:
        """Where it is computed: cpu, cuda:0 and so on."""

    @property
    def split_points(self) -> tuple[str, ...]:
        """Where it can be split, in execution order."""

    def cut(self, split: str) -> Cut:
        """What crosses at a split point. Raises UnknownSplitPoint."""

    def head(self, split: str, size: tuple[int, int]) -> Head:
        """The layers up to a split point, for a canvas of (H, W) pixels. Raises UnknownSplitPoint, InvalidSize."""

    def tail(self, split: str) -> Tail:
        """The layers after a split point. Raises UnknownSplitPoint."""


def open_network(
    weights: Path, engine: EngineName = "onnxruntime", device: str = "cpu", threads: int = 1
) -> RunnableNetwork:
    """The network in a checkpoint or in an exported folder, in an engine; each half computes with so many threads.

    `device` is torch's name of one; ONNX Runtime computes on the CPU. `torch-half` computes in float16.
    Raises CheckpointError, or ModuleNotFoundError where torch is asked for and not installed.
    """
    if weights.is_dir():
        if engine != "onnxruntime":
            raise UnreadableCheckpoint(
                f"{weights} is exported for ONNX Runtime; take --engine onnxruntime, or the .pt file it was made from"
            )
        return ExportedNetwork(weights, threads)
    if engine == "onnxruntime":
        return OnnxNetwork(load_network(weights), threads)
    torch_engine = import_module("stream.torch_network.engine")
    network: RunnableNetwork = torch_engine.open_network(
        weights, device, threads, half=engine == "torch-half"
    )
    return network
