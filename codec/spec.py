"""Codecs by name: `rle:bits=3,temporal=true`. No kernel is loaded until there is an encoder or a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self, TypeAlias

from codec.errors import BadCodecSpec, UnknownProfile, UnsupportedPacket
from codec.feature.bundled import BUNDLED
from codec.feature.codec import Feature
from codec.feature.profile import Profile
from codec.interface import Decoder, Encoder, StepRange
from codec.layout import Layout
from codec.packet import PacketFormat, PacketHeader
from codec.raw import Raw
from codec.rle.codec import Rle
from codec.spec_text import parse_spec

Profiles: TypeAlias = Mapping[str, Profile]  # by hash


class Codec(Protocol):
    """One way of coding tensors, with its parameters chosen: a frozen dataclass.

    str() gives its specification, with every parameter, as both ends write it.
    """

    name: ClassVar[str]
    codec_id: ClassVar[int]  # on the wire; never reused
    takes_profile: ClassVar[bool]  # whether there is anything to calibrate

    @property
    def profile(self) -> Profile | None:
        """The calibration profile that it codes with."""

    @property
    def profile_is_open(self) -> bool:
        """Whether the profile is still to be found, by whoever knows the network (`profile=auto`)."""

    @property
    def step_range(self) -> StepRange | None:
        """The quantizer steps to choose from for every frame; None where a codec has no such step."""

    def with_profile(self, profile: Profile | None) -> Self:
        """The same with this calibration profile, or without calibration.

        Raises BadCodecSpec where the codec takes no profile.
        """

    def packet_format(self, layout: Layout) -> PacketFormat:
        """The packets that this codec makes of a layout."""

    @classmethod
    def load(cls) -> None:
        """Import encoder and decoder, and with them kernels, which takes seconds: once a process, before the first."""

    def encoder(self, layout: Layout) -> Encoder:
        """A new encoder, whose first packet is a keyframe.

        Raises BadLayout if a packet cannot describe the layout, ProfileMismatch if the profile is for another.
        """

    def decoder(self, layout: Layout) -> Decoder:
        """A new decoder, which takes a keyframe first. Raises as `encoder` does."""

    @classmethod
    def from_parameters(cls, parameters: bytes) -> Self:
        """The codec that decodes packets with these parameter bytes, keyframes or not.

        Raises UnsupportedPacket if no encoder writes them.
        """


CODECS: tuple[type[Codec], ...] = (Raw, Rle, Feature)


def parse_codec(text: str, profiles: Profiles = BUNDLED) -> Codec:
    """The codec that `name:parameter=value,...` stands for; parameters left out have their defaults.

    `profiles` are those that `profile=HASH` may name. Raises BadCodecSpec, which lists what there is;
    UnknownProfile is one.
    """
    try:
        name, parameters = parse_spec(text)
    except ValueError as error:
        raise BadCodecSpec(str(error)) from None
    for codec in CODECS:
        if codec.name == name:
            return codec(**_parse_parameters(codec, parameters, profiles))
    raise BadCodecSpec(f"no codec {name!r}; there are {', '.join(codec.name for codec in CODECS)}")


def codec_of_packet(header: PacketHeader) -> Codec:
    """The codec that decodes a packet of which nothing was agreed, as from a file.

    Raises UnsupportedPacket if there is none.
    """
    for codec in CODECS:
        if codec.codec_id == header.codec_id:
            return codec.from_parameters(header.parameters)
    raise UnsupportedPacket(
        "codec id", " or ".join(str(codec.codec_id) for codec in CODECS), str(header.codec_id)
    )


def _defaults(codec: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(codec) if field.name != "profile_is_open"}


def _parse_parameters(
    codec: type[Codec], parameters: Mapping[str, str], profiles: Profiles
) -> dict[str, Any]:
    """Values of the codec's fields."""
    defaults = _defaults(codec)
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise BadCodecSpec(f"{codec.name} has no parameter {name!r}; there are {known}")
        if name != "profile":
            values[name] = _parse_value(codec, name, value, type(defaults[name]))
        elif value != "auto":
            values |= {"profile": _parse_profile(value, profiles), "profile_is_open": False}
        else:
            values |= {"profile": None, "profile_is_open": True}
    return {"profile_is_open": True, **values} if codec.takes_profile else values


def _parse_profile(value: str, profiles: Profiles) -> Profile | None:
    if value == "none":
        return None
    if value not in profiles:
        raise UnknownProfile(value)
    return profiles[value]


def _parse_value(codec: type[Codec], name: str, value: str, kind: type) -> int | bool:
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind is int and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    expected = "true or false" if kind is bool else "a number"
    raise BadCodecSpec(f"{codec.name}: {name} is {value!r}, not {expected}")
