"""The account that a proxy gives."""

from __future__ import annotations

from services.chaos.report import MOST_EVENTS, ChaosReport, FaultRecord


def test_times_and_counts_of_a_fault():
    record = FaultRecord("lose")
    record.switch(True, 1.0)
    record.switch(True, 1.5)
    record.add(2.0, 7, message=3)
    record.add(2.5, 7, message=4)
    record.switch(False, 3.0)
    record.switch(False, 3.5)
    record.switch(True, 10.0)
    assert record.describe(11.0) == {
        "fault": "lose",
        "on": True,
        "switched_on": 2,
        "on_s": 3.0,
        "count": 2,
        "first_s": 2.0,
        "last_s": 2.5,
        "events": [
            {"at_s": 2.0, "connection": 7, "message": 3},
            {"at_s": 2.5, "connection": 7, "message": 4},
        ],
        "events_left_out": 0,
    }


def test_a_fault_that_strikes_often_takes_no_more_memory():
    record = FaultRecord("lose")
    for number in range(MOST_EVENTS + 5):
        record.add(float(number), 1)
    described = record.describe(0.0)
    assert len(described["events"]) == MOST_EVENTS
    assert described["events_left_out"] == 5
    assert described["count"] == MOST_EVENTS + 5
    assert described["last_s"] == MOST_EVENTS + 4


def test_the_whole_account():
    report = ChaosReport("127.0.0.1:1", 5, 1e9)
    report.passed["up"].messages["keyframe"] += 1
    assert report.describe(2.0) == {
        "to": "127.0.0.1:1",
        "seed": 5,
        "started_at": 1e9,
        "seconds": 2.0,
        "connections": {"accepted": 0, "open": 0, "unreachable": 0},
        "passed": {"up": {"bytes": 0, "messages": {"keyframe": 1}}, "down": {"bytes": 0, "messages": {}}},
        "faults": [],
    }
