from __future__ import annotations

from itertools import pairwise

import pytest

from stream.rate.window import (
    CALM_S,
    LONG_WAIT_S,
    MAX_CALM_S,
    SHORT_WAIT_S,
    SHRINK_PAUSE_S,
    WindowControl,
)

BUSY, CALM = LONG_WAIT_S * 2, SHORT_WAIT_S / 2


def run(
    control: WindowControl, wait_s: float, start_s: float, end_s: float, *, late: bool = False
) -> list[int]:
    """The windows that come of ten frames a second."""
    windows = []
    for step in range(round((end_s - start_s) * 10)):
        window = control.observe(wait_s, start_s + step / 10, late=late)
        windows += [window] if window else []
    return windows


@pytest.mark.parametrize("late", [True, False])
def test_shrinks_to_one_under_load_and_opens_again_after_it(late):
    control = WindowControl(8, now_s=0)
    assert run(control, CALM if late else BUSY, 0, 5, late=late) == [4, 2, 1]
    assert run(control, CALM, 5, 20) == [2, 4, 8]
    assert control.window == 8


def test_a_smaller_window_may_show_its_effect_before_the_next_step():
    control = WindowControl(8, now_s=0)
    assert run(control, BUSY, 0, 2 * SHRINK_PAUSE_S) == [4]


def test_a_window_that_opened_in_vain_is_closed_at_once():
    control = WindowControl(2, now_s=0)
    assert run(control, BUSY, 0, 1) == [1]
    now_s = 1.0
    while control.observe(CALM, now_s) is None:
        now_s += 0.1
    assert control.observe(BUSY, now_s + 0.1) == 1


def test_what_was_wrong_long_ago_counts_no_more():
    control, now_s = WindowControl(2, now_s=0), 0.0
    while now_s < 300:  # ever later
        now_s += 0.1
        control.observe(BUSY if control.window > 1 else CALM, now_s)
    run(control, CALM, now_s, now_s + 4 * MAX_CALM_S)
    now_s += 4 * MAX_CALM_S
    assert run(control, BUSY, now_s, now_s + 1) == [1]
    assert run(control, CALM, now_s + 1, now_s + 1 + 2 * CALM_S) == [2]


def test_stays_where_frames_wait_a_little():
    control = WindowControl(8, now_s=0)
    run(control, BUSY, 0, 5)
    assert run(control, (LONG_WAIT_S + SHORT_WAIT_S) / 2, 5, 60) == []


def test_never_opens_beyond_the_offer():
    control = WindowControl(3, now_s=0)
    assert run(control, BUSY, 0, 5) == [1]
    assert run(control, CALM, 5, 60) == [2, 3]


def test_a_window_that_opens_in_vain_opens_ever_later():
    """Where a window of one serves well and two do not, it is not tried every few seconds."""
    control, opened_s, now_s = WindowControl(2, now_s=0), [], 0.0
    while now_s < 600:
        now_s += 0.1
        if control.observe(BUSY if control.window > 1 else CALM, now_s) == 2:
            opened_s.append(now_s)
    pauses = [later - sooner for sooner, later in pairwise(opened_s)]
    assert pauses[0] < 3 * CALM_S
    assert pauses[-1] == pytest.approx(MAX_CALM_S, abs=1)


def test_a_window_of_one_stays():
    assert run(WindowControl(1, now_s=0), BUSY, 0, 5, late=True) == []
