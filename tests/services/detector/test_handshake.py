"""What a detector asks of a hello, apart from any socket."""

from __future__ import annotations

import asyncio
import json

import pytest

from codec.errors import UnknownProfile
from services.access.tokens import EVERYBODY, Quota
from services.detector.handshake import Handshake, negotiate
from services.detector.inference import Inference
from services.detector.memory import MemoryBudget
from services.detector.names import Names
from services.detector.publisher import Publisher
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.step_maps import StepMaps
from services.detector.streams import Streams
from services.detector.tails import LocalTails
from services.detector.visit import Visit
from stream.errors import ConnectionLost, SessionError
from stream.session.close_codes import CloseCode
from stream.session.detector import DetectorSession
from stream.session.messages import Waiting
from stream.transport.broadcast import Broadcast
from tests.services.calibrated import make_profile
from tests.services.waiting import LIVENESS_S, until

SECRET = "5e" * 16


@pytest.fixture
def make_settings(weights):
    return lambda **settings: DetectorSettings.load({"model": str(weights), **settings})


@pytest.fixture
async def inference(make_settings, workers):
    inference = Inference(make_settings(), workers)
    await inference.load()
    return inference


@pytest.fixture
def agree(make_settings, inference, make_hello):
    """What a detector with these settings makes of a hello with these changes."""

    def agree(settings, changes, profiles=None, quota=Quota()):  # noqa: B008
        return negotiate(make_hello(**changes), make_settings(**settings), inference, profiles or {}, quota)

    return agree


def test_agrees_on_tensors_and_a_decoder(agree, agreed, encode):
    negotiated = agree({}, {})
    assert negotiated.layout == agreed
    packet = encode(0)
    assert len(packet) <= negotiated.max_packet_bytes
    assert negotiated.decoder.decode(packet).tensors.keys() == {spec.name for spec in agreed}


def test_a_canvas_follows_the_networks_stride(make_settings, inference, make_hello, monkeypatch):
    monkeypatch.setattr(inference.network.model, "stride", 64)
    with pytest.raises(SessionError, match="canvas 64x96: sides must be multiples of 64"):
        negotiate(make_hello(), make_settings(), inference, {}, Quota())


@pytest.mark.parametrize(
    ("settings", "changes", "code", "words"),
    [
        ({"split": "9"}, {}, CloseCode.SPLIT_UNKNOWN, "allowed: 9"),
        ({}, {"weights": "0" * 64}, CloseCode.WEIGHTS_DIFFER, "weights differ"),
        ({"preview": False}, {"preview": True}, CloseCode.PREVIEW_REFUSED, "--no-preview"),
        ({"max_side": 64}, {}, CloseCode.TOO_COSTLY, "at most 64"),
        ({"max_tail_ms": 1e-6}, {}, CloseCode.TOO_COSTLY, "too_costly: a frame of 64x96 split at 4.m takes"),
        ({}, {"canvas": (64, 100)}, CloseCode.SHAPES_DIFFER, "multiples of 32"),
        ({}, {"canvas": (96, 96)}, CloseCode.SHAPES_DIFFER, "tensors differ"),
        ({}, {"codec": "av1"}, CloseCode.CODEC_REFUSED, "av1"),
        (
            {"profiles": False},
            {"codec": f"feature:profile={'0' * 64}"},
            CloseCode.PROFILE_REFUSED,
            "--no-profiles",
        ),
    ],
)
def test_refuses_with_a_reason(agree, settings, changes, code, words):
    with pytest.raises(SessionError) as refusal:
        agree(settings, changes)
    assert (refusal.value.code, words in refusal.value.reason) == (code, True), refusal.value.reason


def test_says_which_profile_is_lacking(agree, agreed):
    profile = make_profile(agreed)
    changes = {"codec": f"feature:profile={profile.hash}"}
    with pytest.raises(UnknownProfile) as unknown:
        agree({}, changes)
    assert unknown.value.hash == profile.hash
    assert agree({}, changes, {profile.hash: profile}).layout == agreed


