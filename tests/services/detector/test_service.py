"""The life of a detector, over real sockets."""

from __future__ import annotations

from aiohttp import ClientSession


async def test_readiness_follows_the_network(weights, start_detector):
    async with start_detector() as running, ClientSession() as session:
        for path, status in (("/livez", 200), ("/readyz", 200), ("/v1/nothing", 404)):
            async with session.get(running.http + path) as answer:
                assert answer.status == status
        running.detector.ready.clear()
        async with session.get(running.http + "/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "starting\n")
