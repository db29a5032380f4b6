"""A YOLOv5 network ready for inference: from a checkpoint, or with random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from ultralytics.nn.modules import Conv
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from stream.errors import BrokenNetwork, UnknownModel, UnreadableCheckpoint, UnsupportedLayer
from stream.network.anchor_free_head import AnchorFreeDetect
from stream.network.anchor_head import ANCHORS, AnchorDetect
from stream.network.architecture import Layer, build_layers, description
from stream.network.checkpoint import Checkpoint, read_checkpoint
from stream.network.cut import canvas_stride, strides
from stream.network.file_kind import is_safetensors
from stream.network.graph import Graph
from stream.network.levels import Family
from stream.network.names import MODELS
from stream.network.pickle_reader import PickledObject
from stream.network.safetensors_file import read_safe_checkpoint
from stream.network.trial import check_detects


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network in evaluation mode, float32, with batch normalization folded into its convolutions."""

    graph: Graph
    names: tuple[str, ...]  # of the classes
    family: Family
    weights_hash: (
        str  # SHA-256, 64 hexadecimal digits; equal for equal weights, in whatever precision they were saved
    )
    stride: int  # both sides of a canvas are multiples of it, in pixels: 32, or 64 for a P6 network
    unnamed: int = 0  # classes that the checkpoint does not name: class0, class1 and so on, by their numbers

    @property
    def device(self) -> torch.device:
        return next(self.graph.nodes[0].module.parameters()).device


def load_model(weights: Path, device: str | torch.device = "cpu") -> Model:
    """The network in a legacy YOLOv5 (v6.0 to v7.0) or YOLOv5u checkpoint, or in a safetensors file of ours.

    What it cannot compute is found here: every weight is finite, and every layer has been run once.
    Raises CheckpointError: UnreadableCheckpoint, UnsafeCheckpoint, UnsupportedLayer or BrokenNetwork.
    """
    checkpoint = read_safe_checkpoint(weights) if is_safetensors(weights) else read_checkpoint(weights)
    family = _family(checkpoint)
    network = _network(checkpoint.yaml, family, _anchors_per_level(checkpoint), checkpoint.activations)
    state = dict(checkpoint.state)
    for name in [name for name in state if name.endswith(".anchor_grid")]:
        _converted(
            state.pop(name), torch.float32, name, str(weights)
        )  # computed from `anchors`, but it must be sound
    load_state(network.modules, state, str(weights))
    found = (None,) * network.classes if checkpoint.names is None else checkpoint.names
    if len(found) != network.classes:
        raise UnreadableCheckpoint(f"{weights} names {len(found)} classes but predicts {network.classes}")
    names = tuple(f"class{number}" if name is None else name for number, name in enumerate(found))
    model = _finished(network, family, names, torch.device(device), unnamed=found.count(None))
    try:
        check_detects(model.graph, model.stride, network.classes, model.device)
    except BrokenNetwork as error:
        error.args = (f"{weights}: {error}",)
        raise
    return model


def random_model(name: str, seed: int = 0, device: str | torch.device = "cpu") -> Model:
    """An official network (`yolov5n` ... `yolov5xu`) with random weights, the same for the same seed.

    Raises UnknownModel.
    """
    scale, family = _parse_name(name)
    network = _network(description(scale), family, anchors_per_level=3, activations={})
    network.modules.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for path, tensor in network.modules.state_dict().items():
        _fill(path, tensor, generator)
    names = tuple(f"class{index}" for index in range(network.classes))
    return _finished(network, family, names, torch.device(device))


