"""A replica as an object of this process: what Ray calls, without Ray between."""

from __future__ import annotations

import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from unittest import mock

import numpy as np
import pytest

from codec.feature.bundled import BUNDLED
from codec.packet import Stamp
from codec.spec import parse_codec
from services.detector import inference
from services.detector.settings import DetectorSettings
from services.detector.turns import DetectedFrame
from services.metrics import VERSION
from services.ray_tail.calls import DecoderPlan, NoDetections, WaitingPacket
from services.ray_tail.tails import REPLICA_SETTINGS
from tests.services.calibrated import make_profile
from tests.services.clips import SIZE
from tests.services.conftest import WARM_UP_FRAME

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra ray)")

CODEC = "rle:bits=4,temporal=true"
S = 10**9


@pytest.fixture(scope="module")
def module():
    """With Ray, which takes seconds to load, and uses what Pydantic will not have any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("services.ray_tail.replica")


@pytest.fixture
def make_replica(weights, model, module):
    """A replica of the network with random weights, with other settings or another detector."""

    def make(*, of_weights: str = model.weights_hash, version: str = VERSION, **settings):
        own = DetectorSettings.load({"model": str(weights), "confidence": 0.001, **settings})
        with mock.patch.object(inference, "WARM_UP_FRAME", WARM_UP_FRAME):
            made = module.TailReplica(
                own.model_dump(include=REPLICA_SETTINGS) | {"tails": 2}, of_weights, version
            )
        replicas.append(made)
        return made

    replicas = []
    yield make
    for replica in replicas:
        replica.close()


def plan(key="door/1", codec=CODEC, *, live=False) -> DecoderPlan:
    return DecoderPlan(key, codec, "4.m", SIZE, live)


def outcomes(reply) -> list[str]:
    """What became of each packet: its number, or why it gave nothing."""
    return [
        answer.outcome.reason if isinstance(answer.outcome, NoDetections) else answer.outcome.header.sequence
        for answer in reply.answers
    ]


async def test_decodes_a_stream_and_detects_on_it(make_replica, encode):
    replica = make_replica()
    first = await replica.turn(plan(), [WaitingPacket(encode(0), 0)])
    second = await replica.turn(plan(), [WaitingPacket(encode(1), 0), WaitingPacket(encode(2), 0)])
    assert outcomes(first) + outcomes(second) == [0, 1, 2]
    [answer] = first.answers
    assert isinstance(answer.outcome, DetectedFrame)
    assert len(answer.outcome.inferred.detections) > 0
    assert answer.outcome.size == SIZE
    assert answer.stages_ns.keys() == {"decode", "tail", "nms"}
    assert 0 < sum(answer.stages_ns.values()) <= first.worked_ns


async def test_a_stream_that_it_does_not_know_needs_a_keyframe(make_replica, encode):
    """Another replica decoded what came before; it knows the packets behind the keyframe again."""
    replica = make_replica()
    encode(0)
    reply = await replica.turn(plan(), [WaitingPacket(encode(1), 0)])
    assert outcomes(reply) == ["missing_reference"]
    reply = await replica.turn(
        plan(), [WaitingPacket(encode(2, keyframe=True), 0), WaitingPacket(encode(3), 0)]
    )
    assert outcomes(reply) == [2, 3]


async def test_a_stream_that_comes_back_needs_a_keyframe(make_replica, encode):
    """What it was when it left counts no more: another replica decoded what came between."""
    replica, other = make_replica(), make_replica()
    assert outcomes(await replica.turn(plan(), [WaitingPacket(encode(0), 0)])) == [0]
    between = [WaitingPacket(encode(1, keyframe=True), 0), WaitingPacket(encode(2), 0)]
    assert outcomes(await other.turn(plan(), between)) == [1, 2]
    assert outcomes(await replica.turn(plan(), [WaitingPacket(encode(3), 0)])) == ["missing_reference"]
    assert outcomes(await replica.turn(plan(), [WaitingPacket(encode(4, keyframe=True), 0)])) == [4]


async def test_a_new_key_has_a_decoder_of_its_own(make_replica, encode):
    replica = make_replica()
    assert outcomes(await replica.turn(plan("door/1"), [WaitingPacket(encode(0), 0)])) == [0]
    packet = WaitingPacket(encode(1), 0)
    assert outcomes(await replica.turn(plan("door/2"), [packet])) == ["missing_reference"]
    assert outcomes(await replica.turn(plan("door/1"), [packet])) == [1]


async def test_of_a_live_stream_only_the_newest_frame_is_detected_on(make_replica, encode):
    replica = make_replica()
    packets = [WaitingPacket(encode(number), 0) for number in range(3)]
    assert outcomes(await replica.turn(plan(live=True), packets)) == ["stale", "stale", 2]
    packets = [WaitingPacket(encode(number), 0) for number in range(3, 6)]
    assert outcomes(await replica.turn(plan("file", live=False), packets))[0] == "missing_reference"


async def test_a_frame_that_waited_too_long_is_stale(make_replica, encode):
    """By the time that it waited at the detector, whose clock is another one."""
    replica = make_replica(max_age_s=5)
    fresh, old = encode(0), encode(1)
    assert outcomes(await replica.turn(plan(live=True), [WaitingPacket(fresh, 0)])) == [0]
    assert outcomes(await replica.turn(plan(live=True), [WaitingPacket(old, 6 * S)])) == ["stale"]
    assert outcomes(await replica.turn(plan("file"), [WaitingPacket(encode(2, keyframe=True), 6 * S)])) == [2]


async def test_a_damaged_packet_is_corrupt_and_costs_the_reference(make_replica, encode):
    replica = make_replica()
    await replica.turn(plan(), [WaitingPacket(encode(0), 0)])
    damaged = bytearray(encode(1))
    damaged[-1] ^= 1
    assert outcomes(await replica.turn(plan(), [WaitingPacket(bytes(damaged), 0)])) == ["corrupt"]
    assert outcomes(await replica.turn(plan(), [WaitingPacket(encode(2), 0)])) == ["missing_reference"]


async def test_asks_for_a_calibration_profile_once(make_replica, agreed):
    replica, profile = make_replica(), make_profile(agreed)
    assert profile.hash not in BUNDLED
    codec = parse_codec(f"feature:profile={profile.hash}", {profile.hash: profile})
    tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in agreed}
    packet = WaitingPacket(
        codec.encoder(agreed).encode(tensors, Stamp(0, time.monotonic_ns(), *SIZE)).data, 0
    )
    assert (await replica.turn(plan("a", str(codec)), [packet])).answers is None
    assert outcomes(await replica.turn(plan("a", str(codec)), [packet], profile.pack())) == [0]
    assert outcomes(await replica.turn(plan("b", str(codec)), [packet])) == [0]


async def test_forgets_streams_that_have_gone(make_replica, encode, monkeypatch, module):
    replica = make_replica()
    for key in ("a", "b"):
        await replica.turn(plan(key), [WaitingPacket(encode(0, keyframe=True), 0)])
    assert replica.streams == 2
    await replica.forget("a")
    await replica.forget("a")
    assert replica.streams == 1
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    await replica.turn(plan("c"), [WaitingPacket(encode(0, keyframe=True), 0)])
    assert replica.streams == 1


async def test_holds_no_more_decoders_than_a_detector_has_streams(make_replica, encode):
    replica = make_replica(max_streams=2)
    for key in ("a", "b", "c"):
        await replica.turn(plan(key), [WaitingPacket(encode(0, keyframe=True), 0)])
    assert replica.streams == 2
    assert outcomes(await replica.turn(plan("c"), [WaitingPacket(encode(1), 0)])) == [1]


async def test_forgets_the_stream_first_that_was_not_used_for_longest(make_replica, encode):
    replica = make_replica(max_streams=3)
    keyframe, difference = (WaitingPacket(encode(number), 0) for number in range(2))
    for key in ("a", "b"):
        await replica.turn(plan(key), [keyframe])
    assert outcomes(await replica.turn(plan("a"), [difference])) == [1]
    for key in ("c", "d"):
        await replica.turn(plan(key), [keyframe])
    assert outcomes(await replica.turn(plan("a"), [WaitingPacket(encode(2), 0)])) == [2]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"of_weights": "0" * 64}, "weights differ: detector 000000000000"),
        ({"version": "0.0"}, "is Splitcast 0.0"),
    ],
)
def test_another_network_or_version_is_refused(make_replica, other, words):
    with pytest.raises(ValueError, match=words):
        make_replica(**other)
