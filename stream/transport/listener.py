"""A listening socket that knows its connections: it bounds their number and rate, and ends those that are silent.

A process that may open no more files cannot accept a connection, not even to close it: asyncio would write a hundred
tracebacks a second as long as it waits. So one file is held in reserve.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeAlias

from stream.transport.places import ConnectionRates, Place, Places, Refusal, TooOften, address_of
from stream.transport.tls import ACCEPTED_FROM
from stream.transport.websocket import CountingSocket

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
BACKLOG = 128  # connections that the system accepts before we do
AT_ONCE = 4  # of those that we accept before anybody else has a turn: a burst's handshakes take a while
CLOSING = 32  # connections that have made way, and are not closed yet

TOO_MANY_CONNECTIONS = "too_many_connections"
TOO_MANY_FROM_ADDRESS = "too_many_from_address"
TOO_OFTEN = "too_often"
TOO_MANY_STRANGERS = "too_many_strangers"
MADE_WAY = "made_way"

REFUSED: dict[Refusal, str] = {"full": TOO_MANY_CONNECTIONS, "address": TOO_MANY_FROM_ADDRESS}
REFUSED_RATE: dict[TooOften, str] = {"address": TOO_OFTEN, "strangers": TOO_MANY_STRANGERS}

OnRefuse: TypeAlias = Callable[[str, str], None]
"""Called with a reason, one of these five, and the peer's address."""


class Listener(socket.socket):
    """A socket that listens, and whose connections have places in `pool` until they are given others.

    When there is none left the one that has been idle the longest makes way, see `Places`. Beyond `max_open` in all,
    wherever they have their places, connections are refused: each uses up one of the process's files.

    asyncio accepts by calling `accept` and serves what comes from it, so that what a web server sends and receives
    is counted beneath it, with its frames and headers.
    """

    def __init__(
        self,
        *args: Any,
        pool: Places,
        max_open: int,
        rates: ConnectionRates | None,
        on_refuse: OnRefuse,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.accepted: dict[Any, AcceptedSocket] = {}  # by peer address, while open
        self.pool, self.on_refuse = pool, on_refuse
        self._max_open, self._rates = max_open, rates
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY)

    @classmethod
    def bound(
        cls,
        host: str,
        port: int,
        pool: Places,
        *,
        max_open: int | None = None,
        rates: ConnectionRates | None = None,
        on_refuse: OnRefuse = lambda reason, address: None,
    ) -> Self:
        """A listener on the first address of `host`; port 0 takes a free one. Raises OSError.

        `max_open` is by default what the pool holds, and `CLOSING`. `on_refuse` is called for every connection that
        is refused, or makes way.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        max_open = pool.capacity + CLOSING if max_open is None else max_open
        listener = cls(family, kind, protocol, pool=pool, max_open=max_open, rates=rates, on_refuse=on_refuse)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            plain, peer = super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED or self._reserve is None:
                raise
            self._refuse_with_reserve()
            raise self._refusal(TOO_MANY_CONNECTIONS, str(error.strerror)) from None
        address, now_ns = address_of(peer), time.monotonic_ns()
        if self._rates is not None and (too_often := self._rates.refusal(address, now_ns)):
            plain.close()
            raise self._refusal(REFUSED_RATE[too_often], address)
        if len(self.accepted) >= self._max_open:
            plain.close()
            raise self._refusal(TOO_MANY_CONNECTIONS, address)
        connection = AcceptedSocket(plain, self, peer, now_ns)
        if refusal := self.pool.take(connection.place):
            connection.close()
            raise self._refusal(REFUSED[refusal], address)
        self.accepted[peer] = connection
        ACCEPTED_FROM.set(address)
        return connection, peer

    def close(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        super().close()

    def _refusal(self, reason: str, detail: str) -> ConnectionAbortedError:
        """What asyncio takes as nobody there."""
        self.on_refuse(reason, detail)
        return ConnectionAbortedError(f"{reason}: {detail}")

    def _refuse_with_reserve(self) -> None:
        """Accept one connection with the file in reserve, and close it."""
        assert self._reserve is not None
        os.close(self._reserve)
        self._reserve = None
        with suppress(OSError):  # another thread may have taken the file, and asyncio tries again in a second
            super().accept()[0].close()
        with suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY)

    def close_silent(self, accepted_before_ns: int) -> None:
        """Shut down the connections of before that time, on the monotonic clock, that have requested nothing yet."""
        for connection in list(self.accepted.values()):
            if not connection.has_requested and connection.accepted_ns < accepted_before_ns:
                connection.end()


class AcceptedSocket(CountingSocket):
    """A connection that its listener knows until it is closed."""

    def __init__(self, plain: socket.socket, listener: Listener, peer: Any, accepted_ns: int) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self.accepted_ns = accepted_ns
        self.has_requested = False  # to be set once a whole request has come
        wire = self.wire
        self.place = Place(address_of(peer), lambda: wire.heard_ns, self._make_way)
        self._listener, self._peer = listener, peer

    def leave_pool(self) -> None:
        """The connection has a place elsewhere now, and makes way for nobody here."""
        self._listener.pool.release(self.place)

    def end(self) -> None:
        """Drop it, whatever is still to be sent: asyncio would wait for ever for a peer that takes nothing."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # The peer's port may have been taken again by a newer connection.
        if self._listener.accepted.get(self._peer) is self:
            del self._listener.accepted[self._peer]
        self._listener.pool.release(self.place)
        self.place.make_way = _stay  # else a circle
        super().close()

    def _make_way(self) -> None:
        self._listener.on_refuse(MADE_WAY, self.place.address)
        self.end()


def _stay() -> None:
    """Nobody is there any more who could make way."""
