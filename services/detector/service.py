"""The detector service: link → packet → decode → tail → detections → subscribers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from codec.errors import BitstreamError, MissingReference, UnknownProfile
from codec.feature.bundled import BUNDLED
from codec.interface import DecodedFrame, Decoder
from codec.layout import Layout, raw_bytes
from services.detector.detections_json import DetectionMessage
from services.detector.handshake import MIB, Agreement, agree
from services.detector.history import INTERVAL_S
from services.detector.metrics import DetectorMetrics
from services.detector.profile_store import ProfileStore
from services.detector.settings import DetectorSettings
from services.detector.streams import Stream, Streams
from services.detector.web import Readiness, Web, errors_as_json, foreign_pages_refused, load_page
from services.loading import LoadedModel, load_network
from services.metrics import VERSION, WireMeter
from services.profiles import read_profile
from stream.detections import Detections
from stream.errors import ConnectionLost, SessionError
from stream.latency import StageClock
from stream.letterbox import Letterbox
from stream.network.cut import layout
from stream.network.names import DEFAULT_SPLIT, DEMO, MODELS
from stream.network.nms import detect
from stream.network.split import Tail
from stream.session.close_codes import CloseCode
from stream.session.detector import DetectorSession
from stream.session.messages import (
    DETECTIONS_PROTOCOL,
    FEATURES_PROTOCOL,
    Hello,
    Preview,
    RejectReason,
    Report,
)
from stream.tasks.background import run_with_background
from stream.tasks.worker import Worker
from stream.transport.broadcast import Broadcast
from stream.transport.listener import AcceptedSocket, Listener
from stream.transport.websocket import Link, WireBytes

log = structlog.get_logger(__name__)

WARM_UP_CANVAS = (384, 640)  # 16:9 at the default size


PROFILE_TIMEOUT_S = 30.0  # a camera gives up earlier, if its link takes nothing
CLEANUP_S = 0.5  # for connections that are still open after the drain
EXTRA_SESSIONS = 16  # cameras that say hello beside those that stream
# Scrapes, and requests of browsers beside the cameras and subscribers: a page holds up to six connections open.
EXTRA_CONNECTIONS = EXTRA_SESSIONS + 48


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """A packet that has come, and the clock that runs since."""

    packet: bytes
    clock: StageClock


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A packet's tensors, or why there are none."""

    outcome: DecodedFrame | Exception
    clock: StageClock


@dataclass(slots=True, eq=False)
class CameraConnection:
    """What serves one camera from the welcome on."""

    link: Link
    session: DetectorSession
    stream: Stream
    decoder: Decoder
    tail: Tail
    worker: Worker  # decodes; owns the decoder's reference frame
    meter: WireMeter
    received: asyncio.Queue[Received | None] = field(default_factory=asyncio.Queue)  # bounded by the session
    # One frame is decoded while the tail works; more would only hold memory.
    decoded: asyncio.Queue[Decoded | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))


