"""The two halves of the network: the camera's head and the detector's tail."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from codec.layout import FloatArray, Layout
from stream.canvas import check_picture
from stream.errors import WrongTensors
from stream.network.cut import halves, layout, layout_of, live_set
from stream.network.graph import INPUT
from stream.network.names import DEFAULT_SPLIT
from stream.torch_network.graph import ModuleGraph, run
from stream.torch_network.model import Model


class Splittable(Protocol):
    """A network that can be cut: a detector or a classifier."""

    @property
    def graph(self) -> ModuleGraph: ...

    @property
    def device(self) -> torch.device: ...


class TorchHead:
    """The layers up to the split: from a picture to the tensors that cross.

    Holds only its own layers, so that the rest of the model can be freed.
    Raises UnknownSplitPoint.
    """

    def __init__(
        self, model: Splittable, split: str = DEFAULT_SPLIT, size: tuple[int, int] = (480, 640)
    ) -> None:
        self.split = split
        self.size = size  # (H, W) of the canvas, in pixels
        self.layout: Layout = layout(model.graph, split, size)
        self.device = model.device
        self._nodes, _ = halves(model.graph, split)
        self._crossing = live_set(model.graph, split)

    def resized(self, size: tuple[int, int]) -> TorchHead:
        """The same layers for a canvas of another size (H, W). Raises InvalidSize."""
        other = copy(self)
        other.size, other.layout = size, layout_of(self._nodes, self._crossing, size)
        return other

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, FloatArray]:
        """The tensors of a canvas, by name in the order of the layout: float32 (C, h, w), contiguous.

        `image` is uint8 (H, W, 3), BGR, of this head's size. Raises ValueError if it is not.
        """
        check_picture(image, self.size)
        tensors = self.run(picture_tensor(image, self.device))
        return {name: tensor[0].cpu().contiguous().numpy() for name, tensor in tensors.items()}

    @torch.inference_mode()
    def run(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors that cross, (B, C, h, w) each, for pictures float32 (B, 3, H, W) on this head's device."""
        return run(self._nodes, {INPUT: picture}, self._crossing)


class TorchTail:
    """The layers after the split: from the tensors that crossed to predictions.

    Keeps nothing between calls: any tail of the same weights may take any frame, of any size.
    Raises UnknownSplitPoint.
    """

    def __init__(self, model: Splittable, split: str = DEFAULT_SPLIT) -> None:
        self.split = split
        self.device = model.device
        self.crossing = live_set(model.graph, split)  # names of the tensors that cross
        _, self._nodes = halves(model.graph, split)

    def __call__(self, tensors: Mapping[str, FloatArray]) -> torch.Tensor:
        """Predictions float32 (1, 4 + classes, N) for one picture's tensors, float32 (C, h, w) each.

        Raises WrongTensors if the names are not those that cross; shapes are compared in the handshake.
        """
        if tensors.keys() != set(self.crossing):
            raise WrongTensors(self.crossing, tuple(tensors))
        return self.run(
            {name: torch.from_numpy(tensor)[None].to(self.device) for name, tensor in tensors.items()}
        )

    @torch.inference_mode()
    def run(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Predictions (B, 4 + classes, N) for tensors (B, C, h, w) on this tail's device."""
        output = self._nodes[-1].name
        return run(self._nodes, tensors, (output,))[output]


class Unsplit:
    """The whole network, to compare with: what `TorchTail` and `TorchHead` together must equal bit for bit."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Predictions float32 (1, 4 + classes, N) for a canvas uint8 (H, W, 3), BGR."""
        return self._model.graph.forward(picture_tensor(image, self._model.device))


def picture_tensor(image: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """The network's input float32 (1, 3, H, W), RGB, 0 to 1, for a picture uint8 (H, W, 3), BGR."""
    rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
    return rgb[None].to(device).float() / 255
