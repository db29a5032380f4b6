"""Image classifiers of torchvision, as graphs that can be cut: the networks of the paper beside YOLOv5.

The paper numbers their layers from 1: VGG16's over its convolutional part, ResNet's over convolution, normalization,
ReLU and pooling of the stem, and then block by block.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from stream.errors import BrokenNetwork, MissingWeights, UnreadableCheckpoint
from stream.network.download import fetch
from stream.network.file_kind import foreign_kind
from stream.network.graph import INPUT, Graph, Node
from stream.network.model import load_state, weights_hash
from stream.network.names import SAFETENSORS
from stream.network.trial import check_runs

CLASSIFIERS = ("vgg16", "resnet50", "resnet152")
SIZE = (224, 224)
"""(H, W) of their input."""

_PARALLEL = "module."  # before every name where DataParallel was around the network
_PREFIX = 8  # hexadecimal digits of a file's SHA-256 that its official name ends with


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A classifier in evaluation mode, float32, with 1000 classes of ImageNet."""

    graph: Graph  # the last node puts out logits (B, classes)
    names: tuple[str, ...]  # of the classes, as torchvision writes them
    weights_hash: str  # SHA-256, 64 hexadecimal digits
    transform: Callable[[torch.Tensor], torch.Tensor]  # of pictures (1, 3, h, w), RGB, to the network's input

    @property
    def device(self) -> torch.device:
        return next(self.graph.nodes[0].module.parameters()).device

    def preprocess(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """The input float32 (1, 3, 224, 224) for a picture uint8 (H, W, 3), BGR.

        Scaled, cropped in the middle and normalized, as these weights were trained for.
        """
        rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
        return self.transform(rgb[None].to(self.device))


def classifier_skeleton(name: str) -> Graph:
    """The graph of a classifier without weights, on torch's meta device: good for shapes and costs."""
    return _graph(_network(name))


def random_classifier(name: str, seed: int = 0, device: str | torch.device = "cpu") -> Classifier:
    """A classifier with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(name)
    return _finished(name, network, torch.device(device))


def load_classifier(name: str, file: Path, device: str | torch.device = "cpu") -> Classifier:
    """The classifier with the weights in a file: torchvision's .pth of tensors by name, or safetensors.

    No code in the file is run. Raises UnreadableCheckpoint, BrokenNetwork for weights that are of no use, or
    MissingWeights.
    """
    if not file.is_file():
        raise MissingWeights(file)
    state = _read(file)
    network = _network(name)
    load_state(network, state, str(file))
    classifier = _finished(name, network, torch.device(device))
    try:
        check_runs(classifier.graph, SIZE, classifier.device)
    except BrokenNetwork as error:
        error.args = (f"{file}: {error}",)
        raise
    return classifier


def find_classifier_weights(name: str, cache: Path | None = None, base_url: str | None = None) -> Path:
    """Path of torchvision's own weights of a classifier, fetched with a progress bar if they are not there yet.

    `cache` is by default the user's cache folder, and `base_url` torchvision's. Raises DownloadFailed.
    """
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    folder, _, file = url.rpartition("/")
    digest = Path(file).stem.rpartition("-")[2]
    assert len(digest) == _PREFIX
    return fetch(f"{base_url or folder}/{file}", file, cache, sha256_prefix=digest)


def _network(name: str) -> nn.Module:
    """A classifier without weights, on the meta device."""
    with torch.device("meta"):
        return _build(name)


def _build(name: str) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(name, weights=None)
    return network


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == SAFETENSORS:
            state: Any = safetensors.torch.load_file(file)
        else:
            # With weights_only torch's unpickler makes tensors and containers, and nothing else.
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        safetensors.SafetensorError,
        RuntimeError,
        OSError,
        ValueError,
        EOFError,
    ) as error:
        if (kind := foreign_kind(file)) is not None:
            raise UnreadableCheckpoint(f"{file} is {kind}") from None
        reason = str(error).strip().partition("\n")[0][:200]
        raise UnreadableCheckpoint(
            f"{file} holds no tensors by name that can be read as data ({reason})"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # beside the optimizer's, as PyTorch's own example of training saves them
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise UnreadableCheckpoint(f"{file} holds something else than tensors by name")
    if all(key.startswith(_PARALLEL) for key in state):
        return {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return state


def _finished(name: str, network: nn.Module, device: torch.device) -> Classifier:
    network.eval().requires_grad_(False)
    digest = weights_hash(network.state_dict())
    network.to(device).to(memory_format=torch.channels_last)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return Classifier(_graph(network), tuple(weights.meta["categories"]), digest, weights.transforms())


def _graph(network: nn.Module) -> Graph:
    """The layers as the paper numbers them, and what comes after by torchvision's names."""
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # what is cut is still read, by whoever cuts there
    modules = dict(network.named_children())
    if "features" in modules:
        numbered = list(modules["features"].children())
        last = ("classifier", nn.Sequential(nn.Flatten(), modules["classifier"]))
    else:
        stem = [modules[part] for part in ("conv1", "bn1", "relu", "maxpool")]
        blocks = [
            block for part in ("layer1", "layer2", "layer3", "layer4") for block in modules[part].children()
        ]
        numbered = stem + blocks
        last = ("fc", nn.Sequential(nn.Flatten(), modules["fc"]))
    layers = [(str(number), module) for number, module in enumerate(numbered, 1)]
    layers += [("avgpool", modules["avgpool"]), last]
    inputs = [INPUT, *(name for name, _ in layers)]
    return Graph(
        tuple(
            Node(name, module, (before,), takes_list=False)
            for (name, module), before in zip(layers, inputs, strict=False)
        )
    )
