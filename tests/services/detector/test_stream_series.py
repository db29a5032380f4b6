"""What Prometheus sees of single streams."""

from __future__ import annotations

import pytest

from services.detector.metrics import DetectorMetrics
from services.detector.stream_series import STREAM_SERIES
from services.detector.stream_status import STREAM_STATES
from services.detector.streams import LOST_STREAMS_KEPT, Streams
from stream.session.messages import REJECT_REASONS, Waiting
from tests.services.detector.peers import connect_stream
from tests.stream.session.peers import LAYOUT


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def metrics(streams) -> DetectorMetrics:
    return DetectorMetrics(streams)


def named(metrics: DetectorMetrics) -> set[str]:
    """Streams that have a state."""
    return {
        sample.labels["stream"]
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "splitcast_detector_stream_state"
    }


def test_tells_of_each_stream_what_is_known(streams, metrics):
    stream = connect_stream(streams, LAYOUT)

    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(
            f"splitcast_detector_stream_{name}", {"stream": "door", **labels}
        )

    assert sample("last_frame_timestamp_seconds") is None
    stream.publish(
        (48, 64),
        keyframe=True,
        detections=3,
        stages_ns={},
        tail_ns=20_000_000,
        now_ns=1,
        unix_s=1795435261.5,
    )
    stream.rejected["stale"] += 2
    assert sample("last_frame_timestamp_seconds") == 1795435261.5
    assert sample("frames_total") == 1
    assert sample("tail_seconds_total") == 0.02
    assert {reason: sample("rejected_total", reason=reason) for reason in REJECT_REASONS} == {
        **dict.fromkeys(REJECT_REASONS, 0),
        "stale": 2,
    }
    assert [state for state in STREAM_STATES if sample("state", state=state)] == ["connected"]
    streams.leave(stream, "reset", 1.0, ended=False)
    assert [state for state in STREAM_STATES if sample("state", state=state)] == ["lost"]


def test_a_name_that_never_streamed_has_no_series(streams, metrics):
    waiting = Waiting(stream="door", session="0" * 32, source="0", source_state="opening")
    streams.wait(streams.arrive("door", 0, 0.0), waiting, 0.0)
    assert named(metrics) == set()


def test_a_forgotten_stream_has_no_series(streams, metrics):
    for number in range(LOST_STREAMS_KEPT + 1):
        streams.leave(connect_stream(streams, LAYOUT, stream=f"door{number}"), "reset", 1.0, ended=False)
    assert named(metrics) == {f"door{number}" for number in range(1, LOST_STREAMS_KEPT + 1)}


def test_those_lost_longest_ago_lose_their_series_first(streams, metrics):
    present = STREAM_SERIES - 1
    for number in range(present):
        connect_stream(streams, LAYOUT, stream=f"door{number}")
    for number in range(2):
        streams.leave(connect_stream(streams, LAYOUT, stream=f"lost{number}"), "reset", 1.0, ended=False)
    assert named(metrics) == {"lost1", *(f"door{number}" for number in range(present))}
    assert metrics.registry.get_sample_value("splitcast_detector_stream_series_omitted") == 1
    for number in range(2):
        connect_stream(streams, LAYOUT, stream=f"new{number}")
    assert named(metrics) == {"new0", *(f"door{number}" for number in range(present))}
