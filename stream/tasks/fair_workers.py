"""Threads that work for several owners, and give each the same share of their time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from stream.tasks.fair_queue import FairQueue, Flow

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    function: Callable[[], Any]
    owner: Owner
    future: Future[Any] = field(default_factory=Future)

    def forget(self, future: Future[Any]) -> None:
        """Let go of what the call would have worked on, though its turn is still to come."""
        self.function = _nothing


def _nothing() -> None:
    """What is left of a call that is over."""


class Owner:
    """Whose work it is; made by `FairWorkers.owner`.

    Of one owner one call runs at a time, in the order of `run`, so state that only its calls touch needs no lock.
    """

    def __init__(self, flow: Flow[_Job]) -> None:
        self.flow = flow
        self._waited_ns = 0

    def excuse(self, waited_ns: int) -> None:
        """Do not charge so much of the running call's time: it waited for others. To be called by that call."""
        self._waited_ns += waited_ns

    def charge(self, elapsed_ns: int) -> int:
        """What a call that took so long has used, in ns."""
        waited_ns, self._waited_ns = self._waited_ns, 0
        return max(0, elapsed_ns - waited_ns)


class FairWorkers:
    """Some threads that calls of many owners wait for, to be run in the order of `FairQueue`.

    A call's cost is how long it held its thread, as that is what the others waited for.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._queue: FairQueue[_Job] = FairQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._name, self.threads = name, 0
        self.grow(threads)

    @property
    def queue_length(self) -> int:
        """Owners with a call that waits or runs."""
        return len(self._queue) + self._queue.served

    @property
    def running(self) -> int:
        """Calls that run."""
        return self._queue.served

    def grow(self, threads: int) -> None:
        """Have at least so many threads."""
        for number in range(self.threads, threads):
            threading.Thread(target=self._work, name=f"{self._name}_{number}").start()
        self.threads = max(self.threads, threads)

    def owner(self) -> Owner:
        """A new owner, whose first call waits behind what the others have used."""
        with self._changed:
            return Owner(self._queue.flow())

    async def run(self, owner: Owner, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns or raises, run on one of the threads when it is the owner's turn.

        A call that is cancelled while it waits is not run, and holds none of its arguments.
        """
        job = _Job(lambda: function(*args, **kwargs), owner)
        job.future.add_done_callback(job.forget)
        with self._changed:
            if self._closed:
                raise RuntimeError("the workers are closed")
            self._queue.put(owner.flow, job)
            self._changed.notify()
        result: T = await asyncio.wrap_future(job.future)
        return result

    def close(self) -> None:
        """Let running calls end and forget the waiting ones; does not block."""
        with self._changed:
            self._closed = True
            while taken := self._queue.take():
                flow, job = taken
                job.future.cancel()
                self._queue.done(flow, 0)
            self._changed.notify_all()

    def _work(self) -> None:
        while job := self._next():
            began_ns = time.perf_counter_ns()
            _answer(job)
            elapsed_ns = time.perf_counter_ns() - began_ns
            with self._changed:
                self._queue.done(job.owner.flow, job.owner.charge(elapsed_ns))
                self._changed.notify()

    def _next(self) -> _Job | None:
        with self._changed:
            while (taken := self._queue.take()) is None:
                if self._closed:
                    return None
                self._changed.wait()
            return taken[1]


def _answer(job: _Job) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        result = job.function()
    except BaseException as error:
        job.future.set_exception(error)
    else:
        job.future.set_result(result)
