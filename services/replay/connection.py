"""One connection of a replay: packets out, answers and detections in, and back to a keyframe where one is wanted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from codec.packet_stream import restamped
from services.certificates import client_tls
from services.detections_address import detections_url
from services.metrics import VERSION
from services.own_token import current_headers
from services.recording.player import PlayedPacket, PlayedStream
from services.replay.ledger import Ledger
from services.replay.line import Line
from services.settings import ClientSettings
from stream.addresses import features_url
from stream.errors import ConnectionLost
from stream.frame_pace import FramePace
from stream.late_name import is_late
from stream.session.camera import (
    Accepted,
    Acknowledged,
    CameraEvent,
    CameraSession,
    KeyframeRequested,
    ProfileRequested,
    Rejected,
    RetryAdvised,
)
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    DETECTIONS_PROTOCOL,
    FEATURES_PROTOCOL,
    LOST_REFERENCE,
    PROTOCOL_VERSION,
    REJECT_REASONS,
    Clock,
    Hello,
    Report,
)
from stream.tasks.background import run_with_background
from stream.transport.answers import answers
from stream.transport.websocket import Link, connect

log = structlog.get_logger(__name__)

SILENCE_S = 10.0  # of a peer, after which it counts as lost
UNSEEN_S = 10.0  # that detections may be late behind the answers
MAX_PENDING = 32  # packets whose detections have not come: fewer than a detector keeps for who watches
REPORT_INTERVAL_S = 1.0
RESTAMP_BYTES = 9  # by which another time may make a packet longer


@dataclass(frozen=True, slots=True)
class Destination:
    """Where packets go, and as whose."""

    client: ClientSettings  # token and certificates
    detector: str
    stream: str | None  # None: the one that was recorded
    window: int


class ReplayConnection:
    """Lives for one `run`: as long as the stream stays what it is."""

    def __init__(self, destination: Destination, line: Line, ledger: Ledger, secret: str) -> None:
        self.retry_after_s: float | None = None  # as the detector asked, before it closed
        self._destination, self._line, self._ledger, self._secret = destination, line, ledger, secret
        self._session: CameraSession[PlayedPacket] = CameraSession(destination.window)
        self._stream: PlayedStream | None = None
        self._pace = FramePace()  # as the detector's welcome has it
        self._rewind_due = False
        self._changed = asyncio.Event()  # the detector has said something
        self._captured_ns = 0  # of the packet before

    @property
    def accepted(self) -> bool:
        """Whether the detector has let this replay in."""
        return self._session.accepted

    async def run(self) -> bool:
        """Send and be answered; True once every packet is settled, False where another stream follows.

        Raises ConnectionLost, OSError, NoRecording.
        """
        first = await self._first_packet()
        if first is None:
            return True
        self._stream = first.stream
        name = self._destination.stream or first.stream.hello.stream
        if not self._ledger.watched:
            return await self._serve(first, name)
        client = self._destination.client
        url = detections_url(self._destination.detector, name, "detections")
        headers, tls = await current_headers(client), client_tls(client)
        async with connect(url, DETECTIONS_PROTOCOL, headers=headers, tls=tls) as link:
            return await run_with_background(
                self._serve(first, name), self._watch(link), link.abort_when_silent(SILENCE_S)
            )

    async def _first_packet(self) -> PlayedPacket | None:
        """The keyframe that a connection has to begin with, so that all that is pending comes again."""
        upcoming = await self._line.peek()
        place = self._ledger.oldest or (upcoming.chain if upcoming else None)
        if place is None:
            return None
        if upcoming is None or not upcoming.keyframe or upcoming.chain != place:
            await self._line.rewind(place)
        return await self._line.peek()

    async def _serve(self, first: PlayedPacket, name: str) -> bool:
        client, url = self._destination.client, features_url(self._destination.detector, name)
        headers, tls = await current_headers(client), client_tls(client)
        async with connect(url, FEATURES_PROTOCOL, headers=headers, tls=tls) as link:
            profile = first.stream.codec.profile
            hello = _hello(first, name, self._secret)
            await link.send(self._session.introduce(hello, profile.hash if profile else None))
            return await run_with_background(
                self._send_all(link),
                self._receive(link),
                self._send_reports(link),
                link.abort_when_silent(SILENCE_S),
            )

    # --- send ---

    async def _send_all(self, link: Link) -> bool:
        """And say goodbye."""
        is_over = await self._send_packets(link)
        await link.send(self._report().text())
        code = CloseCode.NORMAL if is_over else CloseCode.GOING_AWAY
        await link.close(code, "the recording is over" if is_over else "another stream follows")
        return is_over

    async def _send_packets(self, link: Link) -> bool:
        session, ledger = self._session, self._ledger
        while True:
            await self._until(lambda: session.accepted)
            if self._rewind_due:
                await self._rewind()
            packet = await self._line.peek()
            if packet is None or packet.stream is not self._stream:
                await self._until(lambda: not (session.unanswered or ledger.pending))
                if not self._rewind_due:
                    return packet is None
                continue
            if reason := self._hopeless(packet):
                ledger.give_up(packet, reason)
                self._line.advance()
                continue
            await self._until(lambda: session.can_send and ledger.pending < MAX_PENDING)
            if not self._rewind_due:
                await self._line.until_due(packet)
            if session.can_send and not self._rewind_due:
                await self._send(link, packet)

    async def _send(self, link: Link, packet: PlayedPacket) -> None:
        await asyncio.sleep(self._pace.wait_ns(time.monotonic_ns()) / 1e9)
        self._pace.take(time.monotonic_ns())
        elapsed_ns, self._captured_ns = packet.captured_ns - self._captured_ns, packet.captured_ns
        form = packet.stream.packet_format
        data = restamped(packet.data, form, self._session.next_sequence, packet.captured_ns, elapsed_ns)
        self._ledger.send(packet)
        self._session.sent(packet)
        self._line.advance()
        await link.send(data)

    def _hopeless(self, packet: PlayedPacket) -> str | None:
        """Why there is no use in sending the packet."""
        if self._ledger.is_hopeless(packet):
            return "missing_reference"
        is_large = len(packet.data) + RESTAMP_BYTES > self._session.max_packet_bytes
        return "too_large" if is_large else None

    async def _rewind(self) -> None:
        """Go back to the keyframe behind which all that is pending comes again, once everything is answered."""
        while self._session.unanswered:
            await self._until(lambda: not self._session.unanswered)
        self._rewind_due = False
        upcoming = await self._line.peek()
        place = self._ledger.oldest or (upcoming.chain if upcoming else None)
        if place is not None:
            await self._line.rewind(place)

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Wait until it is, or until a keyframe is wanted. Raises ConnectionLost where detections do not come."""
        while not ready() and not (self._rewind_due and not self._session.unanswered):
            self._changed.clear()
            try:
                async with asyncio.timeout(UNSEEN_S):
                    await self._changed.wait()
            except TimeoutError:
                if not self._session.unanswered and self._ledger.pending:
                    raise ConnectionLost(
                        f"detections of {self._ledger.pending} packets did not come"
                    ) from None

    # --- receive ---

    async def _receive(self, link: Link) -> None:
        async for event in answers(link, self._session):
            await self._on_event(link, event)
            self._changed.set()

    async def _on_event(self, link: Link, event: CameraEvent[PlayedPacket]) -> None:
        match event:
            case Accepted(_, frames_per_s):
                self._pace.limit(frames_per_s)
                log.info("replaying", detector=self._destination.detector)
            case ProfileRequested():
                assert self._stream
                assert self._stream.codec.profile
                await link.send(await asyncio.to_thread(self._stream.codec.profile.pack))
            case Acknowledged(packet, _, detections):
                self._ledger.acknowledge(packet, detections)
            case Rejected(packet, _, reason, detail):
                log.warning("packet rejected", number=packet.number, reason=reason, detail=detail)
                self._rewind_due |= self._ledger.reject(packet, reason, final=reason not in LOST_REFERENCE)
            case KeyframeRequested():
                self._rewind_due = True
            case RetryAdvised(after_s):
                self.retry_after_s = after_s

    async def _watch(self, link: Link) -> None:
        """Take the detections. Raises ConnectionLost where some are missing."""
        async for data in link:
            try:
                message: Any = json.loads(data)
                if message.get("dropped"):
                    raise ConnectionLost("detections came faster than this machine takes them")
                if message.get("type") == "detections":
                    self._ledger.see(message["captured_ns"], message["predictions"])
                    self._changed.set()
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                raise ConnectionLost(f"what the detector publishes cannot be read: {error}") from None

    # --- beside the packets ---

    async def _send_reports(self, link: Link) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            if self.accepted:
                await link.send(self._report().text())

    def _report(self) -> Report:
        ledger = self._ledger
        return Report(
            captured=ledger.packets,
            detected=ledger.detected,
            in_flight=ledger.pending,
            dropped={f"detector/{reason}": count for reason, count in ledger.rejected.items()},
            source="recording",
        )


def _hello(first: PlayedPacket, name: str, secret: str) -> Hello:
    """What a camera says that has this packet to send first; its times are those of the recording."""
    recorded = first.stream.hello
    return recorded.model_copy(
        update={
            "protocol": PROTOCOL_VERSION,
            "stream": name,
            "session": secret,
            "frame": first.number,
            "welcomes": None,
            "clock": Clock(monotonic_ns=first.captured_ns, unix_ns=first.captured_ns),
            "live": False,
            "late": is_late(name),
            "preview": False,
            "step_map_bytes": 0,
            "reject_reasons": REJECT_REASONS,
            "software": f"splitcast/{VERSION}",
        }
    )
