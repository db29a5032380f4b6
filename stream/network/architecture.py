"""The layers of a YOLOv5 network as data, from its description, out of a short list of known layers.

The description comes from a checkpoint, so it is untrusted: its strings are compared, never evaluated, and its
numbers are bounded before a layer is made.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from stream.errors import UnreadableCheckpoint, UnsupportedLayer
from stream.network.levels import BINS, Family
from stream.network.operations import (
    C3,
    SPPF,
    Activation,
    Bottleneck,
    Concat,
    Conv,
    Detect,
    Operation,
    Upsample,
)

# Making a layer takes a millisecond or more and a line of text asks for one, so they are few.
_MAX_LAYERS = 64  # official networks have 25
_MAX_REPEATS = 16  # official networks repeat a bottleneck at most 12 times
_MAX_BOTTLENECKS = 128  # of all layers together; official networks have at most 44
_MAX_SOURCES = 8  # official networks concatenate 2 layers and detect on 3
_MAX_ARGUMENTS = 8
_MAX_ARGUMENT = 64  # kernel size, stride, padding, groups
_MAX_CHANNELS = 4096  # official networks have at most 1280
_MAX_OUTPUTS = 1 << 16  # channels of a level's logits; official networks have 255
_MAX_VALUES = 256  # that all layers together put out per pixel of the picture; official networks at most 100
_MIN_RESOLUTION = (
    1 / 128
)  # of a layer, in cells per pixel along one side; official networks reach 1/32, P6 1/64

SCALES: Mapping[str, tuple[float, float]] = {  # depth and width multiples
    "n": (0.33, 0.25),
    "s": (0.33, 0.50),
    "m": (0.67, 0.75),
    "l": (1.00, 1.00),
    "x": (1.33, 1.25),
}

_BACKBONE = (
    (-1, 1, "Conv", (64, 6, 2, 2)),  # 0, 1/2 of the picture
    (-1, 1, "Conv", (128, 3, 2)),  # 1, 1/4
    (-1, 3, "C3", (128,)),
    (-1, 1, "Conv", (256, 3, 2)),  # 3, 1/8
    (-1, 6, "C3", (256,)),
    (-1, 1, "Conv", (512, 3, 2)),  # 5, 1/16
    (-1, 9, "C3", (512,)),
    (-1, 1, "Conv", (1024, 3, 2)),  # 7, 1/32
    (-1, 3, "C3", (1024,)),
    (-1, 1, "SPPF", (1024, 5)),  # 9
)
_NECK = (
    (-1, 1, "Conv", (512, 1, 1)),
    (-1, 1, "nn.Upsample", (None, 2, "nearest")),
    ((-1, 6), 1, "Concat", (1,)),
    (-1, 3, "C3", (512, False)),  # 13
    (-1, 1, "Conv", (256, 1, 1)),
    (-1, 1, "nn.Upsample", (None, 2, "nearest")),
    ((-1, 4), 1, "Concat", (1,)),
    (-1, 3, "C3", (256, False)),  # 17, small objects
    (-1, 1, "Conv", (256, 3, 2)),
    ((-1, 14), 1, "Concat", (1,)),
    (-1, 3, "C3", (512, False)),  # 20, medium objects
    (-1, 1, "Conv", (512, 3, 2)),
    ((-1, 10), 1, "Concat", (1,)),
    (-1, 3, "C3", (1024, False)),  # 23, large objects
    ((17, 20, 23), 1, "Detect", ("nc",)),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the network and the layers whose outputs it reads; -1 is the picture."""

    operation: Operation | C3
    sources: tuple[int, ...]


ActivationOf: TypeAlias = Callable[[str], Activation]
"""The activation of the convolution whose module has this path."""


def description(scale: str, classes: int = 80) -> Mapping[str, object]:
    """The official YOLOv5 v6.0 network of a scale (n, s, m, l or x), in the form that checkpoints carry."""
    depth, width = SCALES[scale]
    return {
        "nc": classes,
        "depth_multiple": depth,
        "width_multiple": width,
        "backbone": _BACKBONE,
        "head": _NECK,
    }


