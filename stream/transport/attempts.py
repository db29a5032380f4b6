"""Several attempts at the same thing at a time, of which the first that is answered counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def first_answer(attempt: Callable[[], Awaitable[T]], join_s: float, discard: Callable[[T], None]) -> T:
    """What the first attempt to be answered returns or raises; one without an answer for `join_s` is joined by another.

    So when a link is back a new attempt uses it within `join_s`, whatever swallowed the earlier ones: TCP would repeat
    those after ever longer waits. RFC 8305 does so with addresses. Each attempt has to end by itself.
    `discard` gets what others return that come at the same time.
    """
    attempts: list[asyncio.Future[T]] = []
    try:
        while True:
            attempts.append(asyncio.ensure_future(attempt()))
            done, _ = await asyncio.wait(attempts, timeout=join_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
        winner = next((one for one in attempts if one in done and one.exception() is None), done.pop())
        attempts.remove(winner)
        return winner.result()
    finally:
        for other in attempts:
            other.cancel()
        for result in await asyncio.gather(*attempts, return_exceptions=True):
            if not isinstance(result, BaseException):
                discard(result)
