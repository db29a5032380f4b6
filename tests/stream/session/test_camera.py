from __future__ import annotations

import json

import pytest

from stream.errors import SessionError
from stream.frame_counts import DROPS, FrameCounts
from stream.session.camera import (
    Acknowledged,
    CameraSession,
    KeyframeRequested,
    ProfileRequested,
    Rejected,
    RetryAdvised,
    WindowChanged,
)
from stream.session.close_codes import CloseCode
from stream.session.messages import (
    REJECT_REASONS,
    KeyframeRequest,
    ProfileRequest,
    Reject,
    Retry,
    Welcome,
    Window,
)
from tests.stream.session.peers import (
    PROFILE,
    STAGES_NS,
    ack,
    introduced_camera,
    make_hello,
    open_camera,
)

FRAME = "frame"


def test_sends_nothing_before_the_welcome():
    assert not introduced_camera().can_send


@pytest.mark.parametrize(("own", "offered"), [(3, 8), (8, 3), (1, 1)])
def test_window_is_the_smaller_one(own, offered):
    session = open_camera(own, offered)
    for _ in range(min(own, offered)):
        assert session.can_send
        session.sent(FRAME)
    assert not session.can_send


def test_an_answer_opens_the_window():
    session = open_camera(window=1)
    session.sent(FRAME)
    assert session.receive(ack(0)) == Acknowledged(FRAME, 0, 2, STAGES_NS)
    assert session.can_send


def test_a_reject_answers_the_oldest_packet():
    session = open_camera()
    session.sent("first")
    session.sent("second")
    rejected = session.receive(Reject(reason="corrupt", detail="checksum").text())
    assert rejected == Rejected("first", 0, "corrupt", "checksum")
    assert session.receive(ack(1)) == Acknowledged("second", 1, 2, STAGES_NS)
    assert not session.unanswered


def test_gives_back_what_a_lost_connection_leaves_unanswered():
    session = open_camera()
    for frame in ("first", "second", "third"):
        session.sent(frame)
    session.receive(ack(0))
    assert (list(session.unanswered), session.answered) == (["second", "third"], 1)
    assert session.drain() == ["second", "third"]
    assert session.drain() == []


@pytest.mark.parametrize("reason", REJECT_REASONS)
def test_takes_every_reason_that_its_hello_may_name(reason):
    session = open_camera()
    session.sent(FRAME)
    assert session.receive(Reject(reason=reason).text()) == Rejected(FRAME, 0, reason, "")
    counts = FrameCounts()
    counts.capture()
    counts.reject(reason)
    assert (counts.in_flight, counts.dropped_total, set(counts.dropped)) == (
        0,
        1,
        set(counts.dropped) & set(DROPS),
    )


def test_a_stale_answer_is_a_loss_of_the_network():
    counts = FrameCounts()
    counts.capture()
    counts.reject("stale")
    assert counts.dropped == {("network", "stale"): 1}


def test_the_detector_may_narrow_the_window_and_open_it_again():
    session = open_camera(window=3)
    session.sent(FRAME)
    assert session.receive(Window(window=1).text()) == WindowChanged(1)
    assert not session.can_send
    assert session.receive(Window(window=1000).text()) == WindowChanged(3)  # never beyond the welcome's offer
    assert session.can_send


def test_a_frame_in_work_goes_out_though_the_window_narrows_meanwhile():
    session = open_camera(window=3)
    session.sent(FRAME)
    assert session.can_send
    session.receive(Window(window=1).text())
    session.sent(FRAME)
    assert len(session.unanswered) == 2
    assert not session.can_send


def test_hears_when_to_come_back_before_and_after_the_welcome():
    for session in (introduced_camera(), open_camera()):
        assert session.receive(Retry(after_s=0.5).text()) == RetryAdvised(0.5)


def test_refuses_a_window_before_the_welcome():
    with pytest.raises(SessionError, match="before the welcome"):
        introduced_camera().receive(Window(window=1).text())


@pytest.mark.parametrize("message", [Welcome(window=1, max_packet_bytes=1), ProfileRequest(hash=PROFILE)])
def test_takes_no_answer_to_a_hello_that_it_has_not_said(message):
    session = CameraSession(3)
    with pytest.raises(SessionError, match="before the hello"):
        session.receive(message.text())
    assert session.introduce(make_hello()) == make_hello().text()


def test_a_camera_that_waits_hears_when_to_come_back():
    assert CameraSession(3).receive(Retry(after_s=2).text()) == RetryAdvised(2)


def test_a_keyframe_request_answers_nothing():
    session = open_camera()
    session.sent(FRAME)
    assert session.receive(KeyframeRequest().text()) == KeyframeRequested()
    assert len(session.unanswered) == 1


def test_gives_its_profile_once_and_before_the_welcome():
    session = introduced_camera(3, PROFILE)
    assert session.receive(ProfileRequest(hash=PROFILE).text()) == ProfileRequested()
    with pytest.raises(SessionError, match="or a second"):
        session.receive(ProfileRequest(hash=PROFILE).text())
    session = introduced_camera(3, PROFILE)
    session.receive(Welcome(window=1, max_packet_bytes=1).text())
    with pytest.raises(SessionError, match="after the welcome"):
        session.receive(ProfileRequest(hash=PROFILE).text())


@pytest.mark.parametrize("profile", [None, "0" * 64])
def test_gives_no_other_profile_than_it_named(profile):
    with pytest.raises(SessionError, match="another profile") as refusal:
        introduced_camera(3, profile).receive(ProfileRequest(hash=PROFILE).text())
    assert refusal.value.code is CloseCode.BAD_MESSAGE


def test_sequence_numbers_wrap():
    session = open_camera()
    session.packets = 2**32 - 1
    session.sent(FRAME)
    assert session.next_sequence == 0
    assert session.receive(ack(2**32 - 1)).sequence == 2**32 - 1


@pytest.mark.parametrize(
    "texts",
    [
        [ack(0)],  # before the welcome
        [KeyframeRequest().text()],
        [json.dumps({"type": "profile_request", "hash": "AB" * 32})],
        [json.dumps({"type": "profile_request", "hash": "../../etc"})],
        [Welcome(window=1, max_packet_bytes=1).text()] * 2,
        [Welcome(window=1, max_packet_bytes=1).text(), ack(0)],  # nothing was sent
        ["{}"],
        ["not json"],
        [json.dumps({"type": "welcome", "window": 0, "max_packet_bytes": 1})],
    ],
)
def test_refuses_what_breaks_the_protocol(texts):
    session = introduced_camera()
    *before, last = texts
    for text in before:
        session.receive(text)
    with pytest.raises(SessionError) as refusal:
        session.receive(last)
    assert refusal.value.code is CloseCode.BAD_MESSAGE


def test_refuses_answers_out_of_order():
    session = open_camera()
    session.sent("first")
    session.sent("second")
    with pytest.raises(SessionError, match=r"ack for packet 1 .*, 0 is the oldest"):
        session.receive(ack(1))
    assert session.drain() == ["first", "second"]  # neither is lost with the answer that was wrong
