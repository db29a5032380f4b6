"""A detector that lacks a camera's calibration profile asks for it, or refuses; and what it makes of a bad one."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web

from services.detector import handshake as handshake_module
from services.detector.profile_store import RECEIVED_KEPT
from services.errors import DetectorRefused
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL, Hello, ProfileRequest
from tests.services.calibrated import make_profile
from tests.services.clips import FRAMES
from tests.services.detector.peers import answer, closed, linked
from tests.services.fake_detector import serving
from tests.services.waiting import LIVENESS_S


@pytest.fixture
def lacking(start_detector, monkeypatch):
    """Starts a detector that has no profile."""

    def start(**settings):
        monkeypatch.setattr(handshake_module, "BUNDLED", {})
        return start_detector(**settings)

    return start


@pytest.fixture
def make_feature_hello(make_hello):
    def make(profile_hash: str, **changes) -> Hello:
        return make_hello(codec=f"feature:quality=6,temporal=true,profile={profile_hash}", **changes)

    return make


@asynccontextmanager
async def greeted(url: str, hello: Hello):
    """A link that has said hello, and the answer to it."""
    async with linked(url) as link:
        await link.send(hello.text())
        yield link


def corrupt(packed: bytes) -> bytes:
    return packed[:100] + bytes([packed[100] ^ 1]) + packed[101:]


def codec(profile) -> str:
    return f"feature:profile={profile.hash}"


async def test_a_camera_brings_its_profile_once(lacking, make_camera, profile):
    async with lacking() as running:
        first = make_camera(running.url, codec=codec(profile))
        await asyncio.wait_for(first.run(), LIVENESS_S)
        second = make_camera(running.url, codec=codec(profile))
        await asyncio.wait_for(second.run(), LIVENESS_S)
    for camera in (first, second):
        assert camera.statistics.frame_counts.detected == FRAMES
        assert not camera.statistics.frame_counts.dropped
    brought = first.statistics.wire.sent - second.statistics.wire.sent
    assert brought > 0.9 * len(profile.pack())


async def test_a_detector_that_has_the_profile_asks_for_nothing(start_detector, make_feature_hello, profile):
    async with start_detector() as running, greeted(running.url, make_feature_hello(profile.hash)) as link:
        assert (await answer(link))["type"] == "welcome"


async def test_a_detector_may_take_no_profiles(lacking, make_camera, profile):
    async with lacking(profiles=False) as running:
        with pytest.raises(
            DetectorRefused, match=r"lacks calibration profile .* \(--no-profiles\)"
        ) as refused:
            await asyncio.wait_for(make_camera(running.url, codec=codec(profile)).run(), LIVENESS_S)
        assert refused.value.code == CloseCode.PROFILE_REFUSED


async def test_a_detector_may_be_given_the_profile(lacking, make_camera, profile, tmp_path):
    """As it may have to be, where it takes none from cameras; and so may a camera."""
    file = tmp_path / "camera.profile"
    file.write_bytes(profile.pack())
    async with lacking(profiles=False, profile=str(file)) as running:
        camera = make_camera(running.url, codec="feature", profile=str(file))
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert profile.hash in running.detector.streams.get("door").hello.codec
    assert camera.statistics.frame_counts.detected == FRAMES


async def test_the_profile_comes_before_the_welcome(lacking, make_feature_hello, profile):
    async with lacking() as running, greeted(running.url, make_feature_hello(profile.hash)) as link:
        assert await answer(link) == {"type": "profile_request", "hash": profile.hash}
        await link.send(profile.pack())
        assert (await answer(link))["type"] == "welcome"


async def refusal(link, profile: bytes | str | None = None) -> tuple[int, str]:
    """Code and reason with which the detector closes, after it has asked for a profile and got this one."""
    if profile is not None:
        assert (await answer(link))["type"] == "profile_request"
        await link.send(profile)
    lost = await closed(link)
    return lost.code, lost.reason


async def test_refuses_what_was_not_asked_for(lacking, make_feature_hello, make_camera, profile):
    packed = profile.pack()
    cases = [
        (corrupt(packed), CloseCode.PROFILE_REFUSED, "which was asked for"),
        (packed[:-1], CloseCode.PROFILE_REFUSED, "which was asked for"),
        (b"", CloseCode.PROFILE_REFUSED, "which was asked for"),
        (bytes(2 * 2**20), CloseCode.PROFILE_REFUSED, "--max-profile-mib"),
        ('{"type":"keyframe"}', CloseCode.BAD_MESSAGE, "a text in place of"),
    ]
    async with lacking(max_profile_mib=1) as running:
        for data, code, words in cases:
            async with greeted(running.url, make_feature_hello(profile.hash)) as link:
                close_code, reason = await refusal(link, data)
            assert (close_code, words in reason) == (code, True), reason
        honest = make_camera(running.url, codec=codec(profile))  # the name was not taken, nothing was kept
        await asyncio.wait_for(honest.run(), LIVENESS_S)
        assert honest.statistics.frame_counts.detected == FRAMES


async def test_refuses_a_profile_that_is_none_or_of_another_network(lacking, make_feature_hello, agreed):
    other = make_profile(agreed[:1])
    cases = [
        (b"garbage", CloseCode.PROFILE_REFUSED, "it does not start as a profile does"),
        (b"SPCP" + bytes(100), CloseCode.PROFILE_REFUSED, "version 0"),
        (other.pack(), CloseCode.CODEC_REFUSED, "channels"),
    ]
    async with lacking() as running:
        for data, code, words in cases:
            hello = make_feature_hello(hashlib.sha256(data).hexdigest())
            async with greeted(running.url, hello) as link:
                close_code, reason = await refusal(link, data)
            assert (close_code, words in reason) == (code, True), reason


async def test_a_profile_of_another_network_displaces_none(lacking, make_feature_hello, profile, agreed):
    async with lacking() as running:
        async with greeted(running.url, make_feature_hello(profile.hash)) as link:
            await answer(link)
            await link.send(profile.pack())
            assert (await answer(link))["type"] == "welcome"
        for number in range(RECEIVED_KEPT):
            other = make_profile(agreed[:1], number)
            async with greeted(running.url, make_feature_hello(other.hash, stream=f"other{number}")) as link:
                assert (await refusal(link, other.pack()))[0] == CloseCode.CODEC_REFUSED
        async with greeted(running.url, make_feature_hello(profile.hash, stream="again")) as link:
            assert (await answer(link))["type"] == "welcome"


async def test_asks_for_no_profile_where_there_is_another_reason_to_refuse(
    lacking, make_feature_hello, profile
):
    cases = [
        (make_feature_hello(name), CloseCode.CODEC_REFUSED)
        for name in ("auto", "AB" * 32, "../../etc", "é" * 60)
    ]
    cases += [
        (make_feature_hello(profile.hash, weights="0" * 64), CloseCode.WEIGHTS_DIFFER),
        (make_feature_hello(profile.hash, canvas=(96, 96)), CloseCode.SHAPES_DIFFER),
    ]
    async with lacking() as running:
        for hello, code in cases:
            async with greeted(running.url, hello) as link:
                assert (await refusal(link))[0] == code
        async with greeted(running.url, make_feature_hello(profile.hash)) as link:
            await answer(link)
            await link.send(profile.pack())
            await answer(link)
            async with greeted(running.url, make_feature_hello("0" * 64)) as second:  # under the same name
                assert (await refusal(second))[0] == CloseCode.STREAM_TAKEN


async def test_does_not_wait_for_a_profile_for_ever(lacking, make_feature_hello, profile, monkeypatch):
    monkeypatch.setattr(handshake_module, "PROFILE_TIMEOUT_S", 0.2)
    async with lacking() as running, greeted(running.url, make_feature_hello(profile.hash)) as link:
        await answer(link)
        assert (await closed(link)).code == CloseCode.TIMEOUT


async def test_a_camera_leaves_a_detector_that_asks_for_another_profile(make_camera, profile):
    """It sends no bytes but those of the profile that it named."""
    answers = []

    async def detector(request):
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        await ws.receive()
        await ws.send_str(ProfileRequest(hash="0" * 64).text())
        message = await ws.receive()
        answers.append((message.type, message.data))
        assert message.type is not WSMsgType.BINARY
        return ws

    async with serving(detector) as url, asyncio.timeout(LIVENESS_S):
        camera = make_camera(url, codec=codec(profile))
        playing = asyncio.ensure_future(camera.run())
        while not answers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        camera.stop()
        await playing
    assert answers[0][1] == CloseCode.BAD_MESSAGE
