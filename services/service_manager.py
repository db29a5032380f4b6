"""What systemd hears of a service that it started: that it is ready, that it lives, and that it stops.

The protocol is sd_notify(3): texts in datagrams to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

import structlog

log = structlog.get_logger(__name__)

FEEDS = 4
"""Signs of life in the time after which systemd takes a service for dead: half of them may come late."""


class ServiceManager:
    """The socket of the manager that started this process; without one nothing is told to anybody."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = path.replace("@", "\0", 1) if path.startswith("@") else path
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if watched else 0.0

    async def tell_health(self, ready: asyncio.Event) -> None:
        """Say that the service is ready once it is, and then for ever that it lives.

        From the event loop, so that one that hangs says nothing: systemd then ends the process and starts it anew.
        """
        await ready.wait()
        self._tell("READY=1")
        while self._address and self._watchdog_s:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / FEEDS)

    def tell_stop(self) -> None:
        """Say that the service stops: it drains, and is not to be started anew for that."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(self._address)
                sender.send(state.encode())
        except OSError as error:
            log.warning("the service manager cannot be told", state=state, error=error.strerror)
