from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from weakref import ref

import pytest

from stream.tasks.background import run_with_background


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("companion")


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("companion")


async def test_returns_what_main_returns_and_ends_the_companions():
    ended: list[str] = []
    assert await run_with_background(answer(), forever(ended)) == 42
    assert ended == ["companion"]


async def test_a_companion_may_end_early():
    async def slow() -> str:
        await asyncio.sleep(0.01)
        return "main"

    async def nothing() -> None:
        pass

    assert await run_with_background(slow(), nothing()) == "main"


async def test_a_companions_failure_is_raised_as_it_is():
    ended: list[str] = []
    with pytest.raises(KeyError):
        await run_with_background(forever(ended), fail())
    assert ended == ["companion"]


async def test_cancelling_ends_all():
    ended: list[str] = []
    task = asyncio.ensure_future(run_with_background(forever(ended), forever(ended)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["companion", "companion"]


class Held:
    """Something that a coroutine holds while it runs."""


async def hold(held: Held, other: asyncio.Future[None]) -> None:
    await other


async def test_nothing_is_left_to_a_collection():
    """What is raised leads to frames: if those led back to it all would stay until a collection, which stops all."""
    held = Held()
    known = ref(held)
    gc.disable()
    try:
        with suppress(KeyError):
            await run_with_background(hold(held, asyncio.get_running_loop().create_future()), fail())
        del held
        await asyncio.sleep(0)  # the loop still has what it ran last
        assert known() is None
    finally:
        gc.enable()
