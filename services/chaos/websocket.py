"""Messages of a WebSocket connection, seen and changed in the bytes that pass. No socket.

A proxy that ends one WebSocket connection and begins another would answer pings, protocol errors and closes itself;
this one leaves all of that, and the handshake, to the two ends. RFC 6455, section 5, describes the frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from codec.packet import is_keyframe
from services.chaos.delay_line import Part
from services.chaos.faults import (
    Delay,
    Direction,
    Duplicate,
    Fault,
    Flip,
    Lose,
    MessageKind,
    Oversize,
    Reorder,
    Truncate,
)
from services.chaos.switches import Switches

MOST_MESSAGE_BYTES = 64 * 2**20
MOST_HEAD_BYTES = 64 * 2**10

_TEXT, _CLOSE = 0x1, 0x8  # opcodes
_FINAL, _OPCODE = 0x80, 0x0F  # bits of the first byte
_MASKED, _LENGTH = 0x80, 0x7F  # of the second


@dataclass(frozen=True, slots=True)
class WireFrame:
    """One frame as it was sent."""

    first: int  # byte
    mask: bytes  # empty where it is not masked
    payload: bytes  # masked
    wire: bytes  # all of it

    @property
    def is_control(self) -> bool:
        return self.first & _OPCODE >= _CLOSE

    def content(self, size: int | None = None) -> bytes:
        """The payload, or its first bytes, unmasked."""
        return _xor(self.payload[:size], self.mask) if self.mask else self.payload[:size]


@dataclass(slots=True)
class Upgrade:
    """What both directions know of the connection: whether it has become a WebSocket; None: not yet told."""

    done: bool | None = None


class MessageEditor:
    """One direction of a connection: takes bytes in, gives parts out, in which faults have worked on whole messages.

    What is no WebSocket passes as it is.
    """

    def __init__(
        self,
        direction: Direction,
        connection: int,
        upgrade: Upgrade,
        switches: Switches,
        now_s: Callable[[], float],
    ) -> None:
        self._direction, self._connection = direction, connection
        self._upgrade, self._switches, self._now_s = upgrade, switches, now_s
        self._buffer = bytearray()
        self._message: list[WireFrame] = []  # the frames of a message whose end is to come
        self._messages = 0

    def receive(self, data: bytes) -> list[Part]:
        """What goes on. Raises ConnectionAbortedError where a message is too large to be kept."""
        parts: list[Part] = []
        self._buffer += data
        if self._upgrade.done is None and self._direction == "down":
            head = self._take_head()
            if head is None:
                return parts
            parts.append(Part(head))
        if not self._upgrade.done:
            parts.append(self.rest())
            return parts
        while frame := self._take_frame():
            parts += self._on_frame(frame)
        return parts

    def rest(self) -> Part:
        """What was kept, as it is: to be taken when nothing follows."""
        data = b"".join([*(frame.wire for frame in self._message), self._buffer])
        self._message.clear()
        self._buffer.clear()
        return Part(data)

    def _take_head(self) -> bytes | None:
        """The server's answer to the handshake, without its body; None before it is complete."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 and len(self._buffer) <= MOST_HEAD_BYTES:
            return None
        head = bytes(self._buffer[: end + 4]) if end >= 0 else b""
        del self._buffer[: len(head)]
        self._upgrade.done = head.startswith(b"HTTP/1.1 101 ")
        return head

    def _take_frame(self) -> WireFrame | None:
        """The next frame; None before it is complete."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & _LENGTH, 2
        for code, size in ((126, 2), (127, 8)):
            if length == code:
                start += size
                length = int.from_bytes(buffer[2:start]) if len(buffer) >= start else -1
                break
        mask_bytes = 4 if buffer[1] & _MASKED else 0
        if length > MOST_MESSAGE_BYTES:
            raise ConnectionAbortedError(f"a message of more than {MOST_MESSAGE_BYTES} bytes")
        end = start + mask_bytes + length
        if length < 0 or len(buffer) < end:
            return None
        wire = bytes(buffer[:end])
        del buffer[:end]
        payload = start + mask_bytes
        return WireFrame(wire[0], wire[start:payload], wire[payload:], wire)

    def _on_frame(self, frame: WireFrame) -> list[Part]:
        if frame.is_control:  # it may come between the frames of a message
            return [Part(frame.wire)]
        self._message.append(frame)
        if sum(len(each.wire) for each in self._message) > MOST_MESSAGE_BYTES:
            raise ConnectionAbortedError(f"a message of more than {MOST_MESSAGE_BYTES} bytes")
        if not frame.first & _FINAL:
            return []
        message, self._message = self._message, []
        self._messages += 1
        return self._on_message(message)

    def _on_message(self, message: list[WireFrame]) -> list[Part]:
        kind = _kind(message[0])
        payload: bytes | None = None  # once a fault has changed it
        size = sum(len(frame.payload) for frame in message)
        copies, delay_s, in_order, lost = 1, 0.0, True, False
        for switch in self._switches.messages(self._direction, kind):
            match switch.fault:
                case Lose():
                    lost = True
                case Duplicate(copies=more):
                    copies += more
                case Delay(ms=ms, jitter=jitter):
                    delay_s += max(0.0, ms + jitter * switch.random.uniform(-1, 1)) / 1e3
                case Reorder(ms=ms):
                    delay_s, in_order = delay_s + ms / 1e3, False
                case fault:
                    payload = _content(message) if payload is None else payload
                    payload = _damage(payload, fault, switch.random)
            switch.record.add(
                self._now_s(),
                self._connection,
                direction=self._direction,
                message=self._messages,
                kind=kind,
                bytes=size,
            )
        if lost:
            return []
        frames = [frame.wire for frame in message] if payload is None else [_frame(message[0], payload)]
        return [Part(b"".join(frames), delay_s, in_order, kind)] * copies


def _kind(first: WireFrame) -> MessageKind:
    if first.first & _OPCODE == _TEXT:
        return "text"
    return "keyframe" if is_keyframe(first.content(5)) else "binary"  # docs/bitstream.md: magic, version


def _content(message: list[WireFrame]) -> bytes:
    return b"".join(frame.content() for frame in message)


def _damage(payload: bytes, fault: Fault, random: Random) -> bytes:
    """The payload as the fault leaves it."""
    match fault:
        case Truncate(keep=keep):
            return payload[: int(len(payload) * keep)]
        case Oversize(mib=mib):
            return payload.ljust(int(mib * 2**20))
        case Flip(bits=bits) if payload:
            damaged = bytearray(payload)
            for position in random.sample(range(8 * len(payload)), min(bits, 8 * len(payload))):
                damaged[position // 8] ^= 1 << position % 8
            return bytes(damaged)
    return payload


def _frame(first: WireFrame, payload: bytes) -> bytes:
    """One frame for a whole message, masked if it was, with the mask that changes nothing."""
    masked = _MASKED if first.mask else 0
    head = bytes([first.first | _FINAL])
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 2**16:
        head += struct.pack(">BH", masked | 126, len(payload))
    else:
        head += struct.pack(">BQ", masked | 127, len(payload))
    return head + bytes(len(first.mask)) + payload


def _xor(data: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(len(data))
