from __future__ import annotations

import asyncio
import threading
import weakref
from collections import Counter

import pytest

from stream.tasks.fair_workers import FairWorkers
from tests.services.waiting import LIVENESS_S, until


@pytest.fixture
def make_workers():
    made: list[FairWorkers] = []

    def make(threads: int) -> FairWorkers:
        made.append(FairWorkers("test", threads))
        return made[-1]

    yield make
    for workers in made:
        workers.close()


async def test_calls_of_one_owner_run_in_order_one_at_a_time(make_workers):
    workers = make_workers(3)
    owner, running, seen = workers.owner(), [], []

    def note(number: int) -> int:
        running.append(number)
        assert running == [number]
        seen.append((number, threading.current_thread().name))
        running.clear()
        return number

    assert await asyncio.gather(*(workers.run(owner, note, number) for number in range(50))) == list(
        range(50)
    )
    assert [number for number, _ in seen] == list(range(50))
    assert {name for _, name in seen} <= {"test_0", "test_1", "test_2"}


async def test_calls_of_several_owners_run_at_once(make_workers):
    """Each waits for the other: one thread would never be done."""
    workers, barrier = make_workers(2), threading.Barrier(2)
    owners = [workers.owner() for _ in range(2)]
    await asyncio.gather(*(workers.run(owner, barrier.wait, LIVENESS_S) for owner in owners))


async def test_errors_reach_the_caller_and_the_queue_is_counted(make_workers):
    workers, release = make_workers(1), threading.Event()
    first, second = workers.owner(), workers.owner()
    waiting = asyncio.ensure_future(workers.run(first, release.wait, LIVENESS_S))
    failing = asyncio.ensure_future(workers.run(second, lambda: 1 // 0))
    await until(lambda: workers.running == 1)
    assert workers.queue_length == 2
    release.set()
    with pytest.raises(ZeroDivisionError):
        await failing
    await waiting
    await until(lambda: workers.queue_length == 0)


async def test_what_one_owner_uses_is_kept_from_the_others(make_workers):
    """A call that says that it only waited costs nothing, and its owner has the next turns, too."""
    workers, release = make_workers(1), threading.Event()
    waiter, user, seen = workers.owner(), workers.owner(), []

    def wait() -> None:
        release.wait(LIVENESS_S)
        waiter.excuse(10**18)

    asked = [asyncio.ensure_future(workers.run(waiter, wait))]
    await until(lambda: workers.running == 1)
    asked.append(
        asyncio.ensure_future(workers.run(user, lambda: seen.append("user") or threading.Event().wait(0.02)))
    )
    asked += [asyncio.ensure_future(workers.run(waiter, seen.append, "waiter")) for _ in range(2)]
    asked.append(asyncio.ensure_future(workers.run(user, seen.append, "user")))
    await asyncio.sleep(0.1)  # it has waited for longer than the other will work
    release.set()
    await asyncio.gather(*asked)
    assert Counter(seen[:3]) == {"user": 1, "waiter": 2}


async def test_a_call_that_is_cancelled_while_it_waits_is_not_run(make_workers):
    workers, release, seen = make_workers(1), threading.Event(), []
    first, second = workers.owner(), workers.owner()
    waiting = asyncio.ensure_future(workers.run(first, release.wait, LIVENESS_S))
    await until(lambda: workers.running == 1)
    cancelled = asyncio.ensure_future(workers.run(second, seen.append, "cancelled"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    release.set()
    await workers.run(second, seen.append, "run")
    await waiting
    assert seen == ["run"]


class Frame:
    """What a call works on."""


async def test_a_call_that_is_cancelled_while_it_waits_holds_nothing(make_workers):
    """A camera that leaves takes its packets with it, however long the turns of others take."""
    workers, release, frame = make_workers(1), threading.Event(), Frame()
    waiting = asyncio.ensure_future(workers.run(workers.owner(), release.wait, LIVENESS_S))
    await until(lambda: workers.running == 1)
    cancelled = asyncio.ensure_future(workers.run(workers.owner(), id, frame))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    held = weakref.ref(frame)
    del frame, cancelled
    await until(lambda: held() is None)
    assert workers.running == 1
    release.set()
    await waiting


async def test_a_thread_that_waits_holds_nothing_of_its_last_call(make_workers):
    workers, frame = make_workers(1), Frame()
    await workers.run(workers.owner(), id, frame)
    held = weakref.ref(frame)
    del frame
    await until(lambda: held() is None)


async def test_closing_ends_the_running_call_and_forgets_the_others(make_workers):
    workers, release = make_workers(1), threading.Event()
    running = asyncio.ensure_future(workers.run(workers.owner(), release.wait, LIVENESS_S))
    await until(lambda: workers.running == 1)
    waiting = asyncio.ensure_future(workers.run(workers.owner(), print))
    await asyncio.sleep(0)
    workers.close()
    release.set()
    assert await running
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RuntimeError):
        await workers.run(workers.owner(), print)
