"""A WebSocket as a link: ordered texts and packets, and the bytes that it really put on the wire."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit
from weakref import WeakMethod

import aiohttp
from aiohttp import WSMsgType, web
from aiohttp.http_websocket import WebSocketReader

from stream.errors import BadCertificate, ConnectionLost, SessionError, TlsFailed
from stream.session.close_codes import CloseCode, close_reason
from stream.transport.attempts import first_answer
from stream.transport.frame_guard import FrameGuard
from stream.transport.liveness import LOOK_S, PING_S, Idle
from stream.transport.tls import ClientTls, client_failure, other_fingerprint

CLOSE_S = 2.0  # for the peer to answer a close
JOIN_S = 1.0  # an attempt to connect that has no answer for so long is joined by another
SEND_TIMEOUT_S = 20.0  # in which the peer takes nothing of what waits for it

# What a peer did that is no WebSocket; aiohttp or a FrameGuard finds it, and these are the codes to close with.
VIOLATIONS = {
    CloseCode.PROTOCOL_ERROR: "what came is no WebSocket",
    CloseCode.INVALID_TEXT: "what came as a text is not UTF-8",
    CloseCode.POLICY_VIOLATION: "too many pings, empty messages or small fragments came",
    CloseCode.MESSAGE_TOO_LARGE: "what came is larger than any message of this protocol",
}


@dataclass(slots=True)
class WireBytes:
    """Bytes of a TCP connection's payload: frames, masks, HTTP upgrade and TLS, everything above TCP."""

    sent: int = 0
    received: int = 0
    heard_ns: int = field(default_factory=time.monotonic_ns)  # when bytes came last
    allowed: int | None = None  # of those received: what comes beyond is thrown away; None: any
    on_excess: Callable[[], None] = lambda: None

    def receive(self, count: int) -> None:
        """Count what came.

        Raises BlockingIOError, which asyncio takes as nothing there, where more was received than is allowed.
        """
        if not count:  # the end
            return
        self.received += count
        self.heard_ns = time.monotonic_ns()
        if self.allowed is not None and self.received > self.allowed:
            self.on_excess()
            raise BlockingIOError


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
        self.wire.receive(len(data))
        return data

    def recv_into(self, *args: Any) -> int:
        count = super().recv_into(*args)
        self.wire.receive(count)
        return count


async def _close_on_violation(ws: WebSocket, code: int) -> None:
    """Let the peer read which violation ended the connection: what it still sends is read and thrown away.

    A socket that is closed with bytes unread resets the connection, and the peer loses what it has not read yet.
    """
    connection = _socket_of(ws)
    with suppress(ConnectionError, aiohttp.ClientError):
        reason = close_reason(VIOLATIONS[CloseCode(code)])
        await ws.send_frame(code.to_bytes(2, "big") + reason, WSMsgType.CLOSE)
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            # aiohttp tells nobody about the end of what it throws away.
            while connection is not None and connection.fileno() != -1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


class _GuardedParser:
    """Hands a client's bytes to aiohttp's parser as long as a FrameGuard finds nothing in them."""

    def __init__(self, parser: WebSocketReader, on_violation: Callable[[CloseCode], None]) -> None:
        self._parser, self._on_violation, self._guard = parser, on_violation, FrameGuard()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """As aiohttp's parsers do it: whether nothing more is taken, and what is left over."""
        violation = self._guard.look(data, time.monotonic_ns())
        if violation is None:
            return self._parser.feed_data(data)
        self._on_violation(violation)
        return True, b""

    def feed_eof(self) -> None:
        self._parser.feed_eof()


