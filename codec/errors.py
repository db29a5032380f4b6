"""What can go wrong in a codec: one class per decision that a caller can take.

CodecError
├── BadCodecSpec            the text of a codec: correct it
│   └── UnknownProfile      its profile is not at hand: fetch it, or calibrate
├── BadLayout               no packet describes these tensors: split elsewhere
├── ShapeMismatch           the tensors to encode are not those of the layout
├── NonFiniteTensor         the tensors to encode hold NaN or an infinity: drop the frame
├── BitstreamError          bytes from outside: what to ask the other end for
│   ├── TruncatedPacket     the rest of it
│   ├── CorruptPacket       a keyframe
│   ├── UnsupportedPacket   another codec or version
│   ├── LayoutMismatch      the same split
│   ├── MissingReference    a keyframe
│   └── ReferenceMismatch       a keyframe
├── BadStepMap              what a detector measured, or says that it did: do without
├── ProfileError            bytes that are no calibration profile: fetch them again, or calibrate
├── ProfileMismatch         a profile for other tensors: calibrate for these
└── CalibrationError        samples that no profile can be made of
"""

from __future__ import annotations


class CodecError(Exception):
    """Base of every error that this package raises on purpose."""


class BadCodecSpec(CodecError):
    """A codec specification that names no codec, no parameter, or a value out of range."""


class UnknownProfile(BadCodecSpec):
    """A codec specification with a calibration profile that is not at hand."""

    def __init__(self, profile_hash: str) -> None:
        super().__init__(f"no calibration profile {profile_hash} here; give its file, or calibrate")
        self.hash = profile_hash


class BadLayout(CodecError):
    """A layout that no packet can describe: see docs/bitstream.md for the limits."""


class ShapeMismatch(CodecError):
    """The tensors to encode are not those of the layout."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(
            f"tensor {name!r}: the layout has {expected}, the frame has {got}; "
            "make the encoder with the layout of the split in use"
        )
        self.name, self.expected, self.got = name, expected, got


class NonFiniteTensor(CodecError):
    """A tensor to encode holds NaN or an infinity, which no quantizer can represent."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"tensor {name!r} holds NaN or an infinity; drop the frame, and check weights and input"
        )
        self.name = name


class BitstreamError(CodecError):
    """Bytes from outside that are no packet this decoder can take."""


class TruncatedPacket(BitstreamError):
    """The bytes end before the packet does: read on, or ask for the packet again."""

    def __init__(self, needed: int, got: int) -> None:
        super().__init__(f"packet needs at least {needed} bytes, got {got}; read on or drop it")
        self.needed, self.got = needed, got


class CorruptPacket(BitstreamError):
    """The bytes contradict the format, their checksum or themselves: drop them, ask for a keyframe."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"corrupt packet: {reason}; drop it and ask for a keyframe")
        self.reason = reason


class UnsupportedPacket(BitstreamError):
    """A well-formed packet of another version or codec than the one agreed: agree again."""

    def __init__(self, what: str, expected: str, got: str) -> None:
        super().__init__(
            f"packet has {what} {got}, this decoder takes {expected}; agree on one codec at both ends"
        )
        self.what, self.expected, self.got = what, expected, got


class LayoutMismatch(BitstreamError):
    """The packet's tensor table is not the layout agreed: the ends run different splits."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(
            f"packet carries {got}, this decoder takes {expected}; use one model and one split at both ends"
        )
        self.expected, self.got = expected, got


class MissingReference(BitstreamError):
    """A difference whose reference frame this decoder does not hold: ask for a keyframe.

    The number is as much of the packet's as is known: modulo 2**14 where no frame is held.
    """

    def __init__(self, sequence: int, held: int | None) -> None:
        reference = "no frame" if held is None else f"frame {held}"
        super().__init__(
            f"packet {sequence} is a difference from the frame before it, the decoder holds {reference}; "
            "ask for a keyframe"
        )
        self.sequence, self.held = sequence, held


class ReferenceMismatch(BitstreamError):
    """A difference from a reference frame that is not the one this decoder holds: ask for a keyframe."""

    def __init__(self, expected: int, held: int) -> None:
        super().__init__(
            f"the packet is a difference from a frame with checksum {expected:08x}, the decoder holds one with "
            f"{held:08x}; ask for a keyframe"
        )
        self.expected, self.held = expected, held


class BadStepMap(CodecError):
    """A step map that is not of this layout's blocks, or that cannot be made: code without it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no step map: {reason}; code without it")
        self.reason = reason


class ProfileError(CodecError):
    """Bytes that are no profile, or a profile that contradicts itself: calibrate again, or fetch it again."""


class ProfileMismatch(CodecError):
    """A profile made for other tensors than those that cross: calibrate for this network and this split."""


class CalibrationError(CodecError):
    """Samples that no profile can be made of."""
