"""What `splitcast watch mqtt://...` shows, of what publishers say and of what anybody else does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.commands.message_lines import readable
from services.commands.settings import WatchSettings
from services.commands.watch import json_line
from services.errors import Exit
from services.mqtt import reader
from services.mqtt.reader import broker_messages
from tests.certificates import Authority
from tests.faults.programs import ENVIRONMENT
from tests.mosquitto import Mosquitto, mosquitto, needs_mosquitto, password_lines, tls_lines
from tests.services.mqtt.publishing import compact, detections_text, gap_text, publishing, stream_text
from tests.services.waiting import LIVENESS_S, until

pytestmark = needs_mosquitto


@pytest.fixture
async def broker(tmp_path):
    async with mosquitto(tmp_path) as broker:
        yield broker


@asynccontextmanager
async def watching(broker: Mosquitto, **settings: object) -> AsyncIterator[list[str]]:
    """Texts that are shown meanwhile. It is told that it listens by the message `here`, which is left out."""
    watch = WatchSettings.load({"url": (broker.url,)} | settings)
    types = watch.types.split(",") if watch.types else None
    texts: list[str] = []

    async def watch_it() -> None:
        async for text in broker_messages(watch.mqtt_broker, watch.mqtt_prefix, watch.stream, types):
            texts.append(text)  # noqa: PERF401 - readers look while it grows

    task = asyncio.ensure_future(watch_it())
    leaf = {"stream": "state", "gap": "gaps"}.get((types or ["detections"])[0], "detections")
    topic = f"{watch.mqtt_prefix}/{watch.stream or 'here'}/{leaf}"
    try:
        async with asyncio.timeout(LIVENESS_S), broker.client() as client:
            while "here" not in texts:
                await client.publish(topic, "here")
                await asyncio.sleep(0.05)
        yield texts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def types_of(texts: list[str]) -> list[str]:
    return [json.loads(text)["type"] for text in texts if text != "here"]


async def publish_all(broker: Mosquitto) -> None:
    async with publishing(broker.url) as running:
        running.state("door", "connected")
        running.state("yard", "connected")
        await until(lambda: running.outbox.connected and not len(running.outbox))
        for stream in ("door", "yard"):
            running.gap(stream, 1)
            running.detect(stream, 2)
        await until(lambda: not len(running.outbox))


async def test_all_that_is_published_is_shown_but_counts(broker):
    async with watching(broker) as texts:
        await publish_all(broker)
        await until(lambda: len(types_of(texts)) == 6)
    assert set(texts) >= {detections_text("door", 2), gap_text("yard", 1)}
    assert sorted(types_of(texts)) == ["detections", "detections", "gap", "gap", "stream", "stream"]


async def test_states_that_the_broker_keeps_come_first(broker):
    await publish_all(broker)
    async with watching(broker, types="stream", stream="door") as texts:
        await until(lambda: types_of(texts) == ["stream"])


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"stream": "door"}, ["detections", "gap", "stream"]),
        ({"types": "gap"}, ["gap", "gap"]),
        ({"types": "detections,stream", "stream": "yard"}, ["detections", "stream"]),
    ],
)
async def test_some_streams_and_types(settings, shown, broker):
    async with watching(broker, **settings) as texts:
        await publish_all(broker)
        await until(lambda: sorted(types_of(texts)) == shown)


async def test_a_broker_that_is_started_anew_is_watched_again(broker, capsys):
    async with watching(broker) as texts:
        await broker.stop()
        await until(lambda: "no broker: " in capsys.readouterr().err)
        await broker.start()
        await publish_all(broker)
        async with broker.client() as client, asyncio.timeout(LIVENESS_S):
            while detections_text("door", 3) not in texts:
                await client.publish("splitcast/door/detections", detections_text("door", 3))
                await asyncio.sleep(0.05)


HOSTILE = [
    b"\xff\xfe\x00",
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"type": "detections"}',
    b'{"type": "detections", "stream": "door", "predictions": 7}',
    b'{"type": "\\u001b[2J", "stream": "door"}',
    b'{"type": "stream", "stream": "door", "state": "\\ud800", "reason": "\\n\\u001b[31m", "at": 1e999, '
    b'"connection": 1, "frame": {}}',
    b"[" * 100_000,
    b"\x1b[2J\r\n" * 1000,
]


async def test_hostile_payloads_are_one_printable_line_each(broker):
    async with watching(broker, stream="door") as texts:
        async with broker.client() as client:
            for payload in HOSTILE:
                await client.publish("splitcast/door/detections", payload, qos=1)
            await client.publish("splitcast/door/detections", detections_text("door", 9), qos=1)
        await until(lambda: detections_text("door", 9) in texts)
    for text in texts:
        assert readable(text).isprintable()
        assert json_line(text).isprintable()
    assert len(texts) >= len(HOSTILE)


async def test_a_message_of_another_stream_than_its_topic_is_left_out(broker, capsys):
    async with watching(broker) as texts:
        async with broker.client() as client:
            await client.publish("splitcast/yard/detections", detections_text("door", 1), qos=1)
            await client.publish("splitcast/yard/detections", detections_text("yard", 2), qos=1)
        await until(lambda: detections_text("yard", 2) in texts)
    assert detections_text("door", 1) not in texts
    assert "splitcast/yard/detections" in capsys.readouterr().err


async def test_a_message_that_is_too_large_is_not_taken(broker, monkeypatch):
    monkeypatch.setattr(reader, "MAX_BYTES", 10_000)
    large = compact(type="detections", stream="door", frame=0, text="x" * 20_000)
    async with watching(broker) as texts:
        async with broker.client() as client:
            await client.publish("splitcast/door/detections", large, qos=1)
            await client.publish("splitcast/door/detections", detections_text("door", 1), qos=1)
        await until(lambda: detections_text("door", 1) in texts)
    assert large not in texts


async def test_messages_that_came_faster_than_they_were_taken_are_told(broker, monkeypatch, capsys):
    monkeypatch.setattr(reader, "MAX_WAITING", 1)
    async with watching(broker), broker.client() as client, asyncio.timeout(LIVENESS_S):
        while " messages were lost: read faster" not in capsys.readouterr().err:
            await asyncio.gather(*(client.publish("splitcast/door/gaps", b"{}") for _ in range(50)))


class Client:
    lost = 0


def test_losses_are_told_once_and_not_more_often_than_once_a_second(capsys):
    client = Client()
    losses = reader.Losses(client)
    for now_s, lost, told in [(0, 0, ""), (1, 2, "2"), (1.5, 5, ""), (2, 5, "3"), (9, 5, ""), (9.5, 6, "1")]:
        client.lost = lost
        losses.tell(now_s)
        assert capsys.readouterr().err == (f"{told} messages were lost: read faster\n" if told else "")


# --- the command ---


async def watch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.cli", "watch", *arguments]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=LIVENESS_S,
        check=False,
    )


async def keep(broker: Mosquitto, text: str, **options: object) -> None:
    async with broker.client(**options) as client:
        await client.publish("cams/door/state", text, qos=1, retain=True)


async def test_the_command_with_a_user_and_a_password(tmp_path):
    secret, file = "hunter2hunter2", tmp_path / "password"
    file.write_text(f"{secret}\n")
    async with mosquitto(tmp_path, *password_lines(tmp_path, "door", secret)) as broker:
        await keep(broker, stream_text("door", "lost", "it is dark"), username="door", password=secret)
        url = broker.url.replace("://", "://door@")
        flags = ["--mqtt-prefix", "cams", "--count", "1"]
        for ran in (
            await watch(url, *flags, "--mqtt-password-file", str(file)),
            await watch(url, *flags, "--json", SPLITCAST_MQTT_PASSWORD=secret),
        ):
            assert ran.returncode == Exit.OK, ran.stderr
            assert "it is dark" in ran.stdout
            assert len(ran.stdout.splitlines()) == 1


async def test_the_command_over_tls(tmp_path):
    authority = Authority(tmp_path / "ca")
    async with mosquitto(tmp_path, *tls_lines(authority.sign(), authority.file)) as broker:
        context = authority.client_context()
        await keep(broker, stream_text("door", "connected"), tls_context=context)
        url = broker.url.replace("mqtt://", "mqtts://")
        flags = ["--mqtt-prefix", "cams", "--count", "1", "--tls-ca", str(authority.file)]
        ran = await watch(url, *flags)
    assert ran.returncode == Exit.OK, ran.stderr
    assert "door connected" in ran.stdout


@pytest.mark.parametrize("url", ["mqtt://door:hunter2hunter2@", "mqtts://door:hunter2hunter2@nas:x"])
async def test_the_command_tells_a_wrong_address_without_its_password(url):
    ran = await watch(url)
    assert ran.returncode == Exit.USAGE
    assert "is no address of a broker" in ran.stderr
    assert "hunter2" not in ran.stderr
