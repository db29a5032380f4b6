"""One connection of a camera: the name that it holds, and its stream while it does."""

from __future__ import annotations

import asyncio
import time

from codec.layout import Layout
from services.access.tokens import Grant
from services.detector.names import NameClaim, Names, Sender
from services.detector.publisher import Publisher
from services.detector.statistics import DetectorStatistics
from services.detector.streams import Ending, Stream, Streams
from stream.errors import SessionError
from stream.late_name import camera_name
from stream.session.close_codes import CloseCode
from stream.session.messages import Hello, Report, Waiting

GHOST_S = (
    2.5  # without a byte, after which another camera with the same token may have its name: both ends ping
)
STALLED_S = 5.0  # without a byte from the camera, after which its stream counts as stalled
SILENCE_S = 10.0  # after which it is left


class Visit:
    """Lets a connection have its stream as long as no newer one of the same camera has taken it over."""

    def __init__(
        self,
        names: Names,
        streams: Streams,
        publisher: Publisher,
        statistics: DetectorStatistics,
        grant: Grant,
        *,
        addressed: str | None = None,
    ) -> None:
        self.grant = grant
        """What the camera's token grants."""
        self.addressed = addressed
        """The stream that the address of the connection names, if it names one."""
        self._names, self._streams = names, streams
        self._publisher, self._statistics = publisher, statistics
        self._replaced, self._crowded = asyncio.Event(), asyncio.Event()
        self._silence_s = 0.0
        self._claim: NameClaim | None = None
        self._stream: Stream | None = None
        self.welcomed = False  # whether the camera has passed the handshake

    @property
    def has_name(self) -> bool:
        """Whether the camera has had a stream's name on this connection."""
        return self._claim is not None

    def check_granted(self, name: str) -> None:
        """Raise SessionError where the camera's token does not grant the name, or another's reserves it.

        Who may send a stream may send it late.
        """
        name = camera_name(name)
        if not self.grant.may_send(name):
            reason = "belongs to another token" if self.grant.may_stream(name) else "is not granted"
            raise SessionError(
                CloseCode.STREAM_NOT_GRANTED,
                f"stream {name!r} {reason}: token {self.grant.owner!r} cannot send it; choose --stream",
            )

    def check(self, name: str, secret: str | None) -> None:
        """Raise SessionError where the camera cannot have the name."""
        if self._claim is None:
            self._names.check(name, self._sender(secret), time.monotonic_ns())

    def wait(self, waiting: Waiting) -> None:
        """A camera without a picture takes its name. Raises SessionError where it cannot have it."""
        self._streams.wait(self._take(waiting.stream, waiting.session), waiting, time.time())

    def greet(self, hello: Hello, layout: Layout) -> Stream:
        """A camera that agrees on all takes its name. Raises SessionError where it cannot have it."""
        stream = self._take(hello.stream, hello.session)
        assert self._claim is not None
        gaps = stream.numbers.connect(hello, same_camera=self._claim.same_camera)
        self._streams.greet(stream, hello, layout, time.monotonic_ns(), time.time())
        self._publisher.publish_gaps(stream, gaps)
        self.welcomed = True
        return stream

    def report(self, report: Report) -> None:
        """The camera has reported."""
        if stream := self._current():
            self._streams.report(stream, report, time.monotonic_ns(), time.time())
            self._publisher.publish_gaps(stream, stream.numbers.report(report))

    def hear(self, silence_s: float) -> None:
        """Nothing has come from the camera for so long. Raises SessionError where that is too long."""
        self._silence_s = silence_s
        if stream := self._current():
            self._streams.hear(stream, STALLED_S if silence_s >= STALLED_S else 0.0, time.time())
        if silence_s >= SILENCE_S:
            raise SessionError(CloseCode.TIMEOUT, f"nothing came for {SILENCE_S:g} s")

    async def until_replaced(self) -> None:
        """Raise SessionError once a newer connection of the same camera has taken over."""
        await self._replaced.wait()
        raise SessionError(
            CloseCode.REPLACED, "the same camera has connected anew, or a copy of it with its session file"
        )

    async def until_crowded(self) -> None:
        """Raise SessionError once a live camera needs the place of this stream, which is late."""
        await self._crowded.wait()
        raise SessionError(CloseCode.TOO_MANY_STREAMS, "a live camera needs the place (--max-streams)")

    def leave(self, reason: str, ending: Ending, *, reserve: bool) -> None:
        """The connection is over, for a reason; its camera alone may have the name for a while if it is reserved."""
        if self._claim and self._stream and self._names.holds(self._claim):
            self._names.release(self._claim, time.monotonic_ns(), reserve=reserve)
            self._stream.ending = ending
            self._streams.leave(self._stream, reason, time.time(), ended=ending == "ended")

    def _sender(self, secret: str | None) -> Sender:
        return Sender(
            secret, self.grant, self._replaced.set, self._crowded.set, lambda: self._silence_s >= GHOST_S
        )

    def _take(self, name: str, secret: str | None) -> Stream:
        if self._stream is None:
            now_ns, last = time.monotonic_ns(), self._streams.get(name)
            self._claim = self._names.take(name, self._sender(secret), now_ns)
            if last:
                self._statistics.reconnect("replaced" if last.connected else last.ending)
            self._stream = self._streams.arrive(name, now_ns, time.time())
        return self._stream

    def _current(self) -> Stream | None:
        return self._stream if self._claim and self._names.holds(self._claim) else None
