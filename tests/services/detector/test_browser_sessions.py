"""Which cookies count and for how long, and which addresses may try a token: on times that are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.access.tokens import Grant, Quota
from services.detector import login
from services.detector.login import BrowserSessions, FailedLogins

S = 10**9
BEGAN = 10**6 * S  # when a machine has run for days
IDLE_S, LIFE_S, SESSIONS_PER_TOKEN = 30 * 60, 12 * 3600, 32  # as docs/security.md says
FAILURES, FAILURE_INTERVAL_S = 10, 6
GRANT = Grant("viewer", frozenset({"page"}), ("*",), Quota(), "ab" * 32)


# --- sessions ---


@pytest.fixture
def ended() -> list[Grant]:
    return []


@pytest.fixture
def sessions(ended) -> BrowserSessions:
    return BrowserSessions(ended.append)


def test_a_cookie_stands_for_its_own_grant(sessions, ended):
    first, second = sessions.open(GRANT, 0), sessions.open(GRANT, 0)
    assert first != second
    assert sessions.grant(first, 0) == sessions.grant(second, 0) == GRANT
    assert sessions.grant(first, 0) is not sessions.grant(second, 0)
    sessions.close(first)
    assert (sessions.grant(first, 0), sessions.grant(second, 0)) == (None, GRANT)
    assert len(ended) == 1
    assert ended[0] is not sessions.grant(second, 0)


@pytest.mark.parametrize("cookie", ["", "x", "\udce4", "spc_" + "a" * 43])
def test_nobody_else_has_one(sessions, cookie):
    sessions.open(GRANT, 0)
    assert sessions.grant(cookie, 0) is None
    sessions.close(cookie)
    assert len(sessions) == 1


def test_who_does_not_use_it_loses_it(sessions, ended):
    idle_ns = IDLE_S * S
    cookie = sessions.open(GRANT, BEGAN)
    for time_ns in (idle_ns - 1, 2 * (idle_ns - 1)):
        assert sessions.grant(cookie, BEGAN + time_ns) == GRANT
    assert sessions.grant(cookie, BEGAN + 2 * (idle_ns - 1) + idle_ns) is None
    assert (len(sessions), ended) == (0, [GRANT])


def test_who_uses_it_for_long_loses_it_too(sessions, ended):
    cookie, over_ns = sessions.open(GRANT, BEGAN), BEGAN + LIFE_S * S
    for minute in range(0, 720, 10):
        assert sessions.grant(cookie, BEGAN + minute * 60 * S) == GRANT
    sessions.expire(over_ns - 1)
    assert sessions.grant(cookie, over_ns - 1) == GRANT
    sessions.expire(over_ns)
    assert (len(sessions), ended) == (0, [GRANT])


def test_a_token_has_a_bounded_number_and_takes_none_of_anothers(sessions, ended):
    other = replace(GRANT, hash="cd" * 32)
    theirs = sessions.open(other, 0)
    cookies = [sessions.open(GRANT, number) for number in range(SESSIONS_PER_TOKEN + 2)]
    assert [sessions.grant(cookie, 9) for cookie in cookies] == [None, None] + [GRANT] * 32
    assert sessions.grant(theirs, 9) == other
    assert (len(sessions), len(ended)) == (33, 2)


# --- wrong tokens ---


def fail(failed: FailedLogins, address: str, times: int, now_ns: int = BEGAN) -> None:
    for _ in range(times):
        failed.fail(address, now_ns)


def test_so_many_wrong_ones_and_then_one_in_a_while():
    failed = FailedLogins()
    fail(failed, "10.0.0.1", FAILURES - 1)
    assert failed.wait_s("10.0.0.1", BEGAN) == 0
    fail(failed, "10.0.0.1", 1)
    assert failed.wait_s("10.0.0.1", BEGAN) == FAILURE_INTERVAL_S
    assert failed.wait_s("10.0.0.2", BEGAN) == 0
    later_ns = BEGAN + round(FAILURE_INTERVAL_S * S)
    assert failed.wait_s("10.0.0.1", later_ns) == 0
    fail(failed, "10.0.0.1", 1, later_ns)
    assert failed.wait_s("10.0.0.1", later_ns) == FAILURE_INTERVAL_S


def test_time_without_wrong_ones_is_no_credit():
    failed, later_ns = FailedLogins(), BEGAN + 3600 * S
    fail(failed, "10.0.0.1", 1)
    fail(failed, "10.0.0.1", FAILURES, later_ns)
    assert failed.wait_s("10.0.0.1", later_ns) == FAILURE_INTERVAL_S


def test_who_goes_on_is_not_forgotten():
    failed = FailedLogins()
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
        fail(failed, address, FAILURES)
    for number in range(login.MAX_ADDRESSES - 1):
        failed.fail(f"10.1.{number // 256}.{number % 256}", BEGAN)
    assert failed.wait_s("10.0.0.1", BEGAN) > 0
    assert failed.wait_s("10.0.0.2", BEGAN) == 0


def test_addresses_are_forgotten_in_the_end():
    failed = FailedLogins()
    fail(failed, "10.0.0.1", FAILURES)
    for number in range(login.MAX_ADDRESSES):
        failed.fail(f"10.1.{number // 256}.{number % 256}", BEGAN)
    assert len(failed) == login.MAX_ADDRESSES
    assert failed.wait_s("10.0.0.1", BEGAN) == 0
