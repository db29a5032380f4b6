"""Figures of a detector, out of its metrics."""

from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest

from services.bench.detector_sample import DetectorSample, sample
from services.detector.statistics import DetectorStatistics
from services.detector.streams import Streams
from services.errors import NotMeasurable

TEXT = """\
process_cpu_seconds_total 12.5
process_resident_memory_bytes 3e+08
splitcast_detector_frames_detected_total 40.0
splitcast_detector_stage_seconds_bucket{le="1.0",stage="tail"} 7.0
splitcast_detector_event_loop_delay_seconds_bucket{le="0.01"} 90.0
splitcast_detector_event_loop_delay_seconds_bucket{le="0.02"} 100.0
splitcast_detector_event_loop_delay_seconds_bucket{le="+Inf"} 100.0
"""


def test_reads_what_a_detector_exports():
    read = DetectorSample.parse(TEXT)
    assert (read.cpu_s, read.resident_bytes, read.frames) == (12.5, 3e8, 40)
    assert read.loop_delays == {0.01: 90, 0.02: 100, float("inf"): 100}


def test_a_detector_without_a_metric_cannot_be_measured():
    with pytest.raises(NotMeasurable, match="process_cpu_seconds_total"):
        DetectorSample.parse(TEXT.replace("process_cpu", "other_cpu"))


def test_reads_what_a_real_detector_exports():
    metrics = DetectorStatistics(Streams()).metrics
    metrics.loop_delay.observe(0.004)
    read = DetectorSample.parse(generate_latest(metrics.registry).decode())
    assert read.cpu_s > 0
    assert read.resident_bytes > 1e6
    assert read.frames == 0
    assert read.loop_delays[float("inf")] == 1


async def test_says_where_nobody_answers():
    with pytest.raises(NotMeasurable, match=r"no metrics from http://127\.0\.0\.1:1/metrics"):
        await sample("ws://127.0.0.1:1")


@pytest.mark.parametrize(
    ("quantile", "delay_s"),
    [(0.5, 0.01 * 50 / 90), (0.9, 0.01), (0.95, 0.015), (1.0, 0.02)],
)
def test_quantiles_lie_where_a_histogram_says(quantile, delay_s):
    before = DetectorSample(0, 0, 0)
    after = DetectorSample.parse(TEXT)
    assert after.delay_quantile_s(before, quantile) == pytest.approx(delay_s)


def test_quantiles_leave_out_what_was_before():
    before = DetectorSample(0, 0, 0, {0.01: 90, 0.02: 90, float("inf"): 90})
    assert DetectorSample.parse(TEXT).delay_quantile_s(before, 0.5) == pytest.approx(0.015)
    assert before.delay_quantile_s(before, 0.5) == 0


def test_beyond_the_last_bound_a_quantile_is_that_bound():
    after = DetectorSample(0, 0, 0, {0.01: 1, float("inf"): 10})
    assert after.delay_quantile_s(DetectorSample(0, 0, 0), 0.99) == 0.01


def test_several_detectors_are_as_one_that_does_all():
    one, other = DetectorSample.parse(TEXT), DetectorSample(1.0, 2.0, 3.0, {0.01: 10, float("inf"): 20})
    both = one + other
    assert (both.cpu_s, both.resident_bytes, both.frames) == (13.5, 3e8 + 2, 43)
    assert both.loop_delays == {0.01: 100, 0.02: 100, float("inf"): 120}
