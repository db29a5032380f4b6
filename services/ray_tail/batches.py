"""Frames of several streams that go through a replica's network together, gathered by Ray Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ray import serve

from stream.tasks.batcher import BatchCall, Batcher, BatchResult, work_on


class ServeBatches(Batcher[Any, Any]):
    """As `Batcher`, for calls on threads of a replica: what has come while a batch was worked on is the next one.

    No frame waits for others that may come: a GPU that is idle begins at once, and a busy one lets them gather.
    """

    def __init__(self) -> None:
        super().__init__(1, 0.0, lambda: 0)
        self.loop: asyncio.AbstractEventLoop | None = None
        """The replica's, once it runs."""

    def run(
        self, kind: Hashable, work: Callable[[Sequence[Any]], Sequence[Any]], item: Any
    ) -> BatchResult[Any]:
        if self.largest == 1:
            return super().run(kind, work, item)
        assert self.loop
        call = BatchCall(kind, work, item)
        asyncio.run_coroutine_threadsafe(self._together(call), self.loop).result()
        return call.answer()

    def limit(self, largest: int) -> None:
        super().limit(largest)
        self._together.set_max_batch_size(largest)

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
    async def _together(self, calls: list[BatchCall[Any, Any]]) -> list[None]:
        kinds: dict[Hashable, list[BatchCall[Any, Any]]] = {}
        for call in calls:
            kinds.setdefault(call.kind, []).append(call)
        for batch in kinds.values():
            await asyncio.to_thread(work_on, batch)
        return [None] * len(calls)
