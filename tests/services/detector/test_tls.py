"""A detector that speaks TLS, over real sockets: cameras, consumers, pages and scrapes, and those who stop half way."""

from __future__ import annotations

import asyncio
import math
import ssl
from contextlib import suppress
from datetime import UTC

import pytest
from aiohttp import ClientSession, TCPConnector
from structlog.testing import capture_logs

from services import certificates
from stream.errors import TlsFailed
from stream.session.close_codes import CloseCode
from stream.session.messages import FEATURES_PROTOCOL
from stream.tasks import backoff
from stream.transport.tls import ClientTls
from stream.transport.websocket import connect
from tests.certificates import FUTURE, HOST, PAST, Authority
from tests.services.clips import FRAMES
from tests.services.detector.peers import closed
from tests.services.subscribing import subscribed
from tests.services.waiting import LIVENESS_S, until


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path / "authority")


def wss(running) -> str:
    return f"wss://{HOST}:{running.port}"


def refused(running, reason: str) -> float | None:
    registry = running.detector.statistics.metrics.registry
    return registry.get_sample_value("splitcast_detector_connections_refused_total", {"reason": reason})


async def still_serves(running, make_camera, authority: Authority) -> bool:
    camera = make_camera(wss(running), stream="honest", tls_ca=authority.file)
    await asyncio.wait_for(camera.run(), LIVENESS_S)
    return camera.statistics.frame_counts.detected == FRAMES


async def test_a_camera_streams_over_tls_and_every_byte_is_counted(start_detector, make_camera, authority):
    async with start_detector(tls_cert=authority.sign()) as running:
        camera = make_camera(wss(running), tls_ca=authority.file)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert camera.statistics.frame_counts.detected == FRAMES
        wire = running.detector.streams.get("door").wire
        await until(lambda: wire.received == camera.statistics.wire.sent)
        assert wire.received > camera.statistics.totals.encoded_bytes
        assert wire.sent >= camera.statistics.wire.received > 1000  # the certificate is among it


