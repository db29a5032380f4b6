"""Decoders of the paper's codec."""

from __future__ import annotations

import numpy as np

from codec.errors import BitstreamError
from codec.interface import DecodedFrame
from codec.layout import FloatArray, TensorSpec
from codec.packet import Packet, PacketFormat
from codec.packet_stream import PacketReader
from codec.rle import kernels, runlength
from codec.rle.quantize import level_values
from codec.rle.temporal import Reference
from codec.value_range import ValueRange


class RleDecoder:
    """Decodes keyframes."""

    def __init__(self, bits: int, packet_format: PacketFormat) -> None:
        self._bits, self._reader = bits, PacketReader(packet_format)

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError for anything else."""
        packet = self._reader.open(data)
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


class TemporalRleDecoder:
    """Decodes keyframes, and differences from the frame it decoded last."""

    def __init__(self, bits: int, packet_format: PacketFormat) -> None:
        self._bits, self._reader = bits, PacketReader(packet_format)
        self._references: list[Reference] = []

    def reset(self) -> None:
        """Forget the reference frame: the next packet must be a keyframe."""
        self._references = []
        self._reader.reset()

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError, and forgets the reference, for anything else."""
        try:
            packet = self._reader.open(data)
            self._references = self._decode_levels(packet)
        except BitstreamError:
            self.reset()
            raise
        self._reader.accept(packet)
        tensors = {
            spec.name: self._dequantize(tensor).reshape(spec.shape)
            for spec, tensor in zip(packet.header.layout, self._references, strict=True)
        }
        return DecodedFrame(packet.header, tensors)

    def _decode_levels(self, packet: Packet) -> list[Reference]:
        header = packet.header
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
