"""What a detector knows of each stream, as `GET /v1/streams` shows it. No clock: times are arguments.

`now_ns` is monotonic, `unix_s` the time of day.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from codec.layout import Layout, raw_bytes
from services.detector.history import History, StreamCounts
from stream.latency import StageStatistics
from stream.session.messages import Hello, Report
from stream.transport.websocket import WireBytes

RATE_WINDOW_S = 5.0
REPORT_STALE_S = 3.0  # a camera reports once a second
LOST_STREAMS_KEPT = 64


@dataclass(slots=True, eq=False)
class Stream:
    """One camera's stream since the detector first saw its name; a reconnect goes on counting."""

    name: str
    hello: Hello
    layout: Layout
    since_unix_s: float
    history: History
    connected: bool = True
    connections: int = 1
    frame_size: tuple[int, int] | None = None  # (H, W) of the original picture, in pixels
    frames: int = 0
    keyframes: int = 0
    detections: int = 0
    rejected: int = 0
    packets: int = 0
    encoded_bytes: int = 0
    wire: WireBytes = field(default_factory=WireBytes)
    last_frame_ns: int | None = None
    report: Report | None = None
    preview: bytes | None = None  # the latest JPEG of this connection
    stages: StageStatistics = field(default_factory=lambda: StageStatistics(256))
    _recent: deque[tuple[int, int]] = field(default_factory=deque)  # (monotonic ns, packet bytes)
    _reported_ns: int | None = None  # None: no report on this connection
    _latency_ms: float | None = None  # mean between the last two reports

    def receive(self, packet_bytes: int, now_ns: int) -> None:
        """Count a packet that has just arrived."""
        self.packets += 1
        self.encoded_bytes += packet_bytes
        self._recent.append((now_ns, packet_bytes))
        self._forget_old_packets(now_ns)

    def publish(
        self,
        frame_size: tuple[int, int],
        *,
        keyframe: bool,
        detections: int,
        stages_ns: dict[str, int],
        now_ns: int,
    ) -> None:
        """Count a frame whose detections were just published; its stages are durations in ns."""
        self.frame_size = frame_size
        self.frames += 1
        self.keyframes += keyframe
        self.detections += detections
        self.stages.add(stages_ns)
        self.last_frame_ns = now_ns

    def update_report(self, report: Report, now_ns: int) -> None:
        """Keep the camera's newest report."""
        last = self.report if self._reported_ns is not None else None
        self._latency_ms = _mean_latency_ms(last, report) if last else None
        self.report, self._reported_ns = report, now_ns

    def forget_connection(self) -> None:
        """Drop what is only true while the camera is there."""
        self.preview = self._reported_ns = self._latency_ms = None

    def sample(self, now_ns: int, unix_s: float) -> None:
        """Add what has come since the last call to the history."""
        reported_ns = self._reported_ns
        fresh = reported_ns is not None and now_ns - reported_ns < REPORT_STALE_S * 1e9
        counts = StreamCounts(
            now_ns,
            packets=self.packets,
            encoded_bytes=self.encoded_bytes,
            frames=self.frames,
            detections=self.detections,
            dropped=sum(self.report.dropped.values()) if fresh and self.report else None,
        )
        self.history.add(counts, unix_s, self._latency_ms if fresh else None)

    def describe(self, now_ns: int) -> dict[str, object]:
        """The stream as JSON; rates over the last seconds, sums since it was first seen."""
        self._forget_old_packets(now_ns)
        answered = self.frames + self.rejected
        raw_kb = raw_bytes(self.layout) / 1e3
        kb_per_frame = self.encoded_bytes / answered / 1e3 if answered else None
        stages_ms = self.stages.means_ms()
        recent_bytes = sum(packet_bytes for _, packet_bytes in self._recent)
        jpeg_bytes = self.report.jpeg_bytes if self.report else None
        age_ns = now_ns - self.last_frame_ns if self.last_frame_ns is not None else None
        return {
            "name": self.name,
            "state": "connected" if self.connected else "lost",
            "since": self.since_unix_s,
            "connections": self.connections,
            "model": self.hello.model,
            "split": self.hello.split,
            "codec": self.hello.codec,
            "canvas": list(self.hello.canvas),
            "frame": list(self.frame_size) if self.frame_size else None,
            "tensors": [{"name": tensor.name, "shape": list(tensor.shape)} for tensor in self.layout],
            "frames": self.frames,
            "keyframes": self.keyframes,
            "detections": self.detections,
            "rejected": self.rejected,
            "frames_per_second": round(len(self._recent) / RATE_WINDOW_S, 2),
            "kbit_per_second": round(recent_bytes * 8 / 1e3 / RATE_WINDOW_S, 1),
            "kb_per_frame": round(kb_per_frame, 3) if kb_per_frame is not None else None,
            "raw_kb_per_frame": raw_kb,
            "compression_ratio": round(raw_kb / kb_per_frame, 2) if kb_per_frame else None,
            "wire_bytes": {"received": self.wire.received, "sent": self.wire.sent},
            "jpeg_kb_per_frame": jpeg_bytes / 1e3 if jpeg_bytes is not None else None,
            "previews": self.connected and self.hello.preview,
            "preview": self.preview is not None,
            "last_frame_age_s": round(age_ns / 1e9, 3) if age_ns is not None else None,
            "detector_ms": round(sum(stages_ms.values()), 3) if stages_ms else None,
            "stages_ms": {stage: round(mean_ms, 3) for stage, mean_ms in stages_ms.items()},
            "camera": self.report.model_dump(exclude={"type"}) if self.report else None,
        }

    def _forget_old_packets(self, now_ns: int) -> None:
        oldest_ns = now_ns - int(RATE_WINDOW_S * 1e9)
        while self._recent and self._recent[0][0] < oldest_ns:
            self._recent.popleft()


