from __future__ import annotations

from stream.frame_pace import BURST_NS, FramePace

MS = 1_000_000


def waits(pace: FramePace, *times_ms: int) -> list[int]:
    """Milliseconds that packets wait which are to be worked on at these times."""
    return [pace.take(at_ms * MS) // MS for at_ms in times_ms]


def test_who_keeps_to_the_rate_never_waits():
    assert waits(FramePace(10), 0, 100, 200, 305, 400, 505, 600) == [0] * 7


def test_who_is_too_fast_has_its_rate_and_no_more():
    assert waits(FramePace(10), 0, 1, 2, 3) == [0, 99, 198, 297]


def test_what_a_link_has_gathered_may_come_at_once():
    late_ms = BURST_NS // MS
    assert waits(FramePace(10), 0, *[100 + late_ms] * 7) == [0] * 6 + [0, 100]


def test_a_long_rest_is_no_credit():
    """A camera that was silent for a day may not be worked on for a day's frames at once."""
    assert waits(FramePace(10), 0, *[86_400_000] * 7) == [0] * 6 + [0, 100]


def test_a_token_without_a_rate_has_none():
    assert waits(FramePace(None), *[0] * 1000) == [0] * 1000


def test_to_ask_for_the_wait_counts_no_frame():
    pace = FramePace(10)
    assert [pace.wait_ns(0), pace.take(0)] == [0, 0]
    assert [pace.wait_ns(at_ms * MS) // MS for at_ms in (0, 0, 40, 100, 200)] == [100, 100, 60, 0, 0]


def test_the_slowest_rate_that_can_be_told_has_a_second_frame():
    pace = FramePace(5e-324)
    assert waits(pace, 0, 0)[0] == 0
    assert 365 * 86_400 < pace.wait_ns(0) / 1e9 < 1e10
