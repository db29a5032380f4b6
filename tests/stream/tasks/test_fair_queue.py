"""Who is next, by what each has used: exactly, as time is what the test says."""

from __future__ import annotations

from collections import Counter

import pytest

from stream.tasks.fair_queue import FairQueue, Flow


class Server:
    """Serves one job after another, of flows that are named by their jobs' texts; time passes by their costs."""

    def __init__(self, *names: str) -> None:
        self.queue: FairQueue[str] = FairQueue()
        self.flows: dict[str, Flow[str]] = {}
        self.now = 0.0
        self.used: Counter[str] = Counter()
        for name in names:
            self.join(name)

    def join(self, name: str) -> None:
        self.flows[name] = self.queue.flow()

    def ask(self, name: str) -> None:
        self.queue.put(self.flows[name], name)

    def serve(self, cost: float) -> str:
        taken = self.queue.take()
        assert taken is not None
        flow, name = taken
        self.now += cost
        self.used[name] += cost
        self.queue.done(flow, cost)
        return name


def test_time_is_shared_and_not_turns():
    server, costs = Server("cheap", "dear"), {"cheap": 1.0, "dear": 10.0}
    for name in costs:
        server.ask(name)
    for _ in range(110):
        flow, name = server.queue.take()
        server.used[name] += costs[name]
        server.queue.done(flow, costs[name])
        server.ask(name)
    assert abs(server.used["cheap"] - server.used["dear"]) <= max(costs.values())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_camera_waits_for_one_foreign_job_beside_sixteen_that_never_stop(workers):
    """What it needs is less than its share: it is next whenever a worker becomes free."""
    queue: FairQueue[str] = FairQueue()
    honest, greedy = queue.flow(), [queue.flow() for _ in range(16)]
    for number, flow in enumerate(greedy):
        queue.put(flow, str(number))
    running: list[tuple[float, float, Flow[str]]] = []  # end, cost and whose
    now, asked, waits = 0.0, 0.0, []
    while len(waits) < 100:
        while len(running) < workers:
            flow, _ = queue.take()
            cost = 10.0 if flow is honest else 70.0 + 7 * greedy.index(flow)
            if flow is honest:
                waits.append(now - asked)
            running.append((now + cost, cost, flow))
        running.sort(key=lambda job: job[0])
        now, cost, flow = running.pop(0)
        if not honest.jobs and not honest.is_served and now >= asked + 400:
            # It came while the worker was busy.
            asked = max(asked + 400, now - 60)
            queue.put(honest, "honest")
        queue.done(flow, cost)
        if flow is not honest:
            queue.put(flow, "again")
    assert max(waits[1:]) <= 70 + 7 * 15  # the first comes before it has a history
    assert max(waits[1:]) > 0


def test_idle_time_is_no_credit():
    server = Server("busy", "sleeper")
    for _ in range(100):
        server.ask("busy")
        server.serve(10)
    for name in ("busy", "sleeper"):
        for _ in range(10):
            server.ask(name)
    assert Counter(server.serve(10) for _ in range(6)) == {"busy": 3, "sleeper": 3}


def test_idle_time_is_no_credit_while_others_are_busy():
    server = Server("one", "two", "sleeper")
    for _ in range(50):
        server.ask("one")
        server.ask("two")
    for _ in range(60):
        server.serve(1)
    for _ in range(10):
        server.ask("sleeper")
    served = Counter(server.serve(1) for _ in range(9))
    assert served == {"one": 3, "two": 3, "sleeper": 3}


def test_who_comes_back_under_a_new_name_gains_nothing():
    server = Server("honest", "cheat")
    for _ in range(3):
        server.ask("honest")
        server.ask("cheat")
        server.serve(10)
        server.serve(10)
        server.join("cheat")  # a new connection each time
    server.ask("cheat")
    server.ask("honest")
    assert server.serve(10) == "cheat"  # equal, and it came first
    server.join("cheat")
    server.ask("cheat")
    assert server.serve(10) == "honest"
    server.ask("honest")
    server.join("cheat")
    server.ask("cheat")
    assert server.serve(10) == "cheat"  # which asked before, and had its first turn to come
    assert server.used["cheat"] <= server.used["honest"] + 10


def test_one_job_of_a_flow_at_a_time_in_order():
    queue: FairQueue[int] = FairQueue()
    flow = queue.flow()
    for number in range(3):
        queue.put(flow, number)
    assert queue.take() == (flow, 0)
    assert queue.served == 1
    assert queue.take() is None
    assert len(queue) == 0
    queue.done(flow, 1)
    assert queue.take() == (flow, 1)
