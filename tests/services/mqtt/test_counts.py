"""What is counted: at once upwards, after a whole second downwards."""

from __future__ import annotations

import json

from services.mqtt.counts import VEHICLES, Counts, counts_text


def test_a_count_rises_at_once():
    counts = Counts()
    assert counts.add([])
    assert counts.shown == {}
    assert counts.add(["person", "person", "car"])
    assert counts.shown == {"person": 2, "car": 1}
    assert not counts.add(["person", "car"])


def test_an_object_that_is_missed_for_a_frame_is_still_there():
    counts = Counts()
    counts.add(["person", "person"])
    assert not counts.end_second()
    for seen in (["person"], [], ["person", "person"], ["person"]):
        assert not counts.add(seen)
    assert not counts.end_second()
    assert counts.shown == {"person": 2}


def test_a_count_falls_to_the_most_of_a_second():
    counts = Counts()
    counts.add(["person"] * 3)
    counts.end_second()
    counts.add(["person"])
    counts.add(["person", "person"])
    assert counts.end_second()
    assert counts.shown == {"person": 2}
    counts.add([])
    assert counts.end_second()
    assert counts.shown == {}


def test_a_second_without_a_frame_tells_nothing():
    counts = Counts()
    assert not counts.end_second()
    assert counts.shown is None
    counts.add(["person"])
    counts.end_second()
    assert not counts.end_second()
    assert counts.shown == {"person": 1}


def test_the_message():
    message = json.loads(counts_text("door", {"truck": 1, "person": 2, "car": 3, "dog": 1}, 5.0))
    assert message == {
        "type": "counts",
        "stream": "door",
        "at": 5.0,
        "person": 2,
        "vehicle": 4,
        "classes": {"car": 3, "dog": 1, "person": 2, "truck": 1},
    }


def test_of_a_stream_that_is_gone_nothing_is_known():
    message = json.loads(counts_text("door", None, 5.0))
    assert (message["person"], message["vehicle"], message["classes"]) == (None, None, {})


def test_the_vehicles_of_the_networks_are_counted():
    assert {"bicycle", "car", "motorcycle", "bus", "truck"} <= VEHICLES
