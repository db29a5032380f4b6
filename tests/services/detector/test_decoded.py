"""What waits between the decoder and the network's last layers."""

from __future__ import annotations

import asyncio

import pytest

from codec.errors import CorruptPacket
from codec.interface import DecodedFrame
from services.detector.decoded import DecodedPacket, DecodedPackets, ReceivedPacket, StaleFrame
from stream.latency import StageClock
from tests.services.waiting import LIVENESS_S


def packet(number: int, outcome: DecodedFrame | Exception | None = None) -> DecodedPacket:
    frame = DecodedFrame(header=None, tensors={})  # type: ignore[arg-type]
    return DecodedPacket(outcome or frame, ReceivedPacket(b"", number, 0, StageClock(0)))


def told(packets: list[DecodedPacket]) -> list[tuple[int, type]]:
    return [(decoded.packet.number, type(decoded.outcome)) for decoded in packets]


async def test_of_a_live_camera_the_newest_frame_waits_and_all_are_answered_in_order():
    packets = DecodedPackets(live=True)
    damaged = packet(1, CorruptPacket("its checksum"))
    for decoded in (packet(0), damaged, packet(2), packet(3), packet(4, CorruptPacket("again"))):
        await packets.put(decoded)
    assert packets.has_frame
    assert told(await packets.take()) == [
        (0, StaleFrame),
        (1, CorruptPacket),
        (2, StaleFrame),
        (3, DecodedFrame),
    ]
    assert not packets.has_frame
    assert told(await packets.take()) == [(4, CorruptPacket)]


async def test_every_frame_of_a_file_waits_for_the_one_before():
    packets = DecodedPackets(live=False)
    await packets.put(packet(0))
    putting = asyncio.ensure_future(packets.put(packet(1)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(putting), 0.05)
    assert told(await packets.take()) == [(0, DecodedFrame)]
    await asyncio.wait_for(putting, LIVENESS_S)
    assert told(await packets.take()) == [(1, DecodedFrame)]


async def test_waits_until_there_is_something_or_nothing_more_comes():
    packets = DecodedPackets(live=True)
    waiting = asyncio.ensure_future(packets.wait())
    await packets.put(packet(0))
    assert await asyncio.wait_for(waiting, LIVENESS_S)
    await packets.end()
    assert await packets.wait()
    await packets.take()
    assert not await packets.wait()
