"""A replica, in a process that Ray starts: it decodes streams and finishes the network, as a detector does itself."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from codec.errors import UnknownProfile
from codec.feature.bundled import BUNDLED
from codec.feature.profile import Profile
from codec.layout import FloatArray
from codec.spec import CODECS, parse_codec
from services.detector.inference import Inference, InferredFrame
from services.detector.profile_store import ProfileStore
from services.detector.settings import DetectorSettings
from services.detector.turns import AnsweredPacket, CameraTurns, DetectedFrame, ReceivedPacket, reject_reason
from services.environment import forget_loading, prepare_process
from services.metrics import VERSION
from services.ray_tail.batches import ServeBatches
from services.ray_tail.calls import DecoderPlan, NoDetections, ReplicaAnswer, TurnReply, WaitingPacket
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.engine import Tail
from stream.tasks.fair_workers import FairWorkers, Owner

IDLE_S = 60.0  # after which a decoder is forgotten: its stream has gone, or goes to another replica


class TailReplica:
    """Owns the decoders of the streams that Ray sends here, and one network.

    `settings` are fields of DetectorSettings. Raises ValueError where this process has another network or version of
    Splitcast than the detector.
    """

    def __init__(self, settings: dict[str, Any], weights: str, version: str) -> None:
        prepare_process()
        if version != VERSION:
            raise ValueError(
                f"the detector is Splitcast {version}, this machine has {VERSION}: install the same"
            )
        own = DetectorSettings.model_construct(**settings)
        self._max_age_s, self._max_streams = own.max_age_s, own.max_streams
        self._workers = FairWorkers("replica", own.tail_threads)
        self._batches = ServeBatches()
        self._inference = Inference(own, self._workers, self._batches)
        self._profiles = ProfileStore(BUNDLED)
        self._opening = self._workers.owner()  # all new streams have the share of one
        self._streams: OrderedDict[str, _Stream] = OrderedDict()  # that not used for longest first
        try:
            with ThreadPoolExecutor(1) as loader:  # Ray's loop runs on this thread
                loader.submit(asyncio.run, self._load()).result()
            self._check_weights(weights, own.model)
        except BaseException:
            self.close()
            raise
        forget_loading()

    async def turn(
        self, plan: DecoderPlan, packets: list[WaitingPacket], profile: bytes | None = None
    ) -> TurnReply:
        """Decode a stream's packets in order, and detect on its frames: of a live camera on the newest alone.

        One call of a key at a time. A stream that is not known here has a new decoder, which takes a keyframe first.
        """
        began_ns = time.monotonic_ns()
        self._batches.loop = asyncio.get_running_loop()
        self._forget_idle(began_ns, self._max_streams - (plan.key not in self._streams))
        stream = self._streams.get(plan.key)
        if stream is None:
            stream = await self._workers.run(self._opening, self._open, plan, profile)
            if stream is None:
                return TurnReply(None, time.monotonic_ns() - began_ns)
            self._streams[plan.key] = stream
        stream.used_ns = began_ns
        self._streams.move_to_end(plan.key)
        for packet in packets:
            stream.put(packet, began_ns)
        answered: list[AnsweredPacket] = []
        while stream.waiting:
            answered += await self._workers.run(stream.owner, stream.turns.turn)
        answers = await asyncio.to_thread(lambda: [_answer(packet) for packet in answered])
        return TurnReply(answers, time.monotonic_ns() - began_ns)

    @property
    def streams(self) -> int:
        """How many have a decoder here."""
        return len(self._streams)

    def close(self) -> None:
        """Let its threads end; Ray just ends the process."""
        self._workers.close()

    async def forget(self, key: str) -> None:
        """A stream has gone, or will have a new key."""
        self._streams.pop(key, None)

    async def _load(self) -> None:
        for codec in CODECS:
            codec.load()
        await self._inference.load()

    def _check_weights(self, expected: str, model: str) -> None:
        own = self._inference.network.model.weights_hash
        if own != expected:
            raise ValueError(
                f"weights differ: detector {expected[:12]}, this machine {own[:12]}: have the same file at {model} "
                "everywhere"
            )

    def _open(self, plan: DecoderPlan, profile: bytes | None) -> _Stream | None:
        """A stream with a new decoder; None where the codec's calibration profile is not here."""
        if profile is not None:
            self._profiles.add(Profile.parse(profile))
        try:
            codec = parse_codec(plan.codec, self._profiles)
        except UnknownProfile:
            return None
        decoder = codec.decoder(self._inference.layout(plan.split, plan.canvas))
        return _Stream(
            self._inference,
            self._inference.tail(plan.split),
            self._workers.owner(),
            lambda detect: CameraTurns(
                decoder, detect, plan.canvas, live=plan.live, max_age_s=self._max_age_s
            ),
        )

    def _forget_idle(self, now_ns: int, most: int) -> None:
        """Keep so many streams at most: one that comes needs room, one that is here does not."""
        while self._streams:
            key, oldest = next(iter(self._streams.items()))
            if now_ns - oldest.used_ns < IDLE_S * 1e9 and len(self._streams) <= most:
                return
            del self._streams[key]


class _Stream:
    """A stream's decoder and its turns."""

    def __init__(self, inference: Inference, tail: Tail, owner: Owner, make_turns: Any) -> None:
        self._inference, self._tail, self.owner = inference, tail, owner
        self.turns: CameraTurns = make_turns(self._detect)
        self.used_ns = 0

    @property
    def waiting(self) -> bool:
        return len(self.turns) > 0

    def put(self, packet: WaitingPacket, now_ns: int) -> None:
        received_ns = now_ns - packet.waited_ns
        clock = StageClock(now_ns)  # the detector counts itself how long the packet has waited
        self.turns.put(ReceivedPacket(packet.data, 0, clock, received_ns))

    def _detect(
        self, tensors: Mapping[str, FloatArray], letterbox: Letterbox, clock: StageClock
    ) -> InferredFrame:
        return self._inference.detect(self._tail, self.owner, tensors, letterbox, clock)


def _answer(answered: AnsweredPacket) -> ReplicaAnswer:
    outcome, stages_ns = answered.outcome, dict(answered.packet.clock.durations_ns)
    stages_ns.pop("queue", None)
    if isinstance(outcome, DetectedFrame):
        return ReplicaAnswer(outcome, stages_ns)
    return ReplicaAnswer(NoDetections(reject_reason(outcome), str(outcome)), stages_ns)
