"""The paper's codec: min-max quantization and zero-run coding, with temporal prediction as an option.

What it is told, and not how it codes: encoders and decoders are imported when the first is made, and with them kernels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

from codec.errors import BadCodecSpec, UnsupportedPacket
from codec.interface import check_keyframe_interval
from codec.layout import Layout
from codec.packet import PacketFormat
from codec.rle.codewords import MAX_BITS, MIN_BITS, coded_bounds
from codec.spec_text import format_spec
from codec.value_range import ValueRange

if TYPE_CHECKING:
    from codec.rle.decoder import RleDecoder, TemporalRleDecoder
    from codec.rle.encoder import RleEncoder, TemporalRleEncoder


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
        bounds = (coded_bounds(spec.size, self.bits) for spec in layout)
        range_bytes = ValueRange.WIRE.size
        return PacketFormat(
            self.codec_id,
            bytes((self.bits,)),
            self.temporal,
            layout,
            tuple((range_bytes + least, range_bytes + most) for least, most in bounds),
        )

    @classmethod
    def load(cls) -> None:
        """Import encoder and decoder, and with them kernels, which takes seconds: once a process, before the first."""
        for module in ("codec.rle.encoder", "codec.rle.decoder"):
            import_module(module)

    def encoder(self, layout: Layout) -> RleEncoder | TemporalRleEncoder:
        from codec.rle.encoder import RleEncoder, TemporalRleEncoder

        if self.temporal:
            return TemporalRleEncoder(self.bits, self.packet_format(layout), self.keyframe_interval)
        return RleEncoder(self.bits, self.packet_format(layout))

    def decoder(self, layout: Layout) -> RleDecoder | TemporalRleDecoder:
        from codec.rle.decoder import RleDecoder, TemporalRleDecoder

        kind = TemporalRleDecoder if self.temporal else RleDecoder
        return kind(self.bits, self.packet_format(layout))
