from __future__ import annotations

from stream.transport.liveness import LOOK_S, STOOD_STILL_S, Idle


def looks(idle: Idle, counts: list[int], start_s: float = 0.0) -> list[float]:
    return [idle.look(count, start_s + (place + 1) * LOOK_S) for place, count in enumerate(counts)]


def test_counts_the_time_since_the_count_changed():
    idle = Idle(7, 0.0)
    assert looks(idle, [7, 7, 8, 8, 8, 8]) == [0.5, 1.0, 0.0, 0.5, 1.0, 1.5]


def test_one_byte_a_second_is_no_standstill():
    """64 kbit/s are 8,000 of them."""
    idle = Idle(0, 0.0)
    assert max(looks(idle, [place // 2 for place in range(10_000)])) <= 1.0


def test_a_process_that_was_stopped_counts_anew():
    """It has not read what came meanwhile."""
    idle = Idle(0, 0.0)
    looks(idle, [0, 0, 0, 0])
    assert idle.look(0, 2.0 + 30.0) == 0.0
    assert looks(idle, [0, 0, 0], 32.0) == [0.5, 1.0, 1.5]


def test_a_look_a_little_late_is_none_of_that():
    idle = Idle(0, 0.0)
    assert idle.look(0, STOOD_STILL_S) == STOOD_STILL_S
