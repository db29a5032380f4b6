from __future__ import annotations

from services.detector.stream_status import StatusTracker


def told(tracker: StatusTracker) -> tuple[str, str, float, int]:
    status = tracker.status
    assert status is not None
    return status.state, status.reason, status.unix_s, status.connection


def greeted() -> StatusTracker:
    tracker = StatusTracker()
    tracker.arrive()
    assert tracker.greet(1.0)
    return tracker


def test_a_camera_waits_and_then_streams_over_one_connection():
    tracker = StatusTracker()
    tracker.arrive()
    assert tracker.wait("opening", "", 1.0)
    assert told(tracker) == ("waiting", "the source has no picture yet", 1.0, 1)
    assert not tracker.wait("opening", "", 2.0)
    assert tracker.wait("lost", "wrong password", 3.0)
    assert told(tracker) == ("waiting", "wrong password", 3.0, 1)
    assert tracker.greet(4.0)
    assert told(tracker) == ("connected", "", 4.0, 1)


def test_a_silent_camera_is_stalled_until_it_is_heard():
    tracker = greeted()
    assert not tracker.hear(0.0, 2.0)
    assert tracker.hear(5.0, 3.0)
    assert not tracker.hear(5.0, 3.5)
    assert told(tracker) == ("stalled", "nothing came for 5 s", 3.0, 1)
    assert tracker.hear(0.0, 4.0)
    assert told(tracker) == ("connected", "", 4.0, 1)


def test_what_the_source_does_is_told():
    tracker = greeted()
    assert not tracker.report("open", 2.0)
    assert tracker.report("frozen", 3.0)
    assert told(tracker)[:2] == ("frozen", "the pictures do not change")
    assert tracker.report("lost", 4.0)
    assert told(tracker)[:2] == ("waiting", "the source is lost")
    assert tracker.hear(5.0, 5.0)
    assert tracker.hear(0.0, 6.0)
    assert told(tracker)[0] == "waiting"
    assert tracker.report("open", 7.0)
    assert told(tracker)[0] == "connected"


def test_a_camera_that_is_gone_is_lost_or_has_ended():
    tracker = greeted()
    assert tracker.is_present
    assert tracker.leave("reset", 2.0, ended=False)
    assert (told(tracker), tracker.is_present) == (("lost", "reset", 2.0, 1), False)
    tracker.arrive()
    assert tracker.greet(3.0)
    assert told(tracker) == ("connected", "", 3.0, 2)
    assert tracker.leave("the source has ended", 4.0, ended=True)
    assert told(tracker) == ("ended", "the source has ended", 4.0, 2)


def test_a_new_connection_is_news_though_the_state_is_the_same():
    tracker = greeted()
    tracker.arrive()
    assert tracker.greet(3.0)
    assert told(tracker) == ("connected", "", 3.0, 2)


def test_a_new_connection_is_not_silent():
    tracker = greeted()
    tracker.hear(5.0, 2.0)
    tracker.arrive()
    assert tracker.greet(3.0)
    assert told(tracker) == ("connected", "", 3.0, 2)


def test_what_ailed_the_source_before_the_hello_is_not_told_of_its_next_loss():
    tracker = StatusTracker()
    tracker.arrive()
    tracker.wait("lost", "wrong password", 1.0)
    tracker.greet(2.0)
    assert tracker.report("lost", 3.0)
    assert told(tracker)[:2] == ("waiting", "the source is lost")


def test_a_source_that_opens_again_has_no_picture():
    tracker = greeted()
    assert tracker.report("opening", 2.0)
    assert told(tracker)[:2] == ("waiting", "the source has no picture yet")
