"""The newest messages of an outage, for whoever comes to read them later."""

from __future__ import annotations

from collections import deque
from itertools import islice


class KeptDetections:
    """So many messages of so many bytes in all at most; the oldest goes. Texts are ASCII."""

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self._capacity, self._max_bytes = capacity, max_bytes
        self._messages: deque[tuple[float, str]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, captured_at: float, text: str) -> None:
        """Keep the message of a frame of that time, in Unix seconds. One larger than all may be is not kept."""
        self._messages.append((captured_at, text))
        self._bytes += len(text)
        while len(self._messages) > self._capacity or self._bytes > self._max_bytes:
            self._bytes -= len(self._messages.popleft()[1])

    def since(self, captured_at: float) -> list[str]:
        """What is kept of frames after that time, oldest first.

        Where it is the time of a frame that is kept, these are the frames that came behind it: who goes on from there
        misses nothing where the clock was set back in between.
        """
        times = [at for at, _ in self._messages]
        if captured_at in times:
            behind = times.index(captured_at) + 1
            return [text for _, text in islice(self._messages, behind, None)]
        return [text for at, text in self._messages if at > captured_at]
