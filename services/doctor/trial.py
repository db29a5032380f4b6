"""A trial at the detector: whether it would take this camera, and what the way there carries.

docs/protocol.md has it: a trial takes no stream's name, and nothing of it is published.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

from services.camera.pipeline import FeaturePipeline
from services.camera.session_secret import kept_secret
from services.camera.settings import CameraSettings
from services.camera.statistics import CameraStatistics
from services.certificates import client_tls
from services.doctor.examination import in_thread
from services.doctor.peer import ANSWER_S
from services.own_token import current_headers
from stream.addresses import features_url
from stream.errors import ConnectionLost, SessionError
from stream.session.camera import Accepted, CameraEvent, CameraSession, ProfileRequested
from stream.session.messages import FEATURES_PROTOCOL
from stream.transport.websocket import Link, connect

PINGS = 10
FIRST_BYTES, MOST_BYTES = 16 * 1024, 4 * 2**20  # of a burst; each is twice the one before
LONG_ENOUGH_S = 0.4  # for a burst to tell what the link carries
_MOST_UNANSWERED = 1024


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """What a link does, there and back."""

    round_trip_s: float  # of the smallest packet, in the middle of several
    jitter_s: float  # by which the slowest of these took longer than the fastest
    kbps: float  # kbit/s that the link carried to the detector
    is_least: bool  # it may carry more: the largest burst was over at once
    window: int  # unanswered packets that the detector allows
    frames_per_s: float | None  # that the token allows; None: any
    max_packet_bytes: int  # that the detector takes, or the token allows


class Trial:
    """The session on a link, on which nothing has been said yet."""

    def __init__(self, link: Link, settings: CameraSettings, pipeline: FeaturePipeline) -> None:
        self._link, self._settings, self._pipeline = link, settings, pipeline
        self._session: CameraSession[None] = CameraSession(_MOST_UNANSWERED)

    async def begin(self, secret: str | None) -> Accepted:
        """Ask whether this camera would be welcome; `secret` is that by which the detector knows it, if it does.

        Raises ConnectionLost, with the detector's close code and reason where it would not.
        """
        codec = self._pipeline.codec
        hello = self._pipeline.hello(self._settings, CameraStatistics(), session=secret, live=True)
        trial = hello.model_copy(update={"type": "trial"})
        await self._link.send(self._session.introduce(trial, codec.profile.hash if codec.profile else None))
        while True:
            match await self._next():
                case Accepted() as accepted:
                    return accepted
                case ProfileRequested():
                    assert codec.profile is not None
                    await self._link.send(await in_thread(codec.profile.pack))

    async def measure(self, accepted: Accepted) -> MeasuredLink:
        """What the way there carries. Fills the link, for about a second. Raises ConnectionLost."""
        trips_s = [await self._burst(1) for _ in range(PINGS)]
        size, fastest_s = FIRST_BYTES, min(trips_s)
        while (took_s := await self._burst(size)) < LONG_ENOUGH_S + fastest_s and size < MOST_BYTES:
            size *= 2
        # The last answer is on its way back for as long as the link carries nothing of the burst.
        carrying_s = max(took_s - fastest_s, took_s / 10)
        return MeasuredLink(
            median(trips_s),
            max(trips_s) - fastest_s,
            8 * size / carrying_s / 1000,
            took_s < LONG_ENOUGH_S,
            accepted.window,
            accepted.frames_per_s,
            self._session.max_packet_bytes,
        )

    async def _burst(self, size: int) -> float:
        """Seconds from the first of so many bytes to the answer to the last."""
        session = self._session
        packet_bytes = max(1, min(session.max_packet_bytes, size // 4))
        began_s, sent = time.monotonic(), 0
        while sent < size or session.unanswered:
            if sent < size and session.can_send:
                count = min(packet_bytes, size - sent)
                session.sent(None)
                await self._link.send(bytes(count))
                sent += count
            else:
                await self._next()
        return time.monotonic() - began_s

    async def _next(self) -> CameraEvent[None]:
        """What the detector says next. Raises ConnectionLost."""
        try:
            return self._session.receive(await self._link.receive())
        except SessionError as error:
            await self._link.close(error.code, error.reason)
            raise ConnectionLost(f"what answers breaks the protocol: {error.reason}", error.code) from None


@asynccontextmanager
async def features_link(settings: CameraSettings, *, shows_token: bool = True) -> AsyncIterator[Link]:
    """A link to the detector as the camera has it, which ends where nothing comes any more. Raises ConnectionLost."""
    url, tls = features_url(settings.detector, settings.stream), client_tls(settings)
    headers = await current_headers(settings) if shows_token else {}
    async with connect(url, FEATURES_PROTOCOL, headers=headers, tls=tls, connect_timeout_s=ANSWER_S) as link:
        watching = asyncio.ensure_future(_leave_silent(link))
        try:
            yield link
        finally:
            watching.cancel()


async def _leave_silent(link: Link) -> None:
    """Let whoever receives know once nothing comes any more."""
    try:
        await link.abort_when_silent(ANSWER_S)
    except ConnectionLost as lost:
        link.abort(lost.reason)


async def ask_welcome(settings: CameraSettings, pipeline: FeaturePipeline) -> Accepted:
    """Whether the detector would take this camera. Raises ConnectionLost, which says why not."""
    secret = await in_thread(kept_secret, settings.stream)
    async with features_link(settings) as link:
        return await Trial(link, settings, pipeline).begin(secret)


async def measure_way(settings: CameraSettings, pipeline: FeaturePipeline) -> MeasuredLink:
    """What the way to the detector carries. Raises ConnectionLost."""
    secret = await in_thread(kept_secret, settings.stream)
    async with features_link(settings) as link:
        trial = Trial(link, settings, pipeline)
        return await trial.measure(await trial.begin(secret))