def skeleton(name: str) -> Graph:
    """The graph of an official network without weights, on torch's meta device: good for shapes and costs.

    Raises UnknownModel.
    """
    scale, family = _parse_name(name)
    return _network(description(scale), family, anchors_per_level=3, activations={}).graph


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A network whose batch normalization is its own layer still, with values yet to be set."""

    modules: nn.ModuleDict  # parameters are named as in the checkpoints: "model.0.conv.weight"
    graph: Graph


def trainable(name: str, classes: Sequence[str]) -> Trainable:
    """An original YOLOv5 (`yolov5n` ... `yolov5x`) for other classes; only the anchors have their values.

    Raises UnknownModel.
    """
    scale, family = _parse_name(name)
    if family != "yolov5":
        raise UnknownModel(name)
    network = _network(description(scale, len(classes)), family, anchors_per_level=3, activations={})
    network.modules.to_empty(device="cpu")
    network.modules.get_buffer("model.24.anchors").copy_(_relative_anchors())
    return Trainable(network.modules, network.graph)


@dataclass(frozen=True, slots=True)
class _Structure:
    """Layers that have their structure but, being on the meta device, no weights yet."""

    modules: nn.ModuleDict  # parameters are named as in the checkpoints: "model.0.conv.weight"
    graph: Graph
    classes: int
    stride: int  # as Model.stride


def _network(
    yaml: Mapping[str, object],
    family: Family,
    anchors_per_level: int,
    activations: Mapping[str, PickledObject],
) -> _Structure:
    def detect(classes: int, channels: list[int]) -> nn.Module:
        if family == "yolov5":
            return AnchorDetect(classes, channels, anchors_per_level)
        head: nn.Module = AnchorFreeDetect(nc=classes, ch=channels)
        return head

    try:
        with torch.device("meta"):
            layers = build_layers(yaml, detect)
        modules = nn.ModuleDict({"model": nn.Sequential(*(layer.module for layer in layers))}).eval()
        for path, module in modules.named_modules():
            if isinstance(module, Conv):
                module.act = _activation(activations.get(path), path)
        graph = Graph.from_layers(layers)
        cells = strides(graph)
        levels = tuple(float(cells[name]) for name in graph.nodes[-1].inputs)
        layers[-1].module.stride = levels  # type: ignore[assignment] # a plain attribute of both heads
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UnreadableCheckpoint(f"the network's description does not fit together ({error})") from error
    return _Structure(modules, graph, _classes(layers), canvas_stride(cells))


def _classes(layers: list[Layer]) -> int:
    head = layers[-1].module
    return int(head.classes if isinstance(head, AnchorDetect) else head.nc)  # type: ignore[arg-type]


def _activation(pickled: PickledObject | None, path: str) -> nn.Module:
    """A convolution's activation: the checkpoint's, because ultralytics' modules no longer have all of YOLOv5's."""
    match pickled.name if pickled else "SiLU":
        case "SiLU":
            return nn.SiLU(inplace=True)
        case "ReLU":
            return nn.ReLU(inplace=True)
        case "Hardswish":
            return nn.Hardswish(inplace=True)
        case "LeakyReLU":
            slope = pickled.state.get("negative_slope") if pickled else None
            if not isinstance(slope, float):
                raise UnreadableCheckpoint(f"the LeakyReLU at {path} has no slope")
            return nn.LeakyReLU(slope, inplace=True)
        case "Identity":
            return nn.Identity()
        case name:
            raise UnsupportedLayer(name[:80], f"activation of {path}")


def _family(checkpoint: Checkpoint) -> Family:
    if any(name.endswith(".anchors") for name in checkpoint.state):
        return "yolov5"
    if any(name.endswith(".dfl.conv.weight") for name in checkpoint.state):
        return "yolov5u"
    raise UnsupportedLayer("not a detection head", "the last layer should be YOLOv5's or YOLOv5u's Detect")


def _anchors_per_level(checkpoint: Checkpoint) -> int:
    shapes = [value.shape for name, value in checkpoint.state.items() if name.endswith(".anchors")]
    return shapes[0][1] if shapes and len(shapes[0]) == 3 else 0


def load_state(modules: nn.Module, state: Mapping[str, torch.Tensor], file: str) -> None:
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


def _finished(
    network: _Structure, family: Family, names: tuple[str, ...], device: torch.device, unnamed: int = 0
) -> Model:
    digest = weights_hash(network.modules.state_dict())
    network.modules.requires_grad_(False)
    for module in network.modules.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # YOLOv5's own, while torch builds with 1e-5
    for module in network.modules.modules():
        if isinstance(module, Conv):
            module.conv = fuse_conv_and_bn(module.conv, module.bn)
            del module.bn
            module.forward = module.forward_fuse
    # Channels-last weights make convolutions 1.1 to 1.4 times faster on a CPU.
    network.modules.to(device).to(memory_format=torch.channels_last)
    return Model(network.graph, names, family, digest, network.stride, unnamed)


def weights_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and little-endian float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue  # counts training steps; the network computes the same whatever it says
        values = state[name].detach().float().cpu().numpy()
        digest.update(f"{name}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()


def _parse_name(name: str) -> tuple[str, Family]:
    if name not in MODELS:
        raise UnknownModel(name)
    return name[6], "yolov5u" if name.endswith("u") else "yolov5"


def _relative_anchors() -> torch.Tensor:
    """COCO's anchors float32 (3, 3, 2) in units of each level's stride."""
    return torch.tensor(ANCHORS) / torch.tensor([8.0, 16.0, 32.0]).view(3, 1, 1)


def _fill(path: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    """Random values that keep the signal's size from layer to layer and leave nothing at its neutral value."""
    if path.endswith("anchors"):
        tensor.copy_(_relative_anchors())
    elif path.endswith("dfl.conv.weight"):
        tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))  # bin numbers, fixed by the architecture
    elif path.endswith("num_batches_tracked"):
        tensor.zero_()
    elif tensor.ndim == 4:
        tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
    elif path.endswith(("running_var", "bn.weight")):
        tensor.uniform_(0.7, 1.3, generator=generator)
    else:
        tensor.normal_(std=0.1, generator=generator)
