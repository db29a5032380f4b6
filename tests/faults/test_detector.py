"""Faults of the detector, which is a program of its own here, and of those that consume what it publishes."""

from __future__ import annotations

import asyncio
import signal
import socket

import aiohttp
import pytest

from services.chaos.settings import Address
from services.errors import Exit
from stream.session.messages import DETECTIONS_PROTOCOL
from tests.faults.harness import CONFIDENCE, MOVING, detecting, rig
from tests.faults.programs import detector_program, read_metrics, total
from tests.services.waiting import LIVENESS_S, until

# By the detector that comes after, which may not know why there is a gap.
TOLD = ("network/connection_lost", "grab/disconnected", "unknown", "connected")
DETECTOR = ("--confidence", str(CONFIDENCE), "--drain-s", "2")


@pytest.fixture
async def detector():
    program = detector_program(*DETECTOR)
    yield program
    await program.kill()


async def until_ready(detector) -> None:
    """Wait until it is ready once more."""
    await detector.until_logged("ready", len(detector.logged("ready")) + 1)


@pytest.mark.patient
async def test_absent_at_start(detector):
    """A camera that finds nobody begins as soon as there is somebody."""
    async with rig(Address("127.0.0.1", detector.metrics_port), MOVING) as one:
        await until(lambda: one.proxy.report.unreachable >= 2)
        await detector.start()
        async with one.trouble(
            "detector absent at start", 2.0, (), "tried again", streaming=False
        ) as outcome:
            await until_ready(detector)
            outcome.over()


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("detector killed", signal.SIGKILL, -signal.SIGKILL),
        pytest.param("detector restarted", signal.SIGTERM, Exit.OK, marks=pytest.mark.patient),
    ],
)
async def test_ended_and_started_again(name, number, code, detector):
    await detector.start()
    await detector.until_logged("ready")
    async with (
        rig(Address("127.0.0.1", detector.metrics_port), MOVING) as one,
        one.trouble(name, 2.0, TOLD, "started again") as outcome,
    ):
        detector.send(number)
        assert await detector.ended() == code
        await detector.start()
        await until_ready(detector)
        outcome.over()


@pytest.mark.patient
async def test_stopped_for_a_while(detector):
    """SIGSTOP: the machine swaps, or is paused."""
    await detector.start()
    await detector.until_logged("ready")
    async with (
        rig(Address("127.0.0.1", detector.metrics_port), MOVING) as one,
        one.trouble(
            "detector stopped for 15 s", 2.0, ("network/connection_lost", "lost"), "SIGSTOP"
        ) as outcome,
    ):
        detector.send(signal.SIGSTOP)
        await asyncio.sleep(15)
        detector.send(signal.SIGCONT)
        outcome.over()


async def test_a_slow_consumer():
    """It loses messages, is told how many, and nobody else is any slower."""
    everything = 0.0  # messages of 30 kB, which fill the buffers of the system in a moment
    async with (
        detecting(subscriber_queue=4, confidence=everything) as detector,
        rig(detector, MOVING, confidence=everything, size="128x192") as one,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=narrow_socket)) as session,
        session.ws_connect(f"http://{detector}/v1/detections", protocols=(DETECTIONS_PROTOCOL,)) as slow,
    ):
        transport = slow._conn.transport
        transport.pause_reading()
        async with one.trouble(
            "slow consumer", 1.0, (), "loses the oldest messages, and is told so"
        ) as outcome:
            async with asyncio.timeout(LIVENESS_S):
                while await dropped_messages(session, detector.port) < 10:  # noqa: ASYNC110 - nothing signals it
                    await asyncio.sleep(0.1)
            outcome.over()
        transport.resume_reading()
        async with asyncio.timeout(LIVENESS_S):
            while not (message := await slow.receive_json()).get("dropped"):
                pass
        assert message["dropped"] >= 10
        assert not any(message.get("dropped") for _, message in one.consumer.told)


def narrow_socket(address) -> socket.socket:
    """A socket that takes little before its peer has to wait."""
    family, kind, protocol, *_ = address
    narrow = socket.socket(family, kind, protocol)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return narrow


async def dropped_messages(session: aiohttp.ClientSession, port: int) -> float:
    return total(await read_metrics(session, port), "splitcast_detector_subscriber_dropped_messages_total")
