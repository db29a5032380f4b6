"""What consumers are told: detections, streams and gaps."""

from __future__ import annotations

import time
from collections.abc import Iterable

from services.detections_json import DetectionMessage
from services.detector.stream_json import gap_text, stream_text
from services.detector.streams import Stream
from stream.session.frame_numbers import Gap
from stream.transport.broadcast import Broadcast


class Publisher:
    """Puts messages into the broadcast, and makes their texts only where somebody reads them. Never waits."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast

    def publish_detections(self, message: DetectionMessage) -> None:
        if self._broadcast.is_wanted(message.stream, "detections"):
            self._broadcast.publish(message.stream, "detections", message.text())

    def publish_stream(self, stream: Stream) -> None:
        """Where a stream stands now."""
        if self._broadcast.is_wanted(stream.name, "stream"):
            self._broadcast.publish(stream.name, "stream", stream_text(stream))

    def publish_gaps(self, stream: Stream, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self._broadcast.publish(stream.name, "gap", gap_text(stream, gap, time.time()))
