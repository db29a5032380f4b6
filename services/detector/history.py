"""The last minutes of a stream, one sample a second."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields

INTERVAL_S = 1
SAMPLES_KEPT = 180


@dataclass(frozen=True, slots=True)
class HistorySample:
    """One second of a stream; None where there is no value."""

    unix_s: float  # at its end
    frames_per_second: float
    kbit_per_second: float
    kb_per_frame: float | None
    latency_ms: float | None
    dropped: int | None
    detections: float | None


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """A stream's sums at one instant."""

    at_ns: int  # monotonic
    packets: int = 0
    encoded_bytes: int = 0
    frames: int = 0
    detections: int = 0
    dropped: int | None = None  # as last reported on this connection; None: no report yet


class History:
    """Samples of a stream's sums, the oldest forgotten first; `since_ns` is when the sums began, monotonic."""

    def __init__(self, since_ns: int) -> None:
        self._samples: deque[HistorySample] = deque(maxlen=SAMPLES_KEPT)
        self._last = StreamCounts(since_ns)

    def add(self, counts: StreamCounts, unix_s: float, latency_ms: float | None) -> None:
        """Add the sample of what has come since the last call; `latency_ms` is its mean, None where nobody knows."""
        last, self._last = self._last, counts
        # A stream may begin right before its first sample: one packet in a millisecond is no rate.
        elapsed_s = max((counts.at_ns - last.at_ns) / 1e9, INTERVAL_S)
        packets, frames = counts.packets - last.packets, counts.frames - last.frames
        size = counts.encoded_bytes - last.encoded_bytes
        dropped = None
        # What a camera dropped while nobody could hear it belongs to no second; one that restarted counts anew.
        if counts.dropped is not None and last.dropped is not None and counts.dropped >= last.dropped:
            dropped = counts.dropped - last.dropped
        self._samples.append(
            HistorySample(
                unix_s=round(unix_s, 3),
                frames_per_second=round(packets / elapsed_s, 2),
                kbit_per_second=round(size * 8 / 1e3 / elapsed_s, 1),
                kb_per_frame=round(size / packets / 1e3, 3) if packets else None,
                latency_ms=round(latency_ms, 3) if latency_ms is not None else None,
                dropped=dropped,
                detections=round((counts.detections - last.detections) / frames, 2) if frames else None,
            )
        )

    def describe(self) -> dict[str, object]:
        """The samples as JSON: one list a field, oldest first."""
        return {
            "interval_s": INTERVAL_S,
            **{
                field.name: [getattr(sample, field.name) for sample in self._samples]
                for field in fields(HistorySample)
            },
        }
