"""Whoever answers a camera's first hello in the detector's place, once, does not end it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1

from stream.session.close_codes import CloseCode
from tests.services.clips import FRAMES
from tests.services.waiting import LIVENESS_S

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


async def answer_hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Become a WebSocket, and refuse whatever is said for good."""
    request = await reader.readuntil(b"\r\n\r\n")
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = b64encode(sha1(key + GUID, usedforsecurity=False).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: splitcast.features.v1\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    await reader.read(2**16)
    reason = CloseCode.WEIGHTS_DIFFER.to_bytes(2, "big") + b"weights differ"
    writer.write(bytes([0x88, len(reason)]) + reason)
    await reader.read(2**16)
    writer.close()


async def test_one_hostile_answer_ends_no_camera(start_detector, make_camera):
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        if answered == 1:
            await answer_hostile(reader, writer)
            return
        there, here = await asyncio.open_connection("127.0.0.1", running.port)
        await asyncio.gather(pump(reader, here), pump(there, writer))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(2**16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async with start_detector() as running, asyncio.timeout(LIVENESS_S):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            camera = make_camera(f"ws://127.0.0.1:{port}")
            await camera.run()
    assert answered == 2
    assert camera.statistics.frame_counts.detected == FRAMES
