"""Packets of the feature codec that no encoder of ours makes: every decision is the test's."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from itertools import repeat

import numpy as np

from codec.feature.codec import Feature
from codec.feature.profile import grouped, plane
from codec.layout import Layout
from codec.packet import PacketFormat, PacketHeader, Stamp, is_keyframe
from codec.packet_stream import PacketWriter
from tests.codec import reference_feature as reference
from tests.codec.reference_feature import DIFFERENCE, KEY, Refused

Choose = Callable[[int | None, int], int]
"""A value, by the place of its context and the number of values that there are.

Places are those of binary contexts, then those of alphabets; None for bits that have no context.
"""
ALPHABET = reference.CONTEXTS  # place of the first one


class Forger:
    """Writes packets and keeps the state of a decoder that takes them."""

    def __init__(self, codec: Feature, layout: Layout) -> None:
        self._sections = len(layout)
        self._writer = PacketWriter(codec.packet_format(layout))
        groups, _ = reference.parse_profile(codec.profile.pack())
        self.states = [
            reference.State(len(group.mean), *plane(specs[0]), group)
            for specs, group in zip(grouped(layout), groups, strict=True)
        ]
        self.sequence = 0
        self._last = None
        self.refused = False

    def packet(self, choose: Choose, kind: int = KEY, step: int = 150, tail: bytes = b"") -> bytes:
        """A packet; `refused` tells whether a decoder must refuse it.

        The choices end where a decoder would refuse them. Nothing but the ends of groups is checked here.
        """
        head = bytes((step,))
        if kind == DIFFERENCE:
            head += struct.pack(">I", reference.checksum(self.states))
        places: dict[int, int] = {}
        writer = reference.RangeWriter(lambda context, count: choose(places.get(id(context)), count))
        self.refused = False
        try:
            for state in self.states:
                # Known by their places: begin() makes new contexts, which read_group would do too late.
                state.begin(kind, self._last == KEY)
                places.clear()
                places |= {id(each): place for place, each in enumerate(state.contexts + state.alphabets)}
                reference.read_group(writer, state, kind, step)
        except Refused:
            self.refused = True
        self._last = kind
        packet = self.seal(head + writer.finish() + tail, kind)
        self.sequence += 1
        return packet

    def seal(self, payload: bytes, kind: int = KEY) -> bytes:
        """The packet around a payload."""
        sections = [memoryview(payload), *repeat(memoryview(b""), self._sections - 1)]
        return self._writer.seal(Stamp(self.sequence, 0), kind == KEY, sections)


def random_choice(rng: np.random.Generator, ones: float = 0.5, large: float = 0.3) -> Choose:
    """Bits that are 1, and symbols that are the largest, with these probabilities."""

    def choose(place: int | None, count: int) -> int:
        if count == 2:
            return int(rng.random() < (large if place is None else ones))
        return count - 1 if rng.random() < large else int(rng.integers(count))

    return choose


def reseal(packet: bytes, form: PacketFormat) -> bytes:
    """The packet with the checksum that its bytes have, so that a decoder looks behind it."""
    start = 0 if packet[0] < 128 else zlib.crc32(form.description)
    return packet[:-4] + struct.pack(">I", zlib.crc32(packet[:-4], start))


def payload_of(packet: bytes) -> bytes:
    """The section of the first tensor, which is the payload."""
    if not is_keyframe(packet):
        return packet[reference.head_bytes(packet) : -4]
    header = PacketHeader.parse(packet)
    return packet[header.header_bytes : header.header_bytes + header.section_bytes[0]]


def with_payload(form: PacketFormat, packet: bytes, payload: bytes) -> bytes:
    """The packet with another payload, of whatever length, and everything else right."""
    if not is_keyframe(packet):
        return reseal(packet[: reference.head_bytes(packet)] + payload + bytes(4), form)
    header = PacketHeader.parse(packet)
    changed = PacketHeader(
        header.codec_id, header.parameters, header.keyframe, header.sequence, header.captured_ns,
        header.frame_height, header.frame_width, header.layout, (len(payload), *header.section_bytes[1:]),
    ).pack()  # fmt: skip
    return reseal(changed + payload + bytes(4), form)
