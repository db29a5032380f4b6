"""The torch engine: a network on any device of torch's, CUDA above all. See `stream.network.engine`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from codec.layout import FloatArray
from stream.canvas import check_picture
from stream.errors import WrongTensors
from stream.network.cut import Cut, cut_at, halves, split_points
from stream.network.graph import INPUT, Graph
from stream.network.levels import Logits
from stream.network.network import load_network
from stream.torch_network.anchor_free_head import AnchorFreeDetect
from stream.torch_network.anchor_head import AnchorDetect
from stream.torch_network.graph import run
from stream.torch_network.model import Model, torch_model
from stream.torch_network.split import picture_tensor


def open_network(weights: Path, device: str, threads: int, *, half: bool = False) -> TorchNetwork:
    """The network in a checkpoint, on a device; `half` computes in float16, which a CPU is slow at.

    Sets torch's number of threads, which is the process's. Raises CheckpointError.
    """
    torch.set_num_threads(threads)
    network = load_network(weights)
    model = torch_model(network, device)
    return TorchNetwork(model, network.graph, half=half)


class TorchNetwork:
    """A network on a device, from which heads and tails are made. See `RunnableNetwork`."""

    def __init__(self, model: Model, graph: Graph, *, half: bool = False) -> None:
        if half:
            for node in model.graph.nodes:
                node.module.half()
        self._model, self._graph, self._dtype = model, graph, torch.float16 if half else torch.float32
        self.names, self.weights_hash, self.levels = model.names, model.weights_hash, model.levels
        self.stride, self.unnamed = model.stride, model.unnamed
        self.device = str(model.device)
        self.split_points = split_points(graph)

    def cut(self, split: str) -> Cut:
        return cut_at(self._graph, split)

    def head(self, split: str, size: tuple[int, int]) -> DeviceHead:
        return DeviceHead(self._model, self.cut(split), size, self._dtype)

    def tail(self, split: str) -> DeviceTail:
        return DeviceTail(self._model, self.cut(split), self._dtype)


class DeviceHead:
    """The layers up to the split, see `Head`."""

    def __init__(self, model: Model, cut: Cut, size: tuple[int, int], dtype: torch.dtype) -> None:
        """Raises InvalidSize."""
        self._model, self._cut, self._dtype = model, cut, dtype
        self._nodes, _ = halves(model.graph, cut.split)
        self.split, self.size, self.layout = cut.split, size, cut.layout(size)

    def resized(self, size: tuple[int, int]) -> DeviceHead:
        """The same layers for a canvas of another size (H, W). Raises InvalidSize."""
        return DeviceHead(self._model, self._cut, size, self._dtype)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> dict[str, FloatArray]:
        """See `Head`."""
        check_picture(image, self.size)
        picture = picture_tensor(image, self._model.device).to(self._dtype)
        made = run(self._nodes, {INPUT: picture}, self._cut.names)
        return {name: _array(tensor)[0] for name, tensor in made.items()}


class DeviceTail:
    """The layers after the split, see `Tail`."""

    def __init__(self, model: Model, cut: Cut, dtype: torch.dtype) -> None:
        self._device, self._dtype = model.device, dtype
        self.split, self.crossing = cut.split, cut.names
        _, (*self._body, self._detect) = halves(model.graph, cut.split)

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Mapping[str, FloatArray]]) -> list[Logits]:
        """See `Tail`."""
        for frame in frames:
            if frame.keys() != set(self.crossing):
                raise WrongTensors(self.crossing, tuple(frame))
        batch = {name: self._uploaded([frame[name] for frame in frames]) for name in self.crossing}
        features = list(run(self._body, batch, self._detect.inputs).values())
        head = self._detect.module
        assert isinstance(head, AnchorDetect | AnchorFreeDetect)
        levels = [_array(level) for level in head.level_logits(features)]
        return [tuple(level[number] for level in levels) for number in range(len(frames))]

    def _uploaded(self, arrays: list[FloatArray]) -> torch.Tensor:
        """A batch on the device. From page-locked memory a GPU fetches it by itself, twice as fast."""
        batch = torch.from_numpy(np.stack(arrays))
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self._device, non_blocking=True).to(self._dtype)


def _array(tensor: torch.Tensor) -> FloatArray:
    array: FloatArray = tensor.float().cpu().contiguous().numpy()
    return array
