from __future__ import annotations

import pytest

from codec.layout import TensorSpec
from services.detector.streams import LOST_STREAMS_KEPT, Stream, Streams
from stream.session.messages import Report
from tests.services.detector.peers import connect_stream

LAYOUT = (TensorSpec("4.m", (8, 4, 4)),)
SECOND = 10**9


def make_report(detected: int, latency_sum_ms: float | None = None, **changes) -> Report:
    fields = {
        "captured": detected,
        "detected": detected,
        "in_flight": 0,
        "dropped": {},
        "reconnects": {},
        "source": "0",
        "source_state": "open",
        "keyframes": {},
        "latency_sum_ms": latency_sum_ms,
    }
    return Report(**fields | changes)


def leave(streams: Streams, stream: Stream) -> None:
    streams.leave(stream, "it left", 1.0, ended=False)


def history(stream: Stream, name: str) -> list:
    return stream.history.describe()[name]


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def stream(streams) -> Stream:
    """A stream that connects at 100 s."""
    return connect_stream(streams, LAYOUT, 100 * SECOND, 1000.0)


def test_latency_is_of_the_frames_between_two_reports(streams, stream):
    for second, (detected, latency_sum_ms) in enumerate(
        [(100, 9000.0), (110, 9500.0), (110, 9500.0)], start=101
    ):
        stream.update_report(make_report(detected, latency_sum_ms), second * SECOND)
        streams.sample(second * SECOND, 1.0)
    assert history(stream, "latency_ms") == [None, 50.0, None]


def test_a_camera_that_counts_backwards_harms_nothing(streams, stream):
    reports = [(5, 100.0), (6, 1.0), (2, 0.0), (2**63 - 1, 1e308), (3, None)]
    for second, (detected, latency_sum_ms) in enumerate(reports, start=101):
        stream.update_report(make_report(detected, latency_sum_ms), second * SECOND)
        streams.sample(second * SECOND, 1.0)
    assert history(stream, "latency_ms")[:3] == [None, 0.0, None]


def test_an_old_report_is_no_news(streams, stream):
    stream.update_report(make_report(1, 1.0, dropped={"grab/superseded": 1}), 101 * SECOND)
    stream.update_report(make_report(2, 2.0, dropped={"grab/superseded": 4}), 102 * SECOND)
    for second in range(102, 108):
        streams.sample(second * SECOND, float(second))
    assert history(stream, "latency_ms") == [1.0, 1.0, 1.0, None, None, None]
    assert history(stream, "dropped") == [None, 0, 0, None, None, None]


def test_a_lost_stream_goes_on_and_a_found_one_keeps_its_past(streams, stream):
    stream.preview = b"jpeg"
    stream.update_report(make_report(1, 1.0, jpeg_bytes=61_500), 100 * SECOND)
    stream.receive(1000, 101 * SECOND)
    streams.sample(101 * SECOND, 1.0)
    leave(streams, stream)
    streams.sample(102 * SECOND, 2.0)
    assert streams.get("door") is stream
    assert stream.describe(102 * SECOND)["state"] == "lost"
    assert connect_stream(streams, LAYOUT, 103 * SECOND, 1003.0) is stream
    stream.receive(1000, 103 * SECOND)
    streams.sample(103 * SECOND, 3.0)
    assert history(stream, "frames_per_second") == [1, 0, 1]
    described = stream.describe(103 * SECOND)
    assert (described["preview"], described["jpeg_kb_per_frame"]) == (False, 61.5)
    assert (described["since"], described["connections"], described["state"]) == (1000.0, 2, "connected")


