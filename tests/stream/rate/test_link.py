from __future__ import annotations

import random

import pytest

from stream.rate.link import BASE_WINDOW_MS, FASTEST, SLOWEST, LinkEstimate, SentPacket

BASE_MS, MS_PER_KB, DETECTOR_MS = 40.0, 5.0, 30.0


def sent(kilobytes: float, sent_ms: float) -> SentPacket:
    return SentPacket(kilobytes, sent_ms, sent_ms)


def stream(
    link: LinkEstimate, start_ms: float, count: int, base_ms: float = BASE_MS, interval_ms: float = 250
) -> float:
    """Packets of 5 to 20 kB, one an interval, each answered before the next; when the last one was."""
    numbers = random.Random(count)
    for number in range(count):
        sent_ms = start_ms + number * interval_ms
        size = numbers.uniform(5, 20) if number % 10 else 10.0
        answered_ms = sent_ms + size * MS_PER_KB + base_ms + DETECTOR_MS + numbers.uniform(0, 2)
        link.answer(sent(size, sent_ms), DETECTOR_MS, answered_ms)
    return answered_ms


@pytest.fixture
def link():
    """An estimate that has settled."""
    link = LinkEstimate()
    stream(link, 0, 200)
    return link


def test_tells_rate_and_delay_apart(link):
    assert link.kbps == pytest.approx(8e3 / MS_PER_KB, rel=0.1)
    assert link.base_ms == pytest.approx(BASE_MS, abs=5)
    assert link.detector_ms == pytest.approx(DETECTOR_MS)
    assert link.queue_ms < 5


def test_packets_behind_each_other_tell_the_rate_alone(link):
    """They are on the link for 3 x 50 ms, whatever the delay before the first."""
    for number in range(3):
        packet = sent(10, 60_000 + number)
        link.answer(packet, DETECTOR_MS, 60_000 + 500 + 100 * (number + 1) + DETECTOR_MS)
    assert link.kbps == pytest.approx(800, rel=0.15)


def test_tells_how_long_a_packet_waited(link):
    link.answer(sent(10, 60_000), DETECTOR_MS, 60_000 + 50 + BASE_MS + DETECTOR_MS)
    assert link.queue_ms < 5
    link.answer(sent(10, 60_001), DETECTOR_MS, 60_000 + 100 + BASE_MS + DETECTOR_MS)
    assert link.queue_ms == pytest.approx(50, abs=6)


def test_tells_when_the_link_is_free(link):
    first, second = sent(10, 60_000), sent(10, 60_020)
    assert link.busy_until_ms([first]) == pytest.approx(60_050, abs=6)
    assert link.busy_until_ms([first, second]) == pytest.approx(60_100, abs=12)
    link.answer(first, DETECTOR_MS, 60_000 + 50 + BASE_MS + DETECTOR_MS)
    assert link.busy_until_ms([second]) == pytest.approx(60_100, abs=12)
    link.answer(second, DETECTOR_MS, 60_000 + 100 + BASE_MS + DETECTOR_MS)
    assert link.busy_until_ms([]) <= 60_112


def test_notices_an_answer_that_does_not_come(link):
    packet = sent(10, 60_000)
    expected_ms = 60_000 + 50 + BASE_MS + DETECTOR_MS
    assert not link.overdue(packet, expected_ms)
    assert link.overdue(packet, expected_ms + 100)


def test_a_packet_behind_others_is_not_overdue_for_that(link):
    link.answer(sent(100, 60_000), DETECTOR_MS, 60_000 + 500 + BASE_MS + DETECTOR_MS)
    assert not link.overdue(sent(10, 60_001), 60_000 + 560 + BASE_MS + DETECTOR_MS)


def test_a_longer_route_is_learned_in_time(link):
    assert stream(link, 60_000, 60, base_ms=140) > 60_000 + BASE_WINDOW_MS
    assert link.base_ms == pytest.approx(140, abs=15)
    assert link.kbps == pytest.approx(8e3 / MS_PER_KB, rel=0.2)


def test_a_lost_answer_tells_nothing(link):
    before = link.kbps
    link.lose()
    link.answer(sent(10, 60_010), DETECTOR_MS, 60_010 + 50 + BASE_MS + DETECTOR_MS)
    assert link.kbps == pytest.approx(before, rel=0.15)


@pytest.mark.parametrize("detector_ms", [0.0, 1e9])
@pytest.mark.parametrize("delay_ms", [0.0, 1e7])
def test_stays_within_bounds(detector_ms, delay_ms):
    link = LinkEstimate()
    for number in range(50):
        packet = sent(1e-3 if number % 2 else 1e4, number * delay_ms)
        link.answer(packet, detector_ms, (number + 1) * delay_ms)
        assert FASTEST <= link.ms_per_kb <= SLOWEST
        assert 0 <= link.base_ms <= delay_ms
