"""A thread that the event loop hands work to, so that the loop itself only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """One thread that owns what runs on it: a device, a codec state or a capture.

    Calls run one at a time in the order of `run`, so state touched only here needs no lock.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting = 0

    @property
    def queue_length(self) -> int:
        """Calls that wait or run."""
        return self._waiting

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns or raises, run on this worker's thread."""
        self._waiting += 1
        future = self._executor.submit(function, *args, **kwargs)
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let a running call end and forget the waiting ones; does not block."""
        self._executor.shutdown(wait=False, cancel_futures=True)
