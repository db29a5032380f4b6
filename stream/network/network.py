"""A YOLOv5 network as data, ready to be run by an engine: from a checkpoint, or with random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from codec.layout import FloatArray
from stream.errors import BrokenNetwork, UnknownModel, UnreadableCheckpoint, UnsupportedLayer
from stream.network.architecture import Layer, build_layers, description
from stream.network.checkpoint import Checkpoint, read_checkpoint
from stream.network.cut import canvas_stride, strides
from stream.network.file_kind import is_safetensors
from stream.network.graph import Graph
from stream.network.levels import BINS, Family, Levels
from stream.network.names import MODELS
from stream.network.operations import Activation, Shape
from stream.network.pickle_reader import PickledObject
from stream.network.safetensors_file import read_safe_checkpoint
from stream.network.trial import check_runs

ANCHORS = (  # COCO's, as (width, height) in pixels, for strides 8, 16 and 32
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
_EPSILON = np.float32(1e-3)  # of YOLOv5's batch normalization
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

State: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Parameters and buffers by the names that checkpoints give them: "model.0.conv.weight"."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network's structure, and its float32 weights with batch normalization folded into the convolutions."""

    structure: Structure
    weights: Mapping[
        str, tuple[FloatArray, FloatArray]
    ]  # (outputs, inputs, k, k) and (outputs,), by Conv.path
    names: tuple[str, ...]  # of the classes
    weights_hash: (
        str  # SHA-256, 64 hexadecimal digits; equal for equal weights, in whatever precision they were saved
    )
    levels: Levels  # what the logits mean
    unnamed: int = 0  # classes that the checkpoint does not name: class0, class1 and so on, by their numbers

    @property
    def graph(self) -> Graph:
        """The structure's nodes."""
        return self.structure.graph

    @property
    def stride(self) -> int:
        """Both sides of a canvas are multiples of it, in pixels: 32, or 64 for a P6 network."""
        return self.structure.stride

    @property
    def family(self) -> Family:
        """The original YOLOv5 or YOLOv5u."""
        return self.levels.family


