"""A TCP proxy that counts what passes, and can break: the thin link between a camera and a detector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.to_server = 0
        self.to_client = 0
        self.connections = 0
        self.answers_late_s = 0.0  # by which what the server sends is held back
        self.kbps: float | None = None  # that pass to the server; what is sent faster waits
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def break_connections(self) -> None:
        """Reset every open connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        """Pass nothing on, and leave the connections open."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inward: bool) -> None:
        loop = asyncio.get_running_loop()
        free_s = 0.0  # when the thin link has passed on all before
        try:
            while data := await reader.read(65536 if self.kbps is None or not inward else 1024):
                await self._flowing.wait()
                if inward and self.kbps is not None:
                    free_s = max(free_s, loop.time()) + len(data) * 8 / 1e3 / self.kbps
                    await asyncio.sleep(free_s - loop.time())
                if inward:
                    self.to_server += len(data)
                else:
                    self.to_client += len(data)
                    await asyncio.sleep(self.answers_late_s)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        try:
            await asyncio.gather(
                self._pump(reader, server_writer, True), self._pump(server_reader, writer, False)
            )
        finally:
            self._writers -= pair
            for each in pair:
                each.close()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.thaw()
        server.close()
        proxy.break_connections()
        await asyncio.sleep(0)