@pytest.mark.parametrize(
    ("quota", "changes", "code", "words"),
    [
        (Quota(max_side=64), {}, CloseCode.TOO_COSTLY, "at most 64 (--size)"),
        (Quota(preview=False), {"preview": True}, CloseCode.PREVIEW_REFUSED, "token allows no previews"),
        (
            Quota(profiles=False),
            {"codec": f"feature:profile={'0' * 64}"},
            CloseCode.PROFILE_REFUSED,
            "token allows none",
        ),
    ],
)
def test_a_token_may_allow_less_than_the_detector(agree, quota, changes, code, words):
    with pytest.raises(SessionError) as refusal:
        agree({}, changes, quota=quota)
    assert (refusal.value.code, words in refusal.value.reason) == (code, True), refusal.value.reason
    assert len(refusal.value.reason) <= 123  # more is cut off on its way


def test_a_token_may_name_a_profile_that_is_at_hand_though_it_may_send_none(agree, agreed):
    profile = make_profile(agreed)
    changes = {"codec": f"feature:profile={profile.hash}"}
    assert agree({}, changes, {profile.hash: profile}, Quota(profiles=False)).layout == agreed


def test_a_token_of_smaller_packets_is_promised_less_memory(agree):
    usual, small = agree({}, {}), agree({}, {}, quota=Quota(packet_bytes=1000))
    assert (small.max_packet_bytes, usual.max_packet_bytes > 1000) == (1000, True)
    assert small.memory_bytes < usual.memory_bytes
    assert agree({}, {}, quota=Quota(packet_bytes=2**30)).max_packet_bytes == usual.max_packet_bytes


class FakeLink:
    """A camera that has said all it has to say, and what it was told; or one that has left."""

    def __init__(self, *data: str | bytes, left: bool = False) -> None:
        self._data, self._left = list(data), left
        self.texts: list[dict] = []

    async def receive(self) -> str | bytes:
        if not self._data:
            await asyncio.Event().wait()
        return self._data.pop(0)

    async def receive_small(self, limit_bytes: int) -> str | bytes:
        return await self.receive()

    async def send(self, text: str) -> None:
        if self._left:
            raise ConnectionLost("it left")
        self.texts.append(json.loads(text))


@pytest.fixture
async def make_handshake(make_settings, inference, workers):
    """A detector's handshake, and what lets a camera come to it: its link, its session and its visit."""

    def make(*, is_ready: bool = True, **settings) -> Reception:
        ready = asyncio.Event()
        if is_ready:
            ready.set()
        settings = make_settings(**settings)
        memory = MemoryBudget(settings)
        memory.open(0, 0)
        return Reception(
            Handshake(
                settings,
                inference,
                workers,
                memory=memory,
                tails=LocalTails(settings, inference, workers, DetectorStatistics(Streams())),
                step_maps=StepMaps(settings, workers, DetectorStatistics(Streams())),
                ready=ready,
            ),
            settings,
        )

    return make


NO_QUOTA = Quota()


class Reception:
    def __init__(self, handshake: Handshake, settings: DetectorSettings) -> None:
        self.handshake, self._settings = handshake, settings
        self.streams = Streams()
        self._names = Names(settings.max_streams, settings.reserve_s)
        self._statistics = DetectorStatistics(self.streams)

    def visit(self) -> Visit:
        return Visit(self._names, self.streams, Publisher(Broadcast()), self._statistics, EVERYBODY)

    async def admit(
        self, *data: str | bytes, visit: Visit | None = None, left: bool = False, quota: Quota = NO_QUOTA
    ):
        """The camera that says all this, and what it was told."""
        link = FakeLink(*data, left=left)
        session = DetectorSession(self._settings.window)
        return await self.handshake.admit(link, session, visit or self.visit(), quota), link.texts


async def test_a_camera_has_its_name_until_it_leaves(make_handshake, make_hello):
    reception = make_handshake(window=5)
    async with asyncio.timeout(LIVENESS_S):
        for connections in (1, 2):
            visit = reception.visit()
            camera, [welcome] = await reception.admit(make_hello().text(), visit=visit)
            assert (welcome["type"], welcome["window"]) == ("welcome", 5)
            assert camera.stream is reception.streams.get("door")
            assert camera.stream.status.connection == connections
            with pytest.raises(SessionError, match="sent by another camera") as refusal:
                await reception.admit(make_hello().text())
            assert refusal.value.code is CloseCode.STREAM_TAKEN
            assert reception.streams.is_connected("door")
            visit.leave("it left", "lost", reserve=True)
            assert not reception.streams.is_connected("door")


