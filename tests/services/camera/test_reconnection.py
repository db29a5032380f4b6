from __future__ import annotations

from random import Random

import pytest

from services.camera.reconnection import LOSS_REASONS, Reconnection, failure_of, loss_reason
from services.errors import DetectorRefused
from stream.errors import ConnectionLost, TlsFailed
from stream.session.close_codes import PERMANENT, CloseCode
from stream.tasks.backoff import Failure

REFUSED_CONNECTION = ConnectionLost("Connection refused")
BLACK_HOLE = ConnectionLost("no answer within 10 s", answered=False)
SEEDS = range(50)


@pytest.mark.parametrize(
    ("lost", "accepted", "failure", "reason"),
    [
        (REFUSED_CONNECTION, False, Failure.NOT_READY, "broken"),
        (ConnectionLost("reset"), True, Failure.NOT_READY, "broken"),
        (BLACK_HOLE, False, Failure.UNREACHABLE, "silent"),
        (ConnectionLost("stops", CloseCode.GOING_AWAY), True, Failure.NOT_READY, "going_away"),
        (ConnectionLost("later", CloseCode.TRY_AGAIN_LATER), False, Failure.NOT_READY, "going_away"),
        (ConnectionLost("503", status=503), False, Failure.NOT_READY, "going_away"),
        (ConnectionLost("401", status=401), False, Failure.DENIED, "refused"),
        (ConnectionLost("403", status=403), False, Failure.DENIED, "refused"),
        (ConnectionLost("404", status=404), False, Failure.REFUSED, "refused"),
        (TlsFailed("expired"), False, Failure.REFUSED, "refused"),
        (TlsFailed("expired"), True, Failure.REFUSED, "refused"),
        (ConnectionLost("taken", CloseCode.STREAM_TAKEN), False, Failure.REFUSED, "refused"),
        (ConnectionLost("full", CloseCode.TOO_MANY_STREAMS), False, Failure.REFUSED, "refused"),
        (ConnectionLost("replaced", CloseCode.REPLACED), True, Failure.REFUSED, "refused"),
        (ConnectionLost("defect", CloseCode.INTERNAL_ERROR), False, Failure.REFUSED, "closed"),
        (ConnectionLost("silence", CloseCode.TIMEOUT), True, Failure.NOT_READY, "closed"),
        (ConnectionLost("damaged", CloseCode.INVALID_TEXT), True, Failure.NOT_READY, "closed"),
        (ConnectionLost("damaged", CloseCode.BAD_MESSAGE), True, Failure.NOT_READY, "refused"),
    ],
    ids=str,
)
def test_what_a_loss_says_of_the_detector(lost, accepted, failure, reason):
    assert failure_of(lost, accepted) is failure
    assert loss_reason(lost) == reason
    assert reason in LOSS_REASONS


def return_after(outage_s: float, lost: ConnectionLost, took_s: float, seed: int) -> float:
    """Seconds from the end of an outage to the attempt that finds it over, when each attempt takes `took_s`."""
    reconnection = Reconnection(Random(seed))
    now_s = reconnection.next_delay_s(ConnectionLost("reset"), 0.0, accepted=True)
    while now_s < outage_s:
        now_s += took_s
        now_s += reconnection.next_delay_s(lost, now_s, accepted=False)
    return now_s - outage_s


@pytest.mark.parametrize("outage_s", [3, 60, 600])
def test_a_detector_that_restarts_is_found_within_a_second(outage_s):
    waits_s = [return_after(outage_s, REFUSED_CONNECTION, 0.001, seed) for seed in SEEDS]
    assert max(waits_s) < 1.002


@pytest.mark.parametrize(("outage_s", "ceiling_s"), [(3, 2), (60, 2), (600, 5)])
def test_between_attempts_that_nothing_answers_is_little_time(outage_s, ceiling_s):
    """While one is made, others join it; see the transport."""
    reconnection = Reconnection(Random(1))
    delays_s, now_s = [], 0.0
    while now_s < outage_s:
        delays_s.append(reconnection.next_delay_s(BLACK_HOLE, now_s, accepted=False))
        now_s += 10.0 + delays_s[-1]
    assert max(delays_s) <= ceiling_s


@pytest.mark.parametrize("outage_s", [3, 60, 600])
def test_a_detector_that_is_not_ready_says_when(outage_s):
    lost = ConnectionLost("not ready", CloseCode.TRY_AGAIN_LATER)
    reconnection = Reconnection(Random(1))
    for now_s in range(outage_s):
        assert reconnection.next_delay_s(lost, now_s, accepted=False, after_s=0.75) == 0.75


def test_a_first_loss_is_retried_at_once_but_not_a_refusal():
    taken = ConnectionLost("replaced", CloseCode.REPLACED)
    assert Reconnection(Random(1)).next_delay_s(ConnectionLost("reset"), 0.0, accepted=True) == 0
    assert Reconnection(Random(1)).next_delay_s(taken, 0.0, accepted=True) >= 0.5


def test_refusals_grow_moderately():
    reconnection = Reconnection(Random(1))
    taken = ConnectionLost("taken", CloseCode.STREAM_TAKEN)
    delays_s = [reconnection.next_delay_s(taken, 0.0, accepted=False) for _ in range(8)]
    for delay_s, ceiling_s in zip(delays_s, [1, 2, 4, 8, 15, 15, 15, 15], strict=True):
        assert ceiling_s / 2 <= delay_s <= ceiling_s


@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_gives_up_at_the_second_refusal_in_a_row(code):
    """The first may be of a hello that was damaged on its way, or somebody else's answer."""
    reconnection = Reconnection(Random(1))
    refusal = ConnectionLost("no", code)
    reconnection.next_delay_s(refusal, 0.0, accepted=False)
    reconnection.next_delay_s(REFUSED_CONNECTION, 1.0, accepted=False)
    reconnection.next_delay_s(refusal, 2.0, accepted=False)
    with pytest.raises(DetectorRefused) as given_up:
        reconnection.next_delay_s(refusal, 3.0, accepted=False)
    assert given_up.value.code == code


def test_what_was_accepted_once_is_tried_for_ever():
    reconnection = Reconnection(Random(1))
    refusal = ConnectionLost("weights differ", CloseCode.WEIGHTS_DIFFER)
    reconnection.next_delay_s(ConnectionLost("reset"), 0.0, accepted=True)
    for _ in range(5):
        assert reconnection.next_delay_s(refusal, 1.0, accepted=False) >= 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_two_copies_of_a_camera_do_not_replace_each_other_all_the_time(seed):
    """As of a card that was copied with the session on it: each is accepted every time, and replaced."""
    reconnection = Reconnection(Random(seed))
    replaced = ConnectionLost("replaced", CloseCode.REPLACED)
    delays_s = [reconnection.next_delay_s(replaced, 30.0 * turn, accepted=True) for turn in range(8)]
    assert min(delays_s[5:]) >= 7.5
    stopped = ConnectionLost("stops", CloseCode.GOING_AWAY)
    assert reconnection.next_delay_s(stopped, 300.0, accepted=True) == 0.0
