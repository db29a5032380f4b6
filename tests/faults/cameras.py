"""Network cameras on the test's own event loop, which can do what bad ones do."""

from __future__ import annotations

import asyncio

import cv2

from tests.stream.sources.watching import numbered

TS_PACKET_BYTES = 188


class ServedCamera:
    """Serves a stream to whoever connects; a subclass says what."""

    content_type = ""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    async def start(self) -> None:
        """Listen, again at the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection, and listen no more."""
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.0 200 OK\r\nContent-Type: {self.content_type}\r\n\r\n".encode())
            await self.send(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.transport.abort()

    async def send(self, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class PictureCamera(ServedCamera):
    """JPEG pictures that carry their numbers, at a rate and of a size that may change, and that may stand still."""

    content_type = "multipart/x-mixed-replace;boundary=next"

    def __init__(self) -> None:
        super().__init__()
        self.fps = 10.0
        self.size = (192, 128)  # (W, H)
        self.still = False
        self._number = 0

    async def send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._number += not self.still
            _, jpeg = cv2.imencode(".jpg", numbered(self._number, *self.size))
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.size}\r\n\r\n"
            writer.write(head.encode() + jpeg.tobytes() + b"\r\n")
            await writer.drain()
            await asyncio.sleep(1 / self.fps)


class DamagedCamera(ServedCamera):
    """An MPEG transport stream of H.264 at its own rate, again from its start where it ends, damaged when told."""

    content_type = "video/mp2t"

    def __init__(self, clip: bytes, seconds: float) -> None:
        super().__init__()
        self.damaged = False
        self._clip, self._seconds = clip, seconds

    async def send(self, writer: asyncio.StreamWriter) -> None:
        chunk_bytes = 7 * TS_PACKET_BYTES
        for start in range(0, len(self._clip), chunk_bytes):
            chunk = bytearray(self._clip[start : start + chunk_bytes])
            if self.damaged and len(chunk) == chunk_bytes:
                chunk[3 * TS_PACKET_BYTES + 100 : 3 * TS_PACKET_BYTES + 120] = b"\xa5" * 20
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(self._seconds * chunk_bytes / len(self._clip))
