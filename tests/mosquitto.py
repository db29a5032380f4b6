"""A real MQTT broker, Debian's mosquitto, with a configuration and a port of its own; and a client to look at it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest

from tests.ports import free_port
from tests.services.waiting import LIVENESS_S, until

HOST = "127.0.0.1"
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None or shutil.which("mosquitto_passwd") is None, reason="mosquitto is not installed"
)


class Mosquitto:
    """A broker that can be killed and started again. `lines` are further ones of its configuration."""

    def __init__(self, folder: Path, *lines: str, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self._lines = lines
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        own = [f"listener {self.port} {HOST}", "max_queued_messages 0"]  # which is: as many as it takes
        if not any(line.startswith("allow_anonymous") for line in self._lines):
            own.append("allow_anonymous true")
        if os.getuid() == 0:
            own.append("user root")  # whose files the tests' are
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text("\n".join([*own, *self._lines, ""]))
        assert MOSQUITTO is not None
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO,
            "-c",
            str(configuration),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(LIVENESS_S):
            while True:
                assert self._process.returncode is None, f"mosquitto ended: {configuration.read_text()}"
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(HOST, self.port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    async def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    def client(self, **options: object) -> aiomqtt.Client:
        """A client of the broker, by another way than the program's own."""
        return aiomqtt.Client(HOST, self.port, timeout=LIVENESS_S, **options)


@asynccontextmanager
async def mosquitto(folder: Path, *lines: str) -> AsyncIterator[Mosquitto]:
    """A broker that runs meanwhile."""
    broker = Mosquitto(folder, *lines)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as a consumer got it."""

    topic: str
    text: str
    retained: bool
    qos: int


class Spy:
    """Collects what comes to a topic filter."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def texts(self, topic: str) -> list[str]:
        return [seen.text for seen in self.seen if seen.topic == topic]

    def newest(self) -> dict[str, str]:
        """The newest text of each topic."""
        return {seen.topic: seen.text for seen in self.seen}


@asynccontextmanager
async def spying(broker: Mosquitto, topics: str = "#", **options: object) -> AsyncIterator[Spy]:
    """What the broker passes on meanwhile, and what it has kept before."""
    spy, subscribed = Spy(), asyncio.Event()

    async def collect() -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with broker.client(**options) as client:
                    await client.subscribe(topics, qos=1)
                    subscribed.set()
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        text = message.payload.decode()
                        spy.seen.append(Seen(str(message.topic), text, message.retain, message.qos))
            await asyncio.sleep(0.02)  # the broker is started anew

    task = asyncio.ensure_future(collect())
    try:
        async with asyncio.timeout(LIVENESS_S):
            await subscribed.wait()
        yield spy
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def kept_by(broker: Mosquitto, **options: object) -> dict[str, str]:
    """What the broker keeps now, by topic: a message of its own tells that all of it has come."""
    async with spying(broker, **options) as spy, broker.client(**options) as other:
        await other.publish("end", "end", qos=1)
        await until(lambda: any(seen.topic == "end" for seen in spy.seen))
    return {seen.topic: seen.text for seen in spy.seen if seen.retained}


def tls_lines(certificate: Path, authority: Path, *, client_certificates: bool = False) -> tuple[str, ...]:
    """The lines that let a broker speak TLS; the certificate's file holds its key too."""
    return (
        f"certfile {certificate}",
        f"keyfile {certificate}",
        f"cafile {authority}",
        f"require_certificate {str(client_certificates).lower()}",
    )


def password_lines(folder: Path, user: str, password: str) -> tuple[str, ...]:
    """The lines that let one user in."""
    file = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(file), user, password], check=True)
    return ("allow_anonymous false", f"password_file {file}")
