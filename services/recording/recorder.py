"""Takes packets on the event loop and has a thread write them: whatever the disk does, the loop waits for nothing."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Self, TypeAlias

import structlog

from codec.feature.profile import Profile
from codec.interface import EncodedFrame
from services.clock import ClockWatch
from services.recording.claim import RecordingClaim
from services.recording.limits import RecordingLimits
from services.recording.segment_writer import LossCause, PacketToRecord, SegmentWriter, Written
from stream.recording.segment import SegmentHead
from stream.session.messages import Hello
from stream.tasks.worker import Worker

log = structlog.get_logger(__name__)

MAX_QUEUE_BYTES = 32 * 2**20  # of packets that wait for the disk
MAX_QUEUE_PACKETS = 1024
LAST_WRITES_S = 5.0  # that a disk may take for what still waits at the end

OnWritten: TypeAlias = Callable[[Written], None]


class Recorder:
    """One stream's recording, as the event loop sees it: written while its context lasts, to the last that waits."""

    def __init__(
        self,
        folder: Path,
        stream: str,
        limits: RecordingLimits,
        on_written: OnWritten = lambda written: None,
        claim: RecordingClaim | None = None,
    ) -> None:
        """`claim` is taken before anything is written; None: nobody else is there."""
        self.packets = 0  # written
        self.lost: Counter[LossCause] = Counter()
        self._stream, self._on_written = stream, on_written
        self._writer = SegmentWriter(folder, stream, limits, claim)
        self._worker = Worker("recorder")
        self._head: SegmentHead | None = None
        self._clock = ClockWatch()
        self._queue: deque[PacketToRecord | None] = deque()  # None: the file is to be ended
        self._queue_bytes = 0
        self._changed, self._has_room = asyncio.Event(), asyncio.Event()
        self._has_room.set()
        self._chained = True  # the packet before was not lost here
        self._keyframe_due = self._keyframe_asked = False
        self._closing = False

    async def __aenter__(self) -> Self:
        self._writing = asyncio.ensure_future(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._changed.set()
        await asyncio.wait([self._writing], timeout=LAST_WRITES_S)
        self._worker.close()
        if self._writing.done():
            log.info("recording ended", stream=self._stream, packets=self.packets, lost=self.lost.total())
            self._writing.result()  # a defect of ours
        else:
            self._writing.cancel()
            log.error("the end of the recording is not written", stream=self._stream, reason="the disk hangs")

    def begin(self, hello: Hello, profile: Profile | None) -> None:
        """What follows is what a camera sends that says this hello: a keyframe first."""
        self._head, self._clock = SegmentHead(hello, profile), ClockWatch()
        self._keyframe_due = self._keyframe_asked = False

    def take_keyframe_due(self) -> bool:
        """Whether the next packet should be a keyframe, so that the recording can go on from it; True once.

        Where the time of day was set, it goes on in a file of the new time.
        """
        if self._head and (step_ns := self._clock.step_ns()):
            self._head = self._head.set_by(step_ns)
            self._keyframe_due = True
        due, self._keyframe_due = self._keyframe_due, False
        return due

    async def has_room(self) -> None:
        """Wait until a packet is not lost for the disk's slowness: for a source that can wait."""
        await self._has_room.wait()

    def offer(self, encoded: EncodedFrame, captured_ns: int) -> None:
        """Record the packet, if the disk keeps up; what it loses is counted."""
        assert self._head is not None
        if encoded.keyframe:
            self._keyframe_due = self._keyframe_asked = False
        if not self._has_room.is_set():
            self._chained = False
            self._settle(Written(lost=Counter({"queue": 1})))
        elif not encoded.keyframe and not self._chained:
            self._settle(Written(lost=Counter({"keyframe": 1}), wants_keyframe=True))
        else:
            self._chained = True
            self._queue.append(PacketToRecord(self._head, encoded.data, captured_ns, encoded.keyframe))
            self._queue_bytes += len(encoded.data)
            self._look_for_room()
            self._changed.set()

    def end_file(self) -> None:
        """Nothing follows for now, and what was offered is to be read: a keyframe comes next."""
        self._queue.append(None)
        self._changed.set()

    async def _write(self) -> None:
        """Write what is offered until `_closing`, and end the file."""
        while self._queue or not self._closing:
            if not self._queue:
                self._changed.clear()
                await self._changed.wait()
                continue
            packets = tuple(packet for packet in takewhile(bool, self._queue) if packet)
            if packets:
                written = await self._worker.run(self._writer.write, packets)
            else:
                written = await self._worker.run(self._writer.close)
                self._queue.popleft()
            for packet in packets:
                self._queue.popleft()
                self._queue_bytes -= len(packet.data)
            self._look_for_room()
            self._settle(written)
        self._settle(await self._worker.run(self._writer.close))
        await self._worker.run(self._writer.release)

    def _settle(self, written: Written) -> None:
        self.packets += written.packets
        self.lost += written.lost
        is_coming = self._keyframe_asked or any(packet and packet.keyframe for packet in self._queue)
        if written.wants_keyframe and not is_coming:
            self._keyframe_due = self._keyframe_asked = True
        self._on_written(written)

    def _look_for_room(self) -> None:
        if self._queue_bytes < MAX_QUEUE_BYTES and len(self._queue) < MAX_QUEUE_PACKETS:
            self._has_room.set()
        else:
            self._has_room.clear()
