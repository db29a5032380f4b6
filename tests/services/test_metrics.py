"""What Prometheus would read from both services."""

from __future__ import annotations

import asyncio
import math
import re
import ssl

import pytest
from aiohttp import ClientError, ClientSession
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from services.camera.metrics import BRIEF, CameraMetrics, serve_metrics
from services.detector.metrics import DetectorMetrics
from stream.frame_counts import DROPS
from stream.latency import DETECTOR_STAGES, STAGES
from stream.rate.control import REASONS
from stream.transport.certificate import end_of_first
from tests.certificates import Authority
from tests.paths import DEPLOY
from tests.ports import free_port
from tests.services.clips import FRAMES
from tests.services.waiting import LIVENESS_S


async def scrape(url: str) -> dict[tuple[str, frozenset], float]:
    async with ClientSession() as session, session.get(f"{url}/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text = await answer.text()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_both_services_tell_the_same_story(start_detector, make_camera):
    async with start_detector() as running:
        port = free_port()
        camera = make_camera(running.url, metrics="full", metrics_port=port, codec="rle:bits=4,temporal=true")
        async with serve_metrics(camera.statistics.metrics, camera.config):
            before = await scrape(f"http://127.0.0.1:{port}")
            await asyncio.wait_for(camera.run(), LIVENESS_S)
            seen = await scrape(f"http://127.0.0.1:{port}")
        detector = await scrape(running.http)
    assert value(before, "splitcast_camera_frames_captured_total") == 0
    assert math.isnan(value(before, "splitcast_camera_frame_age_seconds"))
    assert math.isnan(value(before, "splitcast_camera_jpeg_frame_bytes"))
    assert value(before, "splitcast_camera_preview_bytes_total") == 0
    for name in ("quantizer_step", "rate_target_bytes_per_second", "latency_target_seconds"):
        assert math.isnan(value(seen, f"splitcast_camera_{name}")), name  # with a codec that has no step
    for reason in REASONS:
        assert value(seen, "splitcast_camera_rate_reason", reason=reason) == 0
    assert value(before, "splitcast_camera_link_bytes_per_second") == 0
    assert value(seen, "splitcast_camera_link_bytes_per_second") > 0
    for stage, reason in DROPS:
        assert value(before, "splitcast_camera_frames_dropped_total", stage=stage, reason=reason) == 0
    assert value(seen, "splitcast_camera_frames_captured_total") == FRAMES
    assert value(seen, "splitcast_camera_frames_detected_total") == FRAMES
    assert value(seen, "splitcast_camera_frames_in_flight") == 0
    assert value(detector, "splitcast_detector_frames_detected_total") == FRAMES
    for name in ("encoded_bytes_total", "raw_bytes_total", "detections_total"):
        assert value(seen, f"splitcast_camera_{name}") == value(detector, f"splitcast_detector_{name}") > 0
    keyframes = sum(count for (name, _), count in seen.items() if name == "splitcast_camera_keyframes_total")
    assert keyframes == value(detector, "splitcast_detector_keyframes_total") == 1
    assert value(seen, "splitcast_camera_latency_seconds_count") == FRAMES
    for stage in STAGES:
        assert value(seen, "splitcast_camera_stage_seconds_count", stage=stage) == FRAMES, stage
    for stage in DETECTOR_STAGES:
        assert value(detector, "splitcast_detector_stage_seconds_count", stage=stage) == FRAMES, stage
    stages = sum(value(seen, "splitcast_camera_stage_seconds_sum", stage=stage) for stage in STAGES)
    assert stages == pytest.approx(value(seen, "splitcast_camera_latency_seconds_sum"), rel=0.01)
    assert value(seen, "splitcast_camera_frame_age_seconds") > 0
    assert value(detector, "splitcast_detector_streams") == 0


async def test_a_camera_tells_what_an_operator_reads_in_some_thirty_series(start_detector, make_camera):
    async with start_detector() as running:
        port = free_port()
        camera = make_camera(running.url, metrics_port=port)
        async with serve_metrics(camera.statistics.metrics, camera.config):
            url = f"http://127.0.0.1:{port}"
            before = await scrape(url)
            await asyncio.wait_for(camera.run(), LIVENESS_S)
            camera.statistics.frame_counts.miss("overwritten", 2)
            camera.statistics.retry("detector", 30)
            seen = await scrape(url)
    assert len(before) <= len(seen) <= 30
    never = {"splitcast_camera_reconnects_total", "splitcast_camera_recording_lost_packets_total"}
    assert {name for name, _ in seen} == BRIEF - never
    names = "splitcast_camera_frames_dropped_total"
    assert [(labels, count) for (name, labels), count in seen.items() if name == names] == [
        (frozenset({("stage", "grab"), ("reason", "overwritten")}), 2)
    ]
    assert value(seen, "splitcast_camera_connected", peer="detector") == 0
    states = [dict(labels)["state"] for name, labels in seen if name == "splitcast_camera_source_state"]
    assert states == [camera.statistics.source_state]
    assert value(seen, "splitcast_camera_frames_captured_total") == FRAMES


def test_what_alerts_ask_of_a_camera_it_tells_in_brief():
    """But for what only a histogram tells."""
    asked = set(re.findall(r"splitcast_camera_\w+", (DEPLOY / "prometheus" / "rules.yml").read_text()))
    assert asked - BRIEF == {"splitcast_camera_event_loop_delay_seconds_bucket"}


async def test_a_cameras_metrics_come_over_tls_to_who_shows_a_certificate(make_camera, tmp_path):
    authority, port = Authority(tmp_path), free_port()
    files = {"metrics_tls_cert": authority.sign(), "metrics_tls_client_ca": authority.file}
    camera = make_camera("ws://127.0.0.1:9", metrics_port=port, **files)
    stranger = ssl.create_default_context(cafile=authority.file)
    scraper = ssl.create_default_context(cafile=authority.file)
    scraper.load_cert_chain(authority.sign("prometheus@splitcast.example", file="client.pem"))
    with capture_logs() as logs:
        async with serve_metrics(camera.statistics.metrics, camera.config), ClientSession() as session:
            async with session.get(f"https://127.0.0.1:{port}/metrics", ssl=scraper) as answer:
                assert "splitcast_camera_build_info" in await answer.text()
            for url, context in (("https", stranger), ("http", True)):
                with pytest.raises(ClientError):
                    await session.get(f"{url}://127.0.0.1:{port}/metrics", ssl=context)
    reasons = [
        entry["reason"].partition(",")[0] for entry in logs if entry["event"] == "TLS handshake failed"
    ]
    assert {"the client shows no certificate", "plain HTTP"} == set(reasons)
    assert {entry["peer"] for entry in logs if entry["event"] == "TLS handshake failed"} == {"127.0.0.1"}
    sample = camera.statistics.metrics.registry.get_sample_value
    assert sample("splitcast_camera_connections_refused_total", {"reason": "tls_failed"}) == len(reasons)
    ends = sample("splitcast_camera_certificate_expires_timestamp_seconds")
    assert ends == end_of_first(files["metrics_tls_cert"].read_bytes())


async def test_connections_keep_no_scrape_from_a_camera(make_camera, monkeypatch):
    """The longest idle makes way, and the log tells."""
    monkeypatch.setattr("services.camera.metrics.MAX_CONNECTIONS", 1)
    port = free_port()
    camera = make_camera("ws://127.0.0.1:9", metrics_port=port)
    with capture_logs() as logs:
        async with serve_metrics(camera.statistics.metrics, camera.config), ClientSession() as session:
            idle, writer = await asyncio.open_connection("127.0.0.1", port)
            async with session.get(f"http://127.0.0.1:{port}/livez") as answer:
                assert answer.status == 200
            assert await idle.read() == b""
            writer.close()
    refusal = {"event": "connection refused", "port": "metrics", "reason": "made_way", "peer": "127.0.0.1"}
    assert logs == [{**refusal, "log_level": "warning"}]
    sample = camera.statistics.metrics.registry.get_sample_value
    assert sample("splitcast_camera_connections_refused_total", {"reason": "made_way"}) == 1


@pytest.mark.parametrize("metrics", [CameraMetrics, DetectorMetrics])
def test_names_follow_the_conventions(metrics):
    """The rules that `promtool check metrics` applies."""
    for family in metrics().registry.collect():
        if family.name.startswith("splitcast_"):
            assert family.documentation
            assert not family.name.endswith(
                ("_total", "_milliseconds", "_kilobytes", "_ms", "_count", "_sum")
            )
            for sample in family.samples:
                assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
                assert "_created" not in sample.name
