"""Tails in replicas of Ray Serve, seen from the detector: its streams' packets go out, answers come back."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from codec.feature.profile import Profile
from services.detector.inference import Inference
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.tails import AgreedCamera, MakeTails
from services.detector.turns import AnsweredPacket, DetectedFrame, ReceivedPacket, RejectedPacket
from services.metrics import VERSION
from services.ray_tail.calls import DecoderPlan, ReplicaAnswer, TurnReply, WaitingPacket
from services.ray_tail.environment import make_folder, prepare_ray
from services.ray_tail.errors import CallFailed, RayFailed
from services.ray_tail.metrics import RayMetrics
from services.ray_tail.settings import RaySettings
from services.signals import take_signals_back
from stream.tasks.fair_workers import FairWorkers
from stream.tasks.worker import Worker

if TYPE_CHECKING:
    from services.ray_tail.cluster import Cluster

log = structlog.get_logger(__name__)

START_S = 300.0  # for Ray and the first replica, on a busy machine; a failure is seen at once
WATCH_S = 1.0
# What a replica is told of the detector's settings: nothing that only who lets cameras in has to know.
REPLICA_SETTINGS = {
    *("model", "threads", "device", "engine", "cache", "split", "batch_max"),
    *("confidence", "iou", "max_detections", "max_age_s", "max_side", "max_streams"),
}


def ray_tails(ray: RaySettings) -> MakeTails:
    """What makes a detector's tails those of Ray, by these settings."""

    def make(
        settings: DetectorSettings,
        inference: Inference,
        _workers: FairWorkers,
        statistics: DetectorStatistics,
    ) -> RayTails:
        return RayTails(ray, settings, inference, RayMetrics(statistics.metrics))

    return make


class RayTails:
    """Sends the packets of a stream to the replica that owns its decoder, one call of a stream at a time."""

    def __init__(
        self, ray: RaySettings, settings: DetectorSettings, inference: Inference, metrics: RayMetrics
    ) -> None:
        self._ray, self._settings, self._inference = ray, settings, inference
        self._metrics = metrics
        # Ray's processes end with the thread that starts them.
        self._worker = Worker("ray")
        self._folder: Path | None = None
        self._cluster: Cluster | None = None
        self._started = False
        self._replicas = 0  # that run
        self._connections = 0  # that had a tail
        self._process = secrets.token_hex(4)  # as replicas may outlive this one
        self.queue_length = 0

    async def load(self) -> None:
        """Read the network, start or join Ray, and wait for a replica. Raises RayFailed, and as `Inference.read`."""
        await self._inference.read()
        try:
            async with asyncio.timeout(START_S):
                await self._worker.run(self._start)
        except TimeoutError:
            raise RayFailed(
                f"--tail: no replica runs after {START_S:g} s: does the cluster answer (`ray status`), and has it the "
                "processors, and the GPUs of --ray-gpus, for one?"
            ) from None
        finally:
            take_signals_back()

    def _start(self) -> None:
        """On a thread: Ray would take SIGTERM for itself on the main one."""
        own = self._ray.ray_address is None
        prepare_ray(own=own)
        from services.ray_tail.cluster import Cluster

        settings = self._settings
        threads = 1 if settings.tails == "auto" else settings.tails
        network = settings.model_dump(include=REPLICA_SETTINGS) | {"tails": threads}
        self._folder = make_folder() if own else None
        self._cluster = Cluster(self._ray, self._folder)
        self._cluster.connect(threads)
        log.info("Ray runs", address=self._ray.ray_address or "of this detector's own")
        weights = self._inference.network.model.weights_hash
        self._cluster.deploy(network, weights, VERSION, threads, settings.max_streams)
        self._started = True

    async def watch(self, ready: asyncio.Event) -> None:
        """Be ready as long as there is a replica. Raises RayFailed where another detector has taken the name."""
        while True:
            before, self._replicas = self._replicas, await self._worker.run(self._count)
            if self._replicas != before:
                log.info("replicas", running=self._replicas)
            self._metrics.replicas.set(self._replicas)
            if self._replicas:
                ready.set()
            else:
                ready.clear()
            await asyncio.sleep(WATCH_S)

    def _count(self) -> int:
        assert self._cluster
        try:
            return self._cluster.running()
        except RayFailed:
            raise
        except Exception as error:
            log.warning("Ray does not say how many replicas there are", reason=type(error).__name__)
            return 0

    async def camera(self, agreed: AgreedCamera) -> RayCameraTail:
        self._connections += 1
        return RayCameraTail(self, agreed, f"{agreed.hello.stream}/{self._process}/{self._connections}")

    async def call(
        self, stream: str, plan: DecoderPlan, packets: list[WaitingPacket], profile: Profile | None
    ) -> list[ReplicaAnswer]:
        """The answers of the replica that owns the stream. Raises CallFailed."""
        assert self._cluster
        self.queue_length += 1
        try:
            answers = (await self._measured(stream, plan, packets, None)).answers
            if answers is None:  # a replica that has not seen the profile yet
                packed = await asyncio.to_thread(profile.pack) if profile else None
                answers = (await self._measured(stream, plan, packets, packed)).answers
            if answers is None or len(answers) != len(packets):
                raise CallFailed("error", "the replica has not answered every packet")
            return answers
        except CallFailed:
            self._metrics.lost.inc()
            raise
        finally:
            self.queue_length -= 1

    async def _measured(
        self, stream: str, plan: DecoderPlan, packets: list[WaitingPacket], profile: bytes | None
    ) -> TurnReply:
        assert self._cluster
        began_ns = time.monotonic_ns()
        reply = await self._cluster.turn(stream, plan, packets, profile)
        self._metrics.overhead.observe(max(0, time.monotonic_ns() - began_ns - reply.worked_ns) / 1e9)
        return reply

    def observe(self, frame: DetectedFrame, split: str, canvas: tuple[int, int]) -> None:
        """Know what a frame costs, which replicas measure."""
        self._inference.costs.observe((split, canvas), frame.inferred.tail_ns / 1e6)

    def forget(self, stream: str, key: str) -> None:
        """A stream has gone."""
        if self._cluster:
            self._cluster.forget(stream, key)

    async def close(self) -> None:
        """End replicas and Ray. Where they are still to start, they end with this process."""
        if self._cluster and self._started:
            try:
                await self._worker.run(self._cluster.close)
            except Exception as error:  # there is nothing left to end
                log.warning("Ray did not end as it should", reason=type(error).__name__)
        self._worker.close()
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


