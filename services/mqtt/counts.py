"""How many objects of each class a stream shows, steadily enough to switch something by. No clock.

A detector misses an object now and then, for a frame. So a count rises at once, and falls to the most that were seen
together within a whole second.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

# As COCO groups its classes.
VEHICLES = frozenset({"bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "vehicle"})


class Counts:
    """The counts of one stream."""

    def __init__(self) -> None:
        self.shown: dict[str, int] | None = None  # by class; None before the first frame
        self._most: Counter[str] = Counter()  # of the second that runs
        self._frames = 0

    def add(self, classes: Iterable[str]) -> bool:
        """A frame's objects, each by its class. Whether what is shown has changed."""
        now = Counter(classes)
        self._most |= now
        self._frames += 1
        shown = self.shown
        if shown is not None and all(count <= shown.get(name, 0) for name, count in now.items()):
            return False
        self.shown = dict(Counter(shown or {}) | now)
        return True

    def end_second(self) -> bool:
        """A second is over. Whether what is shown has changed."""
        most, frames = dict(self._most), self._frames
        self._most, self._frames = Counter(), 0
        if not frames or most == self.shown:
            return False
        self.shown = most
        return True


def counts_text(stream: str, counts: Mapping[str, int] | None, unix_s: float) -> str:
    """The message that tells them; None: of a stream that is gone they are not known."""
    person = counts.get("person", 0) if counts is not None else None
    vehicle = sum(counts.get(name, 0) for name in VEHICLES) if counts is not None else None
    message = {
        "type": "counts",
        "stream": stream,
        "at": unix_s,
        "person": person,
        "vehicle": vehicle,
        "classes": dict(sorted((counts or {}).items())),
    }
    return json.dumps(message, separators=(",", ":"))
