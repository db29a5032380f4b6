"""What a detector knows of each stream, as `GET /v1/streams` shows it. No clock: times are arguments.

`now_ns` is monotonic, `unix_s` the time of day.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from codec.layout import Layout, raw_bytes
from services.detector.history import History, StreamCounts
from services.detector.stream_status import StatusTracker, StreamStatus
from stream.frame_pace import FramePace
from stream.late_name import is_late
from stream.latency import StageStatistics
from stream.session.frame_numbers import FrameNumbers
from stream.session.messages import Hello, RejectReason, Report, Waiting
from stream.transport.websocket import WireBytes

RATE_WINDOW_S = 5.0
REPORT_STALE_S = 3.0  # a camera reports every second, or every other
LOST_STREAMS_KEPT = 64

Ending: TypeAlias = Literal["lost", "silent", "closed", "ended", "replaced"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
"""How a connection ended: without a word, after silence, closed by the detector, by the camera, or by a newer one."""


@dataclass(slots=True, eq=False)
class Stream:
    """One camera's stream since the detector first saw its name; a reconnect goes on counting."""

    name: str
    since_unix_s: float
    history: History
    tracker: StatusTracker = field(default_factory=StatusTracker)
    numbers: FrameNumbers = field(default_factory=FrameNumbers)
    pace: FramePace = field(default_factory=FramePace)
    hello: Hello | None = None  # of the last camera that was welcomed; None before
    layout: Layout | None = None
    ending: Ending = "lost"  # of the last connection that is over
    waiting: Waiting | None = None  # what a camera without a picture said last on this connection
    frame_size: tuple[int, int] | None = None  # (H, W) of the original picture, in pixels
    frames: int = 0
    keyframes: int = 0
    detections: int = 0
    tail_ns: int = 0  # that its frames took of the network's last layers
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    packets: int = 0
    encoded_bytes: int = 0
    wire: WireBytes = field(default_factory=WireBytes)
    last_frame_ns: int | None = None
    last_frame_unix_s: float | None = None
    report: Report | None = None
    preview: bytes | None = None  # the latest JPEG of this connection
    stages: StageStatistics = field(default_factory=lambda: StageStatistics(256))
    _recent: deque[tuple[int, int]] = field(default_factory=deque)  # (monotonic ns, packet bytes)
    _reported_ns: int | None = None  # None: no report on this connection
    _latency_ms: float | None = None  # mean between the last two reports

    @property
    def status(self) -> StreamStatus:
        assert self.tracker.status is not None  # nobody sees a stream before its first connection
        return self.tracker.status

    @property
    def connected(self) -> bool:
        """Whether a camera is there, with or without a picture."""
        return self.tracker.is_present

    def greet(self, hello: Hello, layout: Layout, now_ns: int, unix_s: float) -> None:
        """A camera was welcomed. If its tensors are of another layout than before, the sums begin anew."""
        if self.layout is not None and self.layout != layout:
            self.packets = self.encoded_bytes = self.frames = self.keyframes = self.detections = 0
            self.rejected.clear()
            self.stages, self.history, self.since_unix_s = StageStatistics(256), History(now_ns), unix_s
        self.hello, self.layout, self.waiting = hello, layout, None

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
        tail_ns: int,
        now_ns: int,
        unix_s: float,
    ) -> None:
        """Count a frame whose detections were just published; its stages, and its share of the tail, are in ns."""
        self.frame_size = frame_size
        self.frames += 1
        self.keyframes += keyframe
        self.detections += detections
        self.stages.add(stages_ns)
        self.tail_ns += tail_ns
        self.last_frame_ns, self.last_frame_unix_s = now_ns, unix_s

    def update_report(self, report: Report, now_ns: int) -> None:
        """Keep the camera's newest report."""
        last = self.report if self._reported_ns is not None else None
        self._latency_ms = _mean_latency_ms(last, report) if last else None
        self.report, self._reported_ns = report, now_ns

    def forget_connection(self) -> None:
        """Drop what is only true while the camera is there."""
        self.preview = self.waiting = self._reported_ns = self._latency_ms = None

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
        recent_bytes = sum(packet_bytes for _, packet_bytes in self._recent)
        jpeg_bytes = self.report.jpeg_bytes if self.report else None
        age_ns = now_ns - self.last_frame_ns if self.last_frame_ns is not None else None
        stages_ms = self.stages.means_ms()
        return {
            "name": self.name,
            "late": is_late(self.name),
            "state": self.status.state,
            "reason": self.status.reason,
            "state_since": self.status.unix_s,
            "waiting": self._describe_waiting(),
            "since": self.since_unix_s,
            "connections": self.status.connection,
            "frame_number": self.numbers.next,
            **self._describe_hello(),
            "frame": list(self.frame_size) if self.frame_size else None,
            "frames": self.frames,
            "keyframes": self.keyframes,
            "detections": self.detections,
            "rejected": self.rejected.total(),
            "frames_per_second": round(len(self._recent) / RATE_WINDOW_S, 2),
            "kbit_per_second": round(recent_bytes * 8 / 1e3 / RATE_WINDOW_S, 1),
            **self._describe_sizes(),
            "wire_bytes": {"received": self.wire.received, "sent": self.wire.sent},
            "jpeg_kb_per_frame": jpeg_bytes / 1e3 if jpeg_bytes is not None else None,
            "previews": self.connected and self.hello is not None and self.hello.preview,
            "preview": self.preview is not None,
            "last_frame_age_s": round(age_ns / 1e9, 3) if age_ns is not None else None,
            "detector_ms": round(sum(stages_ms.values()), 3) if stages_ms else None,
            "stages_ms": {stage: round(mean_ms, 3) for stage, mean_ms in stages_ms.items()},
            "camera": self.report.model_dump(exclude={"type"}) if self.report else None,
        }

    def _describe_hello(self) -> dict[str, object]:
        """What the camera said in its hello, without its secret."""
        hello = self.hello
        return {
            "model": hello.model if hello else None,
            "split": hello.split if hello else None,
            "codec": hello.codec if hello else None,
            "canvas": list(hello.canvas) if hello else None,
            "tensors": [{"name": tensor.name, "shape": list(tensor.shape)} for tensor in self.layout]
            if self.layout
            else None,
        }

    def _describe_sizes(self) -> dict[str, object]:
        answered = self.frames + self.rejected.total()
        raw_kb = raw_bytes(self.layout) / 1e3 if self.layout else None
        kb_per_frame = self.encoded_bytes / answered / 1e3 if answered else None
        return {
            "kb_per_frame": round(kb_per_frame, 3) if kb_per_frame is not None else None,
            "raw_kb_per_frame": raw_kb,
            "compression_ratio": round(raw_kb / kb_per_frame, 2) if raw_kb and kb_per_frame else None,
        }

    def _describe_waiting(self) -> dict[str, object] | None:
        """The source that a camera waits for, as the camera tells it."""
        if self.status.state != "waiting":
            return None
        told = self.waiting or self.report
        return {
            "source": told.source if told else "",
            "source_state": told.source_state if told else "opening",
            "reason": self.waiting.reason if self.waiting else "",
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
    """All streams by name; those without a camera are remembered, the oldest forgotten first.

    `on_change` is told of every change of a stream's status.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[Stream], None] = lambda stream: None
        self._streams: dict[str, Stream] = {}

    @property
    def connected(self) -> int:
        """How many cameras are connected."""
        return sum(stream.connected for stream in self._streams.values())

    def is_connected(self, name: str) -> bool:
        return name in self._streams and self._streams[name].connected

    def arrive(self, name: str, now_ns: int, unix_s: float) -> Stream:
        """The stream of that name, new or found again, at the begin of a connection: `wait` or `greet` follows."""
        stream = self._streams.pop(name, None) or Stream(name, unix_s, History(now_ns))
        self._streams[name] = stream
        stream.forget_connection()
        stream.tracker.arrive()
        return stream

    def wait(self, stream: Stream, waiting: Waiting, unix_s: float) -> None:
        """The stream's camera has no picture yet."""
        stream.waiting = waiting
        self._tell(stream, stream.tracker.wait(waiting.source_state, waiting.reason, unix_s))

    def greet(self, stream: Stream, hello: Hello, layout: Layout, now_ns: int, unix_s: float) -> None:
        """The stream's camera was welcomed."""
        stream.greet(hello, layout, now_ns, unix_s)
        self._tell(stream, stream.tracker.greet(unix_s))

    def report(self, stream: Stream, report: Report, now_ns: int, unix_s: float) -> None:
        """The stream's camera has reported."""
        stream.update_report(report, now_ns)
        self._tell(stream, stream.tracker.report(report.source_state, unix_s))

    def hear(self, stream: Stream, silent_s: float, unix_s: float) -> None:
        """Nothing has come from the stream's camera for so long; 0 where something has."""
        self._tell(stream, stream.tracker.hear(silent_s, unix_s))

    def leave(self, stream: Stream, reason: str, unix_s: float, *, ended: bool) -> None:
        """The stream's camera is gone: it said goodbye, or is lost."""
        stream.forget_connection()
        self._tell(stream, stream.tracker.leave(reason, unix_s, ended=ended))
        self._streams[stream.name] = self._streams.pop(stream.name)
        # Those whose camera never had a picture, which anybody can invent, go first.
        gone = [other for other in self._streams.values() if not other.connected]
        gone.sort(key=lambda other: other.hello is not None)
        for other in gone[:-LOST_STREAMS_KEPT]:
            del self._streams[other.name]

    def get(self, name: str) -> Stream | None:
        """The stream of that name, connected or remembered."""
        return self._streams.get(name)

    def __iter__(self) -> Iterator[Stream]:
        """All streams: those that are gone in the order in which they went, the others in that of their coming."""
        return iter(self._streams.values())

    def sample(self, now_ns: int, unix_s: float) -> None:
        """Add a sample to every stream's history, also where nothing comes: a gap has to show."""
        for stream in self._streams.values():
            stream.sample(now_ns, unix_s)

    def describe(
        self, now_ns: int, wants: Callable[[str], bool] = lambda name: True
    ) -> list[dict[str, object]]:
        """The streams whose names are wanted as JSON, by name."""
        return [self._streams[name].describe(now_ns) for name in sorted(self._streams) if wants(name)]

    def _tell(self, stream: Stream, changed: bool) -> None:
        if changed:
            self.on_change(stream)
