"""Who only reads: a consumer of detections has nothing to say."""

from __future__ import annotations

import time

from aiohttp import WebSocketError

from stream.errors import ConnectionLost, SessionError
from stream.leaky_bucket import LeakyBucket
from stream.session.close_codes import CloseCode
from stream.transport.websocket import ServerWebSocket

MAX_MESSAGE_BYTES = 4096
MESSAGE_INTERVAL_NS = 10**9
MESSAGE_BURST = 64


async def until_consumer_leaves(ws: ServerWebSocket) -> None:
    """Read, and ignore, what the consumer says.

    Raises ConnectionLost when it has left, SessionError where it says much, or what is no WebSocket.
    """
    messages = LeakyBucket(MESSAGE_INTERVAL_NS, MESSAGE_BURST)
    async for message in ws:
        if isinstance(message.data, WebSocketError):  # aiohttp has closed with it
            raise SessionError(CloseCode(message.data.code), str(message.data))
        if not messages.take(time.monotonic_ns()):
            raise SessionError(
                CloseCode.POLICY_VIOLATION, "more than one message a second: nobody reads them"
            )
    raise ConnectionLost("subscriber left")
