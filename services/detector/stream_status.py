"""Where a stream stands, as consumers are told it. No clock: times are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stream.session.messages import SourceState

StreamState: TypeAlias = Literal["waiting", "connected", "stalled", "frozen", "lost", "ended"]
STREAM_STATES: tuple[StreamState, ...] = get_args(StreamState)
GONE: frozenset[StreamState] = frozenset({"lost", "ended"})


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A state and since when it is so; docs/protocol.md says what each state means."""

    state: StreamState
    reason: str  # for people
    unix_s: float
    connection: int  # the camera's connections are counted from 1


class StatusTracker:
    """Follows one stream through its camera's connections; every call tells whether the status changed.

    Three facts make the state of a camera that is there: whether it is silent, whether it has said hello, and the
    state of its source.
    """

    def __init__(self) -> None:
        self.status: StreamStatus | None = None  # before the first connection
        self._connection = 0
        self._greeted = False
        self._source: SourceState = "open"
        self._source_reason = ""
        self._silent_s = 0.0

    @property
    def is_present(self) -> bool:
        """Whether a camera is connected."""
        return self.status is not None and self.status.state not in GONE

    def arrive(self) -> None:
        """A camera's connection begins: `wait` or `greet` follows."""
        self._connection += 1
        self._greeted, self._silent_s = False, 0.0

    def wait(self, source: SourceState, reason: str, unix_s: float) -> bool:
        """A camera that cannot say hello yet tells what its source does."""
        self._source, self._source_reason = source, reason
        return self._update(unix_s)

    def greet(self, unix_s: float) -> bool:
        """The camera was welcomed."""
        self._greeted, self._source, self._source_reason = True, "open", ""
        return self._update(unix_s)

    def report(self, source: SourceState, unix_s: float) -> bool:
        """A camera that was welcomed tells what its source does."""
        self._source = source
        return self._update(unix_s)

    def hear(self, silent_s: float, unix_s: float) -> bool:
        """Nothing has come from the camera for so long: 0 where something has."""
        self._silent_s = silent_s
        return self._update(unix_s)

    def leave(self, reason: str, unix_s: float, *, ended: bool) -> bool:
        """The connection is over: the camera said goodbye, or is lost."""
        return self._set("ended" if ended else "lost", reason, unix_s)

    def _update(self, unix_s: float) -> bool:
        if self._silent_s:
            return self._set("stalled", f"nothing came for {self._silent_s:g} s", unix_s)
        if not self._greeted or self._source in ("opening", "lost"):
            words = "the source is lost" if self._source == "lost" else "the source has no picture yet"
            return self._set("waiting", self._source_reason or words, unix_s)
        if self._source == "frozen":
            return self._set("frozen", "the pictures do not change", unix_s)
        return self._set("connected", "", unix_s)

    def _set(self, state: StreamState, reason: str, unix_s: float) -> bool:
        last = self.status
        if last and (last.state, last.reason, last.connection) == (state, reason, self._connection):
            return False
        self.status = StreamStatus(state, reason, unix_s, self._connection)
        return True