async def test_a_camera_that_waits_has_its_name_and_is_shown(make_handshake, make_hello):
    reception, visit = make_handshake(), None
    waiting = Waiting(
        stream="door", session=SECRET, source="rtsp://10.0.0.20/", source_state="lost", reason="401"
    )
    async with asyncio.timeout(LIVENESS_S):
        visit = reception.visit()
        admission = asyncio.ensure_future(reception.admit(waiting.text(), visit=visit))
        await until(lambda: reception.streams.is_connected("door"))
        admission.cancel()
        [described] = reception.streams.describe(0)
        assert (described["state"], described["reason"], described["model"]) == ("waiting", "401", None)
        assert described["waiting"] == {
            "source": "rtsp://10.0.0.20/",
            "source_state": "lost",
            "reason": "401",
        }
        assert SECRET not in json.dumps(described)
        with pytest.raises(SessionError) as refusal:
            await reception.admit(make_hello(session="0" * 32).text())
        assert refusal.value.code is CloseCode.STREAM_TAKEN
        hello = make_hello(session=SECRET).text()
        camera, [welcome] = await reception.admit(waiting.text(), hello)
        assert welcome["type"] == "welcome"
        assert (camera.stream.status.state, camera.stream.status.connection) == ("connected", 2)
        with pytest.raises(SessionError) as replaced:
            await visit.until_replaced()
        assert replaced.value.code is CloseCode.REPLACED
        visit.leave("replaced", "closed", reserve=True)
        assert reception.streams.is_connected("door")


async def test_a_camera_that_says_two_names_is_none(make_handshake, make_hello):
    waiting = Waiting(stream="porch", session=SECRET, source="0", source_state="opening")
    with pytest.raises(SessionError, match="another camera than the one that waits"):
        await make_handshake().admit(waiting.text(), make_hello(session=SECRET).text())


async def test_a_camera_that_leaves_before_its_welcome_has_no_name(make_handshake, make_hello):
    reception = make_handshake()
    visit = reception.visit()
    with pytest.raises(ConnectionLost):
        await reception.admit(make_hello().text(), visit=visit, left=True)
    visit.leave("it left", "lost", reserve=True)
    assert reception.streams.connected == 0


@pytest.mark.parametrize(
    ("data", "is_ready", "code"),
    [
        ([], True, CloseCode.TIMEOUT),
        ([b"SPLC"], True, CloseCode.BAD_MESSAGE),
        (["{}"], True, CloseCode.BAD_MESSAGE),
        (["hello"], False, CloseCode.TRY_AGAIN_LATER),
    ],
)
async def test_refuses_before_any_check(make_handshake, make_hello, data, is_ready, code):
    reception = make_handshake(is_ready=is_ready, hello_timeout_s=0.05)
    data = [make_hello().text() if text == "hello" else text for text in data]
    with pytest.raises(SessionError) as refusal:
        await reception.admit(*data)
    assert refusal.value.code is code
    assert reception.streams.get("door") is None


async def test_a_camera_brings_its_profile_and_the_next_one_need_not(make_handshake, make_hello, agreed):
    reception = make_handshake()
    profile = make_profile(agreed)
    hello = make_hello(codec=f"feature:profile={profile.hash}").text()
    async with asyncio.timeout(LIVENESS_S):
        for data, types in (
            ((hello, profile.pack()), ["profile_request", "welcome"]),
            ((hello,), ["welcome"]),
        ):
            visit = reception.visit()
            _, texts = await reception.admit(*data, visit=visit)
            assert [text["type"] for text in texts] == types
            visit.leave("it left", "lost", reserve=False)


async def test_a_profile_gives_no_larger_packets_than_the_token(make_handshake, make_hello, agreed):
    profile = make_profile(agreed)
    hello = make_hello(codec=f"feature:profile={profile.hash}").text()
    async with asyncio.timeout(LIVENESS_S):
        _, [_, welcome] = await make_handshake().admit(hello, profile.pack(), quota=Quota(packet_bytes=1024))
    assert welcome["max_packet_bytes"] == 1024


async def test_the_operators_profile_is_there_from_the_start(make_handshake, make_hello, agreed, tmp_path):
    profile = make_profile(agreed, number=7)
    (file := tmp_path / "camera.profile").write_bytes(profile.pack())
    reception = make_handshake(profile=str(file), profiles=False)
    await reception.handshake.load()
    async with asyncio.timeout(LIVENESS_S):
        _, texts = await reception.admit(make_hello(codec=f"feature:profile={profile.hash}").text())
    assert [text["type"] for text in texts] == ["welcome"]
