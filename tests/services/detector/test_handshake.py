"""What a detector asks of a hello, apart from any socket."""

from __future__ import annotations

import asyncio
import json

import pytest

from codec.errors import UnknownProfile
from services.detector.handshake import Handshake, negotiate
from services.detector.inference import Inference
from services.detector.settings import DetectorSettings
from services.detector.streams import Streams
from stream.errors import ConnectionLost, SessionError
from stream.session.close_codes import CloseCode
from tests.services.calibrated import make_profile
from tests.services.waiting import LIVENESS_S


@pytest.fixture
def make_settings(weights):
    return lambda **settings: DetectorSettings.load({"model": str(weights), **settings})


@pytest.fixture
async def inference(make_settings):
    inference = Inference(make_settings())
    await inference.load()
    yield inference
    inference.close()


@pytest.fixture
def agree(make_settings, inference, make_hello):
    """What a detector with these settings makes of a hello with these changes."""

    def agree(settings, changes, profiles=None):
        return negotiate(make_hello(**changes), make_settings(**settings), inference, profiles or {})

    return agree


def test_agrees_on_tensors_and_a_decoder(agree, agreed, encode):
    negotiated = agree({}, {})
    assert negotiated.layout == agreed
    packet = encode(0)
    assert len(packet) <= negotiated.max_packet_bytes
    assert negotiated.decoder.decode(packet).tensors.keys() == {spec.name for spec in agreed}


@pytest.mark.parametrize(
    ("settings", "changes", "code", "words"),
    [
        ({"split": "9"}, {}, CloseCode.SPLIT_UNKNOWN, "allowed: 9"),
        ({}, {"weights": "0" * 64}, CloseCode.WEIGHTS_DIFFER, "weights differ"),
        ({"preview": False}, {"preview": True}, CloseCode.PREVIEW_REFUSED, "--no-preview"),
        ({"max_side": 64}, {}, CloseCode.SHAPES_DIFFER, "at most 64"),
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


class FakeLink:
    """A camera that has said all it has to say, and what it was told; or one that has left."""

    def __init__(self, *data: str | bytes, left: bool = False) -> None:
        self._data, self._left = list(data), left
        self.texts: list[dict] = []

    async def receive(self) -> str | bytes:
        if not self._data:
            await asyncio.Event().wait()
        return self._data.pop(0)

    async def send(self, text: str) -> None:
        if self._left:
            raise ConnectionLost("it left")
        self.texts.append(json.loads(text))


@pytest.fixture
async def make_handshake(make_settings, inference):
    handshakes = []

    def make(*, is_ready: bool = True, **settings) -> tuple[Handshake, Streams]:
        streams, ready = Streams(), asyncio.Event()
        if is_ready:
            ready.set()
        handshake = Handshake(make_settings(**settings), inference, streams, ready)
        handshakes.append(handshake)
        return handshake, streams

    yield make
    for handshake in handshakes:
        handshake.close()


async def test_a_camera_has_its_name_until_it_leaves(make_handshake, make_hello):
    handshake, streams = make_handshake(window=5)
    async with asyncio.timeout(LIVENESS_S):
        for connections in (1, 2):
            link = FakeLink(make_hello().text())
            async with handshake.admit(link) as camera:
                [welcome] = link.texts
                assert (welcome["type"], welcome["window"]) == ("welcome", 5)
                assert camera.stream is streams.get("door")
                assert camera.stream.connections == connections
                assert streams.is_connected("door")
                with pytest.raises(SessionError, match="sent by another camera") as refusal:
                    async with handshake.admit(FakeLink(make_hello().text())):
                        pass
                assert refusal.value.code is CloseCode.STREAM_TAKEN
                assert streams.is_connected("door")
            assert not streams.is_connected("door")


async def test_a_camera_that_leaves_before_its_welcome_has_no_name(make_handshake, make_hello):
    handshake, streams = make_handshake()
    with pytest.raises(ConnectionLost):
        async with handshake.admit(FakeLink(make_hello().text(), left=True)):
            raise AssertionError("it was admitted")
    assert streams.connected == 0


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
    handshake, streams = make_handshake(is_ready=is_ready, hello_timeout_s=0.05)
    data = [make_hello().text() if text == "hello" else text for text in data]
    with pytest.raises(SessionError) as refusal:
        async with handshake.admit(FakeLink(*data)):
            pass
    assert refusal.value.code is code
    assert streams.get("door") is None


async def test_a_camera_brings_its_profile_and_the_next_one_need_not(make_handshake, make_hello, agreed):
    handshake, _ = make_handshake()
    profile = make_profile(agreed)
    hello = make_hello(codec=f"feature:profile={profile.hash}").text()
    async with asyncio.timeout(LIVENESS_S):
        for data, types in (
            ((hello, profile.pack()), ["profile_request", "welcome"]),
            ((hello,), ["welcome"]),
        ):
            link = FakeLink(*data)
            async with handshake.admit(link):
                assert [text["type"] for text in link.texts] == types


async def test_the_operators_profile_is_there_from_the_start(make_handshake, make_hello, agreed, tmp_path):
    profile = make_profile(agreed, number=7)
    (file := tmp_path / "camera.profile").write_bytes(profile.pack())
    handshake, _ = make_handshake(profile=str(file), profiles=False)
    await handshake.load()
    link = FakeLink(make_hello(codec=f"feature:profile={profile.hash}").text())
    async with asyncio.timeout(LIVENESS_S), handshake.admit(link):
        assert [text["type"] for text in link.texts] == ["welcome"]
