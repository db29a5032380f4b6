"""A camera that chooses the quantizer step itself, over a real socket. How well it does, test_rate.py tells."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest

from codec.feature.codec import Feature
from codec.feature.parameters import QUALITY
from services.camera import pipeline
from services.chaos.service import chaos_proxy
from stream.rate.control import RateControl
from tests.services.counts import balances
from tests.services.waiting import LIVENESS_S, until

NOISE = "demo:scene=bus,fps=15,size=96x64,noise=40"  # which no prediction takes away


CODEC = "feature:quality=8,profile=none"
STEP, _ = QUALITY[8]
COARSEST = Feature.step_range.coarsest


def value(camera, name: str, **labels: str) -> float:
    return camera.statistics.metrics.registry.get_sample_value(f"splitcast_camera_{name}", labels)


def reason(camera) -> str:
    """What chose the step, as the metrics tell."""
    reasons = ("quality", "target", "link", "latency", "start")
    return " ".join(each for each in reasons if value(camera, "rate_reason", reason=each))


async def test_without_a_target_the_quality_is_the_step(start_detector, make_camera):
    async with start_detector() as running:
        camera = make_camera(running.url, codec=CODEC)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        report = running.detector.streams.get("door").report.rate
    assert value(camera, "quantizer_step") == report.step == STEP
    assert (reason(camera), report.reason) == ("quality", "quality")
    assert value(camera, "link_bytes_per_second") == pytest.approx(report.link_kbps * 125, rel=0.01)
    assert report.link_kbps > 0
    assert report.target_kbps is None
    assert camera.statistics.frame_counts.dropped["grab", "rate"] == 0


async def test_holds_a_target_with_the_step_then_with_the_frame_rate(start_detector, make_camera):
    """So small a target that even the coarsest step takes too much at the source's frame rate."""
    target_kbps = 2
    async with start_detector() as running:
        camera = make_camera(running.url, source=NOISE, codec=CODEC, target_kbps=target_kbps)
        started = time.monotonic()
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: value(camera, "quantizer_step") == COARSEST and reason(camera) == "target")
        held_back = camera.statistics.frame_counts.dropped["grab", "rate"]
        await until(lambda: camera.statistics.frame_counts.dropped["grab", "rate"] >= held_back + 5)
        assert balances(camera)
        sent = camera.statistics.totals.encoded_bytes
        elapsed_s = time.monotonic() - started
        # A second's worth may be sent in advance, and the frame that goes beyond it.
        largest = 4000
        assert sent <= target_kbps * 125 * (elapsed_s + 1) + largest
        assert value(camera, "rate_target_bytes_per_second") == target_kbps * 125
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert camera.statistics.frame_counts.dropped["grab", "rate"] == value(
        camera, "frames_dropped_total", stage="grab", reason="rate"
    )
    assert balances(camera)


async def test_follows_a_link_that_shrinks(start_detector, make_camera):
    async with start_detector() as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(proxy.url, source=NOISE, codec=CODEC, max_latency_ms=60_000)
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 10)
        kbps = 10
        thin = proxy.begin(f"bandwidth:kbps={kbps},direction=up")
        await until(
            lambda: (
                reason(camera) == "link"
                and value(camera, "quantizer_step") > STEP
                and value(camera, "link_bytes_per_second") < 2 * kbps * 125
            )
        )
        proxy.end(thin)
        await until(lambda: value(camera, "link_bytes_per_second") > 4 * kbps * 125)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)


async def test_a_frozen_link_gets_no_more_frames(start_detector, make_camera):
    """One that does not answer is not filled up to the window, and a new connection starts coarse."""
    async with start_detector(window=1000) as running, chaos_proxy(running.address) as proxy:
        camera = make_camera(
            proxy.url, source=NOISE, codec=CODEC, target_kbps=5000, window=1000, silence_s=LIVENESS_S
        )
        playing = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected >= 8)
        hole = proxy.begin("blackhole")
        await until(lambda: camera.statistics.frame_counts.dropped["grab", "rate"] >= 8)
        assert 0 < camera.unanswered < 500
        assert balances(camera)
        proxy.begin("reset")
        proxy.end(hole)
        resumed = camera.statistics.frame_counts.detected + 5
        await until(lambda: camera.statistics.frame_counts.detected >= resumed)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert balances(camera)
    assert camera.statistics.report("").reconnects["detector"] == 1


async def test_learns_how_often_frames_come_while_it_warms_up(start_detector, make_camera, monkeypatch):
    """A live source runs from the start, and the first steps are chosen by its frame rate."""
    captures: Counter[RateControl] = Counter()
    captures_at_start: list[int] = []
    warming_up, enough = threading.Event(), threading.Event()
    warm_up, capture, connect = pipeline._warm_up, RateControl.capture, RateControl.connect

    def slow_warm_up(*parts):
        warming_up.set()
        warm_up(*parts)
        enough.wait(LIVENESS_S)

    def counted_capture(rate, captured_ns):
        captures[rate] += 1
        capture(rate, captured_ns)

    def noted_connect(rate, window):
        captures_at_start.append(captures[rate])
        connect(rate, window)

    monkeypatch.setattr(pipeline, "_warm_up", slow_warm_up)
    monkeypatch.setattr(RateControl, "capture", counted_capture)
    monkeypatch.setattr(RateControl, "connect", noted_connect)
    async with start_detector() as running:
        camera = make_camera(running.url, source=NOISE, codec=CODEC)
        counts = camera.statistics.frame_counts

        def seen() -> int:
            """All but those that a busy machine has skipped."""
            return counts.captured - counts.dropped["grab", "overwritten"]

        playing = asyncio.ensure_future(camera.run())
        await until(warming_up.is_set)
        before = seen()
        await until(lambda: seen() >= before + 30)
        enough.set()
        await until(lambda: camera.statistics.frame_counts.detected >= 1)
        camera.stop()
        await asyncio.wait_for(playing, LIVENESS_S)
    assert captures_at_start[0] >= 30
