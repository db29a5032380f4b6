"""Prometheus series of single streams: a bounded number, and none of a stream that is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.detector.stream_status import STREAM_STATES
from services.detector.streams import Stream
from stream.session.messages import REJECT_REASONS

STREAM_SERIES = 256  # streams that have series of their own, 14 each


class StreamSeries(Collector):
    """Makes the series of the streams at each scrape.

    Where there are too many streams, those that were lost longest ago have none, and then those that connected last.
    One whose camera never passed the handshake has none: anybody could make them.
    """

    def __init__(self, prefix: str, streams: Iterable[Stream]) -> None:
        self._prefix, self._streams = f"{prefix}_stream", streams

    def collect(self) -> Iterator[Metric]:
        welcomed = [stream for stream in self._streams if stream.hello]
        present = [stream for stream in welcomed if stream.connected]
        gone = [stream for stream in welcomed if not stream.connected]
        kept = (present + gone[::-1])[:STREAM_SERIES]
        state = self._gauge("state", "1 where the stream is in that state (see docs/protocol.md)", "state")
        last = self._gauge(
            "last_frame_timestamp_seconds", "When detections of the stream were last published, Unix time"
        )
        frames = self._counter("frames", "Frames of the stream whose detections were published")
        tail = self._counter(
            "tail_seconds", "Time that the frames of the stream took of the network's last layers"
        )
        rejected = self._counter(
            "rejected", "Packets of the stream that gave no detections, by reason", "reason"
        )
        for stream in kept:
            for name in STREAM_STATES:
                state.add_metric([stream.name, name], float(stream.status.state == name))
            if stream.last_frame_unix_s is not None:
                last.add_metric([stream.name], stream.last_frame_unix_s)
            frames.add_metric([stream.name], stream.frames)
            tail.add_metric([stream.name], stream.tail_ns / 1e9)
            for reason in REJECT_REASONS:
                rejected.add_metric([stream.name, reason], stream.rejected[reason])
        omitted = GaugeMetricFamily(
            f"{self._prefix}_series_omitted",
            f"Streams that have no series of their own, because {STREAM_SERIES} others have",
            value=len(welcomed) - len(kept),
        )
        yield from (state, last, frames, tail, rejected, omitted)

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=["stream", *labels])

    def _counter(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"{self._prefix}_{name}", text, labels=["stream", *labels])
