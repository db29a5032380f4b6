"""The detector service: its life cycle, its routes, and when it is ready. connection.py has the way of the data."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from services.access.token_file import TokenSource
from services.certificates import keep_renewed, renew, serve, server_context
from services.detector.admission import Admission
from services.detector.endpoint import FeaturesEndpoint
from services.detector.gate import FEATURES, Gate, NotGranted, TokenMissing, TokenUnknown
from services.detector.handshake import Handshake
from services.detector.history import INTERVAL_S
from services.detector.inference import Inference
from services.detector.login import Login
from services.detector.memory import MemoryBudget
from services.detector.metrics import (
    BAD_REQUEST,
    FOREIGN_PAGE,
    NO_BEARER,
    NOT_GRANTED,
    UNKNOWN_BEARER,
)
from services.detector.publisher import Publisher
from services.detector.settings import DetectorSettings
from services.detector.statistics import DetectorStatistics
from services.detector.step_maps import StepMaps
from services.detector.streams import Streams
from services.detector.subscribers import Subscribers
from services.detector.tails import LocalTails, MakeTails
from services.detector.web import Readiness, Web, errors_as_json, foreign_pages_refused, load_page
from services.environment import forget_loading, give_memory_back, resident_bytes
from services.metrics import TLS_FAILED
from stream.network.names import DEMO, MODELS
from stream.tasks.background import run_with_background
from stream.tasks.fair_workers import FairWorkers
from stream.transport.broadcast import Broadcast
from stream.transport.listener import Listener
from stream.transport.tls import RenewedContext

log = structlog.get_logger(__name__)

TRIM_INTERVAL_S = 10.0
CLOSE_S = 2.0  # for connections to say why they end when the drain has run out
CLEANUP_S = 0.5  # for connections that are still open after the drain
# The reason of each refusal that HTTP has a status for: such a peer never gets a WebSocket, and so no close code.
HTTP_REFUSALS: Mapping[type[web.HTTPException], str] = {
    TokenMissing: NO_BEARER,
    TokenUnknown: UNKNOWN_BEARER,
    NotGranted: NOT_GRANTED,
    web.HTTPForbidden: FOREIGN_PAGE,
    web.HTTPBadRequest: BAD_REQUEST,
}

WebSocketHandler = Callable[[web.Request], Awaitable[web.WebSocketResponse]]


class Detector:
    """One network, many cameras, many subscribers; lives until `stop` is called."""

    def __init__(self, config: DetectorSettings, make_tails: MakeTails = LocalTails) -> None:
        self.config = config
        self.streams = Streams()
        self.statistics = DetectorStatistics(self.streams)
        self.broadcast = Broadcast(config.subscriber_queue, self.statistics.drop_message)
        publisher = Publisher(self.broadcast)
        self.streams.on_change = publisher.publish_stream
        self.workers = FairWorkers("worker", config.tail_threads)
        self.inference = Inference(config, self.workers)
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._overdue = asyncio.Event()  # the drain has taken as long as it may
        self.memory = MemoryBudget(config)
        self.step_maps = StepMaps(config, self.workers, self.statistics)
        self.tails = make_tails(config, self.inference, self.workers, self.statistics)
        self._handshake = Handshake(
            config,
            self.inference,
            self.workers,
            memory=self.memory,
            tails=self.tails,
            step_maps=self.step_maps,
            ready=self.ready,
        )
        self.admission = Admission(config, self.statistics)
        self.gate = Gate(TokenSource(config.tokens) if config.tokens else None, self.admission.know)
        self._subscribers = Subscribers(
            config,
            self.broadcast,
            self.streams,
            admission=self.admission,
            statistics=self.statistics,
            overdue=self._overdue,
        )
        self._cameras = FeaturesEndpoint(
            config,
            self._handshake,
            self.streams,
            admission=self.admission,
            inference=self.inference,
            memory=self.memory,
            publisher=publisher,
            statistics=self.statistics,
            stopping=self._stopping,
            overdue=self._overdue,
            stands=self.gate.stands,
        )
        self._login: Login | None = None
        self._handlers: set[asyncio.Task[object]] = set()
        self._tls: RenewedContext | None = None
        self.application = self._application()
        self._export()

    def stop(self) -> None:
        """Take no more packets, answer what has come, close every connection with 1001."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises CannotListen where the address is taken, OSError where the live page is missing, WeightsError or
        CheckpointError where there is no network, SettingsError or ProfileError where there is no profile in the file
        given, SettingsError where a certificate cannot be used, or the process may open hardly a file.
        """
        runner = web.AppRunner(
            self.application,
            access_log=None,
            shutdown_timeout=CLEANUP_S,
            keepalive_timeout=15.0,
            auto_decompress=False,  # nobody packs what a detector reads, and aiohttp tells broken ones as defects
        )
        server: asyncio.Server | None = None
        try:
            await self.gate.load()
            self._tls = await server_context(self.config.tls, self._refuse_tls)
            self.statistics.metrics.watch_certificate(self._tls)
            await runner.setup()
            listener = self.admission.listen()
            server = await serve(runner, listener, self._tls)
            self.port.set_result(listener.getsockname()[1])
            log.info("listening", host=self.config.host, port=self.port.result(), tls=self._tls is not None)
            await run_with_background(
                self._stopping.wait(),
                self._load(),
                self._close_silent(listener),
                self._sample(),
                self._give_memory_back(),
                keep_renewed(self._tls),
                self.statistics.metrics.measure_loop_delay(),
            )
            await self._drain_on_stop()
        finally:
            if server:
                server.close()
            await runner.cleanup()
            self.workers.close()
            self.step_maps.close()
            await self.tails.close()
            log.info("detector stopped")

    async def reload(self) -> None:
        """Read tokens and certificates anew; who lost his token is disconnected."""
        await self.gate.reload()
        await renew(self._tls)

    def _refuse_tls(self, reason: str, peer: str) -> None:
        self.statistics.refuse(TLS_FAILED)
        log.warning("TLS handshake failed", reason=reason, peer=peer)

    async def _load(self) -> None:
        await self._handshake.load()
        await self.tails.load()
        await self.step_maps.load(self.inference.network.model.device)
        await asyncio.to_thread(forget_loading)
        self.memory.open(resident_bytes(), self.inference.frame_bytes())
        self.ready.set()
        network = self.inference.network
        log.info("ready", model=network.name, weights=network.model.weights_hash[:12])
        await self.tails.watch(self.ready)

    async def _close_silent(self, listener: Listener) -> None:
        while True:
            await asyncio.sleep(self.config.hello_timeout_s / 4)
            listener.close_silent(time.monotonic_ns() - round(self.config.hello_timeout_s * 1e9))

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.streams.sample(time.monotonic_ns(), time.time())
            if self._login:
                self._login.expire(time.monotonic_ns())

    async def _give_memory_back(self) -> None:
        """Hand back what cameras that left have freed, now and then: it takes a while to come by it again."""
        while True:
            await asyncio.sleep(TRIM_INTERVAL_S)
            if self.memory.take_released():
                await self.workers.run(self.workers.owner(), give_memory_back)

    async def _drain_on_stop(self) -> None:
        """Let cameras and subscribers get what is theirs, for so long."""
        self.ready.clear()
        self.broadcast.close()
        if self._handlers:
            _, late = await asyncio.wait(self._handlers, timeout=self.config.drain_s)
            self._overdue.set()
            if late:
                _, late = await asyncio.wait(late, timeout=CLOSE_S)
            for handler in late:
                handler.cancel()

    def _readiness(self) -> Readiness:
        if self.ready.is_set():
            return "ready"
        return "stopping" if self._stopping.is_set() else "starting"

    # --- routes ---

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[
                self.admission.note_request,
                errors_as_json,
                self._count_refusal,
                foreign_pages_refused(self.config.allow_origin, self.config.host),
                self.gate.admit,
            ]
        )
        app.router.add_get(FEATURES, self._tracked(self._cameras.handle))
        app.router.add_get("/v1/detections", self._tracked(self._subscribers.handle))
        app.router.add_get("/v1/streams/{name}/detections", self._tracked(self._subscribers.handle))
        app.router.add_get("/metrics", self.statistics.metrics.handle)
        model = self.config.model if self.config.model in (DEMO, *MODELS) else None
        page = load_page()
        Web(page, self.streams, self._readiness, model).add_routes(app.router)
        if self.gate.asks:
            self._login = Login(self.gate, page, self.statistics, self.config.allow_origin)
            self._login.add_routes(app.router)
        return app

    @web.middleware
    async def _count_refusal(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count what is refused before it is a WebSocket, and log it: never what came with the request."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            reason = next(
                (HTTP_REFUSALS[kind] for kind in type(error).__mro__ if kind in HTTP_REFUSALS), None
            )
            if reason:
                self.statistics.refuse(reason)
                log.warning("request refused", reason=reason, status=error.status, peer=request.remote)
            raise

    def _tracked(self, handler: WebSocketHandler) -> WebSocketHandler:
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

    # --- metrics ---

    def _export(self) -> None:
        """Let the metrics read what changes by itself."""
        metrics = self.statistics.metrics
        metrics.age.set_function(lambda: self.statistics.frame_age_s(time.monotonic_ns()))
        metrics.streams.set_function(lambda: self.streams.connected)
        metrics.subscribers.set_function(lambda: len(self.broadcast))
        metrics.queue.labels("turn").set_function(lambda: self.tails.queue_length)
