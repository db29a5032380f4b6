"""A trial at a real detector, and at what is none."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from services.camera.pipeline import FeaturePipeline
from services.camera.session_secret import SessionSecret
from services.doctor import trial
from services.doctor.link import judge_refusal
from services.doctor.settings import DoctorCameraSettings
from services.doctor.trial import Trial, ask_welcome, measure_way
from services.loading import load_network
from stream.errors import ConnectionLost
from stream.session.camera import Accepted
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL, Welcome
from stream.tasks.worker import Worker
from tests.services.calibrated import make_profile
from tests.services.clips import SIZE
from tests.services.fake_detector import serving
from tests.services.waiting import LIVENESS_S, until

pytestmark = pytest.mark.timeout(LIVENESS_S)


@pytest.fixture
def make_settings(weights):
    def make(url: str, **others):
        size = f"{SIZE[0]}x{SIZE[1]}"
        fields = {"source": "demo", "detector": url, "model": str(weights), "size": size, "stream": "door"}
        return DoctorCameraSettings.load({**fields, "codec": "rle", **others})

    return make


@pytest.fixture
async def build():
    """Builds pipelines, on one thread."""
    worker = Worker("test")

    async def build(settings):
        network = await worker.run(load_network, settings)
        return await FeaturePipeline.build(settings, network, SIZE, worker)

    yield build
    worker.close()


async def test_a_detector_that_takes_this_camera(start_detector, make_settings, build):
    async with start_detector(window=5) as running:
        settings = make_settings(running.url)
        pipeline = await build(settings)
        assert (await ask_welcome(settings, pipeline)).window == 5
        way = await measure_way(settings, pipeline)
        assert running.detector.streams.get("door") is None
    assert way.window == 5
    assert 0 < way.round_trip_s < LIVENESS_S
    assert way.kbps > 0


async def test_a_profile_that_the_detector_lacks_is_sent(start_detector, make_settings, build, tmp_path):
    settings = make_settings("ws://127.0.0.1:1", codec="feature")
    pipeline = await build(settings)
    profile = make_profile(pipeline.head.layout)
    (tmp_path / "own.profile").write_bytes(profile.pack())
    async with start_detector() as running:
        settings = make_settings(running.url, codec="feature", profile=str(tmp_path / "own.profile"))
        assert (await ask_welcome(settings, await build(settings))).window
    async with start_detector(profiles=False) as running:
        settings = settings.model_copy(update={"detector": running.url})
        with pytest.raises(ConnectionLost) as lost:
            await ask_welcome(settings, await build(settings))
    assert judge_refusal(lost.value).level == "error"


async def test_other_weights(start_detector, make_settings, build, other_weights):
    async with start_detector() as running:
        settings = make_settings(running.url, model=str(other_weights))
        with pytest.raises(ConnectionLost) as lost:
            await ask_welcome(settings, await build(settings))
    finding = judge_refusal(lost.value)
    assert (finding.level, finding.advice) == ("error", "start both with the same --model")
    assert "weights differ" in finding.measured


async def test_beside_the_camera_that_runs(start_detector, make_settings, build, make_camera, video):
    """On its own machine it is that camera; from elsewhere another one has the name. It streams on all the while."""
    async with start_detector() as running:
        settings = make_settings(running.url)
        pipeline = await build(settings)
        camera = make_camera(running.url, realtime=True, loop=True)
        streaming = asyncio.ensure_future(camera.run())
        await until(lambda: camera.statistics.frame_counts.detected > 2)
        assert (await ask_welcome(settings, pipeline)).window
        with pytest.MonkeyPatch.context() as elsewhere:
            elsewhere.setattr(trial, "kept_secret", lambda stream: None)
            with pytest.raises(ConnectionLost) as lost:
                await ask_welcome(settings, pipeline)
        before = camera.statistics.frame_counts.detected
        await until(lambda: camera.statistics.frame_counts.detected > before + 2)
        assert running.detector.streams.get("door").status.connection == 1
        camera.stop()
        await streaming
    assert lost.value.code == CloseCode.STREAM_TAKEN
    assert judge_refusal(lost.value).level == "warning"


def test_the_kept_session_is_read_and_left_alone(tmp_path):
    assert trial.kept_secret("door", tmp_path) is None
    secret = SessionSecret("door", tmp_path)
    assert trial.kept_secret("door", tmp_path) == secret.text
    secret.close()
    (tmp_path / "door.session").write_text("no secret")
    assert trial.kept_secret("door", tmp_path) is None


def refusing(code: int, reason: str):
    """A detector that closes with this code."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        await ws.receive()
        await ws.close(code=code, message=reason.encode())
        return ws

    return handle


async def test_a_detector_that_knows_no_trial(make_settings, build):
    reason = (
        "not a message of this protocol: message: Input tag 'trial' found using 'type' does not match any"
    )
    async with serving(refusing(4400, reason)) as url:
        settings = make_settings(url)
        with pytest.raises(ConnectionLost) as lost:
            await ask_welcome(settings, await build(settings))
    finding = judge_refusal(lost.value)
    assert (finding.level, "older" in finding.measured) == ("warning", True)


async def test_what_speaks_another_language(make_settings, build):
    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,))
        await ws.prepare(request)
        await ws.send_str("hi there")
        await ws.receive()
        return ws

    async with serving(handle) as url:
        settings = make_settings(url)
        with pytest.raises(ConnectionLost, match="breaks the protocol"):
            await ask_welcome(settings, await build(settings))


@pytest.mark.parametrize("welcomes", [False, True], ids=["at the hello", "after the welcome"])
async def test_a_detector_that_stalls(make_settings, build, monkeypatch, welcomes):
    """It takes everything, and neither answers nor pings."""
    monkeypatch.setattr(trial, "ANSWER_S", 0.5)

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=(FEATURES_PROTOCOL,), autoping=False)
        await ws.prepare(request)
        await ws.receive()
        if welcomes:
            await ws.send_str(Welcome(window=3, max_packet_bytes=1000).text())
        while not (await ws.receive()).type.name.startswith("CLOS"):
            pass
        return ws

    async with serving(handle) as url:
        settings = make_settings(url)
        with pytest.raises(ConnectionLost, match="nothing came from the peer for 0"):
            await measure_way(settings, await build(settings))


@pytest.mark.parametrize(("kbps", "is_least"), [(800.0, False), (10**6, True)])
async def test_what_a_link_carries(monkeypatch, kbps, is_least):
    trips_s = iter([0.03, *[0.02] * (trial.PINGS - 1)])

    async def burst(_trial, size: int) -> float:
        return next(trips_s) if size == 1 else 0.02 + size / (125 * kbps)

    monkeypatch.setattr(Trial, "_burst", burst)
    way = await Trial(None, None, None).measure(Accepted(3, 12.0))
    assert way.kbps == pytest.approx(kbps)
    assert way.is_least is is_least
    assert (way.round_trip_s, way.jitter_s) == pytest.approx((0.02, 0.01))
    assert (way.window, way.frames_per_s) == (3, 12.0)


def test_other_losses_are_told_as_they_are():
    with pytest.raises(ConnectionLost, match="the link broke"):
        judge_refusal(ConnectionLost("the link broke"))
