"""A live camera without head and encoder: recorded packets over a real connection, and what came of each frame."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from services.bench.recording import RecordedPackets, Replay
from services.errors import NotMeasurable
from stream.addresses import features_url
from stream.errors import ConnectionLost, SessionError
from stream.session.camera import (
    Accepted,
    Acknowledged,
    CameraSession,
    KeyframeRequested,
    ProfileRequested,
    Rejected,
)
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL, Report
from stream.tasks.background import run_with_background
from stream.transport.tls import ClientTls
from stream.transport.websocket import Link, connect

REPORT_INTERVAL_S = 1.0
LAST_ANSWERS_S = 10.0
SILENCE_S = 60.0  # a detector that is overloaded pings late

IN_FLIGHT, DETECTED, SUPERSEDED = "in flight", "detected", "superseded"


@dataclass(slots=True, eq=False)
class SimulatedFrame:
    """A frame that a camera captured."""

    captured_ns: int  # when it was due, so that a late load generator makes no detector look fast
    outcome: str = IN_FLIGHT  # or DETECTED, or why it was dropped: SUPERSEDED, or the detector's reason
    latency_ns: int = 0  # capture to acknowledgement


class SimulatedCamera:
    """One stream: at every tick a frame, of which the newest goes as soon as the window allows it."""

    def __init__(
        self, recorded: RecordedPackets, stream: str, session: str, *, window: int, interval_s: float
    ) -> None:
        self.frames: list[SimulatedFrame] = []
        self.welcomed = asyncio.Event()
        self.over = asyncio.Event()
        self._recorded, self._stream, self._secret = recorded, stream, session
        self._interval_ns = round(interval_s * 1e9)
        self._session: CameraSession[SimulatedFrame] = CameraSession(window)
        self._replay = Replay(recorded.packets, recorded.codec.packet_format(recorded.layout))
        self._newest: SimulatedFrame | None = None  # captured, and not sent yet
        self._answered = asyncio.Event()
        self._counts: Counter[str] = Counter()

    async def run(
        self,
        url: str,
        phase_s: float,
        stopping: asyncio.Event,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        """Send frames until `stopping`, the first `phase_s` after the welcome. `headers` and `tls` are as in `connect`.

        Raises NotMeasurable where the detector leaves.
        """
        profile = self._recorded.codec.profile
        try:
            address = features_url(url, self._stream)
            async with connect(address, FEATURES_PROTOCOL, headers=headers, tls=tls) as link:
                hello = self._recorded.hello(self._stream, self._secret)
                await link.send(self._session.introduce(hello, profile.hash if profile else None))
                await run_with_background(
                    self._capture(link, phase_s, stopping),
                    self._receive(link),
                    self._send_reports(link),
                    link.abort_when_silent(SILENCE_S),
                )
        except (ConnectionLost, SessionError) as lost:
            raise NotMeasurable(f"{self._stream}: the detector left: {lost}") from None
        self.over.set()

    async def _capture(self, link: Link, phase_s: float, stopping: asyncio.Event) -> None:
        await self.welcomed.wait()
        due_ns = time.monotonic_ns() + round(phase_s * 1e9)
        while not await _is_set_within(stopping, (due_ns - time.monotonic_ns()) / 1e9):
            if self._newest is not None:
                self._settle(self._newest, SUPERSEDED)
            self._newest = SimulatedFrame(due_ns)
            self.frames.append(self._newest)
            await self._send(link)
            due_ns += self._interval_ns
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS_S):
                while self._session.unanswered:
                    self._answered.clear()
                    await self._answered.wait()
        await link.close(CloseCode.GOING_AWAY, "the measurement is over")

    async def _send(self, link: Link) -> None:
        if self._newest is None or not self._session.can_send:
            return
        frame, self._newest = self._newest, None
        packet = self._replay.take(self._session.next_sequence, frame.captured_ns)
        self._session.sent(frame)
        await link.send(packet)

    async def _receive(self, link: Link) -> None:
        async for message in link:
            match self._session.receive(message):
                case Accepted():
                    self.welcomed.set()
                case ProfileRequested():
                    assert self._recorded.codec.profile
                    await link.send(self._recorded.codec.profile.pack())
                case Acknowledged(frame):
                    frame.latency_ns = time.monotonic_ns() - frame.captured_ns
                    self._settle(frame, DETECTED)
                case Rejected(frame, _, reason):
                    self._settle(frame, reason)
                case KeyframeRequested():
                    self._replay.force_keyframe()
            self._answered.set()
            await self._send(link)

    def _settle(self, frame: SimulatedFrame, outcome: str) -> None:
        frame.outcome = outcome
        self._counts[outcome] += 1

    async def _send_reports(self, link: Link) -> None:
        await self.welcomed.wait()
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            dropped = {
                f"{'grab' if reason == SUPERSEDED else 'detector'}/{reason}": count
                for reason, count in self._counts.items()
                if reason != DETECTED
            }
            report = Report(
                captured=len(self.frames),
                detected=self._counts[DETECTED],
                in_flight=len(self.frames) - self._counts.total(),
                dropped=dropped,
                reconnects={},
                source="recorded packets",
                source_state="open",
                keyframes={},
            )
            await link.send(report.text())


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set before so many seconds were over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    return event.is_set()
