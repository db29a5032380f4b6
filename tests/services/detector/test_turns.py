"""What is done in a camera's turns: decoded in order, and of a live camera the newest frame is detected on."""

from __future__ import annotations

import pytest

from codec.errors import CorruptPacket
from codec.interface import DecodedFrame
from codec.packet import PacketHeader
from services.detector.inference import InferredFrame
from services.detector.turns import CameraTurns, DetectedFrame, ReceivedPacket, StaleFrame
from stream.latency import StageClock

CANVAS = (64, 96)


class Decoder:
    """Takes a packet's text for what becomes of it."""

    def decode(self, data: bytes) -> DecodedFrame:
        if data == b"damaged":
            raise CorruptPacket("its checksum")
        header = PacketHeader(1, b"", True, 0, int(data or b"0"), 0, 0, (), ())
        return DecodedFrame(header, {})

    def reset(self) -> None: ...


class Camera:
    """A camera's turns."""

    def __init__(self, *, live: bool, max_age_s: float = 1e9, fails: bool = False) -> None:
        self.fails = fails
        self.turns = CameraTurns(Decoder(), self.detect, CANVAS, live=live, max_age_s=max_age_s)
        self._count = 0

    def detect(self, tensors, letterbox, clock) -> InferredFrame:
        if self.fails:
            raise RuntimeError("out of memory")
        assert letterbox.frame == letterbox.canvas == CANVAS
        return InferredFrame(None, 0, batch=1)  # type: ignore[arg-type]

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.turns.put(ReceivedPacket(packet, self._count, StageClock(0), 0))
            self._count += 1

    def turn(self) -> list[tuple[int, type]]:
        return [(told.packet.number, type(told.outcome)) for told in self.turns.turn()]


def test_every_frame_is_answered_in_a_turn_of_its_own():
    camera = Camera(live=True)
    for number in range(3):
        camera.send(b"")
        assert camera.turn() == [(number, DetectedFrame)]
    assert len(camera.turns) == 0


def test_of_a_live_camera_the_newest_frame_is_detected_and_all_are_answered_in_order():
    camera = Camera(live=True)
    camera.send(b"", b"damaged", b"", b"")
    assert [camera.turn() for _ in range(3)] == [[], [], []]
    assert camera.turn() == [(0, StaleFrame), (1, CorruptPacket), (2, StaleFrame), (3, DetectedFrame)]


def test_a_frame_gives_way_to_none_that_cannot_be_decoded():
    camera = Camera(live=True)
    camera.send(b"", b"damaged")
    assert camera.turn() == []
    assert camera.turn() == [(0, DetectedFrame), (1, CorruptPacket)]


def test_damage_is_told_at_once_where_no_frame_waits():
    camera = Camera(live=True)
    camera.send(b"damaged", b"damaged")
    assert camera.turn() == [(0, CorruptPacket)]
    assert camera.turn() == [(1, CorruptPacket)]


def test_every_frame_of_a_file_is_detected_on():
    camera = Camera(live=False)
    camera.send(b"", b"", b"damaged")
    assert camera.turn() == [(0, DetectedFrame)]
    assert camera.turn() == [(1, DetectedFrame)]
    assert camera.turn() == [(2, CorruptPacket)]


@pytest.mark.parametrize(("live", "outcome"), [(True, StaleFrame), (False, DetectedFrame)])
def test_a_frame_that_is_too_old_is_not_detected_on(live, outcome):
    camera = Camera(live=live, max_age_s=5)
    camera.send(b"100000000000")
    camera.turn()
    camera.send(b"0")  # captured 100 s before the one that came at the same time
    assert camera.turn() == [(1, outcome)]


def test_a_frame_that_the_network_fails_on_costs_one_frame():
    camera = Camera(live=True, fails=True)
    camera.send(b"")
    assert camera.turn() == [(0, RuntimeError)]
    camera.fails = False
    camera.send(b"")
    assert camera.turn() == [(1, DetectedFrame)]