def build_layers(
    yaml: Mapping[str, object],
    family: Family,
    anchors_per_level: int = 3,
    activation: ActivationOf = lambda path: Activation(),
) -> list[Layer]:
    """The layers of a described network.

    Raises UnsupportedLayer for anything but Conv, C3, SPPF, nn.Upsample, Concat and a final Detect, and
    UnreadableCheckpoint for a description that makes no sense.
    """
    multiples = _multiples(yaml)
    rows = [*_sequence(yaml.get("backbone")), *_sequence(yaml.get("head"))]
    classes = yaml.get("nc")
    if not 0 < len(rows) <= _MAX_LAYERS or type(classes) is not int or not 0 < classes <= _MAX_CHANNELS:
        raise UnreadableCheckpoint("the network's description lacks its layers or its number of classes")
    if yaml.get("ch", 3) != 3:
        raise UnsupportedLayer(f"input of {reprlib.repr(yaml['ch'])} channels", "pictures have 3")
    detection = _Detection(family, classes, anchors_per_level)
    builder = _Builder(multiples, detection, activation)
    for index, row in enumerate(rows):
        kind = builder.add(row, last=index == len(rows) - 1)
    if kind != "Detect":
        raise UnsupportedLayer(_shown(kind), "the last layer should be Detect")
    return builder.layers


@dataclass(frozen=True, slots=True)
class _Detection:
    """What the last layer predicts."""

    family: Family
    classes: int
    anchors_per_level: int


