from __future__ import annotations

from stream.leaky_bucket import LeakyBucket


def test_takes_a_burst_and_then_one_an_interval():
    bucket = LeakyBucket(interval_ns=10, burst=3)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(now_ns) for now_ns in (109, 110, 111, 120)] == [False, True, False, True]


def test_what_is_refused_does_not_count():
    bucket = LeakyBucket(interval_ns=10, burst=1)
    assert [bucket.take(0) for _ in range(1000)].count(True) == 1
    assert bucket.take(10)


def test_rest_saves_up_no_more_than_a_burst():
    bucket = LeakyBucket(interval_ns=10, burst=2)
    bucket.take(0)
    assert [bucket.take(10**6) for _ in range(3)] == [True, True, False]
