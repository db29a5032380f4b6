"""Writes a stream's packets to files of a folder, one after the other, and deletes the oldest."""

from __future__ import annotations

import errno
import os
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import structlog

from services.recording.claim import RecordingClaim
from services.recording.folder import SegmentFile, last_number, segment_files
from services.recording.limits import RecordingLimits
from stream.recording.records import RecordType, pack_packet, pack_record
from stream.recording.segment import SegmentHead
from stream.tasks.backoff import Backoff, Failure

log = structlog.get_logger(__name__)

TOO_SMALL = "--record-mib is too small for a file with a single packet"
SYNC_S = 5.0  # between two calls of fdatasync: what a power failure may cost

LossCause: TypeAlias = Literal["queue", "disk_full", "unwritable", "keyframe"]
"""Why a packet was not recorded.

queue: the disk is slower than the camera. disk_full, unwritable: the file system refuses. keyframe: the packet is a
difference from one that was not recorded.
"""
_TODO = {
    "disk_full": "free space there, lower --record-mib, or name another folder",
    "unwritable": "name a folder that can be written, and let it have enough",
}
LOSS_CAUSES: tuple[LossCause, ...] = get_args(LossCause)


@dataclass(frozen=True, slots=True, eq=False)
class PacketToRecord:
    """One packet as the encoder made it."""

    head: SegmentHead  # the same object for all packets of a connection
    data: bytes
    captured_ns: int
    keyframe: bool


@dataclass(slots=True)
class Written:
    """What became of some packets."""

    packets: int = 0
    packet_bytes: int = 0  # in the file, with what is around them
    lost: Counter[LossCause] = field(default_factory=Counter)
    wants_keyframe: bool = False  # for the next segment to begin, or because a packet is missing
    by_file: Counter[Path] = field(default_factory=Counter)  # packets
    ended: list[Path] = field(default_factory=list)  # files to which nothing is added any more
    deleted: list[Path] = field(default_factory=list)  # the oldest ones, for room


