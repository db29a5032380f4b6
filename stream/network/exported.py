"""The files of `splitcast export`: head and tail as ONNX models, and a description of what crosses between them.

A folder may come from elsewhere, so everything in it is bounded and checked before ONNX Runtime sees it: a model may
name files of its own, and operators of which nothing is known.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import prod
from pathlib import Path
from stat import S_ISREG
from tempfile import mkdtemp
from typing import Annotated, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.helper import make_tensor_value_info
from onnx.shape_inference import InferenceError, infer_shapes
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codec.layout import FloatArray
from stream.errors import BrokenNetwork, UnknownSplitPoint, UnreadableCheckpoint
from stream.network.class_names import MAX_CLASSES, MAX_NAME
from stream.network.cut import Cut, LiveTensor
from stream.network.graph import INPUT
from stream.network.levels import Family, Levels
from stream.network.names import EXPORT_DESCRIPTION
from stream.network.network import Network
from stream.network.onnx_engine import OnnxHead, OnnxNetwork, OnnxTail
from stream.network.onnx_graph import OPSET
from stream.network.onnx_session import OnnxSession

HEAD: Literal["head.onnx"] = "head.onnx"
TAIL: Literal["tail.onnx"] = "tail.onnx"
_MAX_DESCRIPTION_BYTES = 4 << 20
_MAX_MODEL_BYTES = 1 << 30
_MAX_FACTORS = 8  # values of a constant that sizes may depend on: the factors of a `Resize`
_MAX_NODES = 4096  # of a model; yolov5x has some 700
_OPERATORS = frozenset(
    ["Add", "Concat", "Conv", "HardSwish", "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid"]
)  # that `onnx_graph` writes
_MAX_CROSSING = 256  # values that cross, per pixel of the canvas; those of an official network are at most 24
_MAX_VALUES = (
    4096  # that all nodes of a model put out, per pixel of the canvas; official networks' at most 1000
)
_MAX_WORK = 10_000_000  # multiplications, per pixel of the canvas; official networks' at most 300,000
_CELLS = (1, 3)  # (rows, columns) of the coarsest layer, on which a model is tried

Count = Annotated[int, Field(ge=1, le=1 << 16)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Positive = Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]
Stride = Annotated[int, Field(ge=1, le=256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CrossingTensor(_Part):
    """A tensor that crosses, for a canvas of any size."""

    name: Text
    channels: Count
    stride: Stride  # pixels per cell along one side


class ExportDescription(_Part):
    """What a program has to know of exported halves, beside them."""

    format: Literal[1]
    software: Text
    model: Text
    weights: Hash  # of the handshake
    names: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    family: Family
    strides: Annotated[tuple[Stride, ...], Field(min_length=1, max_length=8)]  # of the levels
    anchors: Annotated[
        tuple[Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=1, max_length=64)], ...],
        Field(max_length=8),
    ]  # (width, height) in pixels, by level; none of YOLOv5u
    split: Text
    stride: Stride  # both sides of a canvas are multiples of it, in pixels
    tensors: Annotated[tuple[CrossingTensor, ...], Field(min_length=1, max_length=32)]
    head_flops: Positive  # floating-point operations per pixel of the canvas
    tail_flops: Positive
    files: dict[Literal["head.onnx", "tail.onnx"], Hash]  # SHA-256

    @property
    def levels(self) -> Levels:
        """What the logits mean."""
        return Levels(self.family, len(self.names), self.strides, self.anchors)

    @property
    def cut(self) -> Cut:
        """What crosses."""
        tensors = tuple(LiveTensor(tensor.name, tensor.channels, tensor.stride) for tensor in self.tensors)
        return Cut(self.split, tensors, self.stride, self.head_flops, self.tail_flops)


def write_export(
    network: Network,
    name: str,
    split: str,
    folder: Path,
    *,
    software: str,
    check: Callable[[ExportedNetwork], None] = lambda exported: None,
) -> ExportedNetwork:
    """Write both halves and their description to a new folder, whole or not at all; returns what was written.

    Each half has been run, and `check` has seen what is written, before anything stands under the folder's name.
    Raises UnknownSplitPoint, BrokenNetwork where a half cannot be run, FileExistsError, or another OSError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and not empty; remove it, or name another folder")
    engine = OnnxNetwork(network)
    models: dict[Literal["head.onnx", "tail.onnx"], bytes] = {
        HEAD: engine.head_model(split),
        TAIL: engine.tail_model(split),
    }
    cut, levels = engine.cut(split), network.levels
    description = ExportDescription(
        format=1,
        software=software,
        model=name,
        weights=network.weights_hash,
        names=network.names,
        family=levels.family,
        strides=levels.strides,
        anchors=levels.anchors,
        split=split,
        stride=cut.stride,
        tensors=tuple(
            CrossingTensor(name=tensor.name, channels=tensor.channels, stride=tensor.stride)
            for tensor in cut.tensors
        ),
        head_flops=cut.head_flops,
        tail_flops=cut.tail_flops,
        files={HEAD: _sha256(models[HEAD]), TAIL: _sha256(models[TAIL])},
    )
    partial = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        for file, data in models.items():
            (partial / file).write_bytes(data)
        (partial / EXPORT_DESCRIPTION).write_text(description.model_dump_json(indent=2) + "\n")
        exported = ExportedNetwork(partial)
        exported.tail(split)  # each half is run once
        exported.head(split, _trial_size(cut))
        check(exported)
        partial.chmod(0o755)  # of a temporary folder only its owner may read
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportedNetwork(folder)


