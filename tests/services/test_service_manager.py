"""What systemd hears of a service: a socket of the test's own stands in for it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from services.service_manager import ServiceManager
from tests.ports import free_port
from tests.services.waiting import LIVENESS_S

PERIOD_S = 0.02


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(LIVENESS_S)
        yield receiver


def told(receiver: socket.socket) -> str:
    return receiver.recv(100).decode()


def started_by(receiver: socket.socket, **more: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": receiver.getsockname(), **more})


def watched_by(receiver: socket.socket) -> ServiceManager:
    return started_by(receiver, WATCHDOG_USEC=f"{PERIOD_S * 1e6:.0f}", WATCHDOG_PID=str(os.getpid()))


def nothing_comes(receiver: socket.socket) -> bool:
    receiver.setblocking(False)
    try:
        receiver.recv(100)
    except BlockingIOError:
        return True
    return False


async def test_readiness_and_life_are_told(manager):
    ready = asyncio.Event()
    telling = asyncio.ensure_future(watched_by(manager).tell_health(ready))
    await asyncio.sleep(0)
    assert nothing_comes(manager)
    manager.settimeout(LIVENESS_S)
    ready.set()
    lines = [await asyncio.to_thread(told, manager) for _ in range(4)]
    telling.cancel()
    assert lines == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]


async def test_an_event_loop_that_hangs_says_nothing(manager):
    ready = asyncio.Event()
    ready.set()
    telling = asyncio.ensure_future(watched_by(manager).tell_health(ready))
    for _ in range(3):
        await asyncio.to_thread(told, manager)
    while not nothing_comes(manager):
        pass
    time.sleep(10 * PERIOD_S)  # noqa: ASYNC251 - this is the hang
    assert nothing_comes(manager)
    telling.cancel()


async def test_signs_of_life_come_more_than_once_in_the_time_allowed(manager, monkeypatch):
    """So that one may come late."""
    ready, waits = asyncio.Event(), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise asyncio.CancelledError

    ready.set()
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await watched_by(manager).tell_health(ready)
    assert 0 < waits[0] <= PERIOD_S / 4


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}], ids=["unwatched", "of another"]
)
async def test_who_is_not_watched_tells_readiness_alone(manager, environment):
    ready = asyncio.Event()
    ready.set()
    await started_by(manager, **environment).tell_health(ready)
    assert told(manager) == "READY=1"
    assert nothing_comes(manager)


async def test_an_abstract_address_is_one():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0splitcast-test-{os.getpid()}")
        ServiceManager({"NOTIFY_SOCKET": f"@splitcast-test-{os.getpid()}"}).tell_stop()
        assert told(receiver) == "STOPPING=1"


def test_without_a_manager_nothing_is_told_and_nothing_fails():
    ServiceManager({}).tell_stop()


def test_a_manager_that_is_gone_ends_nobody(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "absent")}).tell_stop()


def test_a_manager_that_reads_nothing_is_not_waited_for(manager):
    """Whoever tells it is the event loop."""
    service = started_by(manager)
    telling = Thread(target=lambda: [service.tell_stop() for _ in range(2000)], daemon=True)
    telling.start()
    telling.join(LIVENESS_S)
    assert not telling.is_alive()


@pytest.mark.parametrize("service", ["detector", "camera"])
def test_a_service_tells_its_manager(manager, service):
    environment = os.environ | {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"}
    flags = {
        "detector": ["--port", str(free_port())],
        "camera": ["--source", "demo", "--detector", f"ws://127.0.0.1:{free_port()}", "--metrics-port", "0"],
    }
    command = [sys.executable, "-m", "services.cli", service, "--model", "demo", *flags[service]]
    with subprocess.Popen(command, env=environment) as process:
        try:
            assert [told(manager), told(manager)] == ["READY=1", "WATCHDOG=1"]
            process.send_signal(signal.SIGTERM)
            while (state := told(manager)) == "WATCHDOG=1":
                pass
            assert state == "STOPPING=1"
            assert process.wait(LIVENESS_S) == 0
        finally:
            process.kill()
