"""Who gets a place: cameras, consumers and HTTP have their own, and of each an address has its share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from services.detector.metrics import TOO_MANY_SESSIONS, TOO_MANY_SUBSCRIBERS
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.listening import naming_address, permitted_connections
from stream.errors import SessionError
from stream.leaky_bucket import LeakyBucket
from stream.session.close_codes import CloseCode
from stream.transport.listener import (
    CLOSING,
    MADE_WAY,
    TOO_MANY_FROM_ADDRESS,
    TOO_OFTEN,
    AcceptedSocket,
    Listener,
)
from stream.transport.places import AddressRates, ConnectionRates, Place, Places
from stream.transport.websocket import WireBytes

log = structlog.get_logger(__name__)

EXTRA_SESSIONS = 16  # cameras that say hello beside those that stream
BURST_S = 8  # seconds' worth of each rate that may come at once: a site's cameras after a power cut
LEAST_HTTP = 4


def wanted_connections(settings: DetectorSettings) -> int:
    """How many connections a detector wants to have open at a time."""
    return settings.max_streams + EXTRA_SESSIONS + settings.max_subscribers + CLOSING + settings.max_http


class NoPlace(SessionError):
    """There is none, or none any more. `refusal` is the reason as metrics have it."""

    def __init__(self, refusal: str, reason: str) -> None:
        super().__init__(CloseCode.TRY_AGAIN_LATER, reason)
        self.refusal = refusal


class Seat:
    """A connection's place among the cameras or consumers, if it got one."""

    def __init__(self, connection: AcceptedSocket) -> None:
        self.wire: WireBytes = connection.wire
        self.refused: NoPlace | None = None
        self._connection = connection
        self._settled = False
        self._evicted = asyncio.Event()

    def settle(self) -> None:
        """It is a WebSocket now, and gives its place of HTTP's back; what was no upgrade keeps that one alone."""
        if self.refused is None:
            self._settled = True
            self._connection.leave_pool()

    def leave(self) -> None:
        """It is over: without a place a connection is not to stay, as one of a peer that takes nothing would."""
        if self._settled:
            self._connection.end()

    def check(self) -> None:
        """Raise NoPlace where it got none."""
        if self.refused:
            raise self.refused

    async def until_evicted(self) -> None:
        """Raise NoPlace once it has to make way for another connection."""
        await self._evicted.wait()
        raise NoPlace(MADE_WAY, "there are too many connections: this one made way for a newer one")

    def evict(self) -> None:
        """Make way."""
        self._evicted.set()


class Admission:
    """The detector's door. A connection has a place of HTTP's until it is a WebSocket that has one of its kind.

    A place is taken before anything is awaited: what comes in one burst is counted one by one.
    """

    def __init__(self, settings: DetectorSettings, statistics: DetectorStatistics) -> None:
        self._settings, self._statistics = settings, statistics
        per_address, rate = settings.max_per_address, settings.address_rate
        self._cameras = Places(settings.max_streams + EXTRA_SESSIONS, per_address)
        self._consumers = Places(settings.max_subscribers, per_address, own=False)
        strangers = settings.stranger_rate
        self._requests = AddressRates(rate, round(rate * BURST_S))
        self._rates = ConnectionRates(
            AddressRates(rate, round(rate * BURST_S)),
            LeakyBucket(round(1e9 / strangers), round(strangers * BURST_S)),
        )
        self.listener: Listener | None = None

    def listen(self) -> Listener:
        """Begin to listen. Raises CannotListen, SettingsError where the process may open hardly a file."""
        settings = self._settings
        wanted = wanted_connections(settings)
        max_open = permitted_connections(wanted)
        # Where there are few files keep-alives are not to have most of them.
        http = (
            settings.max_http
            if max_open == wanted
            else max(LEAST_HTTP, min(settings.max_http, max_open // 4))
        )
        with naming_address(settings.host, settings.port):
            self.listener = Listener.bound(
                settings.host,
                settings.port,
                Places(http, settings.max_per_address),
                max_open=max_open,
                rates=self._rates,
                on_refuse=self.refuse,
            )
        return self.listener

    def refuse(self, reason: str, address: str) -> None:
        """Count a connection or request that is not let in, or made way, and tell the log, which keeps itself short."""
        self._statistics.refuse(reason)
        log.warning("connection refused", reason=reason, peer=address)

    def know(self, request: web.Request) -> None:
        """Who asks has shown a token that is good, or is a camera that was welcomed: its address is no stranger's."""
        if connection := self._connection(request):
            self._rates.know(connection.place.address)

    @contextmanager
    def camera(self, request: web.Request, may_go: Callable[[], bool]) -> Iterator[Seat | None]:
        """A camera's seat, of which it can be driven as long as `may_go`; None where the peer is gone already."""
        with self._take(self._cameras, request, may_go, TOO_MANY_SESSIONS) as seat:
            yield seat

    @contextmanager
    def consumer(self, request: web.Request) -> Iterator[Seat | None]:
        """A consumer's seat; None where the peer is gone already."""
        with self._take(self._consumers, request, lambda: True, TOO_MANY_SUBSCRIBERS) as seat:
            yield seat

    @contextmanager
    def _take(
        self, places: Places, request: web.Request, may_go: Callable[[], bool], full: str
    ) -> Iterator[Seat | None]:
        connection = self._connection(request)
        if connection is None:
            yield None
            return
        seat = Seat(connection)
        place = Place(connection.place.address, connection.place.heard_ns, seat.evict, may_go)
        refusal = places.take(place)
        if refusal == "full":
            seat.refused = NoPlace(full, "too many connections")
        elif refusal == "address":
            seat.refused = NoPlace(
                TOO_MANY_FROM_ADDRESS, "too many connections from this address (--max-per-address)"
            )
        try:
            yield seat
        finally:
            places.release(place)
            seat.leave()

    @web.middleware
    async def note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A middleware that refuses addresses which ask too often, before anything is done for them."""
        if connection := self._connection(request):
            connection.has_requested = True
            address = connection.place.address
            if not self._requests.take(address, time.monotonic_ns()):
                self.refuse(TOO_OFTEN, address)
                error = {"error": "too many requests from this address (--address-rate)"}
                answer = web.json_response(error, status=429, headers={"Retry-After": "1"})
                answer.force_close()
                return answer
        return await handler(request)

    def _connection(self, request: web.Request) -> AcceptedSocket | None:
        """The request's socket; None where the peer is gone already."""
        assert self.listener is not None
        peer = request.transport.get_extra_info("peername") if request.transport else None
        return self.listener.accepted.get(peer)
