"""The life of a detector, over real sockets."""

from __future__ import annotations

import asyncio
import threading

import pytest
from aiohttp import ClientSession

from services.detector import service
from services.errors import SettingsError
from tests.services.detector.peers import answer, linked
from tests.services.waiting import until


async def test_readiness_follows_the_network(weights, start_detector):
    async with start_detector() as running, ClientSession() as session:
        for path, status in (("/livez", 200), ("/readyz", 200), ("/v1/nothing", 404)):
            async with session.get(running.http + path) as answer:
                assert answer.status == status
        running.detector.ready.clear()
        async with session.get(running.http + "/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "starting\n")


async def test_memory_that_a_camera_was_promised_is_free_when_it_has_left(
    start_detector, make_hello, monkeypatch
):
    """And the system gets back what it used."""
    given_back = threading.Event()
    monkeypatch.setattr(service, "TRIM_INTERVAL_S", 0.01)
    async with start_detector() as running:
        monkeypatch.setattr(service, "give_memory_back", given_back.set)
        memory = running.detector.memory
        assert memory.promised_bytes == 0
        async with linked(running.url) as link:
            await link.send(make_hello().text())
            assert (await answer(link))["type"] == "welcome"
            assert memory.promised_bytes > 2**20
            await asyncio.sleep(20 * service.TRIM_INTERVAL_S)
            assert not given_back.is_set()
        await until(given_back.is_set)
        assert memory.promised_bytes == 0


async def test_a_detector_with_too_little_memory_does_not_start(start_detector):
    with pytest.raises(SettingsError, match="--max-memory: 64 MiB is too little"):
        async with start_detector(max_memory=64):
            pass
