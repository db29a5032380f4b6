"""Feature codecs: float32 arrays in, bytes out. Imports numpy, numba and the standard library only.

A name is loaded when it is first used, and kernels with the first encoder or decoder: they compile when they are
imported, or are read from numba's cache for more than a second, which a program that only catches an error, reads a
packet's header or checks a codec's name need not wait for.

    >>> import numpy as np
    >>> from codec import Stamp, TensorSpec, parse_codec
    >>> layout = (TensorSpec("4.m", (32, 24, 40)),)
    >>> codec = parse_codec("rle:bits=4,temporal=true")
    >>> str(codec)
    'rle:bits=4,temporal=true,keyframe_interval=250'

    The camera's end, a frame after the other:

    >>> encoder = codec.encoder(layout)
    >>> tensors = {"4.m": np.linspace(-1, 1, 32 * 24 * 40, dtype=np.float32).reshape(32, 24, 40)}
    >>> packet = encoder.encode(tensors, Stamp(sequence=0, captured_ns=0))
    >>> packet.keyframe, packet.keyframe_reason
    (True, 'first')

    The detector's end, which knows codec and layout:

    >>> decoder = codec.decoder(layout)
    >>> decoded = decoder.decode(packet.data)
    >>> decoded.header.sequence, decoded.tensors["4.m"].shape
    (0, (32, 24, 40))
    >>> float(abs(decoded.tensors["4.m"] - tensors["4.m"]).max()) < 1 / 15
    True

`read_packets` reads a file of packets, and `codec_of_packet` finds the codec that decodes one of which nothing was
agreed. `calibrate` makes a Profile for the feature codec. Every error is a CodecError, see `codec.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from codec.lazy import lazy_names

if TYPE_CHECKING:
    from codec.errors import (
        BadCodecSpec,
        BadLayout,
        BitstreamError,
        CalibrationError,
        CodecError,
        CorruptPacket,
        LayoutMismatch,
        MissingReference,
        NonFiniteTensor,
        ProfileError,
        ProfileMismatch,
        ReferenceMismatch,
        ShapeMismatch,
        TruncatedPacket,
        UnknownProfile,
        UnsupportedPacket,
    )
    from codec.feature.bundled import BUNDLED
    from codec.feature.calibration import CalibrationSample, calibrate
    from codec.feature.codec import Feature
    from codec.feature.profile import Profile
    from codec.interface import KEYFRAME_REASONS, DecodedFrame, Decoder, EncodedFrame, Encoder, StepRange
    from codec.layout import FloatArray, Layout, TensorSpec
    from codec.packet import PacketHeader, Stamp
    from codec.packet_file import read_packets
    from codec.raw import Raw
    from codec.rle.codec import Rle
    from codec.spec import Codec, codec_of_packet, parse_codec

__all__ = [
    "BUNDLED",
    "KEYFRAME_REASONS",
    "BadCodecSpec",
    "BadLayout",
    "BitstreamError",
    "CalibrationError",
    "CalibrationSample",
    "Codec",
    "CodecError",
    "CorruptPacket",
    "DecodedFrame",
    "Decoder",
    "EncodedFrame",
    "Encoder",
    "Feature",
    "FloatArray",
    "Layout",
    "LayoutMismatch",
    "MissingReference",
    "NonFiniteTensor",
    "PacketHeader",
    "Profile",
    "ProfileError",
    "ProfileMismatch",
    "Raw",
    "ReferenceMismatch",
    "Rle",
    "ShapeMismatch",
    "Stamp",
    "StepRange",
    "TensorSpec",
    "TruncatedPacket",
    "UnknownProfile",
    "UnsupportedPacket",
    "calibrate",
    "codec_of_packet",
    "parse_codec",
    "read_packets",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "codec.errors": "BadCodecSpec BadLayout BitstreamError CalibrationError CodecError CorruptPacket "
        "LayoutMismatch MissingReference NonFiniteTensor ProfileError ProfileMismatch ShapeMismatch ReferenceMismatch "
        "TruncatedPacket UnknownProfile UnsupportedPacket",
        "codec.feature.bundled": "BUNDLED",
        "codec.feature.calibration": "CalibrationSample calibrate",
        "codec.feature.codec": "Feature",
        "codec.feature.profile": "Profile",
        "codec.interface": "DecodedFrame Decoder EncodedFrame Encoder KEYFRAME_REASONS StepRange",
        "codec.layout": "FloatArray Layout TensorSpec",
        "codec.packet": "PacketHeader Stamp",
        "codec.packet_file": "read_packets",
        "codec.raw": "Raw",
        "codec.rle.codec": "Rle",
        "codec.spec": "Codec codec_of_packet parse_codec",
    },
)
