"""What is made of frames and samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.bench.detector_sample import DetectorSample
from services.bench.load_figures import (
    BareCost,
    figures,
    jains_index,
    streams_a_core,
)
from services.bench.simulated_camera import DETECTED, IN_FLIGHT, SUPERSEDED, SimulatedFrame

BARE = BareCost(decode_ms=2, tail_ms=20, boxes_ms=1)
IDLE = DetectorSample(cpu_s=5, resident_bytes=200e6, frames=0)
START = DetectorSample(cpu_s=6, resident_bytes=202e6, frames=10)
END = DetectorSample(cpu_s=9, resident_bytes=206e6, frames=110)


def frames(detected, **others):
    """Frames detected after 1, 2, ... ms, and so many of other outcomes."""
    made = [SimulatedFrame(0, DETECTED, number * 1_000_000) for number in range(1, detected + 1)]
    return made + [
        SimulatedFrame(0, outcome.replace("_", " "))
        for outcome, count in others.items()
        for _ in range(count)
    ]


def measured(*cameras):
    return figures(cameras, (IDLE, START, END), BARE, seconds=10, generator_s=0.5, tolerance=0.02)


def test_costs_are_of_the_frames_between_the_samples():
    row = measured(frames(100))
    assert row.detected_fps == 10
    assert row.cpu_ms == 30
    assert row.beside_ms == 7
    assert row.busy_cores == 0.3
    assert row.generator_cores == 0.05
    assert row.resident_mb == 206


def test_memory_is_shared_by_the_streams_that_came():
    assert measured(frames(50), frames(50)).stream_mb == 3


def test_latencies_are_of_detected_frames():
    row = measured(frames(100, superseded=50))
    assert row.latency_ms == {"p50": 50.5, "p95": 95.05, "p99": 99.01}


def test_a_stream_is_held_within_the_tolerance():
    assert measured(frames(98, superseded=2)).held == 1
    assert measured(frames(97, superseded=3)).held == 0
    assert measured(frames(98, superseded=1, stale=1), frames(9, superseded=1)).held == 1


def test_what_is_still_in_flight_is_neither_lost_nor_detected():
    row = measured(frames(99, in_flight=1))
    assert (row.captured, row.held, row.dropped) == (100, 1, {})
    assert measured(frames(0, in_flight=3)).held == 0


def test_drops_are_told_by_reason():
    assert measured(frames(1, superseded=2, stale=1), frames(1, stale=1)).dropped == {
        SUPERSEDED: 2,
        "stale": 2,
    }
    assert IN_FLIGHT not in measured(frames(1, in_flight=1)).dropped


def test_fairness_is_jains_index():
    assert jains_index([3, 3, 3]) == pytest.approx(1)
    assert jains_index([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jains_index([1, 3]) == pytest.approx(0.8)
    assert jains_index([0, 0]) == 1
    assert measured(frames(1, superseded=2), frames(3)).fairness == 0.8


def test_streams_a_core_come_from_the_most_that_was_detected():
    rows = [replace(measured(frames(1)), detected_fps=fps) for fps in (8, 10, 9)]
    assert streams_a_core(rows, fps=5, cores=2) == 1
