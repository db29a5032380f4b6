from __future__ import annotations

import pytest

from services.detector.history import SAMPLES_KEPT, History, StreamCounts

SECOND = 10**9


def columns(history: History) -> dict[str, list]:
    described = history.describe()
    assert described.pop("interval_s") == 1
    return described


class TestHistory:
    def test_is_empty_at_first(self):
        assert all(values == [] for values in columns(History(0)).values())

    def test_tells_what_has_come_in_a_second(self):
        history = History(0)
        counts = StreamCounts(SECOND, packets=10, encoded_bytes=25_000, frames=8, detections=12)
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
        history.add(StreamCounts(2 * SECOND, packets=10, encoded_bytes=10_000), 2.0, None)
        assert columns(history)["frames_per_second"] == [5.0]
        assert columns(history)["kbit_per_second"] == [40.0]

    def test_a_stream_that_has_just_begun_has_no_huge_rate(self):
        history = History(SECOND - 1000)
        history.add(StreamCounts(SECOND, packets=1, encoded_bytes=1000), 1.0, None)
        assert columns(history)["frames_per_second"] == [1.0]

    def test_a_gap_is_zeros_and_nulls(self):
        history = History(0)
        for second in range(1, 4):
            history.add(StreamCounts(second * SECOND), float(second), None)
        samples = columns(history)
        assert samples["frames_per_second"] == samples["kbit_per_second"] == [0, 0, 0]
        for name in ("kb_per_frame", "latency_ms", "dropped", "detections"):
            assert samples[name] == [None] * 3

    def test_keeps_three_minutes(self):
        history = History(0)
        for second in range(1, SAMPLES_KEPT + 21):
            history.add(StreamCounts(second * SECOND, packets=second), float(second), None)
        samples = columns(history)
        assert {len(values) for values in samples.values()} == {SAMPLES_KEPT} == {180}
        assert samples["unix_s"] == list(range(21, SAMPLES_KEPT + 21))

    @pytest.mark.parametrize(
        ("reported", "dropped"),
        [
            ([3, 5, 5], [None, 2, 0]),
            ([None, 5, 6], [None, None, 1]),  # the first report counts the time before, too
            ([7, None, 90], [None, None, None]),  # lost while nobody heard: of no second
            ([7, 1, 2], [None, None, 1]),  # the camera has started again
        ],
    )
    def test_drops_belong_to_their_second(self, reported, dropped):
        history = History(0)
        for second, count in enumerate(reported, start=1):
            history.add(StreamCounts(second * SECOND, dropped=count), float(second), None)
        assert columns(history)["dropped"] == dropped
