"""Streams on several detectors behind a real HAProxy: which one has a stream, and what becomes of it when one dies."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSServerHandshakeError

from services.access.tokens import new_token, token_hash
from services.commands.watch import messages
from services.detections_address import detections_url
from services.settings import ClientSettings
from stream.session.messages import FEATURES_PROTOCOL
from stream.tasks.worker import Worker
from stream.transport.tls import ClientTls
from tests.certificates import HOST, Authority
from tests.deploy.balancers import DETECTOR, HAPROXY, Balancer, RunningBalancer, haproxy
from tests.deploy.fleet import ReplayedCamera, Told, background, listening, record
from tests.faults.programs import Program, detector_program, running
from tests.services.waiting import LIVENESS_S, until

pytestmark = pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed")

STREAMS = 24
FPS = 2.0
WINDOW = 3  # of a camera, in frames
CAMERA, CONSUMER = new_token(), new_token()
TOKENS = f"""
[[token]]
name = "fleet"
hash = "{token_hash(CAMERA)}"
roles = ["camera"]
streams = ["cam*"]

[[token]]
name = "desk"
hash = "{token_hash(CONSUMER)}"
roles = ["consumer", "page"]
streams = ["*"]
"""
BEARER = {"Authorization": f"Bearer {CONSUMER}"}
FLAGS = ("--tails", "1", "--address-rate", "1000", "--stranger-rate", "1000")  # as docs/shards.md has it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, Path]:
    files = {
        "tokens": tmp_path / "tokens.toml",
        "camera": tmp_path / "camera.token",
        "desk": tmp_path / "desk.token",
    }
    for file, text in zip(files.values(), (TOKENS, CAMERA, CONSUMER), strict=True):
        file.write_text(text)
        file.chmod(0o600)
    return files


def shards(count: int, tokens: Path) -> list[Program]:
    return [detector_program(*FLAGS, "--tokens", str(tokens)) for _ in range(count)]


class Watcher:
    """Who reads one stream through the balancer."""

    def __init__(self, url: str, stream: str, client: ClientSettings) -> None:
        self.frames: list[int] = []
        self.states: list[str] = []
        self._messages = messages(detections_url(url, stream), client)

    async def run(self) -> None:
        async for text in self._messages:
            message = json.loads(text)
            if message["type"] == "detections":
                self.frames.append(message["frame"])
            elif message["type"] == "stream":
                self.states.append(message["state"])


@pytest.mark.slow
async def test_streams_outlive_shards_and_every_frame_is_accounted_for(tmp_path, authority, tokens):
    programs, told = shards(4, tokens["tokens"]), Told()
    names = {f"s{number}": program for number, program in enumerate(programs, start=1)}
    balancer = Balancer(tmp_path, [program.metrics_port for program in programs], authority.sign())
    url = f"wss://{HOST}:{balancer.port}"
    recorded = await asyncio.to_thread(record)
    desk = ClientSettings.load({"tls_ca": authority.file, "token_file": tokens["desk"]})
    async with running(*programs[:3]), haproxy(balancer) as proxy:
        await asyncio.gather(*(program.until_logged("ready") for program in programs[:3]))
        await until_up(proxy, authority, 3)
        worker = Worker("fleet")
        known = {"tls_ca": authority.file, "token_file": tokens["camera"], "worker": worker, "fps": FPS}
        cameras = [ReplayedCamera(recorded, url, f"cam{number}", **known) for number in range(STREAMS)]
        direct = {name: f"ws://127.0.0.1:{program.metrics_port}" for name, program in names.items()}
        async with listening(told, direct, BEARER):
            playing = asyncio.gather(*(camera.run() for camera in cameras))
            try:
                moved = await follow(told, names, playing, url, desk)
                await join(told, names, playing, balancer, proxy)
                for camera in cameras:
                    camera.stop()
                await asyncio.wait_for(playing, LIVENESS_S)
                await until(lambda: not untold(told, cameras, moved))
            finally:
                playing.cancel()
                await programs[3].kill()
        worker.close()
    assert all(camera.is_accounted_for for camera in cameras)
    assert not any(camera.statistics.frame_counts.in_flight for camera in cameras)
    assert told.told_again() == []


def untold(told: Told, cameras: list[ReplayedCamera], moved: set[str]) -> dict[str, int]:
    """Frames that cameras have an acknowledgement of, and no consumer has detections of, by stream.

    The detector that was killed may have kept the last ones of its streams to itself, a window's at most.
    """
    frames = Counter(stream for _, _, stream, _ in told.detections())
    missing = {
        camera.stream: camera.statistics.frame_counts.detected - frames[camera.stream] for camera in cameras
    }
    return {stream: count for stream, count in missing.items() if count > (WINDOW if stream in moved else 0)}


async def follow(told: Told, names: dict[str, Program], playing, url: str, desk: ClientSettings) -> set[str]:
    """Kill a shard, see its streams with the others, start it, and see them back, together with who reads one.

    Those are the streams.
    """
    await detected(told, playing, lambda places: len(places) == STREAMS)
    homes = told.places()
    assert set(homes.values()) == {"s1", "s2", "s3"}
    dead = homes["cam0"]
    moved = {stream for stream, home in homes.items() if home == dead}
    watchers = {stream: Watcher(url, stream, desk) for stream in moved}
    async with background(*(watcher.run() for watcher in watchers.values())):
        await until(lambda: all(watcher.frames for watcher in watchers.values()))
        await names[dead].kill()
        killed_s = time.monotonic()
        await detected(
            told, playing, lambda places: moved <= places.keys() and dead not in places.values(), killed_s
        )
        assert {stream for stream, home in told.places(killed_s).items() if home == homes[stream]} == (
            homes.keys() - moved
        ) & told.places(killed_s).keys()
        await seen_again(watchers)
        await names[dead].start()
        await detected(told, playing, lambda places: places == homes, killed_s)
        await seen_again(watchers)
        for watcher in watchers.values():
            assert watcher.states[-1] == "connected"
            assert len(watcher.frames) == len(set(watcher.frames))
    return moved


async def join(
    told: Told, names: dict[str, Program], playing, balancer: Balancer, proxy: RunningBalancer
) -> None:
    """Add a shard: it gets its part of the streams, and no other stream changes its place."""
    homes = told.places()
    await names["s4"].start()
    await names["s4"].until_logged("ready")
    balancer.join()
    joined_s = time.monotonic()
    proxy.reload()
    await detected(told, playing, lambda places: len(places) == STREAMS and "s4" in places.values(), joined_s)
    await detected(
        told, playing, lambda places: all(place in ("s4", homes[s]) for s, place in places.items()), joined_s
    )


async def detected(told: Told, playing, condition, since_s: float = 0.0) -> None:
    """Wait until the condition holds of where streams were detected last."""

    def holds() -> bool:
        if playing.done():
            playing.result()
        return bool(condition(told.places(since_s)))

    await until(holds)


async def seen_again(watchers: dict[str, Watcher]) -> None:
    before = {stream: len(watcher.frames) for stream, watcher in watchers.items()}
    await until(lambda: all(len(watcher.frames) > before[stream] + 1 for stream, watcher in watchers.items()))


async def until_up(proxy: RunningBalancer, authority: Authority, count: int) -> None:
    """Wait until HAProxy has found so many shards ready."""
    context = ClientTls(ca=authority.file).context()
    async with ClientSession(f"https://{HOST}:{proxy.port}") as session, asyncio.timeout(LIVENESS_S):
        for number in range(1, count + 1):
            while True:
                async with session.get(f"/shard/s{number}/readyz", ssl=context) as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.1)


async def answer(session: ClientSession, path: str, **headers: str) -> int:
    """What a request gets, or an upgrade where the path is a WebSocket's; 101 where that is one."""
    if "detections" in path or "features" in path:
        try:
            async with session.ws_connect(path, protocols=(FEATURES_PROTOCOL,), headers=headers):
                return 101
        except WSServerHandshakeError as refused:
            return refused.status
    async with session.get(path, headers=headers) as got:
        return got.status


