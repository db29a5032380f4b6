from __future__ import annotations

import pytest

from stream.latency import STAGES, StageClock, StageDurations, StageStatistics, network_ns


def test_every_nanosecond_belongs_to_one_stage():
    clock = StageClock(started_ns=1000)
    for stage, now_ns in (("grab", 1030), ("head", 1100), ("grab", 1105)):
        clock.lap(stage, now_ns)
    assert clock.durations_ns == {"grab": 35, "head": 70}


def test_what_stages_took_elsewhere_leaves_the_rest_as_waiting():
    clock = StageClock(started_ns=1000)
    clock.lap_elsewhere({"decode": 20, "tail": 50}, "queue", 1100)
    clock.lap("publish", 1110)
    assert clock.durations_ns == {"decode": 20, "tail": 50, "queue": 30, "publish": 10}


def test_no_more_can_be_spent_elsewhere_than_has_passed():
    clock = StageClock(started_ns=1000)
    clock.lap_elsewhere({"decode": 20, "tail": 90}, "queue", 1100)
    assert clock.durations_ns == {"decode": 20, "tail": 80, "queue": 0}


def test_network_is_what_neither_end_accounts_for():
    assert network_ns(100, {"head": 30, "send": 1}, {"tail": 40}) == 29
    assert network_ns(10, {"head": 30}, {}) == 0


def test_one_slow_frame_does_not_move_a_median():
    durations = StageDurations()
    for tail_ns in (3 * 10**6, 90 * 10**6, 2 * 10**6):
        durations.add({"tail": tail_ns})
    durations.add({"head": 10**6})
    assert durations.medians_ms() == {"tail": 3, "head": 1}


def test_work_that_cannot_be_told_apart_is_shared_equally():
    durations = StageDurations()
    for encode_ns in (0, 0, 9 * 10**6):
        durations.add({"encode": encode_ns})
    durations.spread_over(3)
    assert durations.medians_ms() == {"encode": 3}


def test_statistics_add_up():
    statistics = StageStatistics(capacity=4)
    assert statistics.latency() is None
    for milliseconds in (1000, 1, 2, 3, 4):  # the first one is forgotten
        statistics.add({"tail": milliseconds * 10**6, "head": 10**6})
    latency = statistics.latency()
    assert latency is not None
    assert latency.mean_ms == pytest.approx(3.5)
    assert latency.median_ms == pytest.approx(3.5)
    stages = statistics.by_stage()
    assert list(stages) == ["head", "tail"]
    assert statistics.means_ms() == pytest.approx({"head": 1.0, "tail": 2.5})
    assert sum(stage.mean_ms for stage in stages.values()) == pytest.approx(latency.mean_ms)
    assert set(stages) < set(STAGES)
