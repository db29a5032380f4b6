"""What every codec offers: an encoder for the camera and a decoder for the detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np

from codec.errors import BadCodecSpec, ShapeMismatch
from codec.layout import FloatArray, Layout
from codec.packet import PacketHeader, Stamp

MAX_KEYFRAME_INTERVAL = 10**6

KeyframeReason: TypeAlias = Literal["first", "requested", "periodic", "smaller", "scene"]
KEYFRAME_REASONS: tuple[KeyframeReason, ...] = get_args(KeyframeReason)
"""Why a temporal encoder made a keyframe.

first: no packet with the preceding sequence number was encoded, or encoding it failed.
requested: force_keyframe was called. periodic: the keyframe interval is over.
smaller: the difference from the reference frame would not have been smaller, or would not fit a packet.
scene: the frame has little to do with the one before, or does not fit the ranges that the last keyframe gave.
"""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One packet and how it was coded."""

    data: bytes
    keyframe: bool
    keyframe_reason: KeyframeReason | None  # None for a difference, and where a codec has only keyframes
    step: int | None = None  # the quantizer's, 1/16 octave per unit; None where a codec has none to choose


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrame:
    """The tensors of one packet."""

    header: PacketHeader
    tensors: dict[str, FloatArray]  # in the order of the layout; writable, owned by the caller


class StepRange(NamedTuple):
    """Quantizer steps that an encoder may be set to, 1/16 octave per unit: 16 more double the step."""

    finest: int
    coarsest: int


class Encoder(Protocol):
    """Tensors in, packets out, in the order of their sequence numbers. For one thread at a time."""

    def encode(self, tensors: Mapping[str, FloatArray], stamp: Stamp) -> EncodedFrame:
        """One packet from exactly the tensors of the layout.

        Raises ShapeMismatch or NonFiniteTensor; the next packet is then a keyframe.
        """

    def force_keyframe(self) -> None:
        """Make the next packet a keyframe: a receiver asked for it, or a packet was not sent."""


@runtime_checkable
class Adjustable(Encoder, Protocol):
    """An encoder whose quantizer step may be set anew before every frame."""

    step: int  # within the codec's step_range


@runtime_checkable
class Guided(Encoder, Protocol):
    """An encoder that a detector may tell where its detections come from."""

    step_map_bytes: int  # that a map has; 0: none is of use

    def guide(self, sequence: int, step_map: bytes) -> None:
        """Take a map of the frame with this sequence number for those to come; one that is too old is left out.

        Raises BadStepMap for another number of bytes.
        """


class Decoder(Protocol):
    """Packets in, tensors out. For one thread at a time."""

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of exactly the agreed layout.

        Raises BitstreamError for every other input; from then on only a keyframe is taken.
        """

    def reset(self) -> None:
        """Forget the reference frame: the next packet must be a keyframe."""


def in_layout_order(tensors: Mapping[str, FloatArray], layout: Layout) -> list[FloatArray]:
    """The tensors of a layout, flat, contiguous and aligned; ShapeMismatch unless they are exactly those."""
    for name in tensors.keys() - {spec.name for spec in layout}:
        raise ShapeMismatch(name, "no such tensor", _describe(tensors[name]))
    ordered = []
    for spec in layout:
        if spec.name not in tensors:
            raise ShapeMismatch(spec.name, f"float32 {spec.shape}", "no such tensor")
        tensor = tensors[spec.name]
        if tensor.dtype != np.float32 or tensor.shape != spec.shape:
            raise ShapeMismatch(spec.name, f"float32 {spec.shape}", _describe(tensor))
        # Aligned too: a view of a network buffer need not be, and the kernels' signatures demand it.
        if not (tensor.flags.c_contiguous and tensor.flags.aligned):
            tensor = np.require(tensor, requirements=("C", "A"))
        ordered.append(tensor.reshape(-1))
    return ordered


def _describe(tensor: FloatArray) -> str:
    return f"{tensor.dtype} {tensor.shape}"


def check_keyframe_interval(name: str, interval: int) -> None:
    """Raise BadCodecSpec if a codec with this name cannot make keyframes that far apart."""
    if not 1 <= interval <= MAX_KEYFRAME_INTERVAL:
        raise BadCodecSpec(f"{name}: keyframe_interval is {interval}, not 1 to {MAX_KEYFRAME_INTERVAL}")
