"""Codecs by name: `rle:bits=3,temporal=true`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeAlias

from codec.errors import BadCodecSpec, UnknownProfile, UnsupportedPacket
from codec.feature.bundled import SHIPPED
from codec.feature.codec import Feature
from codec.feature.profile import Profile
from codec.interface import Codec, Decoder, Encoder
from codec.layout import Layout
from codec.packet import PacketHeader
from codec.raw import Raw
from codec.rle.codec import Rle

CODECS: tuple[type[Codec], ...] = (Raw, Rle, Feature)

Profiles: TypeAlias = Mapping[str, Profile]  # by hash
Value: TypeAlias = int | bool | Profile | Literal["auto", "none"]


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """A codec and its parameters, as both ends write them; str() gives every parameter."""

    codec: Codec

    @classmethod
    def parse(cls, text: str, profiles: Profiles = SHIPPED) -> Self:
        """The codec that `name:parameter=value,...` stands for; parameters left out have their defaults.

        `profiles` are those that `profile=HASH` may name. Raises BadCodecSpec, which lists what there is;
        UnknownProfile is one.
        """
        name, _, parameters = text.partition(":")
        for codec in CODECS:
            if codec.name == name:
                return cls(codec(**_parse_parameters(codec, parameters, profiles)))
        raise BadCodecSpec(f"no codec {name!r}; there are {', '.join(codec.name for codec in CODECS)}")

    @classmethod
    def of_packet(cls, header: PacketHeader) -> Self:
        """The codec that decodes a packet of which nothing was agreed, as from a file.

        Raises UnsupportedPacket if there is none.
        """
        for codec in CODECS:
            if codec.codec_id == header.codec_id:
                return cls(codec.from_parameters(header.parameters))
        raise UnsupportedPacket(
            "codec id", " or ".join(str(codec.codec_id) for codec in CODECS), str(header.codec_id)
        )

    def __str__(self) -> str:
        values = ((name, getattr(self.codec, name)) for name in _defaults(type(self.codec)))
        parameters = ",".join(f"{name}={str(value).lower()}" for name, value in values)
        return f"{self.codec.name}:{parameters}" if parameters else self.codec.name

    def encoder(self, layout: Layout) -> Encoder:
        """A new encoder; raises BadLayout if a packet cannot describe the layout."""
        return self.codec.encoder(layout)

    def decoder(self, layout: Layout) -> Decoder:
        """A new decoder; raises BadLayout if a packet cannot describe the layout."""
        return self.codec.decoder(layout)

    def max_packet_bytes(self, layout: Layout) -> int:
        """Size of the largest packet the encoder can make: exact, and the decoder takes no larger one."""
        return self.codec.packet_format(layout).max_packet_bytes


def _defaults(codec: type[Any]) -> dict[str, Any]:
    return {field.name: field.default for field in fields(codec)}


def _parse_parameters(codec: type[Codec], text: str, profiles: Profiles) -> dict[str, Value]:
    defaults = _defaults(codec)
    values: dict[str, Value] = {}
    for parameter in text.split(",") if text else ():
        name, _, value = parameter.partition("=")
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise BadCodecSpec(f"{codec.name} has no parameter {name!r}; there are {known}")
        if name in values:
            raise BadCodecSpec(f"{codec.name}: {name} is given twice")
        if name == "profile":
            values[name] = _parse_profile(value, profiles)
        else:
            values[name] = _parse_value(codec, name, value, type(defaults[name]))
    return values


def _parse_profile(value: str, profiles: Profiles) -> Value:
    if value == "auto":
        return "auto"
    if value == "none":
        return "none"
    if value not in profiles:
        raise UnknownProfile(value)
    return profiles[value]


def _parse_value(codec: type[Codec], name: str, value: str, kind: type) -> int | bool:
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind is int and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    wanted = "true or false" if kind is bool else "a number"
    raise BadCodecSpec(f"{codec.name}: {name} is {value!r}, not {wanted}")
