"""A network camera on the test's own event loop."""

from __future__ import annotations

import asyncio

import cv2

from tests.stream.sources.watching import (
    numbered,
)


class HttpCamera:
    """Sends numbered JPEG pictures to whoever connects, as many network cameras do."""

    def __init__(self) -> None:
        self.number = 0  # of the next picture
        self.size = (320, 240)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.requests: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.port}/stream.mjpg"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=next\r\n\r\n")
            while True:
                await self.flowing.wait()
                _, jpeg = cv2.imencode(".jpg", numbered(self.number, *self.size))
                self.number += 1
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.size}\r\n\r\n"
                writer.write(head.encode() + jpeg.tobytes() + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test ends
        finally:
            self._writers.discard(writer)
            writer.close()
