"""Lines of a log that repeat themselves: the first of a kind is written, then one a minute with their number.

Whoever reaches a port, and whatever fails with every frame, could otherwise fill a disk with one line.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

INTERVAL_S = 60.0
MAX_VARIANTS = 32  # of one event: streams and reasons may be a peer's own words
MAX_KINDS = 1024  # of all events
_MAX_WORDS = 200  # characters of a text that are compared

_TELLING = ("stream", "reason", "code", "stage")
"""Fields in which lines of one event differ in kind. Others, such as a sequence, differ each time."""

OWN_EVENT = {"own_event": True}
"""Fields by which a line says that it repeats no other, whatever it has in common with those before; not shown."""


def hide_own_event(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """As a processor of structlog's: the event as it is shown."""
    for field in OWN_EVENT:
        event.pop(field, None)
    return event


@dataclass(frozen=True, slots=True)
class Kind:
    """What lines have in common that stand for each other."""

    event: Hashable
    variant: Hashable  # None: all beyond the variants that are told apart


@dataclass(slots=True)
class _Held:
    """What was held back of a kind since its last line."""

    written_s: float
    newest: logging.LogRecord | None = None
    count: int = 0


class Repeats:
    """Tells which lines are written. Takes time as an argument, in seconds of any clock that only goes forward.

    It knows at most `MAX_KINDS` kinds, and forgets one that was silent for `INTERVAL_S`.
    """

    def __init__(self) -> None:
        self._kinds: dict[Kind, _Held] = {}  # the one written longest ago first
        self._variants: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._kinds)

    def admit(self, record: logging.LogRecord, now_s: float) -> bool:
        """Whether the line is the first of its kind, or an event of its own, to be written now.

        `due` hands out the others in their time.
        """
        if isinstance(record.msg, dict) and OWN_EVENT.items() <= record.msg.items():
            return True
        kind = _kind(record)
        if kind not in self._kinds:
            if self._variants[kind.event] >= MAX_VARIANTS:
                kind = Kind(kind.event, None)
            if len(self._kinds) >= MAX_KINDS - 1 and kind not in self._kinds:
                kind = Kind(None, None)
        held = self._kinds.get(kind)
        if held is None:
            self._kinds[kind] = _Held(now_s)
            self._variants[kind.event] += 1
            return True
        held.newest = _without_frames(record)
        held.count += 1
        return False

    def due(self, now_s: float) -> Iterator[logging.LogRecord]:
        """Lines for those that were held back for so long: of each kind the newest, with how many it stands for."""
        while self._kinds:
            kind, held = next(iter(self._kinds.items()))
            if now_s < held.written_s + INTERVAL_S:
                return
            del self._kinds[kind]
            if held.newest:
                self._kinds[kind] = _Held(now_s)  # the last from now on
                yield _counted(held.newest, held.count)
                continue
            self._variants[kind.event] -= 1
            if not self._variants[kind.event]:
                del self._variants[kind.event]

    @property
    def next_due_s(self) -> float | None:
        """When `due` will have a line; None while nothing is held back."""
        return next((held.written_s + INTERVAL_S for held in self._kinds.values() if held.newest), None)


class RepeatsHandler(logging.Handler):
    """Hands `target` each line that repeats none, at once, and the others as `Repeats` counts them."""

    def __init__(self, target: logging.Handler, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._target, self._clock = target, clock
        self._repeats = Repeats()
        self._timer: threading.Timer | None = None  # None where none runs

    def emit(self, record: logging.LogRecord) -> None:
        now_s = self._clock()
        self._write_due(now_s)
        if self._repeats.admit(record, now_s):
            self._target.handle(record)
        elif self._timer is None:
            self._wake(now_s)

    def close(self) -> None:
        """Write what is held back, and end."""
        with self.lock or threading.Lock():
            if self._timer:
                self._timer.cancel()
                self._timer = None
            self._write_due(self._clock() + INTERVAL_S)
            super().close()

    def _write_due(self, now_s: float) -> None:
        for record in self._repeats.due(now_s):
            self._target.handle(record)

    def _wake(self, now_s: float) -> None:
        """Let a thread write in time what is held back, if it is: there may be no further line."""
        due_s = self._repeats.next_due_s
        self._timer = None
        if due_s is not None:
            self._timer = threading.Timer(due_s - now_s, self._on_time)
            self._timer.daemon = True
            try:
                self._timer.start()
            except RuntimeError:  # there may be no more threads: the next line wakes what waits
                self._timer = None

    def _on_time(self) -> None:
        with self.lock or threading.Lock():
            if self._timer:  # not closed meanwhile
                now_s = self._clock()
                self._write_due(now_s)
                self._wake(now_s)


def _kind(record: logging.LogRecord) -> Kind:
    if isinstance(record.msg, dict):  # structlog's
        said = record.msg
        event = (record.name, record.levelno, str(said.get("event"))[:_MAX_WORDS])
        return Kind(event, tuple(str(said[field])[:_MAX_WORDS] for field in _TELLING if field in said))
    failure = record.exc_info[0] if record.exc_info else None
    words = record.getMessage().partition("\n")[0][:_MAX_WORDS]  # asyncio tells objects in the other lines
    return Kind((record.name, record.levelno, record.pathname, record.lineno), (words, failure))


def _without_frames(record: logging.LogRecord) -> logging.LogRecord:
    """The record without a traceback, which holds all that its frames do, packets and tensors among it."""
    record = copy.copy(record)
    record.exc_info = record.exc_text = None
    if isinstance(record.msg, dict):
        record.msg = {name: value for name, value in record.msg.items() if name != "exc_info"}
    return record


def _counted(record: logging.LogRecord, count: int) -> logging.LogRecord:
    """The record, which says how many lines it stands for; a single one stands for itself."""
    if count > 1:
        if isinstance(record.msg, dict):
            record.msg["repeated"] = count
        else:
            record.repeated = count
    return record
