from __future__ import annotations

import asyncio

import pytest

from stream.tasks.mailbox import Mailbox, MailboxClosed
from tests.services.waiting import LIVENESS_S


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def everything(mailbox: Mailbox[int], yields: int = 0) -> list[int]:
    """What comes out until the mailbox is closed."""
    received = []
    try:
        while True:
            received.append(await mailbox.get())
            for _ in range(yields):
                await asyncio.sleep(0)
    except MailboxClosed:
        return received


async def test_newest_wins_and_the_displaced_item_comes_back():
    mailbox: Mailbox[int] = Mailbox()
    assert mailbox.put(1) is None
    assert mailbox.put(2) == 1
    assert mailbox.put(3) == 2
    assert await mailbox.get() == 3
    assert mailbox.put(4) is None


async def test_get_waits_for_an_item():
    mailbox: Mailbox[int] = Mailbox()
    getting = asyncio.create_task(mailbox.get())
    await settle()
    assert not getting.done()
    mailbox.put(1)
    assert await getting == 1


async def test_put_wait_waits_for_the_slot():
    mailbox: Mailbox[int] = Mailbox()
    await mailbox.put_wait(1)
    putting = asyncio.create_task(mailbox.put_wait(2))
    await settle()
    assert not putting.done()
    assert await mailbox.get() == 1
    await putting
    assert await mailbox.get() == 2


@pytest.mark.parametrize("yields", [(0, 0), (1, 0), (0, 1), (2, 3)])
async def test_put_wait_loses_nothing(yields):
    mailbox: Mailbox[int] = Mailbox()

    async def produce() -> None:
        for item in range(100):
            await mailbox.put_wait(item)
            for _ in range(yields[0]):
                await asyncio.sleep(0)
        mailbox.close()

    async with asyncio.timeout(LIVENESS_S), asyncio.TaskGroup() as group:
        group.create_task(produce())
        received = await everything(mailbox, yields[1])
    assert received == list(range(100))


async def test_every_item_is_received_or_displaced():
    mailbox: Mailbox[int] = Mailbox()
    displaced = []

    async def produce() -> None:
        for item in range(100):
            displaced.append(mailbox.put(item))
            if item % 3 == 0:
                await asyncio.sleep(0)
        mailbox.close()

    async with asyncio.timeout(LIVENESS_S), asyncio.TaskGroup() as group:
        group.create_task(produce())
        received = await everything(mailbox)
    assert received == sorted(received)
    assert received[-1] == 99
    assert sorted([*received, *(item for item in displaced if item is not None)]) == list(range(100))


async def test_close_lets_the_last_item_out():
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    mailbox.close()
    mailbox.close()
    assert await mailbox.get() == 1
    with pytest.raises(MailboxClosed):
        await mailbox.get()
    with pytest.raises(MailboxClosed):
        mailbox.put(2)
    with pytest.raises(MailboxClosed):
        await mailbox.put_wait(2)


async def test_close_wakes_whoever_waits():
    empty: Mailbox[int] = Mailbox()
    getting = asyncio.create_task(empty.get())
    full: Mailbox[int] = Mailbox()
    full.put(1)
    putting = asyncio.create_task(full.put_wait(2))
    await settle()
    empty.close()
    full.close()
    with pytest.raises(MailboxClosed):
        await getting
    with pytest.raises(MailboxClosed):
        await putting
    assert full.take() == 1


async def test_a_cancelled_get_takes_nothing():
    mailbox: Mailbox[int] = Mailbox()
    getting = asyncio.create_task(mailbox.get())
    await settle()
    mailbox.put(1)
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    assert await mailbox.get() == 1


async def test_a_cancelled_put_wait_puts_nothing():
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    putting = asyncio.create_task(mailbox.put_wait(2))
    await settle()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await mailbox.get() == 1
    assert mailbox.take() is None


async def test_take_frees_the_slot():
    mailbox: Mailbox[int] = Mailbox()
    assert mailbox.take() is None
    mailbox.put(1)
    putting = asyncio.create_task(mailbox.put_wait(2))
    await settle()
    assert mailbox.take() == 1
    await putting
    assert mailbox.take() == 2