@dataclass(frozen=True, slots=True)
class Structure:
    """A network without weights: good for shapes and costs."""

    layers: tuple[Layer, ...]
    graph: Graph  # of the layers
    strides: tuple[int, ...]  # pixels per cell of each level
    stride: int  # as Network.stride

    @property
    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of all that a checkpoint of this network holds."""
        shapes = dict(self.graph.detect.constants)
        for conv in self.graph.convolutions:
            if conv.plain:
                shapes |= {f"{conv.path}.weight": conv.weight_shape, f"{conv.path}.bias": (conv.outputs,)}
                continue
            shapes[f"{conv.path}.conv.weight"] = conv.weight_shape
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{conv.path}.bn.{name}"] = (conv.outputs,)
            shapes[f"{conv.path}.bn.num_batches_tracked"] = ()
        return shapes


def load_network(weights: Path) -> Network:
    """The network in a legacy YOLOv5 (v6.0 to v7.0) or YOLOv5u checkpoint, or in a safetensors file of ours.

    What it cannot compute is found here: every weight is finite, and every layer has been run once.
    Raises CheckpointError: UnreadableCheckpoint, UnsafeCheckpoint, UnsupportedLayer or BrokenNetwork.
    """
    if weights.is_dir():
        raise UnreadableCheckpoint(
            f"{weights} is a folder; an exported network is for camera, detector, evaluate and advise: give the file "
            "that it was made from"
        )
    checkpoint = read_safe_checkpoint(weights) if is_safetensors(weights) else read_checkpoint(weights)
    structure = checkpoint_structure(checkpoint)
    state = dict(checkpoint.state)
    for name in [name for name in state if name.endswith(".anchor_grid")]:
        _single(state.pop(name), name, str(weights))  # computed from `anchors`, but it must be sound
    singles = _fitting(structure.parameters, state, str(weights))
    classes = structure.graph.detect.classes
    found = (None,) * classes if checkpoint.names is None else checkpoint.names
    if len(found) != classes:
        raise UnreadableCheckpoint(f"{weights} names {len(found)} classes but predicts {classes}")
    names = tuple(f"class{number}" if name is None else name for number, name in enumerate(found))
    try:
        network = network_of(structure, singles, names, unnamed=found.count(None))
        check_runs(network.graph, network.weights, network.stride)
    except (BrokenNetwork, UnsupportedLayer) as error:
        error.args = (f"{weights}: {error}",)
        raise
    return network


def random_network(name: str, seed: int = 0) -> Network:
    """An official network (`yolov5n` ... `yolov5xu`) with random weights, the same for the same seed.

    Raises UnknownModel.
    """
    structure = official_structure(name)
    generator = np.random.default_rng(seed)
    state = {path: _random(path, shape, generator) for path, shape in sorted(structure.parameters.items())}
    names = tuple(f"class{index}" for index in range(structure.graph.detect.classes))
    return network_of(structure, state, names)


def official_structure(name: str, classes: int = 80) -> Structure:
    """An official network without weights. Raises UnknownModel."""
    if name not in MODELS:
        raise UnknownModel(name)
    family: Family = "yolov5u" if name.endswith("u") else "yolov5"
    return _structure(description(name[6], classes), family, anchors_per_level=3, activations={})


def checkpoint_structure(checkpoint: Checkpoint) -> Structure:
    """The network that a checkpoint describes. Raises UnreadableCheckpoint, UnsupportedLayer."""
    return _structure(
        checkpoint.yaml, _family(checkpoint), _anchors_per_level(checkpoint), checkpoint.activations
    )


def network_of(
    structure: Structure, state: Mapping[str, FloatArray], names: tuple[str, ...], unnamed: int = 0
) -> Network:
    """The network of a structure with the weights of a checkpoint, float32.

    Raises BrokenNetwork for anchors of no finite size, UnsupportedLayer for YOLOv5u's boxes in other bins.
    """
    detect = structure.graph.detect
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    if detect.family == "yolov5":
        cells = state[f"{detect.path}.anchors"].astype(np.float64)
        pixels = cells * np.array(structure.strides, np.float64)[:, None, None]
        if not (np.abs(pixels) < np.finfo(np.float32).max / 4).all():  # a box has at most 4 times that size
            raise BrokenNetwork(
                "its anchors are larger than any picture; train again, or use another checkpoint"
            )
        anchors = tuple(tuple((width, height) for width, height in level) for level in pixels.tolist())
    elif not np.array_equal(state[f"{detect.path}.dfl.conv.weight"].ravel(), np.arange(BINS)):
        raise UnsupportedLayer("DFL", "distances should be the means of bins 0 to 15")
    return Network(
        structure,
        {conv.path: _folded(state, conv.path, conv.plain) for conv in structure.graph.convolutions},
        names,
        weights_hash(state),
        Levels(detect.family, detect.classes, structure.strides, anchors),
        unnamed,
    )


def weights_hash(state: Mapping[str, FloatArray]) -> str:
    """SHA-256 over names, shapes and little-endian float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue  # counts training steps; the network computes the same whatever it says
        values = state[name]
        digest.update(f"{name}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()


def _structure(
    yaml: Mapping[str, object],
    family: Family,
    anchors_per_level: int,
    activations: Mapping[str, PickledObject],
) -> Structure:
    try:
        layers = build_layers(
            yaml, family, anchors_per_level, lambda path: _activation(activations.get(path), path)
        )
        graph = Graph.from_layers(layers)
        cells = strides(graph)
        levels = tuple(cells[name] for name in graph.nodes[-1].inputs)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UnreadableCheckpoint(f"the network's description does not fit together ({error})") from error
    return Structure(tuple(layers), graph, levels, canvas_stride(cells))


def _activation(pickled: PickledObject | None, path: str) -> Activation:
    """A convolution's activation, which is the checkpoint's own."""
    match pickled.name if pickled else "SiLU":
        case "SiLU" | "ReLU" | "Hardswish" | "Identity" as kind:
            return Activation(kind)
        case "LeakyReLU":
            slope = pickled.state.get("negative_slope") if pickled else None
            if not isinstance(slope, float):
                raise UnreadableCheckpoint(f"the LeakyReLU at {path} has no slope")
            return Activation("LeakyReLU", slope)
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
    return int(shapes[0][1]) if shapes and len(shapes[0]) == 3 else 0


def _fitting(expected: Mapping[str, Shape], state: State, file: str) -> dict[str, FloatArray]:
    """A file's tensors as float32, once every name and shape is known to agree.

    Raises UnreadableCheckpoint, or BrokenNetwork for a number that is not finite in the type that is computed in.
    """
    differing = sorted(expected.keys() ^ state.keys()) or sorted(
        name for name, shape in expected.items() if shape != state[name].shape
    )
    if differing:
        shown = ", ".join(name[:80] for name in differing[:3])
        raise UnreadableCheckpoint(
            f"{len(differing)} of the tensors in {file} do not fit the network they are for ({shown}, ...)"
        )
    return {name: _single(value, name, file) for name, value in state.items()}


def _single(value: NDArray[np.generic], name: str, file: str) -> FloatArray:
    """A file's tensor as float32. Raises BrokenNetwork where that leaves no number of it."""
    if value.dtype.kind != "f" and value.dtype != _BFLOAT16 and not name.endswith(".num_batches_tracked"):
        raise UnreadableCheckpoint(
            f"{file}: {name[:80]} holds {value.dtype}, not floating point; "
            "use the checkpoint from before it was quantized"
        )
    if value.dtype == _BFLOAT16:
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise BrokenNetwork(
            f"{file}: {name[:80]} holds numbers that are not finite (NaN or infinity): the training went wrong, or the "
            "file is damaged; use an earlier checkpoint, or fetch it again"
        )
    with np.errstate(over="ignore"):
        single = np.require(value, np.float32, "C")
    if not np.isfinite(single).all():
        raise BrokenNetwork(
            f"{file}: {name[:80]} holds numbers beyond what float32 can hold; "
            "the training went wrong: use an earlier checkpoint"
        )
    return single


def _folded(state: Mapping[str, FloatArray], path: str, plain: bool) -> tuple[FloatArray, FloatArray]:
    """Weights and bias of a convolution with its batch normalization folded in, computed as torch does."""
    if plain:
        return state[f"{path}.weight"], state[f"{path}.bias"]
    weight, scale, bias, mean, variance = (
        state[f"{path}.{name}"]
        for name in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    )
    with np.errstate(all="ignore"):  # the trial says which layer puts out what is not finite
        inverse = np.float32(1) / np.sqrt(variance + _EPSILON)
        return weight * (scale * inverse)[:, None, None, None], -mean * inverse * scale + bias


def _random(path: str, shape: Shape, generator: np.random.Generator) -> FloatArray:
    """Random values that keep the signal's size from layer to layer and leave nothing at its neutral value."""
    if path.endswith("anchors"):
        return (np.array(ANCHORS, np.float32) / np.array([8, 16, 32], np.float32)[:, None, None]).copy()
    if path.endswith("dfl.conv.weight"):
        return np.arange(BINS, dtype=np.float32).reshape(shape)  # bin numbers, fixed by the architecture
    if path.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if path.endswith(("running_var", "bn.weight")):
        return generator.uniform(0.7, 1.3, shape).astype(np.float32)
    spread = (2 / float(np.prod(shape[1:]))) ** 0.5 if len(shape) == 4 else 0.1
    values: FloatArray = generator.standard_normal(shape, np.float32) * np.float32(spread)
    return values