class RayCameraTail:
    """One camera's packets: of a live one all that wait go in one call, which detects on the newest frame alone."""

    def __init__(self, tails: RayTails, agreed: AgreedCamera, connection: str) -> None:
        self._tails, self._hello, self._profile = tails, agreed.hello, agreed.profile
        self._connection = connection
        self._one_by_one = agreed.paced or not agreed.hello.live
        self._lost = 0  # calls, each of which leaves a decoder that must not be used any more
        self._received: deque[ReceivedPacket] = deque()  # bounded by the session's window

    def __len__(self) -> int:
        return len(self._received)

    def put(self, packet: ReceivedPacket) -> None:
        self._received.append(packet)

    async def turn(self) -> list[AnsweredPacket]:
        count = 1 if self._one_by_one else len(self._received)
        packets = [self._received.popleft() for _ in range(count)]
        now_ns = time.monotonic_ns()
        sent = [WaitingPacket(packet.data, now_ns - packet.received_ns) for packet in packets]
        try:
            answers = await self._tails.call(self._hello.stream, self._plan, sent, self._profile)
        except CallFailed as failed:
            self._lost += 1
            rejected = RejectedPacket(failed.reason, str(failed))
            return [AnsweredPacket(packet, rejected) for packet in packets]
        now_ns = time.monotonic_ns()
        return [self._answered(*pair, now_ns) for pair in zip(packets, answers, strict=True)]

    def leave(self) -> None:
        self._tails.forget(self._hello.stream, self._plan.key)

    @property
    def _plan(self) -> DecoderPlan:
        hello = self._hello
        return DecoderPlan(
            f"{self._connection}/{self._lost}", hello.codec, hello.split, hello.canvas, hello.live
        )

    def _answered(self, packet: ReceivedPacket, answer: ReplicaAnswer, now_ns: int) -> AnsweredPacket:
        packet.clock.lap_elsewhere(answer.stages_ns, "queue", now_ns)
        if not isinstance(answer.outcome, DetectedFrame):
            return AnsweredPacket(packet, RejectedPacket(answer.outcome.reason, answer.outcome.detail))
        self._tails.observe(answer.outcome, self._hello.split, self._hello.canvas)
        return AnsweredPacket(packet, answer.outcome)
