"""How tests wait: for what they mean, with one limit that only a hang reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LIVENESS_S = 180.0  # enough for the busiest machine: no test is about speed, this only ends one that hangs


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of services that signal nothing to tests."""
    async with asyncio.timeout(LIVENESS_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
