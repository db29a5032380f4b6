"""The paper's codec: min-max quantization and zero-run coding, with temporal prediction as an option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, NoReturn, Self

import numpy as np

from codec.errors import BadCodecSpec, BitstreamError, MissingReference, UnsupportedPacket
from codec.interface import (
    DecodedFrame,
    EncodedFrame,
    KeyframeReason,
    check_keyframe_interval,
    in_layout_order,
)
from codec.layout import FloatArray, Layout, TensorSpec
from codec.packet import Packet, PacketFormat, Stamp, next_sequence
from codec.rle import kernels, runlength
from codec.rle.kernels import Levels
from codec.rle.quantize import MAX_BITS, MIN_BITS, level_values, levels_per_unit
from codec.rle.temporal import Reference
from codec.spec_text import format_spec
from codec.value_range import ValueRange


@dataclass(frozen=True, slots=True)
class Rle:
    """Parameters of the codec. Raises BadCodecSpec if one is out of range."""

    name: ClassVar = "rle"
    codec_id: ClassVar = 1
    takes_profile: ClassVar = False
    profile: ClassVar = None
    profile_is_open: ClassVar = False
    step_range: ClassVar = None

    bits: int = 4  # per level, 2 to 8
    temporal: bool = False  # code differences from the previous frame where that is smaller
    keyframe_interval: int = 250  # packets from one keyframe to the next, at most; for the encoder

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise BadCodecSpec(f"rle: bits is {self.bits}, not {MIN_BITS} to {MAX_BITS}")
        check_keyframe_interval(self.name, self.keyframe_interval)

    def __str__(self) -> str:
        return format_spec(self.name, asdict(self))

    def with_profile(self, profile: object) -> NoReturn:
        """Raises BadCodecSpec."""
        raise BadCodecSpec("rle takes no calibration profile")

    @classmethod
    def from_parameters(cls, parameters: bytes) -> Self:
        """The codec for packets with these parameter bytes, which say nothing of prediction."""
        if len(parameters) != 1 or not MIN_BITS <= parameters[0] <= MAX_BITS:
            raise UnsupportedPacket(
                "rle parameters", f"one byte, {MIN_BITS} to {MAX_BITS}", repr(parameters.hex())
            )
        return cls(bits=parameters[0], temporal=True)

    def packet_format(self, layout: Layout) -> PacketFormat:
        bounds = (runlength.coded_bounds(spec.size, self.bits) for spec in layout)
        range_bytes = ValueRange.WIRE.size
        return PacketFormat(
            self.codec_id,
            bytes((self.bits,)),
            self.temporal,
            layout,
            tuple((range_bytes + least, range_bytes + most) for least, most in bounds),
        )

    def encoder(self, layout: Layout) -> RleEncoder | TemporalRleEncoder:
        return TemporalRleEncoder(self, layout) if self.temporal else RleEncoder(self, layout)

    def decoder(self, layout: Layout) -> RleDecoder | TemporalRleDecoder:
        return TemporalRleDecoder(self, layout) if self.temporal else RleDecoder(self, layout)


class _Section:
    """One coded tensor, and what it is coded in, used again for every frame."""

    def __init__(self, spec: TensorSpec, bits: int) -> None:
        self._bits = bits
        self._data = bytearray(ValueRange.WIRE.size + runlength.scratch_bytes(spec.size, bits))
        self._view = memoryview(self._data)
        self._payload = np.frombuffer(self._data, np.uint8)[ValueRange.WIRE.size :]
        self._levels, self._words = kernels.workspace()

    def code(self, coefficients: FloatArray, value_range: ValueRange) -> memoryview:
        coded = kernels.encode(
            coefficients, value_range.minimum, levels_per_unit(value_range, self._bits), self._bits, self._payload,
            self._levels, self._words,
        )  # fmt: skip
        return self._finish(value_range, coded)

    def code_levels(self, levels: Levels, value_range: ValueRange) -> memoryview:
        return self._finish(
            value_range, kernels.encode_levels(levels, self._bits, self._payload, self._words)
        )

    def _finish(self, value_range: ValueRange, coded_bytes: int) -> memoryview:
        ValueRange.WIRE.pack_into(self._data, 0, value_range.minimum, value_range.maximum)
        return self._view[: ValueRange.WIRE.size + coded_bytes]


class RleEncoder:
    """Codes every frame by itself; keeps no state but what it works in."""

    def __init__(self, codec: Rle, layout: Layout) -> None:
        self._layout = layout
        self._format = codec.packet_format(layout)
        self._sections = [_Section(spec, codec.bits) for spec in layout]

    def encode(self, tensors: Mapping[str, FloatArray], stamp: Stamp) -> EncodedFrame:
        """One keyframe, which every packet is. Raises ShapeMismatch or NonFiniteTensor."""
        coded = [
            section.code(coefficients, ValueRange.of(coefficients, spec.name))
            for spec, section, coefficients in zip(
                self._layout, self._sections, in_layout_order(tensors, self._layout), strict=True
            )
        ]
        return EncodedFrame(self._format.seal(stamp, True, coded), keyframe=True, keyframe_reason=None)

    def force_keyframe(self) -> None:
        """Nothing to do: every packet is a keyframe."""


class RleDecoder:
    """Decodes keyframes."""

    def __init__(self, codec: Rle, layout: Layout) -> None:
        self._bits = codec.bits
        self._format = codec.packet_format(layout)

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError for anything else."""
        packet = self._format.open(data)
        tensors = {
            spec.name: self._decode_section(section, spec)
            for spec, section in zip(packet.header.layout, packet.sections, strict=True)
        }
        return DecodedFrame(packet.header, tensors)

    def _decode_section(self, section: memoryview, spec: TensorSpec) -> FloatArray:
        table = level_values(ValueRange.parse(section), self._bits)
        payload = section[ValueRange.WIRE.size :]
        return runlength.decode_coefficients(payload, self._bits, table, spec.size).reshape(spec.shape)

    def reset(self) -> None:
        """Nothing to do: there is no reference."""


