"""What of a recording is still to be sent: each packet is settled once, whatever becomes of its file."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import structlog

from codec.packet_file import MAX_FILE_PACKET_BYTES
from services.recording.claim import RecordingClaim
from services.recording.folder import SegmentFile, segment_files
from services.recording.player import PlayedStream
from services.recording.segment_writer import Written
from services.regular_file import open_regular
from stream.errors import NoRecording
from stream.recording.segment import Segment

log = structlog.get_logger(__name__)

LateLoss: TypeAlias = Literal["deleted", "unreadable", "refused"]
"""Why a packet that was kept is never sent.

deleted: its file was, for room (--record-mib) or by somebody. unreadable: the file is damaged, or cannot be read.
refused: no detector takes it, as its network is another one.
"""
LATE_LOSSES: tuple[LateLoss, ...] = get_args(LateLoss)

OnSettled: TypeAlias = Callable[[str, int], None]


@dataclass(slots=True)
class _File:
    """A file with packets that wait."""

    waiting: int = 0
    ended: bool = False  # nothing is added any more


class Backlog:
    """The packets of a stream's recording that wait: kept = settled + waiting, at every moment.

    What is settled has an outcome: "detected", the detector's reason for a reject, or a LateLoss. `on_change` is told
    of each with a count, and "kept" of what joins.
    """

    def __init__(self, folder: Path, stream: str, on_change: OnSettled = lambda outcome, count: None) -> None:
        self.kept = 0
        self.settled: Counter[str] = Counter()
        self._folder, self._stream, self._on_change = folder, stream, on_change
        self._files: dict[Path, _File] = {}  # the oldest first
        self._found: list[Path] = []  # of an earlier process, not yet counted
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Packets that are neither settled nor lost."""
        return sum(file.waiting for file in self._files.values())

    def follow(self, written: Written) -> None:
        """The recorder has written, ended or deleted files."""
        for path, packets in written.by_file.items():
            self._keep(path, packets)
        for path in written.ended:
            if path in self._files:
                self._files[path].ended = True
                self._changed.set()
        for path in written.deleted:
            self.lose(path, "deleted")

    async def look(self, claim: RecordingClaim | None = None) -> None:
        """See which files an earlier process has left, before this one records; none where another has the claim."""
        try:
            files = await asyncio.to_thread(self._look, claim)
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("what an outage left is not sent", folder=str(self._folder), reason=error.strerror)
            return
        self._found = [file.path for file in files]

    def _look(self, claim: RecordingClaim | None) -> list[SegmentFile]:
        """Raises OSError."""
        try:
            if claim:
                claim.take()
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise
            # What cannot be written may be read.
        return segment_files(self._folder, self._stream)

    async def count_found(self) -> None:
        """Read those files, which may take a while, and have their packets wait too."""
        found, self._found = self._found, []
        for path in found:
            packets = await asyncio.to_thread(count_late_packets, path)
            if packets:
                self._keep(path, packets)
                self._files[path].ended = True
            elif packets == 0:
                await asyncio.to_thread(_delete, path)
        # What was found is older than what was recorded meanwhile. Numbers have as many digits as they need.
        self._files = dict(sorted(self._files.items(), key=lambda item: (len(item[0].name), item[0].name)))
        self._changed.set()

    async def next_file(self) -> Path:
        """The oldest file to which nothing is added any more, waiting for it."""
        while True:
            for path, file in self._files.items():
                if file.ended:
                    return path
            self._changed.clear()
            await self._changed.wait()

    def holds(self, path: Path) -> bool:
        """Whether packets of the file wait."""
        return path in self._files

    def settle(self, path: Path, outcome: str) -> None:
        """A packet of the file was answered; one of a file that is counted as lost is counted no more."""
        file = self._files.get(path)
        if file and file.waiting:
            file.waiting -= 1
            self._count(outcome, 1)

    def lose(self, path: Path, reason: LateLoss) -> None:
        """What waits in the file is never sent."""
        if file := self._files.pop(path, None):
            self._count(reason, file.waiting)

    def finish(self, path: Path) -> None:
        """The file is over; packets that it should have had and did not are lost."""
        self.lose(path, "unreadable")

    @property
    def account(self) -> Mapping[str, int]:
        """All counts, for people."""
        return {"kept": self.kept, **self.settled, "waiting": self.waiting}

    def _keep(self, path: Path, packets: int) -> None:
        self._files.setdefault(path, _File()).waiting += packets
        self.kept += packets
        self._on_change("kept", packets)

    def _count(self, outcome: str, count: int) -> None:
        if count:
            self.settled[outcome] += count
            self._on_change(outcome, count)


def count_late_packets(path: Path) -> int | None:
    """Packets of an outage that the file holds and that can be played; None: it is of none. Reads all of it.

    0 of a file that was begun for an outage, or only made, by a program that was killed then.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return 0
            segment = Segment(file, size)
            if (
                not segment.hello.late
            ):  # recorded for another purpose, which sending and deleting it would end
                log.info("file left alone", file=str(path), reason="no outage's")
                return None
            most = min(PlayedStream.of(segment).packet_format.max_packet_bytes, MAX_FILE_PACKET_BYTES)
            return sum(1 for _ in segment.packets(segment.first_packet, most))
    except (OSError, NoRecording) as error:
        log.warning("file left out", file=str(path), reason=str(error))
        return None


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
