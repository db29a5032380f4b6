from __future__ import annotations

import pytest

from codec.layout import TensorSpec
from services.detector.history import SAMPLES_KEPT, Counts, History
from services.detector.streams import Streams
from stream.session.camera import tensor_shapes
from stream.session.messages import Clock, Hello, Report

LAYOUT = (TensorSpec("4.m", (8, 4, 4)),)
SECOND = 10**9


def make_hello() -> Hello:
    return Hello(
        stream="door",
        model="yolov5n",
        weights="ab" * 32,
        split="4.m",
        canvas=(64, 96),
        tensors=tensor_shapes(LAYOUT),
        codec="rle:bits=4",
        clock=Clock(monotonic_ns=1, unix_ns=2),
    )


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


def columns(history: History) -> dict[str, list]:
    told = history.describe()
    assert told.pop("interval_s") == 1
    return told


class TestHistory:
    def test_is_empty_at_first(self):
        assert all(values == [] for values in columns(History(0)).values())

    def test_tells_what_has_come_in_a_second(self):
        history = History(0)
        counts = Counts(SECOND, packets=10, encoded_bytes=25_000, frames=8, detections=12)
        history.add(counts, 100.0, latency_ms=40.0)
        assert columns(history) == {
            "unix_s": [100.0],
            "frames_per_second": [10.0],
            "kbit_per_second": [200.0],
            "kb_per_frame": [2.5],
            "latency_ms": [40.0],
            "dropped": [None],
            "detections": [1.5],
        }

    def test_tells_rates_where_the_loop_was_late(self):
        history = History(0)
        history.add(Counts(2 * SECOND, packets=10, encoded_bytes=10_000), 2.0, None)
        assert columns(history)["frames_per_second"] == [5.0]
        assert columns(history)["kbit_per_second"] == [40.0]

    def test_a_stream_that_has_just_begun_has_no_huge_rate(self):
        history = History(SECOND - 1000)
        history.add(Counts(SECOND, packets=1, encoded_bytes=1000), 1.0, None)
        assert columns(history)["frames_per_second"] == [1.0]

    def test_a_gap_is_zeros_and_nulls(self):
        history = History(0)
        for second in range(1, 4):
            history.add(Counts(second * SECOND), float(second), None)
        told = columns(history)
        assert told["frames_per_second"] == told["kbit_per_second"] == [0, 0, 0]
        for name in ("kb_per_frame", "latency_ms", "dropped", "detections"):
            assert told[name] == [None] * 3

    def test_keeps_three_minutes(self):
        history = History(0)
        for second in range(1, SAMPLES_KEPT + 21):
            history.add(Counts(second * SECOND, packets=second), float(second), None)
        told = columns(history)
        assert {len(values) for values in told.values()} == {SAMPLES_KEPT} == {180}
        assert told["unix_s"] == list(range(21, SAMPLES_KEPT + 21))

    @pytest.mark.parametrize(
        ("told", "dropped"),
        [
            ([3, 5, 5], [None, 2, 0]),
            ([None, 5, 6], [None, None, 1]),  # the first report tells of the time before, too
            ([7, None, 90], [None, None, None]),  # lost while nobody heard: of no second
            ([7, 1, 2], [None, None, 1]),  # the camera has started again
        ],
    )
    def test_drops_belong_to_their_second(self, told, dropped):
        history = History(0)
        for second, count in enumerate(told, start=1):
            history.add(Counts(second * SECOND, dropped=count), float(second), None)
        assert columns(history)["dropped"] == dropped


class TestStreams:
    def test_latency_is_of_the_frames_between_two_reports(self):
        streams = Streams()
        stream = streams.connect(make_hello(), LAYOUT)
        now_ns = stream.history._last.at_ns
        stream.take_report(make_report(detected=100, latency_sum_ms=9000.0))
        streams.sample(now_ns + SECOND, 1.0)
        stream.take_report(make_report(detected=110, latency_sum_ms=9500.0))
        streams.sample(now_ns + SECOND, 2.0)
        stream.take_report(make_report(detected=110, latency_sum_ms=9500.0))
        streams.sample(now_ns + SECOND, 3.0)
        assert columns(stream.history)["latency_ms"] == [None, 50.0, None]

    def test_a_camera_that_counts_backwards_harms_nothing(self):
        streams = Streams()
        stream = streams.connect(make_hello(), LAYOUT)
        now_ns = stream.history._last.at_ns
        for detected, latency_sum_ms in ((5, 100.0), (6, 1.0), (2, 0.0), (2**63 - 1, 1e308), (3, None)):
            stream.take_report(make_report(detected, latency_sum_ms))
            streams.sample(now_ns + SECOND, 1.0)
        assert columns(stream.history)["latency_ms"][:3] == [None, 0.0, None]

    def test_an_old_report_is_no_news(self):
        streams = Streams()
        stream = streams.connect(make_hello(), LAYOUT)
        stream.take_report(make_report(1, 1.0, dropped={"grab/superseded": 1}))
        stream.take_report(make_report(2, 2.0, dropped={"grab/superseded": 4}))
        told_ns = stream._reported_ns
        for second in range(6):
            streams.sample(told_ns + second * SECOND, float(second))
        assert columns(stream.history)["latency_ms"] == [1.0, 1.0, 1.0, None, None, None]
        assert columns(stream.history)["dropped"] == [None, 0, 0, None, None, None]

    def test_a_lost_stream_goes_on_and_a_found_one_keeps_its_past(self):
        streams = Streams()
        stream = streams.connect(make_hello(), LAYOUT)
        stream.preview = b"jpeg"
        stream.take_report(make_report(1, 1.0, jpeg_bytes=61_500))
        start_ns = stream.history._last.at_ns
        stream.count_packet(1000)
        streams.sample(start_ns + SECOND, 1.0)
        streams.disconnect(stream)
        streams.sample(start_ns + 2 * SECOND, 2.0)
        assert streams.get("door") is stream
        assert streams.connect(make_hello(), LAYOUT) is stream
        stream.count_packet(1000)
        streams.sample(start_ns + 3 * SECOND, 3.0)
        assert columns(stream.history)["frames_per_second"] == [1, 0, 1]
        told = stream.describe()
        assert (told["preview"], told["jpeg_kb_per_frame"]) == (False, 61.5)

    def test_a_name_never_seen_is_no_stream(self):
        assert Streams().get("door") is None
