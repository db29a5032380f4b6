"""Reports: all of it at first, then what is new, and of a calm stream little."""

from __future__ import annotations

import json

import pytest

from codec.interface import EncodedFrame
from services.camera import reports as module
from services.camera.reports import CALM_BYTES, DETAIL_BYTES, DETAIL_S, DETAILS, Reports
from services.camera.statistics import CameraStatistics
from stream.session.detector import DetectorSession
from stream.session.messages import Clock, Report
from tests.stream.session.peers import make_hello

S = 10**9


@pytest.fixture
def clocks(monkeypatch):
    """Both clocks, which a test may set."""
    now = {"monotonic_ns": 5 * S, "unix_ns": 1_795_000_000 * S}
    monkeypatch.setattr("services.camera.statistics.clock_now", lambda: Clock(**now))
    return now


@pytest.fixture
def statistics(clocks):
    return CameraStatistics()


def work(statistics, size=15, frames=15):
    """A second of a camera's."""
    for _ in range(frames):
        statistics.capture(S)
        statistics.send(EncodedFrame(bytes(size), keyframe=False, keyframe_reason=None), 10**6)
        number = statistics.frame_counts.detected
        statistics.detect(S, S + 10**7, {"head": number * 10**6, "tail": 10**6}, 0)
    statistics.measure_jpeg(statistics.frame_counts.detected)


def told(statistics, seconds, size=15):
    """What is told in so many seconds, by the second."""
    reports, texts = Reports(statistics), {}
    for second in range(seconds):
        work(statistics, size)
        if (text := reports.due("demo", second * S)) is not None:
            texts[second] = text
    return texts


def test_the_first_says_all_and_the_next_what_is_new(statistics):
    first, second = map(json.loads, told(statistics, 3).values())
    assert first.keys() == set(Report.model_fields)
    assert second.keys() == {"type", "captured", "detected", "in_flight", "latency_sum_ms"}


def test_a_calm_stream_is_told_of_every_other_second_and_its_details_now_and_then(statistics):
    texts = told(statistics, 45)
    assert list(texts) == list(range(0, 45, 2))
    detailed = [second for second, text in texts.items() if set(DETAILS) & json.loads(text).keys()]
    assert detailed == [0, int(DETAIL_S), int(2 * DETAIL_S)]
    assert sum(len(text) for second, text in texts.items() if 1 < second <= 41) < 40 * 60


def test_a_stream_of_some_bytes_is_told_of_every_second(statistics):
    texts = told(statistics, 5, size=CALM_BYTES // 15 + 1)
    assert list(texts) == [0, 1, 2, 3, 4]
    assert not any("stages" in json.loads(texts[second]) for second in (1, 2, 3, 4))


def test_a_busy_stream_tells_its_details_every_second(statistics):
    texts = told(statistics, 5, size=DETAIL_BYTES // 15 + 1)
    assert len(texts) == 5
    assert all({"latency", "stages", "jpeg_bytes"} <= json.loads(text).keys() for text in texts.values())


def test_what_becomes_of_the_source_is_told_at_the_next_second(statistics):
    reports = Reports(statistics)
    reports.due("demo", 0)
    assert reports.due("demo", S) is None
    statistics.connect("source")
    assert json.loads(reports.due("demo", S))["source_state"] == "open"


def test_the_last_is_told_at_once_and_in_detail(statistics):
    reports = Reports(statistics)
    work(statistics)
    reports.due("demo", 0)
    work(statistics)
    assert {"latency", "jpeg_bytes"} <= json.loads(reports.text("demo", 1)).keys()


def test_the_detector_knows_all_that_was_told(statistics, clocks):
    """Sources, drops and clocks among it, however short the reports are."""
    reports, session = Reports(statistics), DetectorSession(2)
    session.receive_text(make_hello().text())
    for second in range(12):
        work(statistics)
        clocks["monotonic_ns"] += S
        clocks["unix_ns"] += S
        if second == 3:
            statistics.connect("source")
        if second == 5:
            statistics.capture(S)
            statistics.frame_counts.drop("grab", "superseded")
        if second == 7:
            clocks["unix_ns"] += 3600 * S
        known = session.receive_text(reports.text("demo", second * S, in_detail=second % 4 == 0))
        expected = statistics.report("demo")
        exact = set(Report.model_fields) - {*DETAILS, "clock"}
        assert known.model_dump(include=exact) == expected.model_dump(include=exact)
        assert known.clock.unix_ns - known.clock.monotonic_ns == clocks["unix_ns"] - clocks["monotonic_ns"]
    assert known.jpeg_bytes == 9 * 15


def test_clocks_that_drift_are_told_once_it_shows(statistics, clocks):
    reports, at = Reports(statistics), []
    for second in range(8):
        clocks["unix_ns"] += module.CLOCK_NS // 3 + 1
        if "clock" in json.loads(reports.text("demo", second * S)):
            at.append(second)
    assert at == [0, 3, 6]
