"""Reads recordings: a file or a folder of them, as one line of packets that can be gone back in."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from codec.packet import PacketFormat
from codec.packet_file import MAX_FILE_PACKET_BYTES
from codec.spec import Codec
from services.errors import SettingsError
from services.recording.folder import segment_files
from services.regular_file import open_regular
from stream.errors import NoRecording
from stream.recording.segment import Segment
from stream.session.messages import Hello

log = structlog.get_logger(__name__)


def recording_paths(path: Path, stream: str | None) -> list[Path]:
    """The files of a recording, in order: one file, or those of one stream in a folder.

    Raises OSError, NoRecording where the folder holds none, SettingsError where it holds several and none is named.
    """
    if not path.is_dir():
        return [path]
    files = segment_files(path)
    streams = sorted({file.stream for file in files})
    if not streams:
        raise NoRecording(f"{path} holds no recording: its files would be named STREAM.NUMBER.spr")
    if stream is None and len(streams) > 1:
        raise SettingsError(f"--of: {path} holds recordings of {', '.join(streams)}; say which")
    if stream not in (None, *streams):
        raise SettingsError(f"--of: {path} holds no recording of {stream}; there is {', '.join(streams)}")
    return [file.path for file in files if stream in (None, file.stream)]


def open_file(path: Path) -> BinaryIO:
    """A file of a recording, open for reading. Raises OSError, which names it."""
    try:
        return open_regular(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot read {path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True, eq=False)
class PlayedStream:
    """What packets are of that may be sent over one connection."""

    hello: Hello  # as it was recorded
    codec: Codec
    packet_format: PacketFormat

    @classmethod
    def of(cls, segment: Segment) -> PlayedStream:
        """What is in the file. Raises NoRecording."""
        codec = segment.codec()
        return cls(segment.hello, codec, segment.packet_format(codec))

    def is_as(self, other: PlayedStream) -> bool:
        """Whether nothing differs but where in time it stands."""
        ours, theirs = (
            stream.hello.model_dump(exclude={"clock", "frame", "session"}) for stream in (self, other)
        )
        return ours == theirs


@dataclass(frozen=True, slots=True)
class KeyframePlace:
    """A keyframe's place in a recording: what it takes to play on from there."""

    file: int  # which
    start: int  # of its record, in bytes
    number: int  # of its packet
    captured_ns: int  # of the packet before; 0: there is none


@dataclass(frozen=True, slots=True, eq=False)
class PlayedPacket:
    """A packet of the line."""

    number: int  # over all files
    data: bytes
    keyframe: bool
    captured_ns: int  # Unix time by the camera's clock, and more than that of the packet before
    stream: PlayedStream
    chain: KeyframePlace  # of the keyframe that it is, or hangs on


class Player:
    """Hands out one packet after the other, holding one. Blocks: for a worker thread.

    Of files that follow each other the first may be damaged or cut, and the next plays all the same.
    """

    def __init__(self, paths: list[Path], first: int = 0) -> None:
        """`first` is the number of the first packet."""
        self._paths = paths
        self._stream: PlayedStream | None = None  # of the file that was read last
        self._packets = self._play(KeyframePlace(0, 0, first, 0))

    def next(self) -> PlayedPacket | None:
        """The next packet; None behind the last. Raises OSError, or NoRecording for a file that is the only one."""
        return next(self._packets, None)

    def go_to(self, place: KeyframePlace) -> None:
        """Let `next` be the keyframe at that place."""
        self._packets.close()
        self._packets = self._play(place)

    def _play(self, place: KeyframePlace) -> Generator[PlayedPacket, None, None]:
        number, captured_ns, chain = place.number, place.captured_ns, place
        for index in range(place.file, len(self._paths)):
            returns = index == place.file and place.start > 0  # to a file that was read before
            with self._open(self._paths[index], must=returns) as file:
                read = self._read(file, self._paths[index]) if file else None
                if read is None:
                    continue
                segment, stream, clock = read[0], self._join(read[1]), read[0].hello.clock
                at = place.start if returns else segment.first_packet
                most = min(stream.packet_format.max_packet_bytes, MAX_FILE_PACKET_BYTES)
                for packet in segment.packets(at, most):
                    if packet.keyframe:
                        chain = KeyframePlace(index, packet.start, number, captured_ns)
                    unix_ns = packet.captured_ns - clock.monotonic_ns + clock.unix_ns
                    captured_ns = max(unix_ns, captured_ns + 1) % 2**64
                    yield PlayedPacket(number, packet.data, packet.keyframe, captured_ns, stream, chain)
                    number += 1

    @contextmanager
    def _open(self, path: Path, *, must: bool) -> Iterator[BinaryIO | None]:
        """The file; None for one of several that cannot be read: a camera that still records may have deleted it.

        Raises OSError for the only one, and where it `must` be there.
        """
        try:
            file = open_file(path)
        except OSError as error:
            if len(self._paths) == 1 or must:
                raise
            is_deleted = isinstance(error, FileNotFoundError)
            reason = "it is not there any more" if is_deleted else error.strerror
            log.warning("file left out", file=str(path), reason=reason)
            yield None
            return
        with file:
            yield file

    def _read(self, file: BinaryIO, path: Path) -> tuple[Segment, PlayedStream] | None:
        """What the file is, if it can be played. Raises NoRecording where it is the only one."""
        try:
            segment = Segment(file, os.fstat(file.fileno()).st_size)
            return segment, PlayedStream.of(segment)
        except NoRecording as error:
            if len(self._paths) == 1:
                raise NoRecording(f"{path} cannot be played: {error}") from None
            log.warning("file left out", file=str(path), reason=str(error))
            return None

    def _join(self, stream: PlayedStream) -> PlayedStream:
        """The stream, as the object that it was before as long as it goes on."""
        if self._stream is None or not self._stream.is_as(stream):
            self._stream = stream
        return self._stream
