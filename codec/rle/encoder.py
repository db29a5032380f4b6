"""Encoders of the paper's codec: of frames by themselves, and of differences from the frame before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from codec.extremes import range_of
from codec.interface import EncodedFrame, KeyframeReason, in_layout_order
from codec.layout import FloatArray, TensorSpec
from codec.packet import PacketFormat, Stamp, next_sequence
from codec.packet_stream import PacketWriter
from codec.rle import kernels
from codec.rle.codewords import scratch_bytes
from codec.rle.kernels import Levels
from codec.rle.quantize import levels_per_unit
from codec.rle.temporal import Reference
from codec.value_range import ValueRange


class _Section:
    """One coded tensor, and what it is coded in, used again for every frame."""

    def __init__(self, spec: TensorSpec, bits: int) -> None:
        self._bits = bits
        self._data = bytearray(ValueRange.WIRE.size + scratch_bytes(spec.size, bits))
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

    def __init__(self, bits: int, packet_format: PacketFormat) -> None:
        self._layout, self._format = packet_format.layout, packet_format
        self._sections = [_Section(spec, bits) for spec in self._layout]

    def encode(self, tensors: Mapping[str, FloatArray], stamp: Stamp) -> EncodedFrame:
        """One keyframe, which every packet is. Raises ShapeMismatch or NonFiniteTensor."""
        coded = [
            section.code(coefficients, range_of(coefficients, spec.name))
            for spec, section, coefficients in zip(
                self._layout, self._sections, in_layout_order(tensors, self._layout), strict=True
            )
        ]
        return EncodedFrame(self._format.seal_keyframe(stamp, coded), keyframe=True, keyframe_reason=None)

    def force_keyframe(self) -> None:
        """Nothing to do: every packet is a keyframe."""


class TemporalRleEncoder:
    """Codes each frame by itself and as a difference from the one before, and keeps the smaller packet."""

    def __init__(self, bits: int, packet_format: PacketFormat, keyframe_interval: int) -> None:
        self._bits, self._keyframe_interval = bits, keyframe_interval
        self._layout, self._writer = packet_format.layout, PacketWriter(packet_format)
        self._intra = [_Section(spec, bits) for spec in self._layout]
        self._inter = [_Section(spec, bits) for spec in self._layout]
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
                section.code_levels(reference.residual(tensor.levels, tensor.range, self._bits), tensor.range)
                for section, tensor, reference in zip(self._inter, frame, references, strict=True)
            ]
            if _total_bytes(differences) < _total_bytes(coded):
                coded = differences
            else:
                reason = "smaller"
        keyframe = reason is not None
        data = self._writer.seal(stamp, keyframe, coded)
        self._references, self._sequence = frame, stamp.sequence
        if keyframe:
            self._since_keyframe, self._requested = 0, False
        self._since_keyframe += 1
        return EncodedFrame(data, keyframe, reason)

    def _quantize(self, coefficients: FloatArray, spec: TensorSpec) -> Reference:
        value_range = range_of(coefficients, spec.name)
        levels = np.empty(spec.size, np.uint8)
        kernels.quantize(coefficients, value_range.minimum, levels_per_unit(value_range, self._bits), levels)
        return Reference(value_range, levels)

    def _why_keyframe(self, references: list[Reference], stamp: Stamp) -> KeyframeReason | None:
        if not references or stamp.sequence != next_sequence(self._sequence):
            return "first"
        if self._requested:
            return "requested"
        if self._since_keyframe >= self._keyframe_interval:
            return "periodic"
        return None


def _total_bytes(sections: list[memoryview]) -> int:
    return sum(section.nbytes for section in sections)
