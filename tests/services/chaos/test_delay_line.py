"""The order in which parts leave, and how many wait."""

from __future__ import annotations

import asyncio

import pytest

from services.chaos.delay_line import MOST_BYTES, DelayLine, Part
from tests.services.waiting import LIVENESS_S


async def taken(line: DelayLine, count: int) -> list[bytes]:
    async with asyncio.timeout(LIVENESS_S):
        return [(await line.get()).data for _ in range(count)]


async def test_parts_leave_in_order_and_not_early():
    line, loop = DelayLine(), asyncio.get_running_loop()
    start_s = loop.time()
    await line.put(Part(b"a"), 0.05)
    await line.put(Part(b"b"))  # waits for the one before it
    assert await taken(line, 2) == [b"a", b"b"]
    assert loop.time() - start_s >= 0.05


async def test_a_part_that_is_held_is_overtaken():
    line = DelayLine()
    await line.put(Part(b"held", delay_s=0.1, in_order=False))
    await line.put(Part(b"a"))
    await line.put(Part(b"b"))
    assert await taken(line, 3) == [b"a", b"b", b"held"]


async def test_a_part_that_comes_first_wakes_who_waits_for_a_later_one():
    line = DelayLine()
    await line.put(Part(b"held", delay_s=LIVENESS_S * 2, in_order=False))
    waiting = asyncio.ensure_future(line.get())
    await asyncio.sleep(0)
    await line.put(Part(b"first"))
    async with asyncio.timeout(LIVENESS_S):
        assert (await waiting).data == b"first"


async def test_the_ending_comes_last():
    line = DelayLine()
    await line.put(Part(b"held", delay_s=0.1, in_order=False))
    await line.put(Part(ending="closed"))
    assert await taken(line, 2) == [b"held", b""]


async def test_only_so_many_bytes_wait():
    line = DelayLine()
    await line.put(Part(bytes(MOST_BYTES)))
    putting = asyncio.ensure_future(line.put(Part(b"more")))
    await asyncio.sleep(0.01)
    assert not putting.done()
    await taken(line, 1)
    async with asyncio.timeout(LIVENESS_S):
        await putting
    assert await taken(line, 1) == [b"more"]


@pytest.mark.parametrize("delays_s", [(0.03, 0.0, 0.01), (0.0, 0.02, 0.0)])
async def test_jitter_changes_no_order(delays_s):
    line = DelayLine()
    for number, delay_s in enumerate(delays_s):
        await line.put(Part(bytes([number])), delay_s)
    assert await taken(line, 3) == [b"\0", b"\1", b"\2"]
