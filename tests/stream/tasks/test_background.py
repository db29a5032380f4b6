from __future__ import annotations

import asyncio

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
