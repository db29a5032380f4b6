"""Lines by a clock that a test moves."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pytest

from services import repeats
from services.repeats import INTERVAL_S, MAX_KINDS, MAX_VARIANTS, OWN_EVENT, Repeats, RepeatsHandler
from tests.services.waiting import LIVENESS_S


def line(event: str, logger: str = "services.test", **fields: Any) -> logging.LogRecord:
    """A record as structlog hands it on."""
    return logging.LogRecord(logger, logging.WARNING, "file.py", 1, {"event": event, **fields}, (), None)


def foreign(text: str, *arguments: object, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("asyncio", logging.ERROR, "base_events.py", 1, text, arguments, exc_info)


class Written(logging.Handler):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def counts(self) -> list[int]:
        return [
            record.msg.get("repeated", 1) if isinstance(record.msg, dict) else getattr(record, "repeated", 1)
            for record in self.records
        ]


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def written():
    return Written()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def handler(written, clock):
    handler = RepeatsHandler(written, clock)
    yield handler
    handler.close()


def test_the_first_at_once_then_one_a_minute_with_their_number(handler, written, clock):
    for second in range(180):
        clock.now_s = 1000 + second
        for sequence in range(10):
            handler.handle(line("packet rejected", stream="door", reason="corrupt", sequence=sequence))
    assert written.counts == [1, 599, 600]  # what came at the minute belongs to the next one
    assert written.records[1].msg["sequence"] == 9
    handler.close()
    assert sum(written.counts) == 1800


def test_a_second_one_that_is_alone_stands_for_itself(handler, written, clock):
    handler.handle(line("source lost", reason="no file"))
    clock.now_s += 30
    handler.handle(line("source lost", reason="no file"))
    clock.now_s += 31
    handler.handle(line("another"))
    assert [record.msg["event"] for record in written.records] == ["source lost", "source lost", "another"]
    assert all("repeated" not in record.msg for record in written.records)


def test_after_a_silent_minute_it_is_the_first_again(handler, written, clock):
    handler.handle(line("source lost"))
    clock.now_s += INTERVAL_S
    handler.handle(line("source lost"))
    assert written.counts == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        line("packet rejected", stream="gate", reason="corrupt"),
        line("packet rejected", stream="door", reason="stale"),
        line("packet rejected", stream="door", reason="corrupt", code=1001),
        line("packet rejected", stream="door", reason="corrupt", stage="head"),
        line("packet rejected", "services.other", stream="door", reason="corrupt"),
        line("camera left", stream="door", reason="corrupt"),
        foreign("packet rejected"),
    ],
)
def test_each_kind_has_its_own_first(handler, written, other):
    handler.handle(line("packet rejected", stream="door", reason="corrupt"))
    handler.handle(other)
    assert len(written.records) == 2


def test_an_event_of_its_own_repeats_nothing(handler, written, clock):
    for _ in range(3):
        handler.handle(line("tokens read", **OWN_EVENT))
    handler.close()
    assert written.counts == [1, 1, 1]


def test_lines_of_libraries_are_told_apart_by_their_first_line(handler, written):
    handler.handle(foreign("Task exception was never retrieved\nfuture: <Task at 0x1>"))
    handler.handle(foreign("Task exception was never retrieved\nfuture: <Task at 0x2>"))
    handler.handle(foreign("%s out of system resource", "accept"))
    assert len(written.records) == 2
    handler.handle(foreign("Task exception was never retrieved\nfuture: <Task at 0x3>"))
    handler.close()
    assert written.counts == [1, 1, 2]


def test_words_of_a_peer_make_only_so_many_kinds(handler, written, clock):
    for number in range(10_000):
        handler.handle(line("session closed", reason=f"bad hello {number}"))
    assert len(written.records) == MAX_VARIANTS + 1
    clock.now_s += INTERVAL_S
    handler.handle(line("another"))
    assert written.counts[MAX_VARIANTS + 1 :] == [10_000 - MAX_VARIANTS - 1, 1]


def test_memory_is_bounded_and_given_back():
    known = Repeats()
    for number in range(3 * MAX_KINDS):
        known.admit(line(f"event {number}"), now_s=0.0)
    assert len(known) == MAX_KINDS
    list(known.due(INTERVAL_S))
    list(known.due(2 * INTERVAL_S))
    assert len(known) == 0
    assert known.admit(line("event 1"), now_s=2 * INTERVAL_S)


def test_what_is_held_back_holds_no_frames(handler, written):
    try:
        raise ValueError("a defect")
    except ValueError:
        failure = sys.exc_info()
    for _ in range(3):
        handler.handle(foreign("failed", exc_info=failure))
        handler.handle(line("failed", exc_info=failure))
    handler.close()
    first, first_line, rest, rest_line = written.records
    assert first.exc_info == failure == first_line.msg["exc_info"]
    assert rest.exc_info is None
    assert "exc_info" not in rest_line.msg
    assert written.counts == [1, 1, 2, 2]


def test_what_was_held_back_is_written_though_no_line_follows(written, monkeypatch):
    monkeypatch.setattr(repeats, "INTERVAL_S", 0.05)
    arrived = threading.Event()
    handler = RepeatsHandler(written)
    handler.handle(line("source lost"))
    handler.handle(line("source lost"))
    written.emit = lambda record: (written.records.append(record), arrived.set())
    assert arrived.wait(LIVENESS_S)
    handler.close()
    assert written.counts == [1, 1]


def test_a_closed_handler_leaves_no_thread(handler):
    before = set(threading.enumerate())  # other tests may have left some, which end when they like
    handler.handle(line("source lost"))
    handler.handle(line("source lost"))
    [timer] = (
        thread
        for thread in threading.enumerate()
        if isinstance(thread, threading.Timer) and thread not in before
    )
    handler.close()
    timer.join(LIVENESS_S)
    assert not timer.is_alive()


def test_a_line_harms_nothing_where_no_thread_can_be_started(handler, written, clock, monkeypatch):
    def start(_timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", start)
    for _ in range(3):
        handler.handle(line("source lost"))
    clock.now_s += INTERVAL_S
    handler.handle(line("another"))
    assert written.counts == [1, 2, 1]
