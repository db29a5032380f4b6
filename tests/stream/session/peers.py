"""A camera and a detector that have agreed, and what they would say."""

from __future__ import annotations

import cv2
import numpy as np

from codec.layout import TensorSpec
from stream.session.ack import Ack
from stream.session.camera import (
    Accepted,
    CameraSession,
    tensor_shapes,
)
from stream.session.detector import (
    DetectorSession,
)
from stream.session.messages import (
    Clock,
    Hello,
    Welcome,
)

WEIGHTS = "ab" * 32
PROFILE = "cd" * 32
JPEG = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
LAYOUT = (TensorSpec("4.cv2", (32, 60, 80)), TensorSpec("4.m", (32, 60, 80)))


def make_hello(**changes) -> Hello:
    fields = {
        "stream": "door",
        "model": "yolov5n",
        "weights": WEIGHTS,
        "split": "4.m",
        "canvas": (480, 640),
        "tensors": tensor_shapes(LAYOUT),
        "codec": "rle:bits=4",
        "clock": Clock(monotonic_ns=1, unix_ns=2),
    }
    return Hello(**fields | changes)


def introduced_camera(window: int = 3, profile: str | None = None) -> CameraSession:
    session = CameraSession(window)
    session.introduce(make_hello(), profile)
    return session


def open_camera(window: int = 3, offered: int = 8) -> CameraSession:
    session = introduced_camera(window)
    welcome = Welcome(window=offered, max_packet_bytes=1000)
    assert session.receive(welcome.text()) == Accepted(min(window, offered))
    return session


def ack(sequence: int) -> bytes:
    return Ack(sequence, detections=2, stages_ns={"tail": 7_000}).pack()


# Of an ack that says nothing of the others.
STAGES_NS = {"queue": 0, "decode": 0, "tail": 7_000, "nms": 0, "publish": 0}


def open_detector(window: int = 2, **hello) -> DetectorSession:
    session = DetectorSession(window)
    session.receive_text(make_hello(**hello).text())
    session.welcome(1000, "test")
    return session