class SegmentWriter:
    """One stream's recording. Everything here blocks: for a worker thread, which owns it.

    Whatever the disk does costs packets, which are counted, and nothing else; it is tried again for ever.
    """

    def __init__(
        self, folder: Path, stream: str, limits: RecordingLimits, claim: RecordingClaim | None = None
    ) -> None:
        """`claim` is taken before anything is written; None: nobody else is there."""
        self._folder, self._stream, self._limits, self._claim = folder, stream, limits, claim
        self._file: int | None = None
        self._head: SegmentHead | None = None  # of the file that is open
        self._current = SegmentFile.named(folder, stream, 0)
        self._size = self._head_size = 0  # of the current file, and of what it begins with
        self._began_s = self._synced_s = 0.0
        self._closed: deque[SegmentFile] = deque()  # the oldest first
        self._closed_bytes = 0
        self._needs_keyframe = True  # before anything else can be written
        self._holds_packets = False  # the current file
        self._backoff = Backoff(random.Random())
        self._failure: LossCause | None = None  # why nothing is written now
        self._retry_s = 0.0  # when it is tried again
        self._written = Written()  # what is being written

    def write(self, packets: Sequence[PacketToRecord]) -> Written:
        """Record the packets, in order."""
        written = self._written = Written()
        for packet in packets:
            if cause := self._write(packet):
                written.lost[cause] += 1
            else:
                written.packets += 1
                written.packet_bytes += len(packet.data)
                written.by_file[self._current.path] += 1
        written.wants_keyframe = self._file is not None and (self._needs_keyframe or self._is_full)
        return written

    def close(self) -> Written:
        """End the current file; packets may follow, in another one. May be called again; raises nothing."""
        written = self._written = Written()
        try:
            self._close()
        except OSError as error:
            self._fail(error)
        return written

    def release(self) -> None:
        """Leave the stream's files to another program; raises nothing."""
        if self._claim:
            self._claim.release()

    @property
    def _is_full(self) -> bool:
        age_s = time.monotonic() - self._began_s
        is_large = self._size - self._head_size >= self._limits.segment_bytes
        return self._holds_packets and (is_large or age_s >= self._limits.segment_s)

    def _write(self, packet: PacketToRecord) -> LossCause | None:
        """Why the packet was not recorded; None if it was."""
        if self._failure and time.monotonic() < self._retry_s:
            return self._failure
        try:
            self._continue(packet)
            if self._needs_keyframe and not packet.keyframe:
                return "keyframe"
            record = pack_packet(packet.data, packet.captured_ns)
            if not self._make_room(len(record)):
                if not self._holds_packets:
                    raise OSError(errno.EFBIG, TOO_SMALL)
                self._needs_keyframe = True
                return "keyframe"
            self._append(record)
        except OSError as error:
            return self._fail(error)
        self._needs_keyframe, self._holds_packets = False, True
        return None

    def _continue(self, packet: PacketToRecord) -> None:
        """Have a file open in which the packet may stand. Raises OSError."""
        head = self._head
        is_other = head is not None and head is not packet.head and not head.is_continued_by(packet.head)
        if is_other or (packet.keyframe and self._is_full):
            self._close()
        if self._file is None:
            self._open(packet.head)
        self._head = packet.head

    def _open(self, head: SegmentHead) -> None:
        """Begin a file. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._claim:
            self._claim.take()
        start = head.pack()  # before there is a file, which a crash would leave without it
        self._closed = deque(segment_files(self._folder, self._stream))
        self._closed_bytes = sum(file.size for file in self._closed)
        self._current = SegmentFile.named(self._folder, self._stream, self._next_number())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._current.path, flags, 0o600)
        self._size = self._head_size = 0
        self._needs_keyframe, self._holds_packets = True, False
        self._began_s = self._synced_s = time.monotonic()
        if not self._make_room(len(start)):
            raise OSError(errno.EFBIG, TOO_SMALL)
        self._append(start)
        self._head_size = self._size
        _sync_folder(self._folder)
        if self._failure:
            log.info("recording goes on", folder=str(self._folder), stream=self._stream)
        self._failure = None
        self._backoff.reset()
        log.info("recording", file=str(self._current.path))

    def _next_number(self) -> int:
        """Behind all that are there, and never one twice: who reads a file may go by its name. Raises OSError."""
        known = self._claim.newest if self._claim else 0
        return max(last_number(self._folder, self._stream), self._current.number, known) + 1

    def _make_room(self, size: int) -> bool:
        """Delete the oldest files until so many bytes fit; False where there is nothing to delete. Raises OSError."""
        while self._closed and self._closed_bytes + self._size + size > self._limits.total_bytes:
            oldest = self._closed[0]
            with suppress(FileNotFoundError):
                oldest.path.unlink()
            self._closed.popleft()
            self._closed_bytes -= oldest.size
            self._written.deleted.append(oldest.path)
            log.debug("oldest file of the recording deleted", file=str(oldest.path))
        return self._closed_bytes + self._size + size <= self._limits.total_bytes

    def _append(self, data: bytes) -> None:
        """Write all of it, or leave the file as it was. Raises OSError."""
        assert self._file is not None
        at = 0
        while at < len(data):
            at += os.write(self._file, data[at:])
        self._size += len(data)
        now_s = time.monotonic()
        if now_s - self._synced_s >= SYNC_S:
            self._synced_s = now_s
            if not os.fstat(self._file).st_nlink:
                raise OSError(errno.ENOENT, "the file was deleted while it was written")
            os.fdatasync(self._file)

    def _close(self) -> None:
        """End the current file, so that who reads it knows that nothing is missing at its end. Raises OSError."""
        file = self._leave_file()
        if file is None:
            return
        try:
            if self._holds_packets:
                os.write(file, pack_record(RecordType.END))
                os.fdatasync(file)
            else:
                self._current.path.unlink()
        finally:
            os.close(file)

    def _leave_file(self) -> int | None:
        """Add nothing more to the current file, whose descriptor this is."""
        file, self._file, self._head = self._file, None, None
        if file is not None:
            self._written.ended.append(self._current.path)
        return file

    def _fail(self, error: OSError) -> LossCause:
        """Leave the current file as it was before the packet, and try again later."""
        cause: LossCause = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "unwritable"
        if (file := self._leave_file()) is not None:
            with suppress(OSError):
                os.ftruncate(file, self._size)
            with suppress(OSError):
                os.close(file)
            if not self._holds_packets:
                with suppress(OSError):
                    self._current.path.unlink()
        delay_s = self._backoff.next_delay_s(Failure.REFUSED, time.monotonic())
        self._retry_s, self._needs_keyframe = time.monotonic() + delay_s, True
        if self._failure != cause:
            log.error(
                "not recorded",
                reason=error.strerror or str(error),
                folder=str(self._folder),
                todo=_TODO[cause],
            )
        self._failure = cause
        return cause


def _sync_folder(folder: Path) -> None:
    """Let the name of a new file last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
