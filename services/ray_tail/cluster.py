"""Ray itself, started or joined, with a deployment of replicas. Call `prepare_ray` before: this loads Ray."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import RayServeException

from services.ray_tail.calls import DEPLOYMENT, DecoderPlan, TurnReply, WaitingPacket
from services.ray_tail.errors import CallFailed, RayFailed
from services.ray_tail.replica import TailReplica
from services.ray_tail.settings import RaySettings, Replicas

NAMESPACE = "splitcast"
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray takes: packets and detections travel with the calls
STARTS = 5  # of Ray, which gives its own processes 30 s, too few on a busy machine
ANSWER_S = 10.0  # for a cluster's head to take a connection
CALL_S = 30.0  # for a replica to answer, or for a new one to come where all have died
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = (
    1.0,
    30.0,
)  # of a replica that is asked how it does: a busy one may be late
CALLS_PER_STREAM = 2  # at a replica: one whose deadline is over may still be there beside the next


class Cluster:
    """A Ray that this process started in `folder`, or one that is there, and this detector's replicas in it."""

    def __init__(self, settings: RaySettings, folder: Path | None) -> None:
        self._settings, self._folder = settings, folder
        # Of this process alone: another of the application's name has replicas of its own, perhaps of another network.
        self._deployment = f"{DEPLOYMENT}-{secrets.token_hex(4)}"
        self._handle: serve.handle.DeploymentHandle | None = None

    def connect(self, threads: int) -> None:
        """Start Ray where there is none to join; `threads` are those of a replica. Blocks. Raises RayFailed."""
        settings, own = self._settings, self._settings.ray_address is None
        if settings.ray_address and settings.ray_address != "auto":
            _check_answers(settings.ray_address)
        local: dict[str, Any] = {
            "address": "local",
            # A process is started wherever it is asked for: the cores are shared as the system shares them.
            "num_cpus": max(1, settings.replicas.most * threads),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": str(self._folder),
        }
        _quiet_logs(logging.ERROR)  # it warns of every signal that it is kept from
        try:
            _init(STARTS if own else 1, **(local if own else {"address": settings.ray_address}))
            serve.start(proxy_location="Disabled")
        except Exception as error:  # of many kinds, and none documented
            where = "Ray" if own else f"Ray at {settings.ray_address}"
            raise RayFailed(f"--tail: {where} does not start: {_reason(error)}") from error
        _quiet_logs(logging.WARNING)

    def deploy(self, network: dict[str, Any], weights: str, version: str, threads: int, streams: int) -> None:
        """Start the replicas, and wait for the first ones; `network` are a replica's settings. Blocks.

        `threads` are those of a replica, `streams` the most of the detector. Raises RayFailed.
        """
        settings = self._settings
        replicas = settings.replicas
        deployment = serve.deployment(
            TailReplica,
            name=self._deployment,
            max_ongoing_requests=CALLS_PER_STREAM * streams,
            ray_actor_options={"num_cpus": threads, "num_gpus": settings.ray_gpus},
            health_check_period_s=HEALTH_PERIOD_S,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            # Another replica than the stream's own would have no decoder for it.
            request_router_config=RequestRouterConfig(
                request_router_class=ROUTER, request_router_kwargs={"num_fallback_replicas": 0}
            ),
            **_scaling(replicas, threads),
        )
        try:
            self._handle = serve.run(
                deployment.bind(network, weights, version), name=settings.ray_name, route_prefix=None
            )
        except Exception as error:  # as above; what a replica raised stands in the text
            raise RayFailed(f"--tail: no replica starts: {_reason(error)}") from error

    async def turn(
        self, stream: str, plan: DecoderPlan, packets: list[WaitingPacket], profile: bytes | None
    ) -> TurnReply:
        """What the replica says that owns the stream. Raises CallFailed where it dies, or takes too long."""
        call = self._of(stream).turn.remote(plan, packets, profile)
        try:
            async with asyncio.timeout(CALL_S):
                reply: TurnReply = await call
        except TimeoutError:
            call.cancel()
            raise CallFailed("lost", f"no replica answered within {CALL_S:g} s") from None
        except RayTaskError as error:  # a defect of ours, in the replica
            raise CallFailed("error", _reason(error)) from error
        except (RayError, RayServeException) as error:
            raise CallFailed("lost", f"the stream's replica is gone: {type(error).__name__}") from error
        return reply

    def forget(self, stream: str, key: str) -> None:
        """Let a replica forget a stream's decoder; nothing waits for it."""
        with suppress(RayError, RayServeException):
            self._of(stream).forget.remote(key)

    def running(self) -> int:
        """Replicas that take calls. Blocks.

        Raises RayFailed where another detector has taken the name, and an error of Ray where it does not say.
        """
        deployments = self._deployments()
        own = deployments.get(self._deployment)
        if deployments and not own:
            raise RayFailed(
                f"--ray-name: another detector has taken the name {self._settings.ray_name} in the cluster, and its "
                "replicas: give each its own"
            )
        return own.replica_states.get("RUNNING", 0) if own else 0

    def close(self) -> None:
        """End the replicas, and Ray where it was started here. Blocks."""
        if ray.is_initialized():
            if self._settings.ray_address is not None and self._deployment in self._deployments():
                serve.delete(self._settings.ray_name)
            ray.shutdown()

    def _deployments(self) -> dict[str, Any]:
        """Those of the application, by name: one, which is another's where the name was taken."""
        application = serve.status().applications.get(self._settings.ray_name)
        return dict(application.deployments) if application else {}

    def _of(self, stream: str) -> Any:
        assert self._handle
        return self._handle.options(session_id=stream)


def _check_answers(address: str) -> None:
    """Raise RayFailed where nobody takes connections: Ray would try for minutes, and not say so."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise RayFailed(
            f"--ray-address: no cluster answers at {address}: {error}; is `ray start --head` running there?"
        ) from error


def _init(tries: int, **options: Any) -> None:
    for left in reversed(range(tries)):
        try:
            ray.init(
                **options,
                namespace=NAMESPACE,
                configure_logging=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


def _scaling(replicas: Replicas, threads: int) -> dict[str, Any]:
    if replicas.least == replicas.most:
        return {"num_replicas": replicas.least}
    # A stream has one call under way at most: more streams than threads at work make another replica worth it.
    return {
        "autoscaling_config": {
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": 2 * threads,
        }
    }


def _quiet_logs(level: int) -> None:
    """Let what Ray logs in this process go where our logs go, from that level on."""
    for name in ("ray", "ray.serve"):
        of_ray = logging.getLogger(name)
        of_ray.handlers.clear()
        of_ray.propagate = True
        of_ray.setLevel(level)


def _reason(error: BaseException) -> str:
    """The last line of what Ray makes an error of, which is a traceback or a page of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__
