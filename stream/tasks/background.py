"""Tasks that live as long as the one they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_with_background(main: Coroutine[Any, Any, T], *companions: Coroutine[Any, Any, None]) -> T:
    """What `main` returns, with `companions` running beside it.

    The first failure of any of them ends all and is raised as it is, not in a group as a TaskGroup would, so
    that a caller can catch it by its class. A companion may end early. All tasks are over on return.
    """
    principal = asyncio.ensure_future(main)
    tasks: set[asyncio.Future[Any]] = {
        principal,
        *(asyncio.ensure_future(companion) for companion in companions),
    }
    pending = set(tasks)
    try:
        while principal in pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            while done:
                done.pop().result()
        return principal.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What is raised knows this frame, which would know the tasks, which know what they have raised: a circle.
        del principal, tasks, task, pending