def _mean_latency_ms(last: Report, report: Report) -> float | None:
    """Mean latency of the frames detected between two reports of one camera."""
    detected = report.detected - last.detected
    if detected <= 0 or last.latency_sum_ms is None or report.latency_sum_ms is None:
        return None
    return max(0.0, (report.latency_sum_ms - last.latency_sum_ms) / detected)


class Streams:
    """All streams by name; lost ones are remembered, the oldest forgotten first."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}

    @property
    def connected(self) -> int:
        """How many cameras are connected."""
        return sum(stream.connected for stream in self._streams.values())

    def is_connected(self, name: str) -> bool:
        return name in self._streams and self._streams[name].connected

    def connect(self, hello: Hello, layout: Layout, now_ns: int, unix_s: float) -> Stream:
        """The stream of that name, new or found again; nobody may be connected under it."""
        assert not self.is_connected(hello.stream)
        stream = self._streams.pop(hello.stream, None)
        if stream and stream.layout == layout:
            stream.hello, stream.connected = hello, True
            stream.connections += 1
        else:
            stream = Stream(hello.stream, hello, layout, unix_s, History(now_ns))
        self._streams[hello.stream] = stream
        return stream

    def disconnect(self, stream: Stream) -> None:
        """Mark a stream as lost."""
        stream.connected = False
        stream.forget_connection()
        lost = [name for name, other in self._streams.items() if not other.connected]
        for name in lost[:-LOST_STREAMS_KEPT]:
            del self._streams[name]

    def get(self, name: str) -> Stream | None:
        """The stream of that name, connected or remembered."""
        return self._streams.get(name)

    def sample(self, now_ns: int, unix_s: float) -> None:
        """Add a sample to every stream's history, also where nothing comes: a gap has to show."""
        for stream in self._streams.values():
            stream.sample(now_ns, unix_s)

    def describe(self, now_ns: int) -> list[dict[str, object]]:
        """All streams as JSON, by name."""
        return [self._streams[name].describe(now_ns) for name in sorted(self._streams)]
