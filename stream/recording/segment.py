"""One file of a recording: what the packets are of, the packets, and whether it was ended (docs/recording.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from codec.errors import CodecError
from codec.feature.bundled import BUNDLED
from codec.feature.profile import Profile
from codec.layout import Layout, TensorSpec
from codec.packet import DIFFERENCE_NUMBERS, PacketFormat, PacketHeader, is_difference, is_keyframe
from codec.spec import Codec, parse_codec
from codec.varint import read_varint
from stream.errors import InvalidMessage, NoRecording
from stream.recording.records import (
    FILE_START,
    RecordType,
    check_start,
    pack_record,
    read_records,
    unpack_packet,
)
from stream.session.camera_clock import CameraClock
from stream.session.messages import Hello, parse_to_detector


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What every packet of a segment is of, as the records say it that begin one."""

    hello: Hello  # `session` in it is a secret, which is not written
    profile: Profile | None = None  # the codec's, where it has one

    def pack(self) -> bytes:
        """The bytes that begin the file. Takes milliseconds."""
        session = pack_record(RecordType.SESSION, self.hello.model_dump_json(exclude={"session"}).encode())
        profile = pack_record(RecordType.PROFILE, self.profile.pack()) if self.profile else b""
        return FILE_START + session + profile

    def is_continued_by(self, other: SegmentHead) -> bool:
        """Whether packets of `other` may follow in the same segment: nothing differs but where in time it stands.

        The time of day goes by the same clock, too: it was not set in between.
        """
        passing = {name: getattr(self.hello, name) for name in ("clock", "frame", "session")}
        is_same = self.hello == other.hello.model_copy(update=passing)
        return is_same and CameraClock(self.hello.clock).follow(other.hello.clock) is None

    def set_by(self, step_ns: int) -> SegmentHead:
        """The same after the time of day was set by so much."""
        clock = self.hello.clock
        set_clock = clock.model_copy(update={"unix_ns": max(0, clock.unix_ns + step_ns)})
        return SegmentHead(self.hello.model_copy(update={"clock": set_clock}), self.profile)


@dataclass(frozen=True, slots=True)
class RecordedPacket:
    """One packet as the encoder made it."""

    data: bytes
    captured_ns: int  # on the clock of the hello
    start: int  # of its record in the file, in bytes
    end: int

    @property
    def keyframe(self) -> bool:
        return is_keyframe(self.data)


class Segment:
    """A file that was read up to its first packet. `ended` and `whole_bytes` are as far as it has been read.

    Reads blockingly: for a worker thread. Raises NoRecording where the file is none, or has no session: one that was
    cut so early has no packet either.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        file.seek(0)
        if not check_start(file.read(len(FILE_START))):
            raise NoRecording("it was cut before its first packet")
        self.ended = False
        self.whole_bytes = len(FILE_START)
        self._profile: bytes | None = None
        hello: Hello | None = None
        for record in read_records(file, self.whole_bytes, size):
            if record.kind == RecordType.PACKET or (record.kind == RecordType.SESSION and hello):
                break
            if record.kind == RecordType.SESSION:
                hello = _hello(record.body)
            elif record.kind == RecordType.PROFILE:
                self._profile = record.body
            self.whole_bytes = record.end
        if hello is None:
            raise NoRecording("it was cut before its first packet")
        self.first_packet = self.whole_bytes
        self.hello = hello

    def codec(self) -> Codec:
        """The codec of the packets, with the profile that the file holds, or the one that ships.

        Raises NoRecording.
        """
        profiles = dict(BUNDLED)
        try:
            if self._profile is not None:
                profile = Profile.parse(self._profile)
                profiles[profile.hash] = profile
            return parse_codec(self.hello.codec, profiles)
        except CodecError as error:
            raise NoRecording(f"of its codec: {error}") from None

    def packet_format(self, codec: Codec) -> PacketFormat:
        """The packets of the file, which are of its `codec`. Raises NoRecording."""
        try:
            return codec.packet_format(self.layout)
        except CodecError as error:
            raise NoRecording(f"of its tensors: {error}") from None

    @property
    def layout(self) -> Layout:
        """The tensors that cross. Raises NoRecording."""
        try:
            return tuple(TensorSpec(tensor.name, tuple(tensor.shape)) for tensor in self.hello.tensors)
        except CodecError as error:
            raise NoRecording(f"of its tensors: {error}") from None

    def packets(self, at: int, max_packet_bytes: int) -> Iterator[RecordedPacket]:
        """Packets from the record at byte `at`, one in memory at a time, up to the first that is none.

        What is no keyframe comes only behind the packet that it is a difference from.
        """
        number: int | None = (
            None  # of the packet before, modulo DIFFERENCE_NUMBERS; None: a keyframe has to come
        )
        for record in read_records(self._file, at, self.size, max_packet_bytes):
            self.whole_bytes = max(self.whole_bytes, record.end)
            if record.kind == RecordType.END:
                self.ended = True
                return
            if record.kind != RecordType.PACKET:
                continue
            unpacked = unpack_packet(record)
            if unpacked is None or (told := _number(unpacked[0])) is None:
                return
            packet = RecordedPacket(*unpacked, record.start, record.end)
            follows = number is not None and told == (number + 1) % DIFFERENCE_NUMBERS
            number = told if packet.keyframe or follows else None
            if number is not None:
                yield packet


def _hello(body: bytes) -> Hello:
    try:
        message = parse_to_detector(body.decode())
    except (InvalidMessage, UnicodeDecodeError) as error:
        raise NoRecording(f"its session cannot be read: {error}") from None
    if not isinstance(message, Hello) or message.type != "hello":
        raise NoRecording(f"its session is a {message.type}, not a hello")
    return message


def _number(data: bytes) -> int | None:
    """The packet's number, modulo DIFFERENCE_NUMBERS; None where number and time in the bytes could not be changed."""
    if not is_difference(data):
        try:
            header = PacketHeader.parse(data)
        except CodecError:
            return None
        return header.sequence % DIFFERENCE_NUMBERS if header.packet_bytes == len(data) else None
    try:
        if read_varint(data, 2)[1] > len(data) - 4:
            return None
    except ValueError:
        return None
    return int.from_bytes(data[:2]) % DIFFERENCE_NUMBERS