async def test_pages_scrapes_and_consumers_come_over_tls_alone(start_detector, authority):
    trusting = ssl.create_default_context(cafile=authority.file)
    async with start_detector(tls_cert=authority.sign()) as running:
        address = f"{HOST}:{running.port}"
        async with ClientSession(connector=TCPConnector(ssl=trusting)) as session:
            for path in ("/", "/metrics", "/v1/streams", "/livez"):
                async with session.get(f"https://{address}{path}") as answer:
                    assert answer.status == 200
        with pytest.raises(TlsFailed, match="--tls-ca"):
            async with connect(f"wss://{address}/v1/detections", "splitcast.detections.v1"):
                pass
        reader, writer = await asyncio.open_connection(HOST, running.port)
        writer.write(f"GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        assert await reader.read() == b""
        writer.close()
        assert refused(running, "tls_failed") >= 1


async def test_a_camera_tries_on_until_the_certificate_is_renewed(
    start_detector, make_camera, authority, monkeypatch
):
    """And a connection from before it was renewed goes on."""
    monkeypatch.setattr(backoff, "REFUSED_S", (0.01, 0.05))
    cert = authority.sign()
    async with start_detector(tls_cert=cert) as running:
        told: list[dict] = []
        consumer = await subscribed(running, wss(running), told, tls=ClientTls(ca=authority.file))
        authority.sign(valid=PAST)
        await running.detector.reload()
        with capture_logs() as logs:
            camera = make_camera(wss(running), tls_ca=authority.file)
            streaming = asyncio.ensure_future(camera.run())
            await until(lambda: sum(entry["event"] == "no detector" for entry in logs) >= 3)
            authority.sign()
            await running.detector.reload()
            await asyncio.wait_for(streaming, LIVENESS_S)
        reasons = {entry["reason"] for entry in logs if entry["event"] == "no detector"}
        assert reasons == {
            f"the certificate of {HOST} has expired: renew it there, or set this machine's clock"
        }
        assert camera.statistics.frame_counts.detected == FRAMES
        await until(lambda: len(told) == FRAMES)
    assert await consumer == CloseCode.GOING_AWAY


async def test_who_must_show_a_certificate_and_shows_none_is_refused_and_counted(
    start_detector, make_camera, authority
):
    client = authority.sign("camera@splitcast.example", file="client.pem")
    async with start_detector(tls_cert=authority.sign(), tls_client_ca=authority.file) as running:
        with capture_logs() as logs, pytest.raises(TlsFailed, match="give --tls-cert and --tls-key"):
            async with connect(
                f"{wss(running)}/v1/features", FEATURES_PROTOCOL, tls=ClientTls(ca=authority.file)
            ):
                pass
        assert refused(running, "tls_failed") >= 1
        [(reason, peer)] = {
            (entry["reason"], entry["peer"]) for entry in logs if entry["event"] == "TLS handshake failed"
        }
        assert reason.startswith("the client shows no certificate")
        assert peer == "127.0.0.1"
        camera = make_camera(wss(running), tls_ca=authority.file, tls_cert=client)
        await asyncio.wait_for(camera.run(), LIVENESS_S)
        assert camera.statistics.frame_counts.detected == FRAMES


async def test_half_a_handshake_holds_no_place_for_ever(start_detector, make_camera, authority):
    """Peers that say nothing, that stop within a hello of TLS, or after it, or that ask for nothing."""
    hello = client_hello()
    trusting = ssl.create_default_context(cafile=authority.file)
    server = {"tls_cert": authority.sign(), "hello_timeout_s": 0.5}
    async with start_detector(**server) as running, asyncio.timeout(LIVENESS_S):
        peers = [await asyncio.open_connection(HOST, running.port) for _ in range(4)]
        for (_, writer), said in zip(peers, (b"", hello[:20], hello[:-1], hello), strict=True):
            writer.write(said)
        peers.append(await asyncio.open_connection(HOST, running.port, ssl=trusting))
        assert len(running.detector.admission.listener.accepted) == len(peers)
        for reader, writer in peers:
            with suppress(ConnectionError):
                await reader.read()  # the answer to a whole hello, and the end
            writer.close()
        await until(lambda: not running.detector.admission.listener.accepted)
        assert await still_serves(running, make_camera, authority)


def client_hello() -> bytes:
    """The first message of a handshake, in its record (RFC 8446, 4.1.2)."""
    context, outgoing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_before_the_hello_nobody_makes_a_detector_hold_much_over_tls(
    start_detector, make_camera, authority
):
    async with start_detector(tls_cert=authority.sign()) as running:
        url, tls = f"{wss(running)}/v1/features", ClientTls(ca=authority.file)
        async with asyncio.timeout(LIVENESS_S), connect(url, FEATURES_PROTOCOL, tls=tls) as link:
            await link.send('{"type":"hello","x":[' + "{}," * 2_000_000 + "{}]}")
            assert (await closed(link)).code in {CloseCode.MESSAGE_TOO_LARGE, 1006}
        assert await still_serves(running, make_camera, authority)


async def test_a_stop_waits_for_no_peer_that_does_not_say_goodbye(start_detector, authority):
    """TLS ends with a word of both ends (RFC 8446, 6.1), for which asyncio waits half a minute."""
    trusting = ssl.create_default_context(cafile=authority.file)
    async with start_detector(tls_cert=authority.sign()) as running:
        reader, writer = await asyncio.open_connection(HOST, running.port, ssl=trusting)
        writer.write(f"GET /livez HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert b"200" in await reader.readline()
        writer.transport.pause_reading()
        running.detector.stop()
        await asyncio.wait_for(running.task, LIVENESS_S)
    writer.transport.abort()


async def test_a_peer_that_does_not_answer_the_end_holds_no_place(start_detector, authority, monkeypatch):
    monkeypatch.setattr(asyncio.constants, "SSL_SHUTDOWN_TIMEOUT", 3600.0)  # as far as asyncio has a say
    monkeypatch.setattr(certificates, "SHUTDOWN_S", 0.1)
    trusting = ssl.create_default_context(cafile=authority.file)
    async with start_detector(tls_cert=authority.sign()) as running, asyncio.timeout(LIVENESS_S):
        _, writer = await asyncio.open_connection(HOST, running.port, ssl=trusting)
        writer.write(f"GET /livez HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n".encode())
        await writer.drain()
        writer.transport.pause_reading()
        writer.write(b"\r\n")
        await until(lambda: not running.detector.admission.listener.accepted)
    writer.transport.abort()


async def test_whose_handshake_failed_is_told_of_each_of_many_at_once(start_detector, authority):
    hosts = {f"127.0.0.{number}" for number in range(2, 12)}
    async with start_detector(tls_cert=authority.sign()) as running:
        with capture_logs() as logs:
            opened = await asyncio.gather(
                *(asyncio.open_connection(HOST, running.port, local_addr=(host, 0)) for host in hosts)
            )
            for _, writer in opened:
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: refused(running, "tls_failed") == len(hosts))
            for _, writer in opened:
                writer.transport.abort()
    assert {line["peer"] for line in logs if line["event"] == "TLS handshake failed"} == hosts


async def test_when_its_certificate_ends_is_a_metric(start_detector, authority):
    name = "splitcast_detector_certificate_expires_timestamp_seconds"
    async with start_detector() as running:
        assert math.isnan(running.detector.statistics.metrics.registry.get_sample_value(name))
    cert = authority.sign(valid=(PAST[0], FUTURE[1]))
    async with start_detector(tls_cert=cert) as running:
        sample = running.detector.statistics.metrics.registry.get_sample_value
        assert sample(name) == FUTURE[1].replace(tzinfo=UTC).timestamp()
        authority.sign(valid=(PAST[0], FUTURE[0]))
        await running.detector.reload()
        assert sample(name) == FUTURE[0].replace(tzinfo=UTC).timestamp()
