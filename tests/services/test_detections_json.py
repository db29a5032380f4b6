from __future__ import annotations

import json

import numpy as np
import supervision

from services.commands.message_lines import readable
from services.detections_json import DetectionMessage
from stream.detections import Detections


def make_message(detections: Detections, *, stream: str = "door", **changes) -> dict:
    text = DetectionMessage(
        stream=stream,
        connection=3,
        frame=4711,
        sequence=7,
        keyframe=True,
        captured_ns=5_000_000_000,
        frame_size=(480, 640),
        detections=detections,
        class_names=("person", "dog"),
        captured_unix_ns=1_700_000_004_000_000_000,
        stages_ns={"decode": 1_000_000, "tail": 20_000_000},
        published_unix_ns=1_700_000_004_050_000_000,
        **changes,
    ).text()
    return json.loads(text)


FOUND = Detections(
    boxes=np.array([[10, 20, 110, 220], [0, 0, 640, 480]], np.float32),
    confidence=np.array([0.9, 0.5], np.float32),
    class_id=np.array([1, 0], np.int64),
)
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def test_times_are_told_on_the_cameras_clock():
    message = make_message(FOUND)
    assert message["captured_ns"] == 5_000_000_000
    assert message["captured_at"] == 1_700_000_004.0
    assert message["published_at"] == 1_700_000_004.05
    assert message["time"] == 0.021
    assert (message["connection"], message["frame"]) == (3, 4711)


def test_a_message_tells_who_finished_the_network():
    """A person is told only what is unusual."""
    split, local = make_message(FOUND), make_message(FOUND, path="local")
    assert (split["path"], local["path"]) == ("split", "local")
    assert "on the camera" not in readable(json.dumps(split))
    assert "on the camera" in readable(json.dumps(local))


def test_a_clock_that_was_set_is_marked():
    assert "clock_stepped" not in make_message(FOUND)
    assert make_message(FOUND, clock_stepped_s=-3600.0004)["clock_stepped"] == -3600.0


def test_what_comes_late_is_marked():
    assert not {"late", "late_of"} & make_message(FOUND).keys()
    message = make_message(FOUND, stream="door.late")
    assert (message["late"], message["late_of"]) == (True, "door")


def test_supervision_reads_it():
    read = supervision.Detections.from_inference(make_message(FOUND))
    np.testing.assert_allclose(read.xyxy, FOUND.boxes)
    np.testing.assert_allclose(read.confidence, FOUND.confidence)
    np.testing.assert_array_equal(read.class_id, FOUND.class_id)
    assert list(read.data["class_name"]) == ["dog", "person"]
    assert read.tracker_id is None
    assert len(supervision.Detections.from_inference(make_message(NOTHING))) == 0


def test_no_tracker_id_is_invented():
    assert all("tracker_id" not in prediction for prediction in make_message(FOUND)["predictions"])


def test_a_person_can_read_it():
    assert readable(json.dumps(make_message(FOUND))).endswith("door #4711  1 dog, 1 person  (50 ms)")
    assert "nothing" in readable(json.dumps(make_message(NOTHING)))
