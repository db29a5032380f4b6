"""Two clocks compared by dates of whole seconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from services.doctor import clock
from services.doctor.clock import ClockBounds, compare_clocks, judge_clock


@pytest.mark.parametrize("offset_s", [0.0, 0.3, -1.7, 86400.25])
async def test_the_offset_lies_within_narrow_bounds(offset_s):
    async def ask() -> str:
        return format_datetime(datetime.fromtimestamp(int(time.time() + offset_s), UTC), usegmt=True)

    bounds, _ = await compare_clocks(ask)
    assert bounds.low_s <= offset_s <= bounds.high_s
    assert bounds.width_s < 1.0


def test_each_answer_narrows_by_what_it_says():
    bounds = ClockBounds().narrowed(10.2, 10.3, 12)
    assert (bounds.low_s, bounds.high_s) == pytest.approx((1.7, 2.8))
    assert bounds.narrowed(10.7, 10.8, 12).high_s == pytest.approx(2.3)
    # Sent so that it arrives where the peer's second may begin: at 11.75 - 2.25 of this clock's.
    assert bounds.wait_s(10.0, 0.05) == pytest.approx(0.70)


@pytest.mark.parametrize(
    ("low_s", "high_s", "level"),
    [
        (-0.01, 0.02, "ok"),
        (0.4, 0.9, "ok"),
        (0.7, 0.72, "warning"),
        (-5.0, -4.9, "warning"),
        (3600.0, 3600.1, "error"),
        (-3600.1, -3600.0, "error"),
        (0.5, 0.4, "warning"),
    ],
)
def test_what_is_said_of_it(low_s, high_s, level):
    finding = judge_clock(ClockBounds(low_s, high_s))
    assert finding.level == level
    assert ("contradict" in finding.measured) == (low_s > high_s)
    if low_s <= high_s:
        side = "ahead of" if low_s + high_s > 0 else "behind"
        assert f"{side} this machine's" in finding.measured


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 99999 00:00:00 GMT", "1" * 4000, "\0"])
async def test_an_answer_without_a_date_is_told(date):
    async def ask() -> str:
        return date

    with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says of it
        await compare_clocks(ask)


async def test_clocks_that_jump_are_no_endless_work(monkeypatch):
    monkeypatch.setattr(clock, "MOST_REQUESTS", 3)
    asked = []

    async def ask() -> str:
        asked.append(len(asked))
        return format_datetime(datetime.fromtimestamp(10**9 + 10_000 * len(asked), UTC), usegmt=True)

    bounds, _ = await compare_clocks(ask)
    assert bounds.width_s < 0
    assert len(asked) <= 3