class _GuardedRequest:
    """A request and its protocol in one, whose parser is guarded; all else is the request's or the protocol's own."""

    def __init__(self, request: web.BaseRequest, on_violation: Callable[[CloseCode], None]) -> None:
        self._request, self._on_violation = request, on_violation

    @property
    def protocol(self) -> _GuardedRequest:
        return self

    def set_parser(self, parser: WebSocketReader, **others: Any) -> None:
        guarded: Any = _GuardedParser(parser, self._on_violation)
        if callback := others.get("data_received_cb"):  # which the protocol never lets go of: a circle
            others["data_received_cb"] = _weak(callback)
        self._request.protocol.set_parser(guarded, **others)

    def keep_alive(self, keep: bool) -> None:
        self._request.protocol.keep_alive(keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """Calls the method as long as its object is there."""
    known = WeakMethod(method)

    def call() -> None:
        if bound := known():
            bound()

    return call


class ServerWebSocket(web.WebSocketResponse):
    """A server's end, of which a Link may be made once it is prepared; it takes messages up to `max_message_bytes`.

    A Link pings by itself. Without one, `heartbeat_s` says how often aiohttp does.
    """

    def __init__(self, protocol: str, max_message_bytes: int, heartbeat_s: float | None = None) -> None:
        super().__init__(
            protocols=(protocol,),
            compress=False,  # packets do not compress further
            autoping=heartbeat_s is not None,
            heartbeat=heartbeat_s,
            max_msg_size=max_message_bytes,
            timeout=CLOSE_S,
        )

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        """Here aiohttp gives the connection its parser: there is no other way to come before it."""
        guarded: Any = _GuardedRequest(request, self._violate)
        super()._post_start(guarded, protocol, writer)

    def _violate(self, code: CloseCode) -> None:
        """Let whoever receives know, as aiohttp's own parser does."""
        assert self._reader is not None
        self._reader.set_exception(aiohttp.WebSocketError(code, VIOLATIONS[code]))

    async def open(self, request: web.BaseRequest) -> bool:
        """Become a WebSocket; False where the peer has left."""
        try:
            await self.prepare(request)
        except ConnectionError:
            return False
        return True

    async def close(self, *, code: int = CloseCode.NORMAL, message: bytes = b"", drain: bool = True) -> bool:
        if code in VIOLATIONS and not self.closed:
            await _close_on_violation(self, code)
        try:
            return await super().close(code=code, message=message, drain=drain)
        finally:
            _forget_frames(self.exception())


def _forget_frames(error: BaseException | None) -> None:
    """Break the circle of a WebSocket that keeps an error, which knows the frame that knows the WebSocket."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class ClientWebSocket(aiohttp.ClientWebSocketResponse):
    """A client's end."""

    async def close(self, *, code: int = CloseCode.NORMAL, message: bytes = b"") -> bool:
        if code in VIOLATIONS and not self.closed:
            await _close_on_violation(self, code)
        return await super().close(code=code, message=message)


WebSocket: TypeAlias = ServerWebSocket | ClientWebSocket


class Link:
    """One end of a WebSocket connection. Somebody has to `watch` it, or a dead peer is never noticed."""

    def __init__(self, ws: WebSocket, wire: WireBytes) -> None:
        self._ws, self._socket = ws, _socket_of(ws)
        self.wire = wire
        self._closing = False
        self._aborted = ""  # why, if it was
        self._sending = 0  # messages that wait for the peer to take them
        self._control: asyncio.Task[None] | None = None  # the newest ping or pong
        self.delivered_ns = 0
        """What was sent before that time (time.monotonic_ns) the peer has taken: it has answered a later ping."""

    async def send(self, data: bytes | str) -> None:
        """Send a packet or a text. Raises ConnectionLost.

        Waits as long as the peer takes nothing: `watch` ends that. After `close` nobody reads, and nothing is sent.
        """
        if self._closing:
            return
        self._sending += 1
        try:
            if isinstance(data, str):
                await self._ws.send_str(data)
            else:
                await self._ws.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise ConnectionLost(str(error) or type(error).__name__, self._ws.close_code or 1006) from None
        finally:
            self._sending -= 1

    async def receive(self) -> bytes | str:
        """The next packet or text. Raises ConnectionLost with the peer's close code and reason.

        What the peer sends that is no WebSocket is told with the code that it was closed with.
        """
        while True:
            message = await self._ws.receive()
            match message.type:
                case WSMsgType.BINARY:
                    return bytes(message.data)
                case WSMsgType.TEXT:
                    return str(message.data)
                case WSMsgType.PING:
                    self._send_control(WSMsgType.PONG, bytes(message.data))
                case WSMsgType.PONG:
                    self._on_pong(message.data)
                case WSMsgType.CLOSE:
                    raise ConnectionLost(message.extra or "closed by the peer", int(message.data or 1005))
                case WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                    raise ConnectionLost(str(message.data), message.data.code)
                case WSMsgType.ERROR:
                    raise ConnectionLost(str(message.data) or type(message.data).__name__)
                case _:
                    reason = self._aborted or "the peer ended the connection without a word"
                    raise ConnectionLost(reason, answered=not self._aborted)

    async def receive_small(self, limit_bytes: int) -> bytes | str:
        """The next packet or text of a peer that is not known yet: it can make this end hold so much, and no more.

        aiohttp has one limit for all messages of a connection, which is that of the largest. Raises ConnectionLost as
        `receive` does, SessionError where more comes: that is thrown away, and the connection is good for a close
        alone.
        """
        exceeded = asyncio.Event()
        self.wire.allowed = self.wire.received + limit_bytes
        self.wire.on_excess = exceeded.set
        receiving = asyncio.ensure_future(self.receive())
        watching = asyncio.ensure_future(exceeded.wait())
        try:
            await asyncio.wait([receiving, watching], return_when=asyncio.FIRST_COMPLETED)
            if exceeded.is_set():
                raise SessionError(
                    CloseCode.MESSAGE_TOO_LARGE,
                    f"a message of more than {limit_bytes} bytes before the hello",
                )
            self.wire.allowed = None
            return receiving.result()
        finally:
            receiving.cancel()
            watching.cancel()
            await asyncio.gather(receiving, watching, return_exceptions=True)
            del receiving  # what it has raised knows this frame: a circle

    async def __aiter__(self) -> AsyncIterator[bytes | str]:
        """What the peer sends, until `close` is called here. Raises ConnectionLost."""
        while True:
            try:
                yield await self.receive()
            except ConnectionLost:
                if self._closing:
                    return
                raise

    async def watch(self) -> AsyncIterator[float]:
        """Seconds for which no byte has come from the peer, every LOOK_S, for ever.

        Pings the peer, so that one that lives is heard: not by its pong, which waits behind all that is on its way,
        but because it does the same. Raises ConnectionLost where the peer takes nothing of what waits for it.
        """
        loop = asyncio.get_running_loop()
        pinged_s = now_s = loop.time()
        silence, standstill = Idle(self.wire.received, now_s), Idle(self.wire.sent, now_s)
        free = 0  # looks at which nothing waited count as progress
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = loop.time()
            if now_s - pinged_s >= PING_S - LOOK_S / 2:
                pinged_s = now_s
                self._send_control(WSMsgType.PING, time.monotonic_ns().to_bytes(8, "big"))
            free += not self._sending
            if standstill.look(self.wire.sent + free, now_s) >= SEND_TIMEOUT_S:
                raise ConnectionLost(f"the peer took nothing for {SEND_TIMEOUT_S:g} s")
            yield silence.look(self.wire.received, now_s)

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Say `code` and `reason` to the peer, and close once it has answered, or not for 2 s.

        An iteration that runs in another task ends; one that was cancelled cannot take the answer any more.
        """
        self._closing = True
        try:
            async with asyncio.timeout(2 * CLOSE_S):
                await self._ws.close(code=code, message=close_reason(reason))
        except TimeoutError:  # the peer takes nothing, not even this
            self.abort()

    async def abort_when_silent(self, limit_s: float) -> None:
        """Watch, and abort once no byte has come from the peer for so long: whoever receives is told."""
        async for silence_s in self.watch():
            if silence_s >= limit_s:
                self.abort(f"nothing came from the peer for {limit_s:g} s")
                return

    def abort(self, reason: str = "") -> None:
        """End the connection at once: nothing more is sent, not even what waits. `reason` is for whoever receives."""
        self._aborted = reason
        if self._control is not None:
            self._control.cancel()
        _end(self._socket)

    def _on_pong(self, data: bytes) -> None:
        """WebSocket keeps order: what was sent before the ping has come through, too."""
        pinged_ns = int.from_bytes(data, "big")
        if self.delivered_ns < pinged_ns <= time.monotonic_ns():
            self.delivered_ns = pinged_ns

    def _send_control(self, kind: WSMsgType, data: bytes = b"") -> None:
        """Send a ping or pong without waiting for it, but none while one waits: a peer may send any number of pings.

        A pong that answers only the newest of several pings is right (RFC 6455, 5.5.3).
        """
        if self._control is None or self._control.done():
            self._control = asyncio.create_task(self._send_frame(kind, data))

    async def _send_frame(self, kind: WSMsgType, data: bytes) -> None:
        with suppress(ConnectionError, aiohttp.ClientError):  # which `receive` tells
            await self._ws.send_frame(data, kind)


@asynccontextmanager
async def connect(
    url: str,
    protocol: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ClientTls | None = None,
    connect_timeout_s: float = 10.0,
    max_message_bytes: int = 4 * 2**20,
) -> AsyncIterator[Link]:
    """A link to `url` (ws:// or wss://) that speaks the subprotocol.

    `headers` go with the HTTP request, and stay out of errors. `tls` says how to know the server of wss://; its files
    are read each time. Raises ConnectionLost, of which TlsFailed.
    """
    sockets: list[CountingSocket] = []

    def counting_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol_number, *_ = address
        connection = CountingSocket(family, kind, protocol_number)
        sockets.append(connection)
        return connection

    context = await client_context(url, tls)
    pinned = tls.pinned if tls else None
    connector = aiohttp.TCPConnector(
        socket_factory=counting_socket, ssl=aiohttp.Fingerprint(pinned) if pinned else True
    )
    async with aiohttp.ClientSession(connector=connector, ws_response_class=ClientWebSocket) as session:
        ws, wire = await _open(
            session,
            sockets,
            connect_timeout_s,
            url=url,
            protocols=(protocol,),
            headers=headers,
            ssl=context,
            max_msg_size=max_message_bytes,
        )
        async with ws:
            if ws.protocol != protocol:
                raise ConnectionLost(f"the server does not speak {protocol}", CloseCode.BAD_SUBPROTOCOL)
            sockets.clear()
            link = Link(ws, wire)
            try:
                yield link
            except ConnectionLost:
                link.abort()  # nobody is there to answer a close
                raise
            except (Exception, asyncio.CancelledError) as error:  # not as one whose frames have ended
                stopped = isinstance(error, asyncio.CancelledError)
                code = CloseCode.GOING_AWAY if stopped else CloseCode.INTERNAL_ERROR
                await link.close(code, "stopped" if stopped else "internal error")
                raise


async def _open(
    session: aiohttp.ClientSession, sockets: list[CountingSocket], timeout_s: float, *, url: str, **how: Any
) -> tuple[ClientWebSocket, WireBytes]:
    """A WebSocket, which one of `sockets` counts. Raises ConnectionLost."""

    async def attempt() -> tuple[ClientWebSocket, WireBytes]:
        closing = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
        async with asyncio.timeout(timeout_s):
            ws = await session.ws_connect(url, compress=0, autoping=False, timeout=closing, **how)
        assert isinstance(ws, ClientWebSocket)
        # Now: the server may close at once, and then the connection is known no more.
        connection = _socket_of(ws)
        if connection is None:
            raise ConnectionLost("the server ended the connection without a word")
        descriptor = connection.fileno()
        return ws, next(candidate.wire for candidate in sockets if candidate.fileno() == descriptor)

    try:
        return await first_answer(attempt, JOIN_S, lambda other: _end(_socket_of(other[0])))
    except TimeoutError:
        raise ConnectionLost(f"no answer within {timeout_s:g} s", answered=False) from None
    except (OSError, aiohttp.ClientError) as error:
        raise why_not_connected(error, url) from None


_DENIALS = {
    401: "it asks for a token that it knows: --token-file, or SPLITCAST_TOKEN",
    403: "it grants this token something else, such as another stream, or lets no page in from elsewhere",
    404: "nothing is served at this path: of several detectors behind one address watch wants --stream, or one of them "
    "in the address, as /shard/s1",
}


def _meaning(refusal: aiohttp.WSServerHandshakeError) -> str:
    """What a status says; of an answer that is wrong in another way than by its status, aiohttp's words."""
    if refusal.status in _DENIALS:
        return _DENIALS[refusal.status]
    known = refusal.status >= 400 and refusal.status in set(HTTPStatus)
    return HTTPStatus(refusal.status).phrase if known else refusal.message


async def client_context(url: str, tls: ClientTls | None) -> ssl.SSLContext | Literal[True]:
    """For aiohttp, where True is what this machine trusts. Raises TlsFailed where a file cannot be used."""
    if tls is None or urlsplit(url).scheme != "wss":
        return True
    try:
        return await asyncio.to_thread(tls.context)
    except BadCertificate as error:
        raise TlsFailed(str(error)) from None


def why_not_connected(error: OSError | aiohttp.ClientError, url: str) -> ConnectionLost:
    """What a failed attempt means."""
    host = urlsplit(url).hostname or ""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return ConnectionLost(
            f"the server answered HTTP {error.status}: {_meaning(error)}", status=error.status
        )
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return TlsFailed(other_fingerprint(error.got, host))
    if tls_error := _tls_error(error):
        return TlsFailed(client_failure(tls_error, host))
    if isinstance(error, aiohttp.ServerDisconnectedError) and urlsplit(url).scheme in ("ws", "http"):
        return ConnectionLost(
            "the server ended the connection: if it takes TLS alone, write wss:// for ws://"
        )
    if isinstance(
        error, aiohttp.ClientConnectorError
    ):  # whose own words have the address of an object in them
        why = error.os_error.strerror or str(error.os_error) or type(error.os_error).__name__
        reason = f"cannot connect to {error.host}:{error.port}: {why}"
    else:
        reason = str(error) or type(error).__name__
    return ConnectionLost(reason, answered=_is_answer(error))


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of TLS that led to this one, which aiohttp may have made one of its own."""
    while error is not None and (
        not isinstance(error, ssl.SSLError) or isinstance(error, aiohttp.ClientError)
    ):
        error = error.__cause__
    return error


def _socket_of(ws: WebSocket) -> TransportSocket | None:
    """What the WebSocket sends through, as long as it is known."""
    try:
        connection: TransportSocket | None = ws.get_extra_info("socket")
    except AttributeError:  # of asyncio's TLS, once it was closed twice
        return None
    return connection


def _end(connection: TransportSocket | None) -> None:
    """Drop the connection without a word."""
    if connection is not None and connection.fileno() != -1:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _is_answer(error: Exception) -> bool:
    """Whether a failure to connect came from a machine that is there: a proxy before a dead server closes, too.

    aiohttp hands on a reset as an OSError of its own, which is no ConnectionError: its number tells.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        return isinstance(error.os_error, ConnectionError)
    if isinstance(error, OSError):
        return isinstance(OSError(error.errno, ""), ConnectionError)
    return isinstance(error, aiohttp.ServerDisconnectedError)
