from __future__ import annotations

from random import Random

import pytest

from stream.tasks.backoff import AT_ONCE_EVERY_S, Backoff, Failure

SEEDS = range(200)


def until_tried(backoff: Backoff, failure: Failure, outage_s: float) -> float:
    """Seconds from the end of an outage to the attempt that finds it over."""
    now_s = 0.0
    while True:
        now_s += backoff.next_delay_s(failure, now_s)
        if now_s >= outage_s:
            return now_s - outage_s


def lost(seed: int) -> Backoff:
    """The back-off of something that has worked until now."""
    backoff = Backoff(Random(seed))
    backoff.reset()
    return backoff


@pytest.mark.parametrize("failure", [Failure.NOT_READY, Failure.UNREACHABLE])
def test_a_first_loss_is_retried_at_once(failure):
    backoff = lost(1)
    assert backoff.next_delay_s(failure, 100.0) == 0
    assert backoff.next_delay_s(failure, 100.0) > 0


def test_what_never_worked_is_not_a_loss():
    assert Backoff(Random(1)).next_delay_s(Failure.NOT_READY, 0.0) >= 0.5


def test_what_fails_again_and_again_at_once_is_not_retried_without_a_wait():
    backoff = lost(1)
    assert backoff.next_delay_s(Failure.NOT_READY, 0.0) == 0
    backoff.reset()
    assert backoff.next_delay_s(Failure.NOT_READY, 0.1) >= 0.5
    backoff.reset()
    assert backoff.next_delay_s(Failure.NOT_READY, AT_ONCE_EVERY_S) == 0


@pytest.mark.parametrize("outage_s", [3, 60, 600])
def test_a_peer_that_answers_is_tried_within_a_second_however_long_it_was_not_ready(outage_s):
    waits_s = [until_tried(lost(seed), Failure.NOT_READY, outage_s) for seed in SEEDS]
    assert max(waits_s) <= 1.0


@pytest.mark.parametrize(("outage_s", "ceiling_s"), [(3, 2.0), (60, 2.0), (600, 5.0)])
def test_an_unreachable_peer_is_tried_within_a_ceiling_that_grows_after_minutes(outage_s, ceiling_s):
    waits_s = [until_tried(lost(seed), Failure.UNREACHABLE, outage_s) for seed in SEEDS]
    assert max(waits_s) <= ceiling_s
    assert max(waits_s) > ceiling_s / 2


def test_an_outage_is_long_from_its_own_beginning():
    backoff = lost(1)
    assert max(backoff.next_delay_s(Failure.UNREACHABLE, 1e6 + second) for second in range(100)) <= 2


def test_full_jitter_spreads_over_the_whole_range():
    backoff = lost(1)
    delays_s = [backoff.next_delay_s(Failure.UNREACHABLE, 10.0) for _ in range(1000)][10:]
    assert min(delays_s) < 0.1
    assert 1.9 < max(delays_s) <= 2.0


@pytest.mark.parametrize("failure", [Failure.NOT_READY, Failure.UNREACHABLE])
def test_the_peer_may_say_when(failure):
    backoff = lost(1)
    assert [backoff.next_delay_s(failure, 0.0, after_s=7.0) for _ in range(3)] == [7.0, 7.0, 7.0]


def test_a_peer_that_asks_to_be_tried_at_once_is_not_hammered():
    backoff = lost(1)
    assert min(backoff.next_delay_s(Failure.NOT_READY, 10.0, after_s=0.0) for _ in range(3)) > 0


def test_a_wrong_password_is_tried_ever_more_rarely_and_not_at_once():
    backoff = lost(1)
    delays_s = [backoff.next_delay_s(Failure.DENIED, 0.0, after_s=0.1) for _ in range(10)]
    for delay_s, ceiling_s in zip(delays_s, [4, 8, 16, 32, 60, 60, 60, 60, 60, 60], strict=True):
        assert ceiling_s / 2 <= delay_s <= ceiling_s


def test_a_camera_that_was_away_between_has_not_forgotten_the_wrong_passwords():
    backoff = Backoff(Random(1))
    for _ in range(5):
        backoff.next_delay_s(Failure.DENIED, 0.0)
    backoff.next_delay_s(Failure.UNREACHABLE, 0.0)
    assert backoff.next_delay_s(Failure.DENIED, 0.0) >= 30


def test_what_works_again_begins_anew():
    backoff = lost(1)
    for _ in range(5):
        backoff.next_delay_s(Failure.DENIED, 0.0)
        backoff.next_delay_s(Failure.UNREACHABLE, 1000.0)
    assert backoff.attempt == 10
    backoff.reset()
    assert backoff.attempt == 0
    assert backoff.next_delay_s(Failure.DENIED, 2000.0) <= 4
    assert backoff.next_delay_s(Failure.UNREACHABLE, 2000.0) <= 0.5


def test_never_gives_up():
    backoff = lost(1)
    for _ in range(5000):  # 2.0**5000 would overflow
        backoff.next_delay_s(Failure.UNREACHABLE, 0.0)
        backoff.next_delay_s(Failure.DENIED, 0.0)
    assert 0 <= backoff.next_delay_s(Failure.UNREACHABLE, 1e9) <= 5
