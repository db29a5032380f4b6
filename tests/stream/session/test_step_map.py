"""Step maps on the wire: as short as can be, of the size that was announced, and of a packet that was sent."""

from __future__ import annotations

import pytest

from stream.errors import InvalidMessage, SessionError
from stream.session.camera import CameraSession, StepMapReceived
from stream.session.close_codes import CloseCode
from stream.session.messages import Welcome, parse_to_detector
from stream.session.step_map import StepMap
from tests.stream.session.peers import ack, make_hello, open_detector

MAP = bytes(range(5))


def open_camera(size: int = len(MAP)) -> CameraSession:
    session = CameraSession(8)
    session.introduce(make_hello(step_map_bytes=size))
    session.receive(Welcome(window=8, max_packet_bytes=1000).text())
    return session


def test_says_what_is_written_in_the_protocol():
    """Kind, number modulo 65536, and the map."""
    assert StepMap(65536 * 3 + 258, MAP).pack() == bytes.fromhex("02 0102") + MAP
    assert StepMap.parse(StepMap(258, MAP).pack(), len(MAP)) == StepMap(258, MAP)


@pytest.mark.parametrize("size", range(9))
def test_refuses_another_size(size):
    message = (StepMap(0, MAP).pack() + b"\0")[:size]
    if size != len(MAP) + 3:
        with pytest.raises(InvalidMessage, match=f"{size} bytes"):
            StepMap.parse(message, len(MAP))


def test_refuses_another_kind():
    with pytest.raises(InvalidMessage):
        StepMap.parse(b"\x03" + StepMap(0, MAP).pack()[1:], len(MAP))


@pytest.mark.parametrize(
    ("sequence", "packets", "newest"),
    [
        (0, 1, 0),
        (3, 5, 3),
        (65535, 65537, 65535),
        (0, 65537, 65536),
        (1, 2**32 + 2, 1),
        (7, 3, 2**32 - 65529),
        (3, 3, 2**32 - 65533),  # the next packet's was never sent
    ],
)
def test_is_of_the_newest_packet_with_its_number(sequence, packets, newest):
    assert StepMap(sequence, MAP).newest(packets) == newest


def test_a_camera_gets_the_newest_once():
    session = open_camera()
    for _ in range(3):
        session.sent("frame")
    session.receive(ack(0))
    assert session.receive(StepMap(0, MAP).pack()) == StepMapReceived(0, MAP)
    newer = bytes(5)
    session.receive(StepMap(1, newer).pack())
    assert session.take_step_map() == StepMapReceived(1, newer)
    assert session.take_step_map() is None
    assert len(session.unanswered) == 2  # a map answers nothing


def test_a_camera_takes_it_for_one_of_a_packet_that_it_has_sent():
    session = open_camera()
    for _ in range(3):
        session.sent("frame")
    session.receive(ack(0))
    assert session.receive(StepMap(2, MAP).pack()) == StepMapReceived(2, MAP)
    assert session.receive(StepMap(3, MAP).pack()) == StepMapReceived(2**32 - 65533, MAP)


def test_a_camera_that_says_nothing_of_maps_takes_none():
    assert make_hello().step_map_bytes == 0


def test_a_camera_takes_maps_of_a_mebibyte_at_most():
    hello = make_hello(step_map_bytes=2**20)
    assert parse_to_detector(hello.text()) == hello


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, StepMap(0, MAP).pack()),
        (0, StepMap(0, b"").pack()),
        (len(MAP), StepMap(0, MAP + b"\0").pack()),
        (len(MAP), StepMap(0, b"").pack()),
    ],
)
def test_a_camera_leaves_a_detector_that_sends_another(size, message):
    session = open_camera(size)
    session.sent("frame")
    with pytest.raises(SessionError) as refused:
        session.receive(message)
    assert refused.value.code == CloseCode.BAD_MESSAGE


def test_a_camera_takes_none_before_the_welcome():
    session = CameraSession(8)
    session.introduce(make_hello(step_map_bytes=len(MAP)))
    with pytest.raises(SessionError, match="step map before the welcome"):
        session.receive(StepMap(0, MAP).pack())


def test_a_detector_says_it():
    assert open_detector(step_map_bytes=len(MAP)).step_map(65537, MAP) == StepMap(1, MAP).pack()
