from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.tasks.backoff import Backoff


def test_doubles_up_to_the_maximum_without_jitter():
    backoff = Backoff(0.5, 10.0, jitter=0.0, random=Random(1))
    assert [backoff.next_delay_s() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.attempt == 6


def test_reset_begins_again():
    backoff = Backoff(0.5, 10.0, jitter=0.0, random=Random(1))
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.attempt == 0
    assert backoff.next_delay_s() == 1.0


@given(
    minimum_s=st.floats(1e-3, 100),
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_stays_between_minimum_and_maximum(minimum_s, factor, jitter, seed):
    backoff = Backoff(minimum_s, minimum_s * factor, jitter, Random(seed))
    for _ in range(50):
        assert minimum_s <= backoff.next_delay_s() <= minimum_s * factor


def test_full_jitter_spreads_over_the_whole_range():
    backoff = Backoff(1.0, 9.0, jitter=1.0, random=Random(1))
    for _ in range(10):
        backoff.next_delay_s()
    delays_s = [backoff.next_delay_s() for _ in range(1000)]
    assert min(delays_s) < 1.5
    assert max(delays_s) > 8.5


def test_never_gives_up():
    backoff = Backoff(0.5, 30.0, jitter=0.5, random=Random(1))
    for _ in range(5000):  # 2.0**5000 would overflow
        backoff.next_delay_s()
    assert 15.25 <= backoff.next_delay_s() <= 30.0


@pytest.mark.parametrize(
    ("minimum_s", "maximum_s", "jitter"),
    [(0, 1, 0), (-1, 1, 0), (2, 1, 0), (1, 2, -0.1), (1, 2, 1.1), (float("nan"), 1, 0)],
)
def test_refuses_senseless_settings(minimum_s, maximum_s, jitter):
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(minimum_s, maximum_s, jitter, Random(1))
