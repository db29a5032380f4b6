"""What a source does, counted and told."""

from __future__ import annotations

import structlog

from services.camera.statistics import CameraStatistics
from stream.sources.base import (
    DecodeErrors,
    FramesRepeated,
    FramesSkipped,
    FrameUnreadable,
    PictureSizeChanged,
    SourceConnected,
    SourceEvent,
    SourceFrozen,
    SourceLost,
    SourceMoving,
    SourceRetry,
)

log = structlog.get_logger(__name__)


def follow_source(event: SourceEvent, source: str, statistics: CameraStatistics) -> None:
    """Count the event, and write it to the log. `source` is a name without credentials."""
    match event:
        case SourceConnected(width, height):
            statistics.freeze(False)
            statistics.connect("source")
            log.info("source open", source=source, width=width, height=height)
        case SourceLost(reason):
            statistics.disconnect("source", "lost")
            statistics.source_trouble = reason
            log.warning("source lost", source=source, reason=reason)
        case SourceRetry(delay_s, attempt):
            statistics.retry("source", delay_s)
            log.info("source is tried again", delay_s=round(delay_s, 2), attempt=attempt)
        case FramesSkipped(count):
            statistics.miss("overwritten", count)
        case FrameUnreadable(path, reason):
            statistics.miss("unreadable")
            log.warning("frame unreadable", path=str(path), reason=reason)
        case PictureSizeChanged(width, height):
            log.warning("picture size changed", source=source, width=width, height=height)
        case SourceFrozen(pictures):
            statistics.freeze(True)
            log.warning("source frozen", source=source, identical_pictures=pictures)
        case SourceMoving():
            statistics.freeze(False)
            log.info("source moves again", source=source)
        case FramesRepeated(count):
            statistics.repeat(count)
        case DecodeErrors(count):
            statistics.damage(count)
            log.warning("video damaged", source=source, errors=count)
