"""A detector as a program with a real Ray of its own: two replicas, eight streams, and a replica that is killed."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest

from services.bench.recording import RecordedPackets, record_packets
from services.bench.settings import BenchLoadSettings
from services.bench.simulated_camera import DETECTED, SUPERSEDED, SimulatedCamera
from services.errors import Exit
from services.loading import LoadedModel, find_network
from tests.descendants import MARK, Descendants
from tests.faults.programs import Metrics, Program, detector_program, total
from tests.services.subscribing import subscribe
from tests.services.waiting import LIVENESS_S

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra ray)"),
    pytest.mark.slow,
]

STREAMS = 8
DETECTOR = "splitcast_detector"
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


@pytest.fixture(scope="module")
def recorded() -> RecordedPackets:
    """Packets of the demo's network, small ones."""
    settings = BenchLoadSettings.load({"size": "192", "frames": 30})
    return record_packets(settings, LoadedModel("demo", find_network("demo")))


@asynccontextmanager
async def ray_detector(replicas: int) -> AsyncIterator[tuple[Program, Descendants, str]]:
    """A detector that is ready, with so many replicas in a Ray of its own; nothing is left of either."""
    program = detector_program(
        *("--tail", "ray", "--ray-private-network", "--ray-replicas", str(replicas)),
        *("--batch-max", "4", "--max-age-s", "600"),
    )
    processes = Descendants(secrets.token_hex(16))
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: Ray has sockets in it
    try:
        await program.start(TMPDIR=folder, **{MARK: processes.mark})
        await program.until_logged("ready")
        yield program, processes, folder
    finally:
        processes.end()
        await program.kill()
        shutil.rmtree(folder)


async def until(condition: Callable[[], object]) -> None:
    """As `tests.services.waiting.until`, for what takes time to ask."""
    async with asyncio.timeout(LIVENESS_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - other processes signal nothing to tests
            await asyncio.sleep(0.1)


# --- the test ---


class Cameras:
    """Eight live cameras with the same packets, more than two cores can do, and whoever reads their detections."""

    def __init__(self, recorded: RecordedPackets, port: int) -> None:
        self._url = f"ws://127.0.0.1:{port}"
        self.messages: list[dict] = []
        self.cameras = {
            name: SimulatedCamera(recorded, name, secrets.token_hex(16), window=4, interval_s=0.03)
            for name in (f"camera{number}" for number in range(STREAMS))
        }
        self._stopping = asyncio.Event()

    def outcomes(self) -> Counter[str]:
        return sum(map(self.of, self.cameras), Counter())

    def of(self, stream: str) -> Counter[str]:
        return Counter(frame.outcome for frame in self.cameras[stream].frames)

    async def until_more(self, streams: Iterable[str] = ()) -> None:
        """Wait until each stream, or those, has had ten more frames detected."""
        before = {name: self.of(name)[DETECTED] for name in streams or self.cameras}
        await until(lambda: all(self.of(name)[DETECTED] >= had + 10 for name, had in before.items()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends meanwhile; afterwards every packet has its answer, and every answer is read."""
        reading = asyncio.ensure_future(subscribe(self._url, self.messages))
        sending = [
            asyncio.ensure_future(camera.run(self._url, 0.0, self._stopping))
            for camera in self.cameras.values()
        ]
        try:
            yield
            self._stopping.set()
            await asyncio.wait_for(asyncio.gather(*sending), LIVENESS_S)
            await until(lambda: len(self.messages) >= self.outcomes()[DETECTED])
        finally:
            for task in (reading, *sending):
                task.cancel()
            await asyncio.gather(reading, *sending, return_exceptions=True)


def processor_ticks(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


async def busier_replica(processes: Descendants, cameras: Cameras) -> int:
    """That with more to do, so one that has streams: which has which only Ray knows."""
    before = {pid: processor_ticks(pid) for pid in processes.replicas()}
    await cameras.until_more()
    return max(before, key=lambda pid: processor_ticks(pid) - before[pid])


async def test_a_killed_replica_is_replaced_and_every_packet_is_accounted_for(recorded):
    async with ray_detector(2) as (program, processes, folder), aiohttp.ClientSession() as http:
        cameras = Cameras(recorded, program.metrics_port)
        async with cameras.running():
            await cameras.until_more()
            # Until it was at work just then: calls that it had not taken yet are not lost, but go to the other replica.
            while not cameras.outcomes()["lost"]:
                before = processes.replicas()
                assert len(before) == 2
                os.kill(await busier_replica(processes, cameras), signal.SIGKILL)
                await cameras.until_more()  # at the other replica, from a keyframe on
                await until(lambda before=before: len(processes.replicas() - before) == 1)
                await until_metric(program, http, "ray_replicas", 2)
            await cameras.until_more()
        metrics = await program.metrics(http)
        outcomes = cameras.outcomes()
        assert outcomes.keys() <= {DETECTED, SUPERSEDED, "lost", "missing_reference", "stale"}
        assert outcomes["lost"] >= total(metrics, f"{DETECTOR}_ray_calls_lost_total") >= 1
        for reason in ("lost", "missing_reference", "stale", "corrupt", "reference_mismatch", "error"):
            rejected = total(metrics, f"{DETECTOR}_frames_rejected_total", reason=reason)
            assert rejected == outcomes[reason], reason
        assert total(metrics, f"{DETECTOR}_frames_detected_total") == outcomes[DETECTED]
        published = Counter((message["stream"], message["sequence"]) for message in cameras.messages)
        assert set(published.values()) == {1}
        assert Counter(stream for stream, _ in published) == {
            name: cameras.of(name)[DETECTED] for name in cameras.cameras
        }
        assert_batched(metrics)
        await assert_closed_to_strangers(processes)
        program.send(signal.SIGTERM)
        assert await program.ended() == Exit.OK
        assert all(
            "event" in entry and "timestamp" in entry for entry in program.log
        )  # Ray prints nothing between
        await until(lambda: not processes.find())
        assert not any("splitcast-ray-" in name for name in await asyncio.to_thread(os.listdir, folder))


async def until_metric(program: Program, http: aiohttp.ClientSession, name: str, value: float) -> None:
    async with asyncio.timeout(LIVENESS_S):
        while total(await program.metrics(http), f"{DETECTOR}_{name}") != value:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)


def assert_batched(metrics: Metrics) -> None:
    """Frames of several streams were in the network together."""
    frames = total(metrics, f"{DETECTOR}_batch_frames_count")
    assert total(metrics, f"{DETECTOR}_batch_frames_bucket", le="1.0") < frames
    assert total(metrics, f"{DETECTOR}_batch_frames_bucket", le="4.0") == frames


async def assert_closed_to_strangers(processes: Descendants) -> None:
    """All is on loopback but a port a replica, and that one does not read what comes without the token."""
    import grpc

    listening = processes.listening()
    open_to_all = [(pid, port) for pid, address, port in listening if address not in LOOPBACK]
    assert {pid for pid, _ in open_to_all} == processes.replicas()
    assert len(open_to_all) == 2
    for _, port in open_to_all:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=LIVENESS_S)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_detector_that_is_killed_leaves_no_replica():
    """What only watches Ray ends by itself as well, but takes a minute."""
    words = ("gcs_server", "raylet", "ray::Serve")
    async with ray_detector(1) as (program, processes, _):
        assert all(map(processes.find, words))
        program.send(signal.SIGKILL)
        await until(lambda: not any(map(processes.find, words)))
