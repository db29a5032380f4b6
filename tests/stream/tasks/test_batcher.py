"""Frames that wait anyway go together, whoever sent them; what one of them breaks costs no other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from stream.tasks import batcher
from stream.tasks.batcher import Batcher
from tests.services.waiting import LIVENESS_S


class FakeTail:
    """Doubles numbers; its first batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.entered.set()
        assert self.go.wait(LIVENESS_S)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


class Callers:
    """Threads that call, and how many of them have yet to."""

    def __init__(self, largest: int, deadline_s: float = LIVENESS_S) -> None:
        self.coming, self.tail = 1, FakeTail()
        self.batches: Batcher[int, int] = Batcher(largest, deadline_s, lambda: self.coming)
        self._pool = ThreadPoolExecutor(16)

    def call(self, kind: str, number: int):
        return self._pool.submit(self.batches.run, kind, self.tail, number)

    def wait_for(self, count: int) -> None:
        """Until so many calls wait behind the batch that is worked on."""
        with self.batches._changed:
            assert self.batches._changed.wait_for(lambda: len(self.batches._waiting) == count, LIVENESS_S)


def test_what_waits_while_the_device_works_goes_together():
    callers = Callers(4)
    first = callers.call("a", 0)
    assert callers.tail.entered.wait(LIVENESS_S)
    later = []
    for number, kind in enumerate("abaaaa", 1):
        later.append(callers.call(kind, number))
        callers.wait_for(number)
    callers.tail.go.set()
    results = [call.result(LIVENESS_S) for call in (first, *later)]
    assert [result.output for result in results] == [0, 2, 4, 6, 8, 10, 12]
    # The oldest call's kind is next, at most four go together, and none waits twice.
    assert callers.tail.batches == [[0], [1, 3, 4, 5], [2], [6]]
    assert [result.size for result in results] == [1, 4, 1, 4, 4, 4, 1]


def test_what_one_frame_breaks_costs_no_other():
    callers = Callers(4)
    first = callers.call("a", 0)
    assert callers.tail.entered.wait(LIVENESS_S)
    calls = []
    for waiting, number in enumerate((12, 13, 14), 1):
        calls.append(callers.call("a", number))
        callers.wait_for(waiting)
    callers.tail.go.set()
    assert first.result(LIVENESS_S).output == 0
    assert (calls[0].result(LIVENESS_S).output, calls[2].result(LIVENESS_S).output) == (24, 28)
    with pytest.raises(ValueError, match="thirteen"):
        calls[1].result(LIVENESS_S)


def test_a_batch_waits_for_calls_that_are_coming():
    callers = Callers(4)
    callers.tail.go.set()
    callers.coming = 2
    first = callers.call("a", 1)
    callers.wait_for(1)
    assert not callers.tail.batches
    second = callers.call("a", 2)
    assert [first.result(LIVENESS_S).output, second.result(LIVENESS_S).output] == [2, 4]
    assert callers.tail.batches == [[1, 2]]


def test_the_time_of_a_batch_is_shared_by_its_calls(monkeypatch):
    times_ns = iter([1000, 1100])
    monkeypatch.setattr(batcher, "time", SimpleNamespace(monotonic_ns=lambda: next(times_ns)))
    callers = Callers(4)
    callers.tail.go.set()
    callers.coming = 2
    results = [call.result(LIVENESS_S) for call in [callers.call("a", number) for number in range(2)]]
    assert [(result.began_ns, result.share_ns) for result in results] == [(1000, 50)] * 2


def test_a_batch_waits_no_longer_than_its_deadline():
    callers = Callers(4, deadline_s=0.001)
    callers.tail.go.set()
    callers.coming = 2
    assert callers.call("a", 1).result(LIVENESS_S).output == 2


def test_one_frame_at_a_time_shares_nothing():
    """Several threads work at once."""
    callers = Callers(1)
    barrier = threading.Barrier(2)

    def together(numbers: Sequence[int]) -> list[int]:
        barrier.wait(LIVENESS_S)
        return list(numbers)

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(callers.batches.run, "a", together, number) for number in range(2)]
        results = [call.result(LIVENESS_S) for call in calls]
    assert [result.output for result in results] == [0, 1]
    assert all(result.size == 1 and result.share_ns > 0 for result in results)


@pytest.mark.parametrize("largest", [1, 2])
def test_work_that_forgets_an_item_leaves_no_call_waiting(largest):
    batches: Batcher[int, int] = Batcher(largest, LIVENESS_S, lambda: 2)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(batches.run, "kind", lambda items: items[1:], number) for number in range(2)]
        for call in calls:
            with pytest.raises(ValueError, match="zip"):
                call.result(LIVENESS_S)
