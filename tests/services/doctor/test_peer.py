"""What answers at the detector's address: a detector, or something else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from services.camera.metrics import CameraMetrics, serve_metrics
from services.doctor import peer
from services.doctor.peer import http_peer, look_at_detector
from services.doctor.settings import DoctorCameraSettings
from stream.errors import ConnectionLost
from tests.certificates import Authority
from tests.ports import free_port
from tests.services.fake_detector import serving
from tests.services.waiting import LIVENESS_S


async def look(url: str):
    async with asyncio.timeout(LIVENESS_S):
        return await look_at_detector(url, DoctorCameraSettings.load({"source": "demo", "detector": url}))


@asynccontextmanager
async def answering(status: int, text: str):
    """The address of a server that answers everything alike."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with serving(answer, "/{path:.*}") as url:
        yield url


@asynccontextmanager
async def stalling():
    """The address of a server that takes a request and says nothing."""

    async def hang(_reader, writer):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_detector(start_detector):
    async with start_detector() as running:
        finding = await look(running.url)
        assert (finding.level, finding.facts) == ("ok", {"state": "ready"})
        running.detector.ready.clear()
        assert (await look(running.url)).level == "warning"


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (404, "not here", "is no detector"),
        (200, "<html>welcome</html>", "is no detector"),
        (200, "live\n", "is no detector"),
        (502, "<html>bad gateway</html>", "a proxy answers"),
        (503, "<html>no server</html>", "a proxy answers"),
        (504, "<html>no answer</html>", "a proxy answers"),
    ],
)
async def test_something_else(status, text, words):
    async with answering(status, text) as url:
        finding = await look(url)
    assert (finding.level, words in finding.measured, bool(finding.advice)) == ("error", True, True)


async def test_a_detector_that_takes_tls_alone(start_detector, tmp_path):
    async with start_detector(tls_cert=str(Authority(tmp_path).sign())) as running:
        finding = await look(f"ws://127.0.0.1:{running.port}")
    assert (finding.level, "write wss:// for ws://" in finding.measured) == ("error", True)


async def test_a_cameras_own_port_is_no_detector():
    port = free_port()
    config = DoctorCameraSettings.load({"source": "demo", "metrics_port": port})
    async with serve_metrics(CameraMetrics(), config):
        assert "is no detector" in (await look(f"ws://127.0.0.1:{port}")).measured


async def test_nothing():
    finding = await look(f"ws://127.0.0.1:{free_port()}")
    assert (finding.level, "cannot connect to 127" in finding.measured) == ("error", True)
    assert "start the detector" in finding.advice


async def test_a_detector_that_stalls(monkeypatch):
    monkeypatch.setattr(peer, "ANSWER_S", 0.1)
    async with stalling() as url:
        finding = await look(url)
        assert (finding.level, "nothing came within" in finding.measured) == ("error", True)
        async with http_peer(url, DoctorCameraSettings.load({"source": "demo", "detector": url})) as asked:
            with pytest.raises(ConnectionLost, match="nothing came within") as lost:
                await asked.get("/livez")
    assert not lost.value.answered


async def test_an_endless_answer_is_read_in_part():
    async with answering(200, "x" * 2**20) as url:
        settings = DoctorCameraSettings.load({"source": "demo", "detector": url})
        async with http_peer(url, settings) as asked:
            assert len((await asked.get("/livez")).text) <= 4096
