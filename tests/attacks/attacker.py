"""A client that keeps to no rules: bytes as it likes, and what the detector answered to them."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ANSWER_S = 60.0  # after which a detector counts as hanging
DROPPED = "dropped"  # the connection ended without a word
TEXT, BINARY, CLOSE = 0x81, 0x82, 0x88
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@dataclass(frozen=True, slots=True)
class Target:
    """A detector, and what the attacker has of it: all but the token of the honest camera."""

    port: int
    ca: Path  # that signed the detector's certificate
    stranger: str = field(repr=False)  # a camera's token, for streams that begin with `yard`
    consumer: str = field(repr=False)
    revoked: str = field(repr=False)  # a camera's, which the detector's file held once
    hello: str  # of a camera that agrees with the detector in everything, under the stranger's name
    host: str = "127.0.0.1"
    source: str = "127.0.0.2"


@cache
def _trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, target: Target, *, tls: bool = True) -> Peer:
        """Raises OSError where the detector does not let it in."""
        context = _trusting(target.ca) if tls else None
        async with asyncio.timeout(ANSWER_S):
            ends = await asyncio.open_connection(
                target.host, target.port, ssl=context, local_addr=(target.source, 0)
            )
        return cls(*ends)

    def close(self) -> None:
        self._writer.transport.abort()

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def ask(self, path: str, token: str | None = None, *, upgrade: bool = True, **headers: str) -> str:
        """The status that a request gets, or that the connection was dropped."""
        said = {"Host": "nas", **headers}
        if upgrade:
            said |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            said |= {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Protocol": "splitcast.features.v1"}
        if token:
            said["Authorization"] = f"Bearer {token}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        self.say(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        with suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(ANSWER_S):
                return (await self._reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        return DROPPED

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame's first byte and payload; None where the connection was dropped."""
        with suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(ANSWER_S):
                first, size = await self._reader.readexactly(2)
                if size > 125:
                    size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
                return first, await self._reader.readexactly(size)
        return None

    async def closed(self) -> str:
        """The code that the detector closes with, or that it dropped the connection."""
        while received := await self.receive():
            if received[0] == CLOSE:
                return str(int.from_bytes(received[1][:2], "big"))
        return DROPPED


def frame(first: int, payload: bytes) -> bytes:
    """A client's frame; a mask of zeros masks nothing."""
    size = len(payload)
    if size < 126:
        return bytes([first, 0x80 | size]) + bytes(4) + payload
    if size < 2**16:
        return bytes([first, 0x80 | 126]) + size.to_bytes(2, "big") + bytes(4) + payload
    return bytes([first, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4) + payload
