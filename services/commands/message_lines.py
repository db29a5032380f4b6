"""What a detector publishes, as lines that people read; docs/protocol.md has the messages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from services.printable import printable


def readable(text: str) -> str:
    """One line of a message: when, which stream, what.

    A text that is no message of this protocol, as of a newer detector, is shown as it came.
    """
    try:
        message = json.loads(text)
        line = _LINES[message["type"]](message)
        if dropped := message.get("dropped"):
            line += f"  [{dropped} messages before were lost: read faster]"
    # Whatever may be amiss in the text of a stranger.
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        line = text
    return printable(line)


def _detections(message: Mapping[str, Any]) -> str:
    counts = Counter(prediction["class"] for prediction in message["predictions"])
    classes = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    delay_ms = (message["published_at"] - message["captured_at"]) * 1e3
    stepped_s = message.get("clock_stepped")
    stepped = f", the camera's clock was set by {stepped_s:+.1f} s" if stepped_s is not None else ""
    where = ", on the camera" if message.get("path") == "local" else ""
    frame = message.get("frame", message["sequence"])
    delay = f"{delay_ms / 1e3:.0f} s late" if message.get("late") else f"{delay_ms:.0f} ms"
    return (
        f"{_at(message['captured_at'])}  {message['stream']} #{frame}  {classes}  ({delay}{where}{stepped})"
    )


def _stream(message: Mapping[str, Any]) -> str:
    reason = f": {message['reason']}" if message["reason"] else ""
    return (
        f"{_at(message['at'])}  {message['stream']} {message['state']}{reason}"
        f"  (connection {message['connection']}, next frame #{message['frame']})"
    )


def _gap(message: Mapping[str, Any]) -> str:
    first, last = message["first"], message["last"]
    numbers = f"#{first}" if first == last else f"#{first} to #{last}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in message["reasons"].items())
    return f"{_at(message['at'])}  {message['stream']} {numbers}  no detections: {reasons}"


_LINES = {"detections": _detections, "stream": _stream, "gap": _gap}


def _at(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