class _Builder:
    """Describes one layer after the other, and bounds what all of them take together."""

    def __init__(
        self, multiples: tuple[float, float, float], detection: _Detection, activation: ActivationOf
    ) -> None:
        self.layers: list[Layer] = []
        self._depth, self._width, self._max_channels = multiples
        self._detection = detection
        self._activation = activation
        self._channels: list[int] = []  # of each layer's output
        self._resolutions: list[float] = []  # of each layer's output, in cells per pixel along one side
        self._bottlenecks = 0
        self._values = 0.0  # of all layers' outputs, per pixel of the picture

    def add(self, row: object, last: bool) -> object:
        """Describe the layer of a row; returns its kind."""
        index = len(self.layers)
        where = f"layer {index}"
        try:
            origin, declared_repeats, kind, arguments = _sequence(row)
        except ValueError:
            raise UnreadableCheckpoint(
                f"{where} is not described as [from, repeats, kind, arguments]"
            ) from None
        sources = _sources(origin, index)
        inputs = [self._channels[source] if source >= 0 else 3 for source in sources]
        resolution = max(self._resolutions[source] if source >= 0 else 1.0 for source in sources)
        repeats = _repeats(declared_repeats, self._depth, where)
        if kind == "Detect" and last:
            _sequence(arguments, _MAX_ARGUMENTS)
            operation: Operation | C3 = self._detect(f"model.{index}", inputs)
            channels, shrinks = 0, 1.0
        else:
            operation, channels, shrinks = self._operation(kind, arguments, inputs, repeats, index)
        resolution /= shrinks
        self._values += channels * resolution**2
        if self._values > _MAX_VALUES or resolution < _MIN_RESOLUTION:
            raise UnreadableCheckpoint(
                f"the outputs up to {where} would be too large or too small for a detection network"
            )
        self.layers.append(Layer(operation, sources))
        self._channels.append(channels)
        self._resolutions.append(resolution)
        return kind

    def _operation(
        self, kind: object, arguments: object, inputs: list[int], repeats: int, index: int
    ) -> tuple[Operation | C3, int, float]:
        """A layer, the channels of its output, and how many times smaller that is than the input along one side."""
        where, path = f"layer {index}", f"model.{index}"
        match kind, _sequence(arguments, _MAX_ARGUMENTS):
            case "Conv", (int(c2), *rest) if len(rest) <= 4 and repeats == 1 and len(inputs) == 1:
                conv = self._described_conv(path, inputs[0], self._scaled(c2), _small(rest, where), where)
                return conv, conv.outputs, conv.stride
            case "C3", (int(c2), *rest) if len(rest) <= 2 and len(inputs) == 1:
                self._bottlenecks += repeats
                if self._bottlenecks > _MAX_BOTTLENECKS:
                    raise UnreadableCheckpoint(f"the network has more than {_MAX_BOTTLENECKS} bottlenecks")
                shortcut, groups = _filled(_small(rest, where), (True, 1))
                channels = self._scaled(c2)
                hidden = channels // 2
                count = _groups(groups, hidden, hidden, where)
                block = C3(
                    self._conv(f"{path}.cv1", inputs[0], hidden),
                    self._conv(f"{path}.cv2", inputs[0], hidden),
                    self._conv(f"{path}.cv3", 2 * hidden, channels),
                    tuple(
                        self._bottleneck(f"{path}.m.{number}", hidden, bool(shortcut), count)
                        for number in range(repeats)
                    ),
                )
                return block, channels, 1
            case "SPPF", (int(c2), *rest) if len(rest) <= 1 and repeats == 1 and len(inputs) == 1:
                channels = self._scaled(c2)
                (size,) = _filled(_small(rest, where), (5,))
                kernel = _count(size, where)
                if kernel % 2 == 0:
                    raise UnreadableCheckpoint(f"{where} pools with an even kernel, {kernel}")
                hidden = inputs[0] // 2
                first = self._conv(f"{path}.cv1", inputs[0], hidden)
                return SPPF(first, kernel, self._conv(f"{path}.cv2", 4 * hidden, channels)), channels, 1
            case "nn.Upsample", (None | "None", 2, "nearest") if repeats == 1 and len(inputs) == 1:
                return Upsample(), inputs[0], 1 / 2
            case "Concat", (1,) if repeats == 1:
                return Concat(), _bounded(sum(inputs)), 1
            case _:
                raise UnsupportedLayer(_shown(kind), where)

    def _described_conv(
        self, path: str, inputs: int, outputs: int, rest: Sequence[object], where: str
    ) -> Conv:
        """A convolution by [kernel, stride, padding, groups], the last ones of which may be left out."""
        kernel, stride, padding, groups = _filled(rest, (1, 1, None, 1))
        size = _count(kernel, where)
        around = size // 2 if padding is None else padding
        return self._conv(
            path,
            inputs,
            outputs,
            size,
            stride=_stride(size, stride, around, where),
            padding=_count(around, where, least=0),
            groups=_groups(groups, inputs, outputs, where),
        )

    def _bottleneck(self, path: str, channels: int, shortcut: bool, groups: int) -> Bottleneck:
        return Bottleneck(
            self._conv(f"{path}.cv1", channels, channels),
            self._conv(f"{path}.cv2", channels, channels, 3, padding=1, groups=groups),
            shortcut,
        )

    def _detect(self, path: str, inputs: list[int]) -> Detect:
        family, classes, anchors = (
            self._detection.family,
            self._detection.classes,
            self._detection.anchors_per_level,
        )
        if family == "yolov5":
            outputs = _bounded(anchors * (5 + classes), _MAX_OUTPUTS)
            return Detect(
                family,
                path,
                classes,
                anchors,
                tuple(
                    ((self._plain(f"{path}.m.{level}", channels, outputs),),)
                    for level, channels in enumerate(inputs)
                ),
            )
        # As ultralytics chooses the channels of both rows.
        sides, scores = max(16, inputs[0] // 4, 4 * BINS), max(inputs[0], min(classes, 100))
        return Detect(
            family,
            path,
            classes,
            0,
            tuple(
                (
                    self._row(f"{path}.cv2.{level}", channels, sides, 4 * BINS),
                    self._row(f"{path}.cv3.{level}", channels, scores, classes),
                )
                for level, channels in enumerate(inputs)
            ),
        )

    def _row(self, path: str, inputs: int, hidden: int, outputs: int) -> tuple[Conv, ...]:
        return (
            self._conv(f"{path}.0", inputs, hidden, 3, padding=1),
            self._conv(f"{path}.1", hidden, hidden, 3, padding=1),
            self._plain(f"{path}.2", hidden, outputs),
        )

    def _plain(self, path: str, inputs: int, outputs: int) -> Conv:
        return Conv(path, inputs, outputs, activation=Activation("Identity"), plain=True)

    def _conv(
        self,
        path: str,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> Conv:
        return Conv(path, inputs, outputs, kernel, stride, padding, groups, self._activation(path))

    def _scaled(self, channels: int) -> int:
        return _bounded(math.ceil(min(channels, self._max_channels) * self._width / 8) * 8)


def _bounded(channels: int, most: int = _MAX_CHANNELS) -> int:
    if not 0 < channels <= most:
        raise UnreadableCheckpoint(f"a layer would have {channels} channels")
    return channels


def _multiples(yaml: Mapping[str, object]) -> tuple[float, float, float]:
    """Depth, width and most channels before widening, from either way of writing them down."""
    scales, scale = yaml.get("scales"), yaml.get("scale")
    if isinstance(scales, dict) and scales:
        if scale and not isinstance(scale, str):  # hashing a deeply nested tuple would overflow the C stack
            raise UnreadableCheckpoint(f"the network's scale is {reprlib.repr(scale)}, not a letter")
        values = _sequence(scales.get(scale) if scale else next(iter(scales.values())))
    else:
        values = (yaml.get("depth_multiple", 1.0), yaml.get("width_multiple", 1.0), _MAX_CHANNELS)
    match values:
        case (int() | float() as depth, int() | float() as width, int() | float() as most) if (
            0 < depth <= 10 and 0 < width <= 10 and most > 0
        ):
            return float(depth), float(width), float(most)
    raise UnreadableCheckpoint("the network's description has no sensible depth and width multiples")


def _sources(origin: object, index: int) -> tuple[int, ...]:
    """Absolute indices of the layers read by layer `index`; negative ones count back from it."""
    sources = []
    if isinstance(origin, list | tuple) and len(origin) > _MAX_SOURCES:
        raise UnreadableCheckpoint(f"layer {index} reads from more than {_MAX_SOURCES} layers")
    for value in origin if isinstance(origin, list | tuple) else (origin,):
        first = min(-index, -1)  # layer 0 reads the picture, which is written -1
        if type(value) is not int or not first <= value < index:
            raise UnreadableCheckpoint(
                f"layer {index} reads from {reprlib.repr(value)}, which is not an earlier layer"
            )
        sources.append(value if value >= 0 else index + value)
    if not sources:
        raise UnreadableCheckpoint(f"layer {index} reads from nothing")
    return tuple(sources)


def _repeats(declared: object, depth: float, where: str) -> int:
    """How often a layer is repeated in a network of this depth."""
    if type(declared) is int and 1 <= declared <= _MAX_REPEATS:
        repeats = max(round(declared * depth), 1) if declared > 1 else 1
        if repeats <= _MAX_REPEATS:
            return repeats
    raise UnreadableCheckpoint(f"{where} is repeated {reprlib.repr(declared)} times at depth {depth}")


def _stride(kernel: int, stride: object, padding: object, where: str) -> int:
    """Stride of a convolution, once it is known to put out exactly one value per stride.

    A wider padding would let the picture grow with every layer, a narrower one would let it shrink, so that boxes
    would be in the wrong place; and only strides that are powers of two meet again where layers are joined.
    """
    if (
        not isinstance(stride, int)
        or stride < 1
        or stride & (stride - 1)
        or not isinstance(padding, int)
        or not 1 <= kernel - 2 * padding <= stride
    ):
        raise UnreadableCheckpoint(f"{where} has kernel {kernel}, stride {stride} and padding {padding}")
    return stride


def _groups(groups: object, inputs: int, outputs: int, where: str) -> int:
    count = _count(groups, where)
    if inputs % count or outputs % count:
        raise UnreadableCheckpoint(f"{where} has {inputs} and {outputs} channels in {count} groups")
    return count


def _count(value: object, where: str, least: int = 1) -> int:
    if not isinstance(value, int) or value < least:
        raise UnreadableCheckpoint(f"{where} has the argument {reprlib.repr(value)}")
    return int(value)


def _filled(values: Sequence[object], defaults: tuple[object, ...]) -> tuple[object, ...]:
    """The values, and the defaults of those that were left out."""
    return (*values, *defaults[len(values) :])


def _small(values: Sequence[object], where: str) -> Sequence[object]:
    """Kernel sizes, strides, groups and the like, once they are known to be small numbers."""
    for value in values:
        if value is not None and not (isinstance(value, int) and 0 <= value <= _MAX_ARGUMENT):
            raise UnreadableCheckpoint(f"{where} has the argument {reprlib.repr(value)}")
    return values


def _sequence(value: object, limit: int = 2 * _MAX_LAYERS) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise UnreadableCheckpoint("the network's description is not made of lists")
    if len(value) > limit:
        raise UnreadableCheckpoint("the network's description has too long a list")
    return value


def _shown(kind: object) -> str:
    """A layer's name for a message, however long or deep the thing in its place is."""
    return kind[:80] if isinstance(kind, str) else reprlib.repr(kind)
