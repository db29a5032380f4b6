from __future__ import annotations

import math

import pytest

from codec.layout import raw_bytes
from services.detector.statistics import DetectorStatistics
from services.detector.streams import Streams
from stream.session.close_codes import CloseCode
from tests.services.detector.peers import connect_stream
from tests.stream.session.peers import LAYOUT

SECOND = 10**9


@pytest.fixture
def statistics() -> DetectorStatistics:
    return DetectorStatistics(Streams())


@pytest.fixture
def sample(statistics):
    """The value of a metric."""

    def sample(name: str, **labels: str) -> float:
        value = statistics.metrics.registry.get_sample_value(f"splitcast_detector_{name}", labels)
        assert value is not None, name
        return value

    return sample


@pytest.fixture
def stream():
    return connect_stream(Streams(), LAYOUT)


def test_counts_a_packet_for_its_stream_and_for_all(statistics, sample, stream):
    for packet_bytes in (100, 50):
        statistics.receive(stream, packet_bytes, SECOND)
    assert (stream.packets, stream.encoded_bytes) == (2, 150)
    assert sample("encoded_bytes_total") == 150
    assert sample("raw_bytes_total") == 2 * raw_bytes(LAYOUT)


def test_counts_a_frame_for_its_stream_and_for_all(statistics, sample, stream):
    for keyframe, stages_ns in ((True, {"decode": SECOND, "tail": 2 * SECOND}), (False, {"tail": SECOND})):
        statistics.publish(
            stream,
            (48, 64),
            keyframe=keyframe,
            detections=3,
            stages_ns=stages_ns,
            tail_ns=0,
            now_ns=SECOND,
            unix_s=1.0,
        )
    assert (stream.frames, stream.keyframes, stream.detections) == (2, 1, 6)
    assert [sample(f"{name}_total") for name in ("frames_detected", "keyframes", "detections")] == [2, 1, 6]
    assert sample("stage_seconds_sum", stage="tail") == 3
    assert sample("stage_seconds_count", stage="decode") == 1


def test_counts_a_reject_by_its_reason(statistics, sample, stream):
    statistics.reject(stream, "reference_mismatch")
    assert stream.rejected == {"reference_mismatch": 1}
    assert sample("frames_rejected_total", reason="reference_mismatch") == 1
    assert sample("frames_rejected_total", reason="corrupt") == 0


def test_counts_connections(statistics, sample):
    statistics.accept()
    statistics.close(CloseCode.GOING_AWAY)
    statistics.drop_message()
    assert sample("stream_connections_total") == 1
    assert sample("sessions_closed_total", code="1001") == 1
    assert sample("subscriber_dropped_messages_total") == 1


def test_the_age_is_that_of_the_last_frame_of_any_stream(statistics, stream):
    assert math.isnan(statistics.frame_age_s(SECOND))
    other = connect_stream(Streams(), LAYOUT, stream="porch")
    for published, now_ns in ((stream, SECOND), (other, 3 * SECOND)):
        statistics.publish(
            published,
            (48, 64),
            keyframe=True,
            detections=0,
            stages_ns={},
            tail_ns=0,
            now_ns=now_ns,
            unix_s=1.0,
        )
    assert statistics.frame_age_s(4 * SECOND) == 1.0
