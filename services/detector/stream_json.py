"""The JSON that tells consumers of streams and gaps; docs/protocol.md is normative."""

from __future__ import annotations

import json

from services.detector.streams import Stream
from stream.late_name import camera_name, is_late
from stream.session.frame_numbers import Gap


def stream_text(stream: Stream) -> str:
    """Where a stream stands."""
    status = stream.status
    return _text(
        {
            "type": "stream",
            "stream": stream.name,
            "state": status.state,
            "reason": status.reason,
            "at": status.unix_s,
            "connection": status.connection,
            "frame": stream.numbers.next,
            **({"late": True, "late_of": camera_name(stream.name)} if is_late(stream.name) else {}),
        }
    )


def gap_text(stream: Stream, gap: Gap, unix_s: float) -> str:
    """Which frames gave no detections, as is known at `unix_s`."""
    return _text(
        {
            "type": "gap",
            "stream": stream.name,
            "first": gap.first,
            "last": gap.last,
            "frames": gap.frames,
            "reasons": dict(gap.reasons),
            "at": unix_s,
            "connection": stream.status.connection,
        }
    )


def _text(message: dict[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))
