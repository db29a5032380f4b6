"""Who is next among those that wait for the same workers: fair queueing by time used. No clock, no thread.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, SIGCOMM 1996; for processors P. Goyal, X. Guo, H. Vin, OSDI 1996),
as a job tells what it cost only once it is done, where deficit round robin would have to know before. But jobs go in
the order of their expected finish, as in self-clocked fair queueing (S. Golestani, INFOCOM 1994): by their start, a
camera of small frames would wait for one frame of every other whenever these had started together.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Flow(Generic[T]):
    """Jobs of one owner, of which at most one is served at a time, in order; made by `FairQueue.flow`."""

    def __init__(self, finish: float) -> None:
        self.jobs: deque[T] = deque()
        self.finish = finish  # virtual time at which its last job was through
        self.start = finish  # virtual time of the job that is next, or is served
        self.expected = 0.0  # cost of the next job: that of the last one
        self.is_served = False


class FairQueue(Generic[T]):
    """Hands out the jobs of several flows so that each gets the same share of what they cost in all.

    Virtual time is cost. A job starts at the later of its flow's last finish and now, which is the least start of
    those that wait; the least expected finish goes first, and of equal ones the flow that has waited longest. So a flow
    that was idle has saved nothing, and each other flow holds it up by no more than one job of its own. A new flow
    begins behind what the others have used, as nobody shall gain by coming back under a new name.

    The caller keeps several threads out.
    """

    def __init__(self) -> None:
        self._waiting: list[Flow[T]] = []  # with jobs, and not served, in the order of their coming
        self._served = 0
        self._now = 0.0
        self._latest_finish = 0.0

    def __len__(self) -> int:
        """Flows whose next job may be taken."""
        return len(self._waiting)

    @property
    def served(self) -> int:
        """Jobs that were taken and are not done."""
        return self._served

    def flow(self) -> Flow[T]:
        """A flow without jobs."""
        return Flow(self._latest_finish)

    def put(self, flow: Flow[T], job: T) -> None:
        """Add a job behind the others of its flow."""
        flow.jobs.append(job)
        if len(flow.jobs) == 1 and not flow.is_served:
            self._wait(flow)

    def take(self) -> tuple[Flow[T], T] | None:
        """The next job, to be worked on until `done`; None where none waits."""
        if not self._waiting:
            return None
        self._now = max(self._now, min(flow.start for flow in self._waiting))
        flow = min(self._waiting, key=lambda flow: flow.start + flow.expected)  # the first of equal ones
        self._waiting.remove(flow)
        flow.is_served = True
        self._served += 1
        return flow, flow.jobs.popleft()

    def done(self, flow: Flow[T], cost: float) -> None:
        """The job that was taken from the flow is through, and has cost so much, in any unit."""
        flow.finish, flow.expected = flow.start + cost, cost
        flow.is_served = False
        self._served -= 1
        self._latest_finish = max(self._latest_finish, flow.finish)
        if flow.jobs:
            self._wait(flow)
        if not self._waiting and not self._served:
            self._now = self._latest_finish

    def _wait(self, flow: Flow[T]) -> None:
        flow.start = max(self._now, flow.finish)
        self._waiting.append(flow)
