"""Image classifiers of torchvision, as graphs that can be cut: the networks of the paper beside YOLOv5.

The paper numbers their layers from 1: VGG16's over its convolutional part, ResNet's over convolution, normalization,
ReLU and pooling of the stem, and then block by block.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
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
from stream.network.graph import INPUT
from stream.network.names import SAFETENSORS
from stream.network.network import weights_hash
from stream.torch_network.graph import ModuleGraph, ModuleNode
from stream.torch_network.trial import check_runs

CLASSIFIERS = ("vgg16", "resnet50", "resnet152")
SIZE = (224, 224)
"""(H, W) of their input."""

_PARALLEL = "module."  # before every name where DataParallel was around the network
_PREFIX = 8  # hexadecimal digits of a file's SHA-256 that its official name ends with


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A classifier in evaluation mode, float32, with 1000 classes of ImageNet."""

    graph: ModuleGraph  # the last node puts out logits (B, classes)
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


def classifier_skeleton(name: str) -> ModuleGraph:
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
    _load_state(network, state, str(file))
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


def _load_state(modules: nn.Module, state: Mapping[str, torch.Tensor], file: str) -> None:
    """Puts a file's tensors into modules on the meta device; every name and shape must agree.

    Raises UnreadableCheckpoint, or BrokenNetwork for a number that is not finite in the type that is computed in.
    """
    expected = modules.state_dict()
    differing = sorted(expected.keys() ^ state.keys()) or sorted(
        name for name, tensor in expected.items() if tensor.shape != state[name].shape
    )
    if differing:
        shown = ", ".join(name[:80] for name in differing[:3])
        raise UnreadableCheckpoint(
            f"{len(differing)} of the tensors in {file} do not fit the network they are for ({shown}, ...)"
        )
    modules.load_state_dict(
        {name: _converted(value, expected[name].dtype, name, file) for name, value in state.items()},
        assign=True,
    )


def _converted(value: torch.Tensor, dtype: torch.dtype, name: str, file: str) -> torch.Tensor:
    """A file's tensor in the type that it is computed in. Raises BrokenNetwork where that leaves no number of it."""
    if dtype.is_floating_point and not value.is_floating_point():
        raise UnreadableCheckpoint(
            f"{file}: {name[:80]} holds {str(value.dtype).removeprefix('torch.')}, not floating point; "
            "use the checkpoint from before it was quantized"
        )
    if not value.isfinite().all():
        raise BrokenNetwork(
            f"{file}: {name[:80]} holds numbers that are not finite (NaN or infinity): the training went wrong, or the "
            "file is damaged; use an earlier checkpoint, or fetch it again"
        )
    converted = value.to(dtype).contiguous()
    if not converted.isfinite().all():
        raise BrokenNetwork(
            f"{file}: {name[:80]} holds numbers beyond what {str(dtype).removeprefix('torch.')} can hold; "
            "the training went wrong: use an earlier checkpoint"
        )
    return converted


def _finished(name: str, network: nn.Module, device: torch.device) -> Classifier:
    network.eval().requires_grad_(False)
    digest = weights_hash({name: tensor.float().numpy() for name, tensor in network.state_dict().items()})
    network.to(device).to(memory_format=torch.channels_last)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return Classifier(_graph(network), tuple(weights.meta["categories"]), digest, weights.transforms())


def _graph(network: nn.Module) -> ModuleGraph:
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
    return ModuleGraph(
        tuple(
            ModuleNode(name, module, (before,), takes_list=False)
            for (name, module), before in zip(layers, inputs, strict=False)
        )
    )
