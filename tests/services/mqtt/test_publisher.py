"""What a publisher does with a real broker: one that stops, forgets, stalls or refuses it, and others beside it."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from structlog.testing import capture_logs

from services.chaos.service import chaos_proxy
from services.chaos.settings import Address
from services.mqtt import deliveries
from services.mqtt.client import BrokerClient
from services.mqtt.homeassistant import discovery
from services.mqtt.publisher import SHORT_ONES, STEADY_S
from services.mqtt.retained import Retained
from services.mqtt.topics import Topics
from stream.tasks.backoff import Failure
from tests.certificates import FUTURE, HOST, PAST, Authority
from tests.mosquitto import Mosquitto, kept_by, mosquitto, needs_mosquitto, password_lines, spying, tls_lines
from tests.services.mqtt.publishing import (
    PUBLISHER,
    Publishing,
    detections_text,
    gap_text,
    publishing,
    stream_text,
)
from tests.services.waiting import LIVENESS_S, until

pytestmark = needs_mosquitto

AVAILABLE = f"splitcast/{PUBLISHER}/available"


@pytest.fixture
def logs():
    with capture_logs() as logs:
        yield logs


@pytest.fixture
async def broker(tmp_path):
    async with mosquitto(tmp_path) as broker:
        yield broker


def frames(texts: list[str]) -> list[int]:
    return [json.loads(text)["frame"] for text in texts]


def balance(running: Publishing, kind: str) -> float:
    """Messages of a kind that were published or dropped."""
    return running.count("published_total", kind=kind) + running.count("dropped_total", kind=kind)


async def settled(running: Publishing) -> None:
    """Until the broker has everything."""
    await until(lambda: running.outbox.connected and not len(running.outbox))


async def test_what_consumers_are_told_is_published_as_it_is(broker):
    async with spying(broker) as spy, publishing(broker.url) as running:
        running.state("door", "connected")
        running.detect("door", 0, ["person"])
        running.gap("door", 1)
        await until(lambda: spy.texts("splitcast/door/detections") and spy.texts("splitcast/door/gaps"))
    seen = {seen.topic: seen for seen in spy.seen}
    assert spy.texts("splitcast/door/detections") == [detections_text("door", 0, ["person"])]
    assert spy.texts("splitcast/door/gaps") == [gap_text("door", 1)]
    [state] = spy.texts("splitcast/door/state")
    assert json.loads(state) == json.loads(stream_text("door", "connected")) | {"publisher": PUBLISHER}
    assert {topic.rpartition("/")[2]: message.qos for topic, message in seen.items()} == {
        "available": 1,
        "state": 1,
        "counts": 1,
        "gaps": 1,
        "detections": 0,
    }


async def test_states_and_counts_are_kept_and_detections_not(broker):
    async with publishing(broker.url, mqtt_discovery="homeassistant") as running:
        running.state("door", "connected")
        running.detect("door", 0, ["person", "car"])
        running.gap("door", 1)
        await settled(running)
        kept = await kept_by(broker)
    configs = discovery(Topics("splitcast", PUBLISHER), "homeassistant", "door")
    assert set(kept) == {AVAILABLE, "splitcast/door/state", "splitcast/door/counts", *configs}
    assert kept[AVAILABLE] == "online"
    assert kept.items() >= configs.items()
    counts = json.loads(kept["splitcast/door/counts"])
    assert (counts["person"], counts["vehicle"]) == (1, 1)


async def test_what_comes_late_has_no_counts_and_is_unknown_to_home_assistant(broker):
    """They would show now what was then."""
    async with publishing(broker.url, mqtt_discovery="homeassistant") as running, spying(broker) as spy:
        running.state("door.late", "connected")
        running.detect("door.late", 0, ["person", "car"])
        await settled(running)
        await until(lambda: spy.texts("splitcast/door.late/detections"))
        assert set(await kept_by(broker)) == {AVAILABLE, "splitcast/door.late/state"}


async def test_a_stop_says_what_is_left_and_that_it_is_offline(broker):
    async with spying(broker) as spy:
        async with publishing(broker.url) as running:
            running.state("door", "connected")
            await settled(running)
            for frame in range(500):
                running.detect("door", frame)
            running.state("door", "lost")
        kept = await kept_by(broker)
        await until(lambda: len(spy.texts("splitcast/door/detections")) == 500)
    assert kept[AVAILABLE] == "offline"
    assert json.loads(kept["splitcast/door/state"])["state"] == "lost"
    assert frames(spy.texts("splitcast/door/detections")) == list(range(500))
    assert running.count("published_total", kind="detections") == 500
    assert running.count("dropped_total", kind="detections") == 0


async def test_nothing_keeps_a_stop_waiting(tmp_path):
    """Neither a broker that was never there, nor one that takes nothing any more."""
    async with asyncio.timeout(LIVENESS_S):
        async with publishing(Mosquitto(tmp_path).url) as running:
            running.state("door", "connected")
            running.detect("door", 0)
        assert running.count("dropped_total", kind="detections", reason="shutdown") == 1
        async with (
            mosquitto(tmp_path) as broker,
            chaos_proxy(Address(HOST, broker.port), messages=False) as proxy,
            publishing(f"mqtt://{proxy.address}") as running,
        ):
            await settled(running)
            proxy.begin("blackhole")
            running.detect("door", 0)
            running.gap("door", 1)


# --- a broker that goes and comes ---


@pytest.mark.parametrize("lines", [(), ("persistence true", "autosave_interval 1")], ids=["forgets", "keeps"])
async def test_a_broker_that_was_killed_is_whole_again(lines, tmp_path):
    async with mosquitto(tmp_path, *lines) as broker:
        async with publishing(broker.url) as running, spying(broker) as spy:
            running.state("door", "connected")
            running.state("yard", "lost", "it is dark")
            running.detect("door", 0, ["person"])
            await settled(running)
            before = await kept_by(broker)
            await broker.stop(signal.SIGKILL)
            await until(lambda: not running.outbox.connected)
            running.detect("door", 1)
            running.gap("door", 2)
            running.state("yard", "connected", "it is light")
            await broker.start()
            await settled(running)
            await until(lambda: frames(spy.texts("splitcast/door/detections")) == [0, 1])
            after = await kept_by(broker)
        assert set(after) == set(before)
        assert {topic: text for topic, text in after.items() if "yard" not in topic} == {
            topic: text for topic, text in before.items() if "yard" not in topic
        }
        assert json.loads(after["splitcast/yard/state"])["reason"] == "it is light"
        assert running.count("failures_total") >= 1
        assert balance(running, "detections") == 2
        assert running.count("published_total", kind="gap") == 1
        assert (await kept_by(broker))[AVAILABLE] == "offline"


async def test_every_message_is_accounted_for_while_a_broker_comes_and_goes(tmp_path):
    put = 0
    async with mosquitto(tmp_path) as broker, publishing(broker.url, mqtt_queue=64) as running:
        running.state("door", "connected")
        for round_ in range(3):
            for _ in range(100):
                running.detect("door", put)
                running.gap("door", put)
                put += 1
                await asyncio.sleep(0.001)
            if round_ == 2:
                break
            await broker.stop()
            await until(lambda: not running.outbox.connected)
            for _ in range(100):
                running.detect("door", put)
                running.gap("door", put)
                put += 1
            await broker.start()
            await until(lambda: running.outbox.connected)
    assert balance(running, "detections") == put
    assert balance(running, "gap") == put
    assert running.count("dropped_total", reason="disconnected") > 0


async def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path):
    broker = Mosquitto(tmp_path)
    async with publishing(broker.url) as running:
        running.state("door", "connected")
        for frame in range(3):
            running.detect("door", frame)
        await until(lambda: running.count("failures_total", reason="not_ready"))
        await broker.start()
        try:
            await settled(running)
            assert running.count("published_total", kind="detections") == 3
            assert running.count("connected") == 1
        finally:
            await broker.stop()
        await until(lambda: running.count("connected") == 0)


async def test_a_broker_that_takes_too_little_loses_the_oldest_detections(broker, monkeypatch):
    monkeypatch.setattr(deliveries, "SEND_S", LIVENESS_S)
    put = 0
    async with (
        chaos_proxy(Address(HOST, broker.port), messages=False) as proxy,
        spying(broker) as spy,
        publishing(f"mqtt://{proxy.address}", mqtt_queue=50) as running,
    ):
        running.state("door", "connected")
        await settled(running)
        with proxy.fault("bandwidth:kbps=64"):
            while running.count("dropped_total", kind="detections", reason="slow") < 100:
                running.detect("door", put, ["person"] * 500)
                put += 1
                await asyncio.sleep(0)
            assert running.outbox.waiting <= 50 + 1
        await settled(running)
        await until(lambda: frames(spy.texts("splitcast/door/detections"))[-1:] == [put - 1])
    got = spy.texts("splitcast/door/detections")
    assert len(got) == running.count("published_total", kind="detections")
    assert balance(running, "detections") == put
    assert frames(got) == sorted(set(frames(got)))
    assert sum(json.loads(text).get("dropped", 0) for text in got) == put - len(got)
    assert running.count("failures_total") == 0


async def test_a_broker_that_takes_nothing_is_left_and_tried_again(broker, monkeypatch):
    monkeypatch.setattr(deliveries, "SEND_S", 0.5)
    async with (
        chaos_proxy(Address(HOST, broker.port), messages=False) as proxy,
        publishing(f"mqtt://{proxy.address}") as running,
    ):
        running.state("door", "connected")
        await settled(running)
        with proxy.fault("blackhole"):
            running.gap("door", 1)  # which the broker would confirm
            await until(lambda: running.count("failures_total", reason="unreachable"))
            await until(lambda: not running.outbox.connected)
        await settled(running)
        assert running.count("published_total", kind="gap") == 1


# --- who is let in ---


async def test_a_password_that_is_put_right_while_it_runs(tmp_path, logs):
    secret, file = "hunter2hunter2", tmp_path / "own-password"
    file.write_text("wrong-wrong-wrong\n")
    async with mosquitto(tmp_path, *password_lines(tmp_path, "door", secret)) as broker:
        url = broker.url.replace("://", "://door@")
        async with publishing(url, mqtt_password_file=str(file)) as running:
            await until(lambda: running.count("failures_total", reason="denied"))
            file.write_text(f"{secret}\n")
            await settled(running)
    told = str(logs)
    assert "--mqtt-password-file" in told
    assert "wrong-wrong-wrong" not in told
    assert secret not in told


async def test_a_user_without_a_password_is_told_what_to_give(tmp_path, logs):
    async with (
        mosquitto(tmp_path, *password_lines(tmp_path, "door", "secret")) as broker,
        publishing(broker.url) as running,
    ):
        await until(lambda: running.count("failures_total", reason="denied"))
    assert "as USER@HOST" in str(logs)


async def test_what_a_user_may_not_write_is_told_and_counted(tmp_path, logs):
    rules = tmp_path / "rules"
    rules.write_text("user door\ntopic readwrite splitcast/#\n")
    rules.chmod(0o600)
    # Without a bound mosquitto 2.0.11 hangs up where it refuses a message and has sent one.
    bounded = "max_queued_messages 1000"
    lines = (*password_lines(tmp_path, "door", "secret"), f"acl_file {rules}", bounded)
    async with mosquitto(tmp_path, *lines) as broker:
        url = broker.url.replace("://", "://door:secret@")
        async with publishing(url, mqtt_discovery="homeassistant") as running:
            running.state("yard", "connected")
            await until(lambda: running.count("published_total", kind="state"))
            await settled(running)
            entities = len(discovery(Topics("splitcast", PUBLISHER), "homeassistant", "yard"))
            assert running.count("dropped_total", kind="discovery", reason="refused") == entities
            assert running.count("published_total", kind="discovery") == 0
            assert running.count("dropped_total", kind="state") == 0
    told = {line["topic"] for line in logs if line.get("reason") == "discovery: Not authorized"}
    assert "homeassistant/sensor/splitcast_yard_state/config" in told


async def test_tls_and_the_certificates_of_both(tmp_path, logs):
    authority = Authority(tmp_path / "ca")
    lines = tls_lines(authority.sign(), authority.file, client_certificates=True)
    own = authority.sign("attic.example", file="client.pem")
    async with mosquitto(tmp_path, *lines) as broker:
        url = broker.url.replace("mqtt://", "mqtts://")
        async with publishing(url, mqtt_ca=str(authority.file), mqtt_cert=str(own)) as running:
            running.state("door", "connected")
            await settled(running)
        assert running.count("failures_total") == 0
        async with publishing(url, mqtt_ca=str(authority.file)) as running:
            await until(lambda: running.count("failures_total", reason="refused"))
    assert "--mqtt-cert" in str(logs)


@pytest.mark.parametrize(
    ("valid", "names", "words"),
    [
        (PAST, (HOST,), "expired"),
        (FUTURE, (HOST,), "not yet valid"),
        (None, ("other.example",), "mismatch"),
        ("stranger", (HOST,), "--mqtt-ca"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_told(valid, names, words, tmp_path, logs):
    authority = Authority(tmp_path / "ca")
    signer = Authority(tmp_path / "stranger") if valid == "stranger" else authority
    certificate = signer.sign(*names, valid=None if valid == "stranger" else valid)
    async with mosquitto(tmp_path, *tls_lines(certificate, signer.file)) as broker:
        url = broker.url.replace("mqtt://", "mqtts://")
        async with publishing(url, mqtt_ca=str(authority.file)) as running:
            await until(lambda: running.count("failures_total", reason="refused"))
    assert words in str(logs)


async def test_tls_to_a_port_without_and_the_other_way_round(tmp_path, logs):
    authority = Authority(tmp_path / "ca")
    async with mosquitto(tmp_path) as plain, publishing(plain.url.replace("mqtt://", "mqtts://")) as running:
        await until(lambda: running.count("failures_total"))
    (tmp_path / "tls").mkdir()
    lines = tls_lines(authority.sign(), authority.file)
    async with mosquitto(tmp_path / "tls", *lines) as tls, publishing(tls.url) as running:
        await until(lambda: running.count("failures_total"))
    told = str(logs)
    assert "mqtt://" in told
    assert "mqtts://" in told


# --- others beside it ---


async def test_a_publisher_that_dies_is_offline_and_one_that_comes_back_knows_its_streams(broker):
    """The broker publishes its last will; what it kept of the streams is put right by the next life."""
    async with publishing(broker.url, mqtt_discovery="ha") as running:
        running.state("door", "connected")
        await settled(running)
        before = await kept_by(broker)
    async with broker.client() as client:  # as a process that died leaves it
        for topic, text in before.items():
            await client.publish(topic, text, qos=1, retain=True)
    async with publishing(broker.url, mqtt_discovery="ha") as running:
        await until(lambda: running.count("published_total", kind="state"))
        state = json.loads((await kept_by(broker))["splitcast/door/state"])
        assert (state["state"], state["publisher"]) == ("lost", PUBLISHER)
        running.state("door", "connected")
        await settled(running)
        assert json.loads((await kept_by(broker))["splitcast/door/state"])["state"] == "connected"


async def test_the_last_will_of_a_publisher_is_kept(broker, monkeypatch):
    """So that who comes later does not take it for one that is there."""

    async def say_nothing(_client: BrokerClient) -> None:
        """As a process that died."""

    monkeypatch.setattr(BrokerClient, "say_goodbye", say_nothing)
    monkeypatch.setattr(Retained, "say_goodbye", lambda _retained: None)
    async with spying(broker) as spy:
        async with publishing(broker.url) as running:
            await settled(running)
        await until(lambda: spy.newest().get(AVAILABLE) == "offline")
    assert (await kept_by(broker))[AVAILABLE] == "offline"


async def test_a_stream_that_moves_between_publishers_is_where_its_camera_is(broker):
    """Also where the one that lost it says so late: after the other has it."""
    async with (
        publishing(broker.url, mqtt_id="attic", mqtt_discovery="ha") as attic,
        publishing(broker.url, mqtt_id="cellar", mqtt_discovery="ha") as cellar,
        spying(broker) as spy,
    ):
        attic.state("door", "connected")
        await until(lambda: spy.texts("splitcast/door/state"))
        cellar.state("door", "connected")
        await until(lambda: '"cellar"' in spy.newest()["splitcast/door/state"])
        attic.state("door", "lost")
        await until(lambda: any('"lost"' in text for text in spy.texts("splitcast/door/state")))
        await until(lambda: '"cellar"' in spy.newest()["splitcast/door/state"])
        assert json.loads(spy.newest()["splitcast/door/state"])["state"] == "connected"
        config = spy.newest()["ha/sensor/splitcast_door_person/config"]
        assert "splitcast/cellar/available" in config
        # The one that lost it says no more of it, to a broker that has forgotten everything either.
        await until(lambda: "splitcast/door/state" not in attic.outbox.retained._messages)
        before = len(spy.texts("splitcast/door/state"))
        attic.outbox.renew()
        await settled(attic)
        await kept_by(broker)
        assert len(spy.texts("splitcast/door/state")) == before


async def test_two_of_one_name_are_told_apart_in_the_log(broker, logs):
    async with publishing(broker.url) as one:
        await settled(one)
        async with publishing(broker.url) as other:
            await until(lambda: "--mqtt-id" in str(logs))
    assert one.count("failures_total") + other.count("failures_total") >= SHORT_ONES


async def test_messages_of_strangers_are_survived(broker):
    async with publishing(broker.url) as running:
        running.state("door", "connected")
        await settled(running)
        async with broker.client() as client:
            for payload in (b"\xff\xfe", b"[]", b"{", b"[" * 10_000, b"null", b"x" * 2**20, b""):
                await client.publish("splitcast/door/state", payload, qos=1, retain=True)
            await client.publish(AVAILABLE, b"\x00", qos=1, retain=True)
        kept: dict[str, str] = {}
        async with asyncio.timeout(LIVENESS_S):
            while kept.get(AVAILABLE) != "online" or '"connected"' not in kept.get(
                "splitcast/door/state", ""
            ):
                kept = await kept_by(broker)
        assert running.count("failures_total") == 0


@pytest.mark.parametrize(
    ("failure", "is_doubted"), [(Failure.NOT_READY, True), (Failure.REFUSED, False), (Failure.DENIED, False)]
)
async def test_what_a_broker_is_left_for_is_not_laid_to_another_client(failure, is_doubted):
    async with publishing("mqtt://127.0.0.1:9") as running:
        told = [running.publisher._judge(0.1, failure, "it lies") for _ in range(SHORT_ONES)]
    assert told[:-1] == [(failure, "it lies")] * (SHORT_ONES - 1)
    assert ("--mqtt-id" in told[-1][1]) is is_doubted


async def test_a_connection_that_lasted_was_one_that_works():
    async with publishing("mqtt://127.0.0.1:9") as running:
        publisher, failure = running.publisher, Failure.NOT_READY
        for lasted_s in (0.1, 0.1, STEADY_S, 0.1):
            assert publisher._judge(lasted_s, failure, "it stops") == (failure, "it stops")
        publisher._backoff.next_delay_s(failure, 0.0)
        assert publisher._backoff.next_delay_s(failure, 100.0) > 0
        publisher._judge(STEADY_S, failure, "it stops")
        assert publisher._backoff.next_delay_s(failure, 200.0) == 0  # a first loss
