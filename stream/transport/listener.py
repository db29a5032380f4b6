"""A listening socket that knows its connections: it bounds their number, and shuts down those that say nothing.

A process that may open no more files cannot accept a connection, not even to close it: asyncio would write a hundred
tracebacks a second as long as it waits. So one file is held in reserve.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from stream.transport.websocket import CountingSocket

log = logging.getLogger(__name__)

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
BACKLOG = 128  # connections that the system accepts before we do


class Listener(socket.socket):
    """A socket that listens. It refuses connections beyond `max_connections`: each uses up one of the process's files.

    asyncio accepts by calling `accept` and serves what comes from it, so that what a web server sends and receives
    is counted beneath it, with its frames and headers.
    """

    def __init__(
        self,
        *args: Any,
        max_connections: int,
        on_refuse: Callable[[], None] = lambda: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.accepted: dict[Any, AcceptedSocket] = {}  # by peer address, while open
        self._max_connections, self._on_refuse = max_connections, on_refuse
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY)

    @classmethod
    def bound(
        cls,
        host: str,
        port: int,
        max_connections: int,
        on_refuse: Callable[[], None] = lambda: None,
    ) -> Self:
        """A listener on the first address of `host`; port 0 takes a free one. Raises OSError.

        `on_refuse` is called for every connection that is one too many.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = cls(family, kind, protocol, max_connections=max_connections, on_refuse=on_refuse)
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
            plain, address = super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED or self._reserve is None:
                raise
            self._refuse_with_reserve()
            raise self._refusal(error.strerror) from None
        if len(self.accepted) >= self._max_connections:
            plain.close()
            raise self._refusal("too many connections")
        connection = AcceptedSocket(plain, self, address, time.monotonic_ns())
        self.accepted[address] = connection
        return connection, address

    def close(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        super().close()

    def _refusal(self, reason: str | None) -> ConnectionAbortedError:
        """What asyncio takes as nobody there."""
        self._on_refuse()
        log.warning("connection refused: %s", reason)
        return ConnectionAbortedError(reason)

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
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class AcceptedSocket(CountingSocket):
    """A connection that its listener knows until it is closed."""

    def __init__(self, plain: socket.socket, listener: Listener, address: Any, accepted_ns: int) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self.accepted_ns = accepted_ns
        self.has_requested = False  # to be set once a whole request has come
        self._listener, self._address = listener, address

    def close(self) -> None:
        # The peer's port may have been taken again by a newer connection.
        if self._listener.accepted.get(self._address) is self:
            del self._listener.accepted[self._address]
        super().close()
