from __future__ import annotations

import pytest

from stream.session.camera_clock import LATELY_NS, CameraClock, FrameAges
from stream.session.messages import Clock

SECOND = 10**9
YEAR_2026 = 1_790_000_000 * SECOND
DAYS_3 = 3 * 86400 * SECOND


def clock(monotonic_s: float, offset_ns: int = YEAR_2026) -> Clock:
    monotonic_ns = round(monotonic_s * SECOND)
    return Clock(monotonic_ns=monotonic_ns, unix_ns=monotonic_ns + offset_ns)


def test_the_time_of_day_follows_the_camera():
    camera = CameraClock(clock(5))
    assert camera.unix_ns(7 * SECOND) == YEAR_2026 + 7 * SECOND
    assert camera.follow(clock(6)) is None
    assert camera.follow(clock(7, YEAR_2026 + DAYS_3)) == pytest.approx(3 * 86400)
    assert camera.unix_ns(8 * SECOND) == YEAR_2026 + DAYS_3 + 8 * SECOND
    assert camera.follow(clock(8, YEAR_2026 + DAYS_3)) is None
    assert camera.follow(clock(9, YEAR_2026)) == pytest.approx(-3 * 86400)


def test_a_clock_that_drifts_was_not_set():
    camera = CameraClock(clock(0))
    for second in range(1, 100):
        assert camera.follow(clock(second, YEAR_2026 + second * SECOND // 3)) is None
    assert camera.unix_ns(0) == YEAR_2026 + 33 * SECOND


@pytest.mark.parametrize("camera_ahead_ns", [0, 10**18, -(10**18)])
def test_ages_need_no_common_clock(camera_ahead_ns):
    ages = FrameAges()
    for second, delay_ns in ((100, 30_000_000), (101, 20_000_000), (102, 900_000_000)):
        captured_ns = second * SECOND + camera_ahead_ns
        ages.arrive(captured_ns, second * SECOND + delay_ns)
    captured_ns = 102 * SECOND + camera_ahead_ns
    assert ages.age_s(captured_ns, 102 * SECOND + 900_000_000) == pytest.approx(0.88)
    assert ages.age_s(captured_ns, 132 * SECOND + 20_000_000) == pytest.approx(30)
    assert ages.age_s(captured_ns + SECOND, 102 * SECOND) == 0


def test_what_lay_for_30_s_is_old_though_it_comes_at_once():
    """A detector that was stopped takes what has gathered meanwhile."""
    ages = FrameAges()
    for second in range(10):
        ages.arrive(second * SECOND, second * SECOND + 1)
    for second in range(10, 40):
        ages.arrive(second * SECOND, 40 * SECOND)
        assert ages.age_s(second * SECOND, 40 * SECOND) == pytest.approx(40 - second, abs=0.001)


def test_a_clock_that_stood_still_is_believed_again_after_a_while():
    """A camera was suspended for 8 s: its steady clock did not run, and every later frame seems 8 s older."""
    ages, apart_ns = FrameAges(), 8 * SECOND
    ages.arrive(0, 0)
    now_ns = 0
    while ages.age_s(now_ns - apart_ns, now_ns) > 1:
        now_ns += SECOND
        ages.arrive(now_ns - apart_ns, now_ns)
        assert now_ns <= 3 * LATELY_NS
    assert now_ns >= LATELY_NS
