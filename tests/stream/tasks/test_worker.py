from __future__ import annotations

import asyncio
import threading

import pytest

from stream.tasks.worker import Worker


async def test_calls_run_in_order_on_one_thread():
    worker = Worker("test")
    seen: list[tuple[int, str]] = []

    def note(number: int) -> int:
        seen.append((number, threading.current_thread().name))
        return number

    try:
        assert await asyncio.gather(*(worker.run(note, number) for number in range(20))) == list(range(20))
    finally:
        worker.close()
    assert [number for number, _ in seen] == list(range(20))
    assert {name for _, name in seen} == {"test_0"}
    assert threading.current_thread().name not in {name for _, name in seen}


async def test_errors_reach_the_caller_and_the_queue_is_counted():
    worker = Worker("test")
    release = threading.Event()
    try:
        waiting = asyncio.ensure_future(worker.run(release.wait))
        failing = asyncio.ensure_future(worker.run(lambda: 1 // 0))
        await asyncio.sleep(0)
        assert worker.queue_length == 2
        release.set()
        with pytest.raises(ZeroDivisionError):
            await failing
        await waiting
        assert worker.queue_length == 0
    finally:
        release.set()
        worker.close()
