"""Recordings of made-up packets, without a network or a kernel."""

from __future__ import annotations

import io

import numpy as np

from codec.layout import TensorSpec
from codec.packet import Stamp
from codec.packet_stream import PacketWriter
from codec.spec import parse_codec
from stream.recording.records import FILE_START, RecordType, pack_packet, pack_record, read_records
from stream.recording.segment import RecordedPacket, Segment, SegmentHead
from stream.session.camera import tensor_shapes
from stream.session.messages import Clock, Hello

LAYOUT = (TensorSpec("4.m", (2, 4, 4)),)
CODEC = parse_codec("rle:bits=4,temporal=true")
FORMAT = CODEC.packet_format(LAYOUT)
MONOTONIC_NS, UNIX_NS, INTERVAL_NS = 10**12, 1_795_479_221 * 10**9, 40_000_000


def hello(
    stream: str = "door", *, canvas: tuple[int, int] = (32, 32), restarted_ns: int = 0, late: bool = False
) -> Hello:
    """Of a camera; `restarted_ns` is the time since another hello of it; `late`: of an outage's file."""
    return Hello(
        stream=stream,
        model="demo",
        weights="0" * 64,
        split="4.m",
        canvas=canvas,
        tensors=tensor_shapes(LAYOUT),
        codec=str(CODEC),
        clock=Clock(monotonic_ns=MONOTONIC_NS + restarted_ns, unix_ns=UNIX_NS + restarted_ns),
        session="a" * 32,
        late=late,
    )


def packets(count: int, keyframes: tuple[int, ...] = (0,), first_ns: int = MONOTONIC_NS) -> list[bytes]:
    """Packets of an encoder as to their form: what is in them is noise, which no decoder takes."""
    writer, rng = PacketWriter(FORMAT), np.random.default_rng(count)
    made = []
    for number in range(count):
        body = memoryview(rng.bytes(FORMAT.section_bounds[0][0] + number % 3))
        stamp = Stamp(number, first_ns + INTERVAL_NS * number, 32, 32)
        made.append(writer.seal(stamp, number in keyframes, [body]))
    return made


def segment_bytes(coded: list[bytes], head: Hello | None = None, *, ended: bool = True) -> bytes:
    """A file of them."""
    records = [pack_packet(packet, MONOTONIC_NS + INTERVAL_NS * at) for at, packet in enumerate(coded)]
    end = [pack_record(RecordType.END)] if ended else []
    return SegmentHead(head or hello()).pack() + b"".join(records + end)


def read(data: bytes, most_bytes: int = 2**20) -> tuple[Segment, list[RecordedPacket]]:
    """What a reader has of the bytes."""
    segment = Segment(io.BytesIO(data), len(data))
    return segment, list(segment.packets(segment.first_packet, most_bytes))


def marked_late(data: bytes) -> bytes:
    """The file as one of an outage."""
    segment, _ = read(data, most_bytes=0)
    at = read_records(io.BytesIO(data), len(FILE_START), len(data))
    session = next(record for record in at if record.kind == RecordType.SESSION)
    assert session.start == len(FILE_START)
    told = segment.hello.model_copy(update={"late": True}).model_dump_json(exclude={"session"}).encode()
    return FILE_START + pack_record(RecordType.SESSION, told) + data[session.end :]
