from __future__ import annotations

import math

import pytest

from codec.interface import EncodedFrame
from services.camera.statistics import CameraStatistics


def sample(statistics: CameraStatistics, name: str, **labels: str) -> float:
    value = statistics.metrics.registry.get_sample_value(f"splitcast_camera_{name}", labels)
    assert value is not None
    return value


def test_every_frame_is_in_the_report_and_in_the_metrics():
    statistics = CameraStatistics()
    for captured_ns in (10**9, 2 * 10**9, 3 * 10**9):
        statistics.capture(captured_ns)
    statistics.miss("overwritten", 2)
    statistics.detect(10**9, 1_250_000_000, {"head": 150_000_000, "network": 100_000_000}, detections=4)
    statistics.frame_counts.drop("detector", "reference_mismatch")
    report = statistics.report("demo")
    assert (report.captured, report.detected, report.in_flight) == (5, 1, 1)
    assert report.dropped == {"grab/overwritten": 2, "detector/reference_mismatch": 1}
    assert report.latency_sum_ms == 250
    assert {stage: of_stage.mean_ms for stage, of_stage in report.stages.items()} == {
        "head": 150,
        "network": 100,
    }
    for name in ("frames_captured_total", "frames_detected_total", "frames_in_flight"):
        field = name.removeprefix("frames_").removesuffix("_total")
        assert sample(statistics, name) == getattr(report, field)
    assert sample(statistics, "frames_dropped_total", stage="detector", reason="reference_mismatch") == 1
    assert sample(statistics, "detections_total") == 4


def test_a_keyframe_without_a_reason_is_of_a_codec_that_has_no_other():
    statistics = CameraStatistics()
    statistics.send(EncodedFrame(bytes(7), keyframe=True, keyframe_reason=None), raw_bytes=70)
    statistics.send(EncodedFrame(bytes(7), keyframe=True, keyframe_reason="scene"), raw_bytes=70)
    statistics.send(EncodedFrame(bytes(7), keyframe=False, keyframe_reason=None), raw_bytes=70)
    assert statistics.report("").keyframes == {"always": 1, "scene": 1}
    assert (statistics.totals.packets, statistics.totals.encoded_bytes, statistics.totals.raw_bytes) == (
        3,
        21,
        210,
    )


def test_counts_a_peer_that_comes_back_and_not_one_that_comes_first():
    statistics = CameraStatistics()
    statistics.disconnect("detector", "broken")  # it never was there
    statistics.connect("detector")
    assert statistics.report("").reconnects == {}
    statistics.disconnect("detector", "broken")
    assert sample(statistics, "connected", peer="detector") == 0
    statistics.connect("detector")
    assert statistics.report("").reconnects == {"detector": 1}
    assert statistics.welcomes == 2


@pytest.mark.parametrize(
    ("target_kbps", "max_latency_ms", "rate", "latency_s"),
    [(None, None, math.nan, math.nan), (400.0, 250.0, 50_000, 0.25)],
)
def test_exports_targets_in_base_units(target_kbps, max_latency_ms, rate, latency_s):
    statistics = CameraStatistics(target_kbps, max_latency_ms)
    assert sample(statistics, "rate_target_bytes_per_second") == pytest.approx(rate, nan_ok=True)
    assert sample(statistics, "latency_target_seconds") == pytest.approx(latency_s, nan_ok=True)
