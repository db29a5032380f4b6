"""Two clocks at one moment, however often a program is interrupted between its readings."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from services import clock as module
from services.clock import READS, ClockWatch, clock_now
from tests.services.waiting import LIVENESS_S

OFFSET_NS = 1_795_479_221 * 10**9
MS = 1_000_000


class Clocks:
    """A machine's clocks. Every reading takes 100 ns, and before those of `late` the program is stopped for 5 ms."""

    def __init__(self, late: set[int] = frozenset()) -> None:
        self.now_ns, self.offset_ns, self.readings, self._late = 10**12, OFFSET_NS, 0, late

    def _read(self) -> int:
        self.now_ns += 100 + 5 * MS * (self.readings in self._late)
        self.readings += 1
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self._read()

    def time_ns(self) -> int:
        return self._read() + self.offset_ns


def replace_clocks(monkeypatch, clocks: Clocks) -> Clocks:
    monkeypatch.setattr(
        module, "time", SimpleNamespace(monotonic_ns=clocks.monotonic_ns, time_ns=clocks.time_ns)
    )
    return clocks


@pytest.mark.parametrize("late", [set(), {1}, {2}, {1, 4}, {1, 5, 8, 10}, set(range(3 * READS - 3))])
def test_both_clocks_are_of_one_moment_however_often_the_program_is_stopped(monkeypatch, late):
    replace_clocks(monkeypatch, Clocks(late))
    now = clock_now()
    assert abs(now.unix_ns - now.monotonic_ns - OFFSET_NS) < 1000


def test_a_program_that_is_stopped_at_every_reading_takes_the_tightest(monkeypatch):
    clocks = replace_clocks(monkeypatch, Clocks(set(range(100))))
    now = clock_now()
    assert clocks.readings == 3 * READS
    assert abs(now.unix_ns - now.monotonic_ns - OFFSET_NS) < 6 * MS


def test_one_reading_is_enough_where_nothing_interrupts(monkeypatch):
    clocks = replace_clocks(monkeypatch, Clocks())
    clock_now()
    assert clocks.readings == 3


def test_the_machines_own_clocks():
    before_ns, now, after_ns = time.monotonic_ns(), clock_now(), time.monotonic_ns()
    assert before_ns <= now.monotonic_ns <= after_ns
    assert abs(now.unix_ns - time.time_ns()) < LIVENESS_S * 1e9  # it may be corrected meanwhile


@pytest.mark.parametrize("step_s", [3600, -3600, 0.6])
def test_a_step_of_the_time_of_day_is_noticed_once(monkeypatch, step_s):
    clocks = replace_clocks(monkeypatch, Clocks())
    watch = ClockWatch()
    assert watch.step_ns() == 0
    clocks.offset_ns += int(step_s * 1e9)
    assert watch.step_ns() == pytest.approx(step_s * 1e9, abs=1000)
    assert watch.step_ns() == 0


def test_small_corrections_are_no_steps_until_they_add_up(monkeypatch):
    clocks = replace_clocks(monkeypatch, Clocks())
    watch, steps = ClockWatch(), []
    for _ in range(6):
        clocks.offset_ns += 100 * MS
        steps.append(watch.step_ns())
    assert steps == [0, 0, 0, 0, 0, pytest.approx(600 * MS, abs=1000)]