async def test_a_detector_that_shows_anothers_certificate_gets_nothing(tmp_path, authority):
    program = detector_program(*FLAGS, "--tls-cert", str(authority.sign("other.example")))
    async with running(program):
        await program.until_logged("ready")
        balancer = Balancer(tmp_path, [program.metrics_port, 1, 1], None, authority.file)
        async with haproxy(balancer) as proxy, ClientSession(f"http://{HOST}:{proxy.port}") as session:
            for _ in range(3):
                assert await answer(session, "/shard/s1/readyz") == 503


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_what_a_balancer_passes_on_and_to_whom(tmp_path, tokens, authority, encrypted):
    camera = {"Authorization": f"Bearer {CAMERA}"}
    certificate = ("--tls-cert", str(authority.sign(DETECTOR))) if encrypted else ()
    program = detector_program(*FLAGS, "--tokens", str(tokens["tokens"]), *certificate)
    ports, trusted = [program.metrics_port, 1, 1], authority.file if encrypted else None
    balancer = Balancer(tmp_path, ports, None, trusted)
    async with (
        running(program),
        haproxy(balancer) as proxy,
        ClientSession(f"http://{HOST}:{proxy.port}") as session,
    ):
        await program.until_logged("ready")
        async with asyncio.timeout(LIVENESS_S):
            while await answer(session, "/shard/s1/readyz") != 200:  # noqa: ASYNC110 - it signals nothing
                await asyncio.sleep(0.1)
        for path, headers, status in [
            ("/v1/features?stream=cam1", camera, 101),
            ("/v1/features?stream=door", camera, 403),  # the detector's own answer
            ("/v1/features?stream=cam1", {}, 401),
            ("/v1/features", camera, 404),
            ("/v1/features?stream=", camera, 404),
            ("/v1/features", camera | {"X-Splitcast-Stream": "cam1"}, 404),
            ("/shard/s1/v1/features?stream=cam1", camera, 404),  # nobody places his stream himself
            ("/v1/streams/cam1/detections", BEARER, 101),
            ("/v1/streams/cam1/detections?types=gap", BEARER, 101),
            ("/v1/streams", BEARER, 404),
            ("/v1/detections", BEARER, 404),
            ("/", {}, 404),
            ("/livez", {}, 200),
            ("/readyz", {}, 200),
            ("/login", {}, 404),
            ("/shard/s1/login", {}, 200),
            ("/shard/s1/v1/detections", BEARER, 101),
            ("/shard/s1/v1/streams", BEARER, 200),
            ("/shard/s1/", {}, 200),
            ("/shard/s1/live/live.css", {}, 200),
            ("/shard/s2/v1/streams", BEARER, 503),  # it is away
            ("/shard/s9/v1/streams", BEARER, 404),
        ]:
            assert (path, await answer(session, path, **headers)) == (path, status)
