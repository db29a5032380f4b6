"""Lines that `splitcast watch` prints."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from services.commands.message_lines import readable

AT = 1795435261.376


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def detections(**changes: Any) -> str:
    predictions = [{"class": name} for name in ("person", "bus", "person")]
    message = {"type": "detections", "stream": "door", "sequence": 12, "frame": 412, "connection": 2}
    message |= {"captured_at": AT, "published_at": AT + 0.0921, "predictions": predictions}
    return json.dumps(message | changes)


def stream(**changes: Any) -> str:
    message = {"type": "stream", "stream": "door", "state": "lost", "reason": "nothing came for 10 s"}
    return json.dumps(message | {"at": AT, "connection": 3, "frame": 4711} | changes)


def gap(**changes: Any) -> str:
    message = {"type": "gap", "stream": "door", "first": 4711, "last": 4713, "frames": 3, "at": AT}
    return json.dumps(
        message | {"reasons": {"grab/superseded": 2, "detector/corrupt": 1}, "connection": 3} | changes
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (detections(), "17:31:01.376  door #412  2 person, 1 bus  (92 ms)"),
        (detections(predictions=[]), "17:31:01.376  door #412  nothing  (92 ms)"),
        (
            detections(clock_stepped=-3600.04),
            "17:31:01.376  door #412  2 person, 1 bus  (92 ms, the camera's clock was set by -3600.0 s)",
        ),
        (
            detections(dropped=12),
            "17:31:01.376  door #412  2 person, 1 bus  (92 ms)  [12 messages before were lost: read faster]",
        ),
        (
            detections(stream="door.late", late=True, late_of="door", published_at=AT + 61.2),
            "17:31:01.376  door.late #412  2 person, 1 bus  (61 s late)",
        ),
        (stream(), "17:31:01.376  door lost: nothing came for 10 s  (connection 3, next frame #4711)"),
        (
            stream(state="connected", reason=""),
            "17:31:01.376  door connected  (connection 3, next frame #4711)",
        ),
        (gap(), "17:31:01.376  door #4711 to #4713  no detections: 2 grab/superseded, 1 detector/corrupt"),
        (
            gap(last=4711, frames=1, reasons={"network/stale": 1}),
            "17:31:01.376  door #4711  no detections: 1 network/stale",
        ),
    ],
)
def test_a_message_is_one_line(text, line):
    assert readable(text) == line


def test_a_detector_that_counts_no_frames_is_read_by_its_sequence():
    message = json.loads(detections())
    del message["frame"], message["connection"]
    assert " #12  " in readable(json.dumps(message))


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "3",
        "[" * 100_000,
        "no json",
        '{"type":"news"}',
        '{"type":[]}',
        '{"type":"gap"}',
        gap(reasons=None),
        gap(at="noon"),
        stream(at=1e300),
        detections(predictions=[{"class": []}]),
        detections(predictions=7),
        detections(clock_stepped="much"),
    ],
)
def test_a_text_that_is_no_message_is_shown_as_it_came(text):
    assert readable(text) == text


def test_names_of_strangers_stay_on_their_line():
    evil = [{"class": "a\nb\x1b[31m"}]
    assert "1 a\\nb\\x1b[31m" in readable(detections(predictions=evil))
    assert readable(stream(reason="one\rtwo")).count("\r") == 0
    assert readable('{"type":"\n"}') == r'{"type":"\n"}'
