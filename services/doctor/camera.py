"""What is looked at on a machine that is to be a camera, in the order in which one check needs another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from urllib.parse import urlsplit

from services.camera.metrics import MAX_CONNECTIONS
from services.camera.pipeline import FeaturePipeline
from services.camera.session_secret import state_folder
from services.doctor.broker import look_at_broker
from services.doctor.camera_engine import judge_camera_engine, measure_camera
from services.doctor.certificate import (
    look_at_detectors_certificate,
    look_at_own_certificate,
    look_at_shown_certificate,
)
from services.doctor.clock import compare_clocks, judge_clock
from services.doctor.examination import Check, in_thread
from services.doctor.finding import Finding, unchecked
from services.doctor.folders import look_at_folder, look_at_kernels, look_at_sessions, look_at_weights_cache
from services.doctor.frame_cost import FrameCost, example_frames
from services.doctor.limits import look_at_limit
from services.doctor.link import judge_refusal, judge_way, judge_welcome
from services.doctor.peer import http_peer, look_at_detector
from services.doctor.ports import look_at_port
from services.doctor.settings import DoctorCameraSettings
from services.doctor.source import SourceWatch, judge_source, shown_source, watch_source
from services.doctor.token import look_at_own_token
from services.doctor.trial import ask_welcome, measure_way
from services.doctor.weights import CAMERA_HALF, is_named, look_at_weights
from services.loading import LoadedModel
from stream.errors import ConnectionLost
from stream.frame import Frame
from stream.network.download import weights_path
from stream.tasks.worker import Worker

SOON_S = 10.0  # for what takes no time, unless a disk or a name server hangs
LOAD_S = 120.0  # for what loads libraries, on a slow machine
COMPILE_S = 300.0  # and compiles kernels
START_S = 45.0  # for a source to give its first picture: a process is started, and a keyframe awaited
FILES_BESIDE = 8  # of the detector, the source and what is read


class CameraDoctor:
    """The checks, and what those that came before have found: each looks only where those it needs were well."""

    def __init__(self, settings: DoctorCameraSettings) -> None:
        self._settings = settings
        self._worker = Worker("doctor-camera")
        self._watch: SourceWatch | None = None
        self._network: LoadedModel | None = None
        self._pipeline: FeaturePipeline | None = None
        self._cost: FrameCost | None = None
        self._answers = self._denied = self._welcome_said = False  # by a detector at its address

    @property
    def checks(self) -> Sequence[Check]:
        """In order."""
        settings = self._settings
        checks = [
            Check("limits", SOON_S, self._limits),
            *([Check("port", SOON_S, self._port)] if settings.metrics_port else []),
            *([Check("metrics", SOON_S, self._metrics_certificate)] if settings.metrics_tls else []),
            Check("session", SOON_S, lambda: in_thread(look_at_sessions, state_folder)),
            *([Check("cache", LOAD_S, self._cache)] if is_named(settings.model) else []),
            *([Check("broker", 2 * SOON_S, lambda: look_at_broker(settings))] if settings.mqtt else []),
            *([Check("recording", SOON_S, self._recording)] if settings.record else []),
            Check("kernels", LOAD_S, lambda: in_thread(look_at_kernels)),
            Check("weights", LOAD_S, self._weights),
            Check("source", settings.open_timeout_s + START_S + settings.seconds, self._source),
            Check("engine", COMPILE_S, self._engine),
            Check("detector", 2 * SOON_S, self._detector),
        ]
        if urlsplit(settings.detector).scheme == "wss":
            checks.append(Check("certificate", SOON_S, self._certificate))
        if settings.tls_cert:
            checks.append(Check("own cert", SOON_S, self._own_certificate))
        return [
            *checks,
            Check("token", 2 * SOON_S, self._token),
            Check("welcome", 4 * SOON_S, self._welcome),
            Check("link", 4 * SOON_S, self._link),
            Check("clock", 4 * SOON_S, self._clock),
        ]

    def close(self) -> None:
        """Let go of the thread that computed."""
        self._worker.close()

    @property
    def _wanted_fps(self) -> float | None:
        """Frames a second, as somebody said or as a live source gives; a file waits for whoever reads it."""
        if self._settings.fps:
            return self._settings.fps
        return self._watch.fps if self._watch and self._watch.live else None

    # --- this machine ---

    async def _limits(self) -> Finding:
        return look_at_limit(MAX_CONNECTIONS + FILES_BESIDE, "")

    async def _port(self) -> Finding:
        settings = self._settings
        return await in_thread(
            look_at_port, settings.metrics_host, settings.metrics_port, "camera", "--metrics-"
        )

    async def _metrics_certificate(self) -> Finding:
        assert self._settings.metrics_tls
        return await in_thread(
            look_at_own_certificate, self._settings.metrics_tls, self._settings.metrics_host
        )

    async def _cache(self) -> Finding:
        return await in_thread(
            lambda: look_at_weights_cache(weights_path(self._settings.model, self._settings.cache))
        )

    async def _recording(self) -> Finding:
        assert self._settings.record
        room_mib = math.ceil(self._settings.record_mib)
        advice = "name another folder with --record, or give it less with --record-mib"
        return await in_thread(look_at_folder, self._settings.record, room_mib, advice, needed=True)

    # --- what it computes ---

    async def _weights(self) -> Finding:
        finding, self._network = await in_thread(look_at_weights, self._settings, CAMERA_HALF)
        return finding

    async def _source(self) -> Finding:
        self._watch = await watch_source(self._settings, self._settings.seconds)
        return judge_source(shown_source(self._settings.source), self._watch, self._settings.fps)

    async def _engine(self) -> Finding:
        if self._network is None:
            return unchecked("there is no network to run: see weights")
        frames = await self._pictures()
        newest = frames[-1]
        await self._worker.run(self._settings.parsed_codec.load)
        self._pipeline = await FeaturePipeline.build(
            self._settings, self._network, (newest.height, newest.width), self._worker
        )
        self._cost = await measure_camera(self._pipeline, frames)
        return judge_camera_engine(
            self._cost,
            self._settings,
            self._pipeline.head.size,
            self._wanted_fps,
            told=self._settings.fps is not None,
        )

    async def _pictures(self) -> Sequence[Frame]:
        """Of the source, as far as they have the newest one's size; those of a virtual camera where there are none."""
        if not self._watch or not self._watch.size:
            return await in_thread(example_frames)
        size = self._watch.size
        return [frame for frame in self._watch.frames if (frame.height, frame.width) == size]

    # --- the detector ---

    async def _detector(self) -> Finding:
        finding = await look_at_detector(self._settings.detector, self._settings)
        self._answers = finding.level == "ok"
        return finding

    async def _certificate(self) -> Finding:
        return await look_at_detectors_certificate(self._settings.detector, self._settings)

    async def _own_certificate(self) -> Finding:
        assert self._settings.tls_cert
        return await in_thread(look_at_shown_certificate, self._settings.tls_cert)

    async def _token(self) -> Finding:
        if not self._answers:
            return unchecked("no detector is ready: see detector")
        finding = await look_at_own_token(self._settings)
        self._denied = finding.level == "error"
        return finding

    async def _welcome(self) -> Finding:
        if not self._answers or self._pipeline is None:
            return unchecked("it takes a detector and an engine: see those")
        if self._denied:
            return unchecked("the detector lets nobody in without its token: see token")
        try:
            accepted = await ask_welcome(self._settings, self._pipeline)
        except ConnectionLost as lost:
            return judge_refusal(lost)
        self._welcome_said = True
        return judge_welcome(self._settings, accepted)

    async def _link(self) -> Finding:
        if not self._answers or self._pipeline is None:
            return unchecked("it takes a detector and an engine: see those")
        if not self._welcome_said:
            return unchecked("the detector does not take this camera: see welcome")
        way = await measure_way(self._settings, self._pipeline)
        return judge_way(way, self._settings, self._cost, self._wanted_fps)

    async def _clock(self) -> Finding:
        if not self._answers:
            return unchecked("no detector is ready: see detector")
        async with http_peer(self._settings.detector, self._settings) as peer:

            async def ask() -> str:
                return (await peer.get("/livez")).date

            try:
                bounds, _ = await compare_clocks(ask)
            except ValueError:
                return unchecked("what answers tells no time (no Date header)")
        return judge_clock(bounds)
