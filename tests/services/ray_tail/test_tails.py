"""The detector's side of tails in Ray: what it makes of answers, and of replicas that give none."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from codec.packet import PacketHeader
from services.detector.inference import Inference, InferredFrame
from services.detector.metrics import DetectorMetrics
from services.detector.settings import DetectorSettings
from services.detector.tails import AgreedCamera
from services.detector.turns import DetectedFrame, ReceivedPacket, reject_reason
from services.ray_tail.calls import NoDetections, ReplicaAnswer, TurnReply
from services.ray_tail.errors import CallFailed, RayFailed
from services.ray_tail.metrics import RayMetrics
from services.ray_tail.settings import RaySettings
from services.ray_tail.tails import REPLICA_SETTINGS, RayTails
from stream.detections import Detections
from stream.latency import StageClock
from tests.services.calibrated import make_profile
from tests.services.clips import SIZE
from tests.services.waiting import LIVENESS_S, until

NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
MS = 10**6


def detected(packet: bytes) -> ReplicaAnswer:
    header = PacketHeader.parse(packet)
    frame = DetectedFrame(header, SIZE, InferredFrame(NOTHING, 7 * MS, 1))
    return ReplicaAnswer(frame, {"decode": 1, "tail": 2, "nms": 3})


class FakeCluster:
    """A replica that detects nothing, unless it is told what to say in place of its next answer."""

    def __init__(self) -> None:
        self.calls = []
        self.forgotten = []
        self.instead = []
        self.running_replicas = 1

    async def turn(self, stream, plan, packets, profile):
        self.calls.append((stream, plan.key, len(packets), profile))
        if self.instead:
            said = self.instead.pop(0)
            if isinstance(said, Exception):
                raise said
            return said
        return TurnReply([detected(packet.data) for packet in packets], 0)

    def forget(self, stream, key):
        self.forgotten.append((stream, key))

    def running(self):
        if isinstance(self.running_replicas, Exception):
            raise self.running_replicas
        return self.running_replicas


class Setting:
    """Tails, and the cluster that they have."""

    def __init__(self, workers) -> None:
        self.cluster, self.metrics = FakeCluster(), DetectorMetrics()
        self.inference = Inference(DetectorSettings.load({}), workers)
        self.tails = RayTails(
            RaySettings.load({}), DetectorSettings.load({}), self.inference, RayMetrics(self.metrics)
        )
        self.tails._cluster = self.cluster

    async def camera(self, hello, profile=None, *, paced=False):
        return await self.tails.camera(AgreedCamera(hello, None, profile, None, paced))

    def sample(self, name):
        return self.metrics.registry.get_sample_value(f"splitcast_detector_{name}")


@pytest.fixture
async def setting(workers):
    setting = Setting(workers)
    yield setting
    await setting.tails.close()


def received(packet: bytes) -> ReceivedPacket:
    now_ns = time.monotonic_ns()
    return ReceivedPacket(packet, 0, StageClock(now_ns), now_ns)


def told(answered) -> list:
    return [
        packet.outcome.header.sequence
        if isinstance(packet.outcome, DetectedFrame)
        else reject_reason(packet.outcome)
        for packet in answered
    ]


async def test_a_live_cameras_packets_go_together_and_a_files_one_by_one(setting, make_hello, encode):
    packets = [received(encode(number, keyframe=True)) for number in range(3)]
    for live, paced, calls in ((True, False, [3]), (False, False, [1, 1, 1]), (True, True, [1, 1, 1])):
        camera = await setting.camera(make_hello(live=live), paced=paced)
        setting.cluster.calls.clear()
        for packet in packets:
            camera.put(packet)
        answered = []
        while len(camera):
            answered += await camera.turn()
        assert [count for _, _, count, _ in setting.cluster.calls] == calls
        assert told(answered) == [0, 1, 2]


async def test_all_time_that_the_replica_did_not_work_is_waiting(setting, make_hello, encode):
    camera = await setting.camera(make_hello())
    packet = received(encode(0))
    camera.put(packet)
    await camera.turn()
    stages = dict(packet.clock.durations_ns)
    assert stages.pop("queue") > 0
    assert stages == {"decode": 1, "tail": 2, "nms": 3}
    assert setting.sample("ray_overhead_seconds_count") == 1


async def test_a_lost_call_rejects_its_packets_and_leaves_its_decoder(setting, make_hello, encode):
    camera = await setting.camera(make_hello(live=True))
    setting.cluster.instead = [CallFailed("lost", "the replica is gone"), CallFailed("error", "a defect")]
    outcomes = []
    for number in range(0, 6, 2):
        camera.put(received(encode(number, keyframe=True)))
        camera.put(received(encode(number + 1, keyframe=True)))
        outcomes.append(told(await camera.turn()))
    assert outcomes == [["lost", "lost"], ["error", "error"], [4, 5]]
    keys = [key for _, key, _, _ in setting.cluster.calls]
    assert len(set(keys)) == 3
    assert setting.sample("ray_calls_lost_total") == 2
    camera.leave()
    assert setting.cluster.forgotten == [("door", keys[-1])]


async def test_every_connection_has_a_decoder_of_its_own(setting, make_hello, encode):
    for _ in range(2):
        camera = await setting.camera(make_hello())
        camera.put(received(encode(0)))
        await camera.turn()
    first, second = (key for _, key, _, _ in setting.cluster.calls)
    assert first != second


async def test_a_replica_gets_the_profile_that_it_lacks(setting, make_hello, encode, agreed):
    profile = make_profile(agreed)
    camera = await setting.camera(make_hello(), profile)
    setting.cluster.instead = [TurnReply(None, 0)]
    camera.put(received(encode(0)))
    assert told(await camera.turn()) == [0]
    assert [sent for *_, sent in setting.cluster.calls] == [None, profile.pack()]


async def test_answers_that_are_too_few_answer_nothing(setting, make_hello, encode):
    camera = await setting.camera(make_hello())
    setting.cluster.instead = [TurnReply([], 0)]
    camera.put(received(encode(0)))
    assert told(await camera.turn()) == ["error"]


async def test_a_replicas_reason_is_the_detectors(setting, make_hello, encode):
    camera = await setting.camera(make_hello())
    setting.cluster.instead = [
        TurnReply([ReplicaAnswer(NoDetections("missing_reference", "no such frame"), {})], 0)
    ]
    camera.put(received(encode(0)))
    [answered] = await camera.turn()
    assert (reject_reason(answered.outcome), str(answered.outcome)) == ("missing_reference", "no such frame")


async def test_is_ready_as_long_as_there_is_a_replica(setting, monkeypatch):
    monkeypatch.setattr("services.ray_tail.tails.WATCH_S", 0.01)
    ready = asyncio.Event()
    watching = asyncio.ensure_future(setting.tails.watch(ready))
    async with asyncio.timeout(LIVENESS_S):
        await ready.wait()
        assert setting.sample("ray_replicas") == 1
        for nothing in (0, RuntimeError("no controller")):
            setting.cluster.running_replicas = nothing
            await until(lambda: not ready.is_set())
            assert setting.sample("ray_replicas") == 0
            setting.cluster.running_replicas = 2
            await ready.wait()
    watching.cancel()


async def test_a_detector_ends_whose_name_another_has_taken(setting):
    setting.cluster.running_replicas = RayFailed("--ray-name: another detector has taken the name")
    with pytest.raises(RayFailed, match=r"^--ray-name"):
        await asyncio.wait_for(setting.tails.watch(asyncio.Event()), LIVENESS_S)


def test_a_replica_is_told_no_secret():
    assert not {name for name in REPLICA_SETTINGS if "token" in name or "tls" in name or "mqtt" in name}
    assert DetectorSettings.model_fields.keys() >= REPLICA_SETTINGS
