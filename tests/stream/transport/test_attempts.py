from __future__ import annotations

import asyncio

import pytest

from stream.transport.attempts import first_answer
from tests.services.waiting import LIVENESS_S

JOIN_S = 0.02


class Peer:
    """Swallows the first attempts, and answers the one after with its number."""

    def __init__(self, swallowed: int) -> None:
        self.attempts, self.ended, self.swallowed = 0, 0, swallowed
        self.discarded: list[int] = []

    async def attempt(self) -> int:
        self.attempts += 1
        number = self.attempts
        try:
            if number <= self.swallowed:
                await asyncio.sleep(LIVENESS_S)
            return number
        finally:
            self.ended += 1


async def ask(peer: Peer) -> int:
    return await asyncio.wait_for(first_answer(peer.attempt, JOIN_S, peer.discarded.append), LIVENESS_S)


@pytest.mark.parametrize("swallowed", [0, 1, 3])
async def test_the_first_that_is_answered_counts(swallowed):
    peer = Peer(swallowed)
    assert await ask(peer) == swallowed + 1
    assert peer.attempts == peer.ended == swallowed + 1  # and no other goes on
    assert not peer.discarded


async def test_a_failure_is_an_answer():
    peer = Peer(1)

    async def attempt() -> int:
        if await peer.attempt() == 2:
            raise ConnectionRefusedError
        return 0

    with pytest.raises(ConnectionRefusedError):
        await asyncio.wait_for(first_answer(attempt, JOIN_S, peer.discarded.append), LIVENESS_S)
    assert peer.ended == 2


async def test_what_a_second_returns_at_the_same_moment_is_discarded():
    both = asyncio.Event()
    peer = Peer(0)

    async def attempt() -> int:
        number = await peer.attempt()
        if number == 2:
            both.set()
        await both.wait()
        return number

    first = await asyncio.wait_for(first_answer(attempt, JOIN_S, peer.discarded.append), LIVENESS_S)
    assert sorted([first, *peer.discarded]) == [1, 2]


async def test_a_cancelled_call_leaves_no_attempt():
    peer = Peer(1000)
    asking = asyncio.create_task(ask(peer))
    while peer.attempts < 3:  # noqa: ASYNC110
        await asyncio.sleep(JOIN_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert peer.ended == peer.attempts
