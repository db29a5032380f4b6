"""A trial is compared as a hello is, measures the way, and disturbs nobody."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.detector import trial
from stream.session.close_codes import CloseCode
from tests.services.detector.peers import answer, closed, linked
from tests.services.detector.test_endpoint import metric
from tests.services.subscribing import subscribed
from tests.services.waiting import until

SECRET, OTHER = "5e" * 16, "07" * 16


@pytest.fixture
def begin(make_hello):
    """Says that a trial begins, and returns the answer."""

    async def begin(link, **changes: Any) -> dict:
        await link.send(make_hello(type="trial", **changes).text())
        return await answer(link)

    return begin


async def test_packets_are_answered_and_thrown_away_and_nobody_is_told(start_detector, begin):
    async with start_detector() as running:
        messages: list[dict] = []
        watching = await subscribed(running, running.url, messages, types="detections,stream,gap")
        async with linked(running.url) as link:
            welcome = await begin(link)
            assert welcome["type"] == "welcome"
            for number, packet in enumerate([b"x", b"", b"\0" * welcome["max_packet_bytes"]]):
                await link.send(packet)
                ack = await answer(link)
                assert (ack["type"], ack["sequence"], ack["detections"]) == ("ack", number, 0)
            assert running.detector.memory.promised_bytes == 0
        assert running.detector.streams.describe(time.monotonic_ns(), lambda name: True) == []
        assert metric(running, "stream_connections_total") == 0
    await watching
    assert messages == []


async def test_a_camera_of_that_name_streams_on(start_detector, begin, make_hello, encode):
    async with start_detector() as running, linked(running.url) as camera:
        await camera.send(make_hello(session=SECRET).text())
        assert (await answer(camera))["type"] == "welcome"
        async with linked(running.url) as link:
            assert (await begin(link, session=SECRET))["type"] == "welcome"
        async with linked(running.url) as link:
            await link.send(make_hello(type="trial", session=OTHER).text())
            assert (await closed(link)).code == CloseCode.STREAM_TAKEN
        await camera.send(encode(0))
        assert (await answer(camera))["type"] == "ack"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"weights": "0" * 64}, CloseCode.WEIGHTS_DIFFER), ({"protocol": 1}, CloseCode.PROTOCOL_VERSION)],
)
async def test_what_a_hello_is_refused_for_a_trial_is_too(start_detector, make_hello, changes, code):
    async with start_detector() as running, linked(running.url) as link:
        await link.send(make_hello(type="trial", **changes).text())
        assert (await closed(link)).code == code


@pytest.mark.parametrize(
    ("said", "code"),
    [("{}", CloseCode.BAD_MESSAGE), (b"\0" * 1000, CloseCode.PACKET_TOO_LARGE)],
    ids=["a text", "more than a trial may send"],
)
async def test_a_trial_has_packets_alone_and_an_end(start_detector, begin, said, code, monkeypatch):
    monkeypatch.setattr(trial, "TRIAL_BYTES", 999)
    async with start_detector() as running, linked(running.url) as link:
        await begin(link)
        await link.send(said)
        assert (await closed(link)).code == code


async def test_a_trial_does_not_last(start_detector, begin, monkeypatch):
    monkeypatch.setattr(trial, "TRIAL_S", 0.05)
    async with start_detector() as running, linked(running.url) as link:
        await begin(link)
        lost = await closed(link)
        assert (lost.code, lost.reason) == (CloseCode.TIMEOUT, "a trial may last 0.05 s")


async def test_of_many_trials_some_have_to_wait(start_detector, begin, make_hello, monkeypatch):
    monkeypatch.setattr(trial, "TRIALS_AT_ONCE", 1)
    async with start_detector() as running:
        async with linked(running.url) as first:
            assert (await begin(first))["type"] == "welcome"
            async with linked(running.url) as second:
                assert (await begin(second, session=OTHER))["type"] == "retry"
                assert (await closed(second)).code == CloseCode.TRY_AGAIN_LATER
            async with linked(running.url) as camera:
                await camera.send(make_hello().text())
                assert (await answer(camera))["type"] == "welcome"
        await until(lambda: metric(running, "sessions_closed_total", code="1013") == 1)
        async with linked(running.url) as third:
            assert (await begin(third))["type"] == "welcome"
