"""No compression: float32 as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NoReturn, Self

import numpy as np

from codec.errors import BadCodecSpec, CorruptPacket, NonFiniteTensor, UnsupportedPacket
from codec.interface import DecodedFrame, EncodedFrame, in_layout_order
from codec.layout import FloatArray, Layout
from codec.packet import PacketFormat, Stamp
from codec.packet_stream import PacketReader

_WIRE = np.dtype(">f4")


@dataclass(frozen=True, slots=True)
class Raw:
    """The codec; it has no parameters."""

    name: ClassVar = "raw"
    codec_id: ClassVar = 0
    takes_profile: ClassVar = False
    profile: ClassVar = None
    profile_is_open: ClassVar = False
    step_range: ClassVar = None

    def __str__(self) -> str:
        return self.name

    def with_profile(self, profile: object) -> NoReturn:
        """Raises BadCodecSpec."""
        raise BadCodecSpec("raw takes no calibration profile")

    @classmethod
    def from_parameters(cls, parameters: bytes) -> Self:
        """The codec; raises UnsupportedPacket if there is any parameter."""
        if parameters:
            raise UnsupportedPacket("raw parameters", "none", repr(parameters.hex()))
        return cls()

    def packet_format(self, layout: Layout) -> PacketFormat:
        bounds = tuple((spec.raw_bytes, spec.raw_bytes) for spec in layout)
        return PacketFormat(self.codec_id, b"", temporal=False, layout=layout, section_bounds=bounds)

    @classmethod
    def load(cls) -> None:
        """Nothing to do: there are no kernels."""

    def encoder(self, layout: Layout) -> RawEncoder:
        return RawEncoder(self, layout)

    def decoder(self, layout: Layout) -> RawDecoder:
        return RawDecoder(self, layout)


class RawEncoder:
    """Writes coefficients as big-endian float32."""

    def __init__(self, codec: Raw, layout: Layout) -> None:
        self._layout = layout
        self._format = codec.packet_format(layout)

    def encode(self, tensors: Mapping[str, FloatArray], stamp: Stamp) -> EncodedFrame:
        """One keyframe, which every packet is. Raises ShapeMismatch or NonFiniteTensor."""
        ordered = in_layout_order(tensors, self._layout)
        for spec, coefficients in zip(self._layout, ordered, strict=True):
            if not np.isfinite(coefficients).all():
                raise NonFiniteTensor(spec.name)
        sections = [coefficients.astype(_WIRE).view(np.uint8).data for coefficients in ordered]
        return EncodedFrame(self._format.seal_keyframe(stamp, sections), keyframe=True, keyframe_reason=None)

    def force_keyframe(self) -> None:
        """Nothing to do: every packet is a keyframe."""


class RawDecoder:
    """Reads coefficients as big-endian float32."""

    def __init__(self, codec: Raw, layout: Layout) -> None:
        self._reader = PacketReader(codec.packet_format(layout))

    def decode(self, data: bytes) -> DecodedFrame:
        """Tensors of the agreed layout; raises BitstreamError for anything else."""
        packet = self._reader.open(data)
        tensors = {}
        for spec, section in zip(packet.header.layout, packet.sections, strict=True):
            coefficients = np.frombuffer(section, _WIRE).astype(np.float32)
            if not np.isfinite(coefficients).all():
                raise CorruptPacket(f"tensor {spec.name!r} holds NaN or an infinity")
            tensors[spec.name] = coefficients.reshape(spec.shape)
        return DecodedFrame(packet.header, tensors)

    def reset(self) -> None:
        """Nothing to do: there is no reference."""
