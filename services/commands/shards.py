"""What several detectors tell, as one: each stream is at one of them at a time, but another may remember it."""

from __future__ import annotations

import json
from typing import Any

_GONE = ("lost", "ended")
_STATES = ("waiting", "connected", "stalled", "frozen")


class ShardMerge:
    """Leaves out where a stream stood at detectors that it has left; all else is told once, and by one of them.

    Detectors do not know each other. One that a stream has left says that it is lost there, perhaps after the next one
    has said that it is connected, and says so again to whoever subscribes.
    """

    def __init__(self) -> None:
        self._at: dict[str, str] = {}  # by stream that is there, the address of the detector that has it

    def admits(self, address: str, text: str) -> bool:
        """Whether to pass on what the detector at `address` says. What is no message of this protocol passes."""
        message = _parse(text)
        stream, state = message.get("stream"), message.get("state")
        if message.get("type") != "stream" or not isinstance(stream, str):
            return True
        if state in _STATES:
            self._at[stream] = address
        elif state in _GONE:
            if self._at.get(stream, address) != address:
                return False
            self._at.pop(stream, None)
        return True


def _parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