class TemporalRleEncoder:
    """Codes each frame by itself and as a difference from the one before, and keeps the smaller packet."""

    def __init__(self, codec: Rle, layout: Layout) -> None:
        self._codec, self._layout = codec, layout
        self._format = codec.packet_format(layout)
        self._intra = [_Section(spec, codec.bits) for spec in layout]
        self._inter = [_Section(spec, codec.bits) for spec in layout]
        self._references: list[Reference] = []
        self._sequence = 0  # of the references
        self._since_keyframe = 0
        self._requested = False

    def force_keyframe(self) -> None:
        """Make the next packet a keyframe."""
        self._requested = True

    def encode(self, tensors: Mapping[str, FloatArray], stamp: Stamp) -> EncodedFrame:
        """One packet. Raises ShapeMismatch or NonFiniteTensor; the next packet is then a keyframe."""
        # Taken away first, so that a frame that fails leaves none behind.
        references, self._references = self._references, []
        frame = [
            self._quantize(coefficients, spec)
            for spec, coefficients in zip(self._layout, in_layout_order(tensors, self._layout), strict=True)
        ]
        coded = [
            section.code_levels(tensor.levels, tensor.range)
            for section, tensor in zip(self._intra, frame, strict=True)
        ]
        reason = self._why_keyframe(references, stamp)
        if reason is None:
            differences = [
                section.code_levels(
                    reference.residual(tensor.levels, tensor.range, self._codec.bits), tensor.range
                )
                for section, tensor, reference in zip(self._inter, frame, references, strict=True)
            ]
            if _total_bytes(differences) < _total_bytes(coded):
                coded = differences
            else:
                reason = "smaller"
        keyframe = reason is not None
        data = self._format.seal(stamp, keyframe, coded)
        self._references, self._sequence = frame, stamp.sequence
        if keyframe:
            self._since_keyframe, self._requested = 0, False
        self._since_keyframe += 1
        return EncodedFrame(data, keyframe, reason)

    def _quantize(self, coefficients: FloatArray, spec: TensorSpec) -> Reference:
        value_range = ValueRange.of(coefficients, spec.name)
        levels = np.empty(spec.size, np.uint8)
        kernels.quantize(
            coefficients, value_range.minimum, levels_per_unit(value_range, self._codec.bits), levels
        )
        return Reference(value_range, levels)

    def _why_keyframe(self, references: list[Reference], stamp: Stamp) -> KeyframeReason | None:
        if not references or stamp.sequence != next_sequence(self._sequence):
            return "first"
        if self._requested:
            return "requested"
        if self._since_keyframe >= self._codec.keyframe_interval:
            return "periodic"
        return None


class TemporalRleDecoder:
    """Decodes keyframes, and differences from the frame it decoded last."""

    def __init__(self, codec: Rle, layout: Layout) -> None:
        self._bits = codec.bits
        self._format = codec.packet_format(layout)
        self._references: list[Reference] = []
        self._sequence: int | None = None  # of the references

    def reset(self) -> None:
        """Forget the reference frame: the next packet must be a keyframe."""
        self._references, self._sequence = [], None

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError, and forgets the reference, for anything else."""
        try:
            packet = self._format.open(data)
            self._references = self._decode_levels(packet)
        except BitstreamError:
            self.reset()
            raise
        self._sequence = packet.header.sequence
        tensors = {
            spec.name: self._dequantize(tensor).reshape(spec.shape)
            for spec, tensor in zip(packet.header.layout, self._references, strict=True)
        }
        return DecodedFrame(packet.header, tensors)

    def _decode_levels(self, packet: Packet) -> list[Reference]:
        header = packet.header
        if not header.keyframe and (
            self._sequence is None or header.sequence != next_sequence(self._sequence)
        ):
            raise MissingReference(header.sequence, self._sequence)
        frame = []
        for index, (spec, section) in enumerate(zip(header.layout, packet.sections, strict=True)):
            value_range = ValueRange.parse(section)
            levels = runlength.decode_levels(section[ValueRange.WIRE.size :], self._bits, spec.size)
            if not header.keyframe:
                levels = self._references[index].add(levels, value_range, self._bits)
            frame.append(Reference(value_range, levels))
        return frame

    def _dequantize(self, tensor: Reference) -> FloatArray:
        coefficients = np.empty(tensor.levels.size, np.float32)
        kernels.dequantize(tensor.levels, level_values(tensor.range, self._bits), coefficients)
        return coefficients


def _total_bytes(sections: list[memoryview]) -> int:
    return sum(section.nbytes for section in sections)