class ExportedNetwork:
    """The halves in a folder that `write_export` has written, in ONNX Runtime. See `RunnableNetwork`.

    Raises UnreadableCheckpoint for a folder that holds something else.
    """

    device = "cpu"
    unnamed = 0

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._folder, self._threads = folder, threads
        self.description = _read_description(folder)
        self.names, self.weights_hash = self.description.names, self.description.weights
        self.levels, self.stride = self.description.levels, self.description.stride
        self.split_points = (self.description.split,)

    def cut(self, split: str) -> Cut:
        """What crosses. Raises UnknownSplitPoint for any other split point than the exported one."""
        if split != self.description.split:
            raise UnknownSplitPoint(split, self.split_points)
        return self._cut

    def head(self, split: str, size: tuple[int, int]) -> OnnxHead:
        """Raises UnknownSplitPoint, InvalidSize, UnreadableCheckpoint, BrokenNetwork."""
        cut = self.cut(split)
        cut.layout(size)
        session = self._session(HEAD, (INPUT,), cut.names)
        trial = OnnxHead(session, cut, _trial_size(cut))
        with _trying(self._folder / HEAD):
            tensors = trial(np.zeros((*trial.size, 3), np.uint8))
        _check(self._folder / HEAD, [spec.shape for spec in trial.layout], list(tensors.values()))
        return trial.resized(size)

    def tail(self, split: str) -> OnnxTail:
        """Raises UnknownSplitPoint, UnreadableCheckpoint, BrokenNetwork."""
        cut = self.cut(split)
        session = self._session(TAIL, cut.names, None)
        size = _trial_size(cut)
        tail = OnnxTail(session, cut)
        with _trying(self._folder / TAIL):
            (logits,) = tail([{spec.name: np.zeros(spec.shape, np.float32) for spec in cut.layout(size)}])
        shapes = [
            (self.levels.channels, *(side // stride for side in size)) for stride in self.levels.strides
        ]
        _check(self._folder / TAIL, shapes, logits)
        return tail

    @cached_property
    def _cut(self) -> Cut:
        return self.description.cut

    def _session(
        self, file: Literal["head.onnx", "tail.onnx"], inputs: Sequence[str], outputs: Sequence[str] | None
    ) -> OnnxSession:
        path = self._folder / file
        data = _read(path, _MAX_MODEL_BYTES)
        if _sha256(data) != self.description.files.get(file):
            raise UnreadableCheckpoint(
                f"{path} is not the file that {EXPORT_DESCRIPTION} describes; export again"
            )
        _check_model(data, path, self._cut)
        with _trying(path):
            session = OnnxSession(data, self._threads, keep_memory=file == HEAD)
        if set(session.inputs) != set(inputs) or (outputs is not None and session.outputs != tuple(outputs)):
            raise UnreadableCheckpoint(f"{path} has other inputs or outputs than {EXPORT_DESCRIPTION} says")
        return session


@contextmanager
def _trying(path: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError, InferenceError) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise BrokenNetwork(f"{path} cannot be run ({reason})") from error


def _check(path: Path, shapes: Sequence[tuple[int, ...]], made: Sequence[FloatArray]) -> None:
    """Raises UnreadableCheckpoint for arrays of other shapes, BrokenNetwork for numbers that are not finite."""
    if [values.shape for values in made] != list(shapes):
        raise UnreadableCheckpoint(f"{path} does not put out what {EXPORT_DESCRIPTION} says; export again")
    if not all(np.isfinite(values).all() for values in made):
        raise BrokenNetwork(f"{path} puts out numbers that are not finite; use another checkpoint")


def _check_model(data: bytes, path: Path, cut: Cut) -> None:
    """Raises UnreadableCheckpoint for a model that `onnx_graph` would not have written."""
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise UnreadableCheckpoint(f"{path} is no ONNX model ({error})") from error
    graph = model.graph
    foreign = {node.op_type for node in graph.node if node.domain or node.op_type not in _OPERATORS}
    if foreign:
        shown = ", ".join(sorted(name[:80] for name in foreign)[:3])
        raise UnreadableCheckpoint(f"{path} has operators that no network of ours needs: {shown}")
    if [(entry.domain, entry.version) for entry in model.opset_import] != [("", OPSET)] or model.functions:
        raise UnreadableCheckpoint(
            f"{path} is written in other operators than those of ONNX's version {OPSET}"
        )
    if len(graph.node) > _MAX_NODES or graph.sparse_initializer or _nested(graph):
        raise UnreadableCheckpoint(f"{path} is no network that Splitcast has written")
    if any(
        tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data
        for tensor in graph.initializer
    ):
        raise UnreadableCheckpoint(
            f"{path} keeps its weights in other files, which are never read; export again"
        )
    _check_cost(model, path, cut)


def _check_cost(model: onnx.ModelProto, path: Path, cut: Cut) -> None:
    """Raises UnreadableCheckpoint for a model that takes more memory or time than a network, before it is run.

    `model` loses its weights, which the shapes of what it puts out do not depend on.
    """
    graph, size = model.graph, _trial_size(cut)
    given = {INPUT: (1, 3, *size)} | {spec.name: (1, *spec.shape) for spec in cut.layout(size)}
    shapes: dict[str, Sequence[int]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for tensor in graph.initializer:
        if prod(tensor.dims) > _MAX_FACTORS:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    del graph.value_info[:]
    for value in graph.input:
        if value.name in given:
            value.CopyFrom(make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, given[value.name]))
    for value in graph.output:
        value.CopyFrom(make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, None))
    with _trying(path):
        inferred = infer_shapes(model, strict_mode=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    values = work = 0
    for node in graph.node:
        made = sum(prod(shapes.get(name) or (0,)) for name in node.output)
        if made <= 0:
            raise UnreadableCheckpoint(f"{path}: what {node.name[:80]} puts out has no size; export again")
        values += made
        work += made * _factor(node, shapes)
    pixels = prod(size)
    if values > _MAX_VALUES * pixels or work > _MAX_WORK * pixels:
        raise UnreadableCheckpoint(f"{path} takes more memory or time than any network; export again")


def _factor(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    """Values that each one of a node's output is made of."""
    if node.op_type == "Conv":
        return prod(shapes.get(node.input[1], ())[1:])
    return prod(prod(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape")


def _nested(graph: onnx.GraphProto) -> bool:
    """Whether a node has tensors or graphs of its own, which none of ours has."""
    plain = (
        onnx.AttributeProto.INT,
        onnx.AttributeProto.INTS,
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.STRING,
    )
    return any(attribute.type not in plain for node in graph.node for attribute in node.attribute)


def _read_description(folder: Path) -> ExportDescription:
    path = folder / EXPORT_DESCRIPTION
    try:
        description = ExportDescription.model_validate_json(_read(path, _MAX_DESCRIPTION_BYTES))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:80]
        raise UnreadableCheckpoint(f"{path}: {where}: {first['msg'][:200]}; export again") from None
    levels = description.levels
    alike = {len(anchors) for anchors in levels.anchors}
    if (len(levels.anchors) != len(levels.strides) * (levels.family == "yolov5")) or len(alike) > 1:
        raise UnreadableCheckpoint(f"{path}: the anchors do not fit the levels; export again")
    if any(
        description.stride % stride for stride in (*levels.strides, *(t.stride for t in description.tensors))
    ):
        raise UnreadableCheckpoint(f"{path}: the strides do not fit the canvas; export again")
    if sum(tensor.channels / tensor.stride**2 for tensor in description.tensors) > _MAX_CROSSING:
        raise UnreadableCheckpoint(f"{path}: more values cross than in any network; export again")
    return description


def _read(path: Path, limit: int) -> bytes:
    """A file's bytes. Raises UnreadableCheckpoint."""
    try:
        if not S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise UnreadableCheckpoint(f"{path} cannot be read: it is no regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise UnreadableCheckpoint(f"{path} is larger than {limit} bytes")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _trial_size(cut: Cut) -> tuple[int, int]:
    return _CELLS[0] * cut.stride, _CELLS[1] * cut.stride
