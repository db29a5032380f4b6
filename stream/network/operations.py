"""What a network's layers compute, as data: what weights they have, what shape comes out, and how much work it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from stream.network.levels import BINS, Family

Shape: TypeAlias = tuple[int, ...]
"""Of a tensor without its batch axis: (channels, height, width)."""


@dataclass(frozen=True, slots=True)
class Activation:
    """The function after a convolution."""

    kind: Literal["SiLU", "ReLU", "Hardswish", "LeakyReLU", "Identity"] = "SiLU"
    slope: float = 0.0  # of LeakyReLU, below zero


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with square kernel, batch normalization unless it is `plain`, and activation."""

    path: str  # of its module in a checkpoint: "model.4.cv1"
    inputs: int  # channels
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    activation: Activation = Activation()
    plain: bool = False  # a bias in place of batch normalization

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return (self,)

    @property
    def weight_shape(self) -> Shape:
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Raises ValueError where nothing would come out."""
        ((_, *sides),) = inputs
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in sides)
        if min(height, width) < 1:
            raise ValueError(f"a kernel of {self.kernel} does not fit {'x'.join(map(str, sides))} cells")
        return self.outputs, height, width

    def flops(self, inputs: Sequence[Shape]) -> int:
        _, height, width = self.shape(inputs)
        return 2 * prod(self.weight_shape) * height * width


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """Two convolutions, and their input added to what they put out."""

    first: Conv
    second: Conv
    shortcut: bool

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return self.first, self.second

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        return self.second.shape([self.first.shape(inputs)])

    def flops(self, inputs: Sequence[Shape]) -> int:
        return self.first.flops(inputs) + self.second.flops([self.first.shape(inputs)])


@dataclass(frozen=True, slots=True)
class Concat:
    """All inputs, one after the other along the channels."""

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return ()

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Raises ValueError where the inputs differ in size."""
        sizes = {tuple(sides) for _, *sides in inputs}
        if len(sizes) != 1:
            shown = ", ".join("x".join(map(str, sides)) for _, *sides in inputs)
            raise ValueError(f"it joins tensors of different sizes: {shown}")
        return sum(channels for channels, *_ in inputs), *inputs[0][1:]

    def flops(self, inputs: Sequence[Shape]) -> int:
        del inputs
        return 0


@dataclass(frozen=True, slots=True)
class Join:
    """The end of a C3 block: a convolution of both branches."""

    conv: Conv

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return (self.conv,)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        return self.conv.shape([Concat().shape(inputs)])

    def flops(self, inputs: Sequence[Shape]) -> int:
        return self.conv.flops([Concat().shape(inputs)])


@dataclass(frozen=True, slots=True)
class C3:
    """A block of two branches, `cv3(cat(m(cv1(x)), cv2(x)))`: a graph takes it apart."""

    cv1: Conv
    cv2: Conv
    cv3: Conv
    bottlenecks: tuple[Bottleneck, ...]


@dataclass(frozen=True, slots=True)
class SPPF:
    """Spatial pyramid pooling: three poolings in a row, and a convolution of them all."""

    first: Conv
    kernel: int  # odd, of the poolings, whose stride is 1
    second: Conv

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return self.first, self.second

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        return (self.second.outputs, *self.first.shape(inputs)[1:])

    def flops(self, inputs: Sequence[Shape]) -> int:
        channels, *sides = self.first.shape(inputs)
        return self.first.flops(inputs) + self.second.flops([(4 * channels, *sides)])


@dataclass(frozen=True, slots=True)
class Upsample:
    """Every cell four times."""

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return ()

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        ((channels, height, width),) = inputs
        return channels, 2 * height, 2 * width

    def flops(self, inputs: Sequence[Shape]) -> int:
        del inputs
        return 0


@dataclass(frozen=True, slots=True)
class Detect:
    """The last layer: the logits of each level, by rows of convolutions whose outputs are put together.

    A level of the original YOLOv5 has one row of one convolution, one of YOLOv5u a row of three for the boxes and
    one for the classes.
    """

    family: Family
    path: str
    classes: int
    anchors: int  # of each level; 0 for YOLOv5u
    rows: tuple[tuple[tuple[Conv, ...], ...], ...]  # level, row, convolution

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        return tuple(conv for level in self.rows for row in level for conv in row)

    @property
    def constants(self) -> dict[str, Shape]:
        """Names and shapes of what checkpoints hold beside convolutions."""
        if self.family == "yolov5":
            return {f"{self.path}.anchors": (len(self.rows), self.anchors, 2)}
        return {f"{self.path}.dfl.conv.weight": (1, BINS, 1, 1)}

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """(Channels, cells) of all levels together, which are equally deep."""
        channels = sum(row[-1].outputs for row in self.rows[0])
        return channels, sum(height * width for _, height, width in inputs)

    def flops(self, inputs: Sequence[Shape]) -> int:
        total = 0
        for level, shape in zip(self.rows, inputs, strict=True):
            for row in level:
                current = shape
                for conv in row:
                    total += conv.flops([current])
                    current = conv.shape([current])
        return total


Operation: TypeAlias = Conv | Bottleneck | Join | SPPF | Upsample | Concat | Detect
