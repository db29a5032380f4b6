"""A detector that was stopped as a whole, as by a debugger, a hypervisor or a laptop's lid, and goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

import numpy as np
import pytest

from codec.packet import Stamp
from codec.spec import parse_codec
from stream.session.messages import FEATURES_PROTOCOL, REJECT_REASONS
from stream.transport.websocket import connect
from tests.services.clips import SIZE
from tests.services.detector.peers import answer

STOPPED_S = 30.0
START_S = 400.0  # a program that imports torch on a busy machine


@pytest.mark.patient
@pytest.mark.timeout(900)
async def test_frames_that_came_meanwhile_are_stale(weights, agreed, make_hello):
    command = ("detector", "--port", "0", "--model", str(weights), "--max-age-s", "5")
    detector = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *command),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(START_S):
            port = await ready_port(detector)
            async with connect(f"ws://127.0.0.1:{port}/v1/features", FEATURES_PROTOCOL) as link:
                hello = make_hello(live=True, session="ab" * 16, reject_reasons=REJECT_REASONS)
                await link.send(hello.text())
                assert (await answer(link))["type"] == "welcome"
                encoder = parse_codec("rle:bits=4,temporal=true").encoder(agreed)
                tensors = {spec.name: np.zeros(spec.shape, np.float32) for spec in agreed}

                async def send(sequence: int) -> None:
                    stamp = Stamp(sequence, time.monotonic_ns(), *SIZE)
                    await link.send(encoder.encode(tensors, stamp).data)

                await send(0)
                assert (await answer(link))["type"] == "ack"
                detector.send_signal(signal.SIGSTOP)
                for sequence in (1, 2, 3):
                    await send(sequence)
                    await asyncio.sleep(0.2)
                await asyncio.sleep(STOPPED_S)
                detector.send_signal(signal.SIGCONT)
                assert [await outcome(link) for _ in range(3)] == ["stale"] * 3
                await send(4)
                assert await outcome(link) == "ack"
    finally:
        detector.kill()
        await detector.communicate()


async def ready_port(detector: asyncio.subprocess.Process) -> int:
    """The port of a detector that is ready."""
    assert detector.stderr
    port = 0
    async for line in detector.stderr:
        record = json.loads(line) if line.startswith(b"{") else {}
        port = record.get("port", port)
        if record.get("event") == "ready":
            break
    return port


async def outcome(link) -> str:
    """How the oldest packet was answered."""
    while (message := await answer(link))["type"] not in ("ack", "reject"):
        pass
    return message.get("reason", "ack")