def test_what_a_camera_reported_is_no_news_on_its_next_connection(streams, stream):
    """Its counts may have begun anew, and what it dropped in between belongs to no second."""
    stream.update_report(make_report(1, 1.0, dropped={"grab/superseded": 1}), 101 * SECOND)
    stream.update_report(make_report(2, 2.0, dropped={"grab/superseded": 2}), 101 * SECOND)
    streams.sample(101 * SECOND, 1.0)
    leave(streams, stream)
    streams.sample(102 * SECOND, 2.0)
    connect_stream(streams, LAYOUT, 102 * SECOND, 1002.0)
    streams.sample(103 * SECOND, 3.0)
    stream.update_report(make_report(9, 9000.0, dropped={"grab/superseded": 7}), 103 * SECOND)
    streams.sample(104 * SECOND, 4.0)
    assert history(stream, "latency_ms") == [1.0, None, None, None]
    assert history(stream, "dropped") == [None, None, None, None]


def test_sums_of_other_tensors_are_not_compared(streams, stream):
    stream.receive(1000, 100 * SECOND)
    stream.publish(
        (48, 64), keyframe=True, detections=3, stages_ns={}, tail_ns=0, now_ns=100 * SECOND, unix_s=1.0
    )
    streams.sample(101 * SECOND, 1.0)
    leave(streams, stream)
    other = (TensorSpec("4.m", (8, 2, 2)),)
    assert connect_stream(streams, other, 101 * SECOND, 1001.0) is stream
    [described] = streams.describe(101 * SECOND)
    assert [described[name] for name in ("frames", "since", "raw_kb_per_frame")] == [0, 1001.0, 0.128]
    assert described["connections"] == 2
    assert history(stream, "unix_s") == []


def test_rates_are_of_the_last_five_seconds(stream):
    for second in (101, 102, 103):
        stream.receive(1000, second * SECOND)
    rates = {
        now_s: (described["frames_per_second"], described["kbit_per_second"])
        for now_s in (103, 106, 107, 120)
        for described in [stream.describe(now_s * SECOND)]
    }
    assert rates == {103: (0.6, 4.8), 106: (0.6, 4.8), 107: (0.4, 3.2), 120: (0.0, 0.0)}


def test_counts_what_is_published(stream):
    assert stream.describe(101 * SECOND)["last_frame_age_s"] is None
    for packet_bytes in (2000, 1000):
        stream.receive(packet_bytes, 101 * SECOND)
    stages_ns = {"decode": 2_000_000, "tail": 30_000_000}
    stream.publish(
        (48, 64), keyframe=True, detections=3, stages_ns=stages_ns, tail_ns=0, now_ns=102 * SECOND, unix_s=1.0
    )
    stream.rejected["corrupt"] += 1
    described = stream.describe(104 * SECOND)
    assert described["frame"] == [48, 64]
    assert [described[name] for name in ("frames", "keyframes", "detections", "rejected")] == [1, 1, 3, 1]
    assert described["last_frame_age_s"] == 2.0
    assert described["stages_ms"] == {"decode": 2.0, "tail": 30.0}
    assert described["detector_ms"] == 32.0
    assert (described["kb_per_frame"], described["raw_kb_per_frame"]) == (1.5, 0.512)
    assert described["compression_ratio"] == 0.34


def test_the_longest_lost_streams_are_forgotten(streams):
    for number in range(LOST_STREAMS_KEPT + 2):
        stream = connect_stream(streams, LAYOUT, number * SECOND, 1.0, stream=f"door{number}")
        if number != 1:  # stays connected
            leave(streams, stream)
    assert streams.get("door0") is None
    assert streams.get("door1")
    assert streams.get("door2")
    assert streams.connected == 1
    assert streams.is_connected("door1")
    assert not streams.is_connected("door2")


def test_a_stream_that_came_back_is_not_the_longest_lost(streams):
    for number in (*range(LOST_STREAMS_KEPT), 0, LOST_STREAMS_KEPT):
        leave(streams, connect_stream(streams, LAYOUT, SECOND, 1.0, stream=f"door{number}"))
    assert streams.get("door0")
    assert streams.get("door1") is None


def test_a_name_never_seen_is_no_stream(streams):
    assert streams.get("door") is None