class Detector:
    """One network, many cameras, many subscribers; lives until `stop` is called."""

    def __init__(self, config: DetectorSettings) -> None:
        self.config = config
        self.metrics = DetectorMetrics()
        self.streams = Streams()
        self.broadcast = Broadcast(config.subscriber_queue, self.metrics.subscriber_drops.inc)
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()
        self._network: LoadedModel | None = None
        self._worker = Worker("tail")
        self._handshakes = Worker("handshake")
        self._profiles = ProfileStore(BUNDLED)  # once ready, touched on the handshakes' thread only
        self._tails: dict[str, Tail] = {}
        self._stopping = asyncio.Event()
        self._handlers: set[asyncio.Task[object]] = set()
        self._listening: Listener | None = None
        self._sessions = 0
        self._layout = lru_cache(maxsize=256)(layout)
        self._export()

    def stop(self) -> None:
        """Take no more packets, answer what has come, close every connection with 1001."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises OSError where the address is taken or the live page is missing, WeightsError or CheckpointError
        where there is no network, SettingsError or ProfileError where there is no profile in the file given.
        """
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=CLEANUP_S, keepalive_timeout=15.0
        )
        config = self.config
        connections = config.max_streams + config.max_subscribers + EXTRA_CONNECTIONS
        try:
            await runner.setup()
            self._listening = Listener.bound(config.host, config.port, connections)
            await web.SockSite(runner, self._listening).start()
            self.port.set_result(self._listening.getsockname()[1])
            log.info("listening", host=config.host, port=self.port.result())
            await run_with_background(
                self._stopping.wait(), self._load(), self._close_silent(self._listening), self._sample()
            )
            self.ready.clear()
            self.broadcast.close()
            if self._handlers:
                _, late = await asyncio.wait(self._handlers, timeout=config.drain_s)
                for handler in late:
                    handler.cancel()
        finally:
            await runner.cleanup()
            self._worker.close()
            self._handshakes.close()
            log.info("detector stopped")

    async def _load(self) -> None:
        if self.config.profile:
            self._profiles.keep(await self._worker.run(read_profile, self.config.profile))
        network = await self._worker.run(load_network, self.config)
        await self._worker.run(self._warm_up, network, self.config.split or DEFAULT_SPLIT, WARM_UP_CANVAS)
        self._network = network
        self.ready.set()
        log.info("ready", model=network.name, weights=network.model.weights_hash[:12])

    async def _close_silent(self, listening: Listener) -> None:
        while True:
            await asyncio.sleep(self.config.hello_timeout_s / 4)
            listening.close_silent(time.monotonic_ns() - round(self.config.hello_timeout_s * 1e9))

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.streams.sample(time.monotonic_ns(), time.time())

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[
                self._note_request,
                errors_as_json,
                foreign_pages_refused(self.config.allow_origin, self.config.host),
            ]
        )
        app.router.add_get("/v1/features", self._tracked(self._features))
        app.router.add_get("/v1/detections", self._tracked(self._detections))
        app.router.add_get("/v1/streams/{name}/detections", self._tracked(self._detections))
        app.router.add_get("/metrics", self.metrics.handle)
        model = self.config.model if self.config.model in (DEMO, *MODELS) else None
        Web(load_page(), self.streams, self._readiness, model).add_routes(app.router)
        return app

    # --- connections ---

    @web.middleware
    async def _note_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if connection := self._connection(request):
            connection.has_requested = True
        return await handler(request)

    def _connection(self, request: web.Request) -> AcceptedSocket | None:
        """The request's socket; None where the peer is gone already."""
        assert self._listening is not None
        peer = request.transport.get_extra_info("peername") if request.transport else None
        return self._listening.accepted.get(peer)

    def _readiness(self) -> Readiness:
        if self.ready.is_set():
            return "ready"
        return "stopping" if self._stopping.is_set() else "starting"

    async def _detections(self, request: web.Request) -> web.WebSocketResponse:
        ws = self._websocket(DETECTIONS_PROTOCOL, max_message_bytes=4096)
        try:
            await ws.prepare(request)
        except ConnectionError:  # the peer has left
            return ws
        if len(self.broadcast) >= self.config.max_subscribers:
            await ws.close(code=CloseCode.TRY_AGAIN_LATER, message=b"too many subscribers")
            return ws

        async def send() -> None:
            with self.broadcast.subscribe(request.match_info.get("name")) as subscription:
                async for text in subscription:
                    await ws.send_str(text)

        async def notice_close() -> None:
            async for _ in ws:
                pass  # a subscriber has nothing to say
            raise ConnectionLost("subscriber left")

        try:
            await run_with_background(send(), notice_close())
            await ws.close(code=CloseCode.GOING_AWAY, message=b"detector stops")
        except (ConnectionLost, ConnectionError):
            pass
        return ws

    # --- features ---

    async def _features(self, request: web.Request) -> web.WebSocketResponse:
        largest_mib = max(self.config.max_packet_mib, self.config.profiles * self.config.max_profile_mib)
        ws = self._websocket(FEATURES_PROTOCOL, largest_mib * MIB)
        connection = self._connection(request)
        try:
            await ws.prepare(request)
        except ConnectionError:  # the peer has left
            return ws
        if connection is None:
            return ws
        link = Link(ws, connection.wire, send_timeout_s=self.config.heartbeat_s)
        meter = WireMeter(self.metrics, link.wire, WireBytes())
        self._sessions += 1
        try:
            if ws.ws_protocol != FEATURES_PROTOCOL:
                raise SessionError(CloseCode.BAD_SUBPROTOCOL, f"subprotocol must be {FEATURES_PROTOCOL}")
            if self._sessions > self.config.max_streams + EXTRA_SESSIONS:
                raise SessionError(CloseCode.TRY_AGAIN_LATER, "too many connections")
            await self._serve(await self._handshake(link, meter))
            raise SessionError(CloseCode.GOING_AWAY, "detector stops")
        except SessionError as error:
            self.metrics.closed.labels(str(error.code.value)).inc()
            level = logging.INFO if self._stopping.is_set() else logging.WARNING
            log.log(level, "session closed", code=error.code.value, reason=error.reason)
            await link.close(error.code, error.reason)
        except ConnectionLost as lost:
            log.info("camera left", reason=lost.reason, code=lost.code)
        except Exception:  # a defect of ours costs this connection and no other
            self.metrics.closed.labels(str(CloseCode.INTERNAL_ERROR.value)).inc()
            log.exception("session failed")
            await link.close(CloseCode.INTERNAL_ERROR, "internal error of the detector")
        finally:
            self._sessions -= 1
            meter.update()
        return ws

    async def _serve(self, camera: CameraConnection) -> None:
        """One camera, from the welcome until the detector stops. Raises SessionError or ConnectionLost."""
        try:
            await run_with_background(self._process(camera), self._receive(camera), self._decode(camera))
        finally:
            camera.worker.close()
            self.streams.disconnect(camera.stream)
            log.info("stream ended", stream=camera.stream.name, frames=camera.stream.frames)

    async def _handshake(self, link: Link, meter: WireMeter) -> CameraConnection:
        session = DetectorSession(self.config.window)
        try:
            async with asyncio.timeout(self.config.hello_timeout_s):
                data = await link.receive()
        except TimeoutError:
            raise SessionError(
                CloseCode.HELLO_TIMEOUT, f"no hello within {self.config.hello_timeout_s:g} s"
            ) from None
        if isinstance(data, bytes):
            raise SessionError(CloseCode.BAD_MESSAGE, "packet before the hello")
        hello = session.receive_text(data)
        assert isinstance(hello, Hello)
        network = self._network
        if network is None or not self.ready.is_set():
            raise SessionError(CloseCode.TRY_AGAIN_LATER, "detector is not ready")
        agreement = await self._agree(link, session, network)
        # All that can fail comes before the name is taken.
        tail = self._tail(network, hello.split)
        stream = self._admit(hello, agreement.layout)
        try:
            await link.send(session.welcome(agreement.max_packet_bytes, f"splitcast/{VERSION}"))
        except BaseException:
            self.streams.disconnect(stream)
            raise
        self.metrics.connections.inc()
        log.info("stream", stream=hello.stream, split=hello.split, canvas=hello.canvas, codec=hello.codec)
        meter.total = stream.wire
        worker = Worker(f"decode-{stream.name}")
        return CameraConnection(link, session, stream, agreement.decoder, tail, worker, meter)

    async def _agree(self, link: Link, session: DetectorSession, network: LoadedModel) -> Agreement:
        """What both ends know from the welcome on; the codec's calibration profile may have to come first."""
        hello = session.hello
        assert hello is not None
        negotiate = partial(agree, hello, network, self.config, self._layout)
        try:
            return await self._handshakes.run(negotiate, self._profiles)
        except UnknownProfile as unknown:
            self._check_room(hello)
            log.info("calibration profile asked for", stream=hello.stream, profile=unknown.hash[:12])
            await link.send(session.request_profile(unknown.hash))
        try:
            async with asyncio.timeout(PROFILE_TIMEOUT_S):
                data = await link.receive()
        except TimeoutError:
            raise SessionError(
                CloseCode.HELLO_TIMEOUT, f"no calibration profile within {PROFILE_TIMEOUT_S:g} s"
            ) from None
        if isinstance(data, str):
            raise SessionError(CloseCode.BAD_MESSAGE, "a text in place of the calibration profile")

        def receive(packed: bytes) -> Agreement:
            profile = session.receive_profile(packed, self.config.max_profile_mib * MIB)
            agreement = negotiate({profile.hash: profile})
            self._profiles.add(profile)  # now: one that fits no tensors displaces none that does
            return agreement

        return await self._handshakes.run(receive, data)

    def _check_room(self, hello: Hello) -> None:
        if self.streams.is_connected(hello.stream):
            raise SessionError(
                CloseCode.STREAM_TAKEN, f"stream {hello.stream!r} is sent by another camera; choose --stream"
            )
        if self.streams.connected >= self.config.max_streams:
            raise SessionError(
                CloseCode.TOO_MANY_STREAMS, f"{self.config.max_streams} cameras are connected (--max-streams)"
            )

    def _admit(self, hello: Hello, agreed: Layout) -> Stream:
        self._check_room(hello)
        return self.streams.connect(hello, agreed)

    async def _receive(self, camera: CameraConnection) -> None:
        """Take packets until the detector stops."""

        async def read() -> None:
            async for data in camera.link:
                if isinstance(data, bytes):
                    self._take(camera, data)
                else:
                    self._hear(camera, data)

        await run_with_background(self._stopping.wait(), read())
        camera.received.put_nowait(None)

    def _hear(self, camera: CameraConnection, text: str) -> None:
        match camera.session.receive_text(text):
            case Report() as report:
                camera.stream.take_report(report)
            case Preview(jpeg=jpeg):
                camera.session.receive_preview(time.monotonic_ns())
                camera.stream.preview = jpeg  # passed on as it is, never decoded here

    def _take(self, camera: CameraConnection, packet: bytes) -> None:
        camera.session.receive_packet(len(packet))
        camera.stream.count_packet(len(packet))
        self.metrics.encoded_bytes.inc(len(packet))
        self.metrics.raw_bytes.inc(raw_bytes(camera.stream.layout))
        camera.received.put_nowait(Received(packet, StageClock(time.monotonic_ns())))

    async def _decode(self, camera: CameraConnection) -> None:
        """Decode ahead of the tail, in order, on the connection's own worker."""
        while received := await camera.received.get():
            outcome: DecodedFrame | Exception
            try:
                outcome = await camera.worker.run(_decode, camera.decoder, received.packet, received.clock)
            except Exception as error:  # told to the camera, in its turn
                outcome = error
            await camera.decoded.put(Decoded(outcome, received.clock))
        await camera.decoded.put(None)

    async def _process(self, camera: CameraConnection) -> None:
        while decoded := await camera.decoded.get():
            frame, clock = decoded.outcome, decoded.clock
            try:
                if isinstance(frame, Exception):
                    raise frame
                detections = await self._worker.run(self._infer, camera.tail, frame, camera.stream, clock)
            except Exception as error:  # costs one frame
                for text in self._reject(camera, error):
                    await camera.link.send(text)
                continue
            self._publish(camera.stream, frame, detections, clock)
            await camera.link.send(
                camera.session.acknowledge(
                    frame.header.sequence, frame.header.captured_ns, len(detections), clock.durations_ns
                )
            )
            camera.meter.update()

    def _reject(self, camera: CameraConnection, error: Exception) -> list[str]:
        reason: RejectReason = "error"
        if isinstance(error, BitstreamError):
            reason = "missing_reference" if isinstance(error, MissingReference) else "corrupt"
        camera.stream.rejected += 1
        self.metrics.rejected.labels(reason).inc()
        log.warning("packet rejected", stream=camera.stream.name, reason=reason, detail=str(error))
        return camera.session.reject(reason, str(error), need_keyframe=isinstance(error, BitstreamError))

    def _infer(self, tail: Tail, frame: DecodedFrame, stream: Stream, clock: StageClock) -> Detections:
        clock.lap("queue", time.monotonic_ns())
        prediction = tail(frame.tensors)
        clock.lap("tail", time.monotonic_ns())
        detections = detect(
            prediction,
            Letterbox(_frame_size(frame, stream), stream.hello.canvas),
            conf=self.config.confidence,
            iou=self.config.iou,
            max_det=self.config.max_detections,
        )
        clock.lap("nms", time.monotonic_ns())
        return detections

    def _publish(
        self, stream: Stream, frame: DecodedFrame, detections: Detections, clock: StageClock
    ) -> None:
        assert self._network is not None
        stream.frame_size = _frame_size(frame, stream)
        message = DetectionMessage(
            stream.name,
            frame.header,
            stream.frame_size,
            detections,
            self._network.model.names,
            stream.hello.clock,
            clock.durations_ns,
            time.time_ns(),
        )
        self.broadcast.publish(stream.name, message.text())
        clock.lap("publish", time.monotonic_ns())
        stream.frames += 1
        stream.keyframes += frame.header.keyframe
        stream.detections += len(detections)
        stream.statistics.add(clock.durations_ns)
        stream.last_frame_ns = published_ns = time.monotonic_ns()
        self.metrics.frames.inc()
        self.metrics.keyframes.inc(frame.header.keyframe)
        self.metrics.detections.inc(len(detections))
        self.metrics.observe_stages(self.metrics.stage, clock.durations_ns)
        self.metrics.age.set_function(lambda: (time.monotonic_ns() - published_ns) / 1e9)

    def _tail(self, network: LoadedModel, split: str) -> Tail:
        """The tail of a split point: one for all cameras that split there."""
        if split not in self._tails:
            self._tails[split] = Tail(network.model, split)
        return self._tails[split]

    def _warm_up(self, network: LoadedModel, split: str, canvas: tuple[int, int]) -> None:
        """Run the tail once, so that the first frame does not wait for memory and kernels."""
        tail = self._tail(network, split)
        shapes = self._layout(network.model.graph, split, canvas)
        prediction = tail({tensor.name: np.zeros(tensor.shape, np.float32) for tensor in shapes})
        detect(prediction, Letterbox(canvas, canvas))

    # --- plumbing ---

    def _websocket(self, protocol: str, max_message_bytes: int) -> web.WebSocketResponse:
        return web.WebSocketResponse(
            protocols=(protocol,),
            compress=False,
            heartbeat=self.config.heartbeat_s,
            max_msg_size=max_message_bytes,
            timeout=2.0,
        )

    def _tracked(
        self, handler: Callable[[web.Request], Awaitable[web.WebSocketResponse]]
    ) -> Callable[[web.Request], Awaitable[web.WebSocketResponse]]:
        """The handler, known to `run`, which waits for it on a stop."""

        async def tracked(request: web.Request) -> web.WebSocketResponse:
            task = asyncio.current_task()
            assert task is not None
            self._handlers.add(task)
            try:
                return await handler(request)
            finally:
                self._handlers.discard(task)

        return tracked

    def _export(self) -> None:
        self.metrics.age.set(float("nan"))
        self.metrics.streams.set_function(lambda: self.streams.connected)
        self.metrics.subscribers.set_function(lambda: len(self.broadcast))
        self.metrics.queue.labels("tail").set_function(lambda: self._worker.queue_length)


def _decode(decoder: Decoder, packet: bytes, clock: StageClock) -> DecodedFrame:
    clock.lap("queue", time.monotonic_ns())
    frame = decoder.decode(packet)
    clock.lap("decode", time.monotonic_ns())
    return frame


def _frame_size(frame: DecodedFrame, stream: Stream) -> tuple[int, int]:
    """(H, W) of the original picture; the canvas where the camera does not tell."""
    header = frame.header
    if header.frame_height and header.frame_width:
        return header.frame_height, header.frame_width
    return stream.hello.canvas
