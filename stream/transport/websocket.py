"""A WebSocket as a link: ordered texts and packets, and the bytes that it really put on the wire."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from stream.errors import ConnectionLost
from stream.session.close_codes import CloseCode, close_reason


@dataclass(slots=True)
class WireBytes:
    """Bytes of a TCP connection's payload: frames, masks, HTTP upgrade and TLS, everything above TCP."""

    sent: int = 0
    received: int = 0


class CountingSocket(socket.socket):
    """A socket that counts what passes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wire = WireBytes()

    def send(self, *args: Any) -> int:
        count = super().send(*args)
        self.wire.sent += count
        return count

    def sendmsg(self, *args: Any) -> int:
        count = super().sendmsg(*args)
        self.wire.sent += count
        return count

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self.wire.received += len(data)
        return data

    def recv_into(self, *args: Any) -> int:
        count = super().recv_into(*args)
        self.wire.received += count
        return count


class Link:
    """One end of a WebSocket connection."""

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
        wire: WireBytes,
        send_timeout_s: float,
    ) -> None:
        self._ws = ws
        self.wire = wire
        self._send_timeout_s = send_timeout_s
        self._closing = False

    async def send(self, data: bytes | str) -> None:
        """Send a packet or a text. Raises ConnectionLost, also where the peer takes nothing for too long.

        After `close` nobody reads, and nothing is sent.
        """
        if self._closing:
            return
        try:
            async with asyncio.timeout(self._send_timeout_s):
                if isinstance(data, str):
                    await self._ws.send_str(data)
                else:
                    await self._ws.send_bytes(data)
        except TimeoutError:
            raise ConnectionLost(f"the peer took nothing for {self._send_timeout_s:g} s") from None
        except (ConnectionError, aiohttp.ClientError) as error:
            raise ConnectionLost(str(error) or type(error).__name__, self._ws.close_code or 1006) from None

    async def receive(self) -> bytes | str:
        """The next packet or text. Raises ConnectionLost with the peer's close code and reason."""
        message = await self._ws.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.CLOSE:
            raise ConnectionLost(message.extra or "closed by the peer", int(message.data or 1005))
        if message.type is WSMsgType.ERROR:
            raise ConnectionLost(str(message.data), self._ws.close_code or 1006)
        raise ConnectionLost("connection closed", self._ws.close_code or 1006)

    async def __aiter__(self) -> AsyncIterator[bytes | str]:
        """What the peer sends, until `close` is called here. Raises ConnectionLost."""
        while True:
            try:
                yield await self.receive()
            except ConnectionLost:
                if self._closing:
                    return
                raise

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Say `code` and `reason` to the peer, and close once it has answered.

        An iteration that runs in another task ends; one that was cancelled cannot take the answer any more.
        """
        self._closing = True
        await self._ws.close(code=code, message=close_reason(reason))


@asynccontextmanager
async def connect(
    url: str,
    protocol: str,
    *,
    heartbeat_s: float = 20.0,
    connect_timeout_s: float = 10.0,
    send_timeout_s: float = 20.0,
    max_message_bytes: int = 4 * 2**20,
) -> AsyncIterator[Link]:
    """A link to `url` (ws:// or wss://) that speaks the subprotocol. Raises ConnectionLost."""
    sockets: list[CountingSocket] = []

    def counting_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol_number, *_ = address
        connection = CountingSocket(family, kind, protocol_number)
        sockets.append(connection)
        return connection

    connector = aiohttp.TCPConnector(socket_factory=counting_socket)
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            async with asyncio.timeout(connect_timeout_s):
                ws = await session.ws_connect(
                    url,
                    protocols=(protocol,),
                    compress=0,
                    heartbeat=heartbeat_s,
                    max_msg_size=max_message_bytes,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        except TimeoutError:
            raise ConnectionLost(f"no answer within {connect_timeout_s:g} s") from None
        except aiohttp.WSServerHandshakeError as error:
            raise ConnectionLost(f"the server answered HTTP {error.status}: {error.message}") from None
        except (OSError, aiohttp.ClientError) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from None
        async with ws:
            if ws.protocol != protocol:
                raise ConnectionLost(f"the server does not speak {protocol}", CloseCode.BAD_SUBPROTOCOL)
            # Of several addresses tried at once, one has won.
            winner = ws.get_extra_info("socket").fileno()
            wire = next(candidate.wire for candidate in sockets if candidate.fileno() == winner)
            yield Link(ws, wire, send_timeout_s)
