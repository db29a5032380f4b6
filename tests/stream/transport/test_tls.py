from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from unittest import mock

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from stream.errors import BadCertificate, ConnectionLost, TlsFailed
from stream.transport import tls as tls_module
from stream.transport.tls import (
    ClientTls,
    RenewedContext,
    ServerTls,
    client_failure,
    fingerprint,
    server_failure,
)
from stream.transport.websocket import Link, ServerWebSocket, WireBytes, connect
from tests.certificates import FUTURE, HOST, PAST, Authority, der
from tests.services.waiting import LIVENESS_S, until

PROTOCOL = "splitcast.test"


@pytest.fixture
def ours(tmp_path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def others(tmp_path) -> Authority:
    return Authority(tmp_path / "others")


@asynccontextmanager
async def serving(context: RenewedContext | None, routes=()):
    """Port of a server that sends back what it gets; over TLS if there is a context."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = ServerWebSocket(PROTOCOL, 2**20)
        await ws.prepare(request)
        link = Link(ws, WireBytes())
        try:
            async for message in link:
                await link.send(message)
        except ConnectionLost:
            pass
        return ws

    application = web.Application()
    application.router.add_get("/", handle)
    for path, handler in routes:
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def answered(port: int, tls: ClientTls | None, scheme: str = "wss", host: str = HOST) -> bool:
    """Whether the server there is a good one. Raises ConnectionLost where it is not."""
    async with asyncio.timeout(LIVENESS_S), connect(f"{scheme}://{host}:{port}/", PROTOCOL, tls=tls) as link:
        await link.send("?")
        return await link.receive() == "?"


async def failure(server: ServerTls | None, tls: ClientTls | None, **how) -> tuple[str, list[str]]:
    """What the client is told, and what the server."""
    told: list[str] = []
    async with serving(
        RenewedContext(server, lambda reason, peer: told.append(reason)) if server else None
    ) as port:
        with pytest.raises(TlsFailed) as failed:
            await answered(port, tls, **how)
    assert failed.value.answered
    return failed.value.reason, told


# --- whom a client trusts ---


async def test_a_certificate_of_a_trusted_authority_is_good(ours):
    told: list[str] = []
    async with serving(
        RenewedContext(ServerTls(ours.sign()), lambda reason, peer: told.append(reason))
    ) as port:
        assert await answered(port, ClientTls(ca=ours.file))
    assert told == []


async def test_refuses_an_expired_certificate(ours):
    reason, _ = await failure(ServerTls(ours.sign(valid=PAST)), ClientTls(ca=ours.file))
    assert reason == f"the certificate of {HOST} has expired: renew it there, or set this machine's clock"


async def test_refuses_a_certificate_that_is_not_valid_yet(ours):
    reason, _ = await failure(ServerTls(ours.sign(valid=FUTURE)), ClientTls(ca=ours.file))
    assert reason == f"the certificate of {HOST} is not valid yet: set this machine's clock, or wait"


async def test_refuses_a_certificate_for_another_name(ours):
    server, client = ServerTls(ours.sign("elsewhere.example")), ClientTls(ca=ours.file)
    for host in (HOST, "localhost"):
        reason, _ = await failure(server, client, host=host)
        assert reason.startswith(f"the certificate of {host} is for other names: connect by one that it has")


async def test_refuses_a_certificate_of_another_authority(ours, others):
    for client in (ClientTls(ca=others.file), ClientTls(), None):
        reason, _ = await failure(ServerTls(ours.sign()), client)
        assert "give the file of who signed it as --tls-ca, or pin it with --tls-fingerprint" in reason


async def test_a_pinned_certificate_needs_no_authority_and_no_name(ours):
    cert = ours.sign("elsewhere.example", valid=PAST)
    async with serving(RenewedContext(ServerTls(cert), lambda *_: None)) as port:
        assert await answered(port, ClientTls(fingerprint=fingerprint(der(cert))))


async def test_refuses_a_certificate_that_is_not_the_pinned_one(ours):
    cert, other = ours.sign(), ours.sign(file="other.pem")
    reason, _ = await failure(ServerTls(cert), ClientTls(ca=ours.file, fingerprint=fingerprint(der(other))))
    assert fingerprint(der(cert)) in reason
    assert "give it as --tls-fingerprint" in reason


async def test_a_pinned_certificate_may_need_an_authority_too(ours, others):
    cert = ours.sign()
    reason, _ = await failure(ServerTls(cert), ClientTls(ca=others.file, fingerprint=fingerprint(der(cert))))
    assert "signed by nobody trusted here" in reason


# --- whom a server lets in ---


async def test_a_client_shows_its_certificate(ours):
    server = ServerTls(ours.sign(), client_ca=ours.file)
    client = ours.sign("camera@splitcast.example", file="client.pem")
    pinned = fingerprint(der(server.cert))
    async with serving(RenewedContext(server, lambda *_: None)) as port:
        assert await answered(port, ClientTls(ca=ours.file, cert=client))
        assert await answered(port, ClientTls(fingerprint=pinned, cert=client))


async def test_refuses_a_client_without_a_certificate(ours):
    reason, told = await failure(ServerTls(ours.sign(), client_ca=ours.file), ClientTls(ca=ours.file))
    assert reason == f"{HOST} wants to see a client certificate: give --tls-cert and --tls-key"
    assert told[0].startswith("the client shows no certificate")


async def test_refuses_a_client_whose_certificate_another_authority_signed(ours, others):
    client = others.sign("camera@splitcast.example", file="client.pem")
    reason, told = await failure(
        ServerTls(ours.sign(), client_ca=ours.file), ClientTls(ca=ours.file, cert=client)
    )
    assert "give --tls-cert one that its --tls-client-ca has signed" in reason
    assert told[0].startswith("the client's certificate is not accepted: ")


def test_a_server_trusts_no_authority_but_that_of_clients(ours, others):
    [trusted] = ServerTls(ours.sign(), client_ca=others.file).context().get_ca_certs(binary_form=True)
    assert trusted == der(others.file)


def test_neither_end_speaks_less_than_tls_1_2(ours):
    clients = [ClientTls(), ClientTls(ca=ours.file), ClientTls(fingerprint="ab" * 32)]
    for tls in (ServerTls(ours.sign()), *clients):
        assert tls.context().minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_a_server_is_told_why_a_client_does_not_accept_it(ours):
    """asyncio's clients leave without a word; others say why."""

    def refuse(port: int) -> None:
        distrusting = ssl.create_default_context()
        with (
            socket.create_connection((HOST, port), LIVENESS_S) as connection,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            distrusting.wrap_socket(connection, server_hostname=HOST)

    told: list[str] = []
    async with serving(
        RenewedContext(ServerTls(ours.sign()), lambda reason, peer: told.append(reason))
    ) as port:
        await asyncio.to_thread(refuse, port)
        await until(lambda: told)
    assert told == ["the client does not accept this server: unknown ca"]


# --- TLS where there is none, and none where there is ---


async def test_a_plain_client_is_told_of_tls(ours):
    told: list[str] = []
    async with serving(
        RenewedContext(ServerTls(ours.sign()), lambda reason, peer: told.append(reason))
    ) as port:
        with pytest.raises(ConnectionLost, match="write wss:// for ws://"):
            await answered(port, None, scheme="ws")
    assert told[0].startswith("plain HTTP, and this port takes TLS alone")


async def test_a_client_of_tls_is_told_of_a_plain_server(ours):
    reason, _ = await failure(None, ClientTls(ca=ours.file))
    assert reason == (
        f"{HOST} does not speak TLS there: write ws:// for wss://, or start the server with --tls-cert"
    )


async def test_what_is_no_tls_is_told(ours):
    told: list[str] = []
    async with (
        serving(RenewedContext(ServerTls(ours.sign()), lambda reason, peer: told.append(reason))) as port,
        asyncio.timeout(LIVENESS_S),
    ):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(bytes(100))
        await reader.read()
        writer.close()
    assert told == ["no TLS: wrong version number"]


async def test_a_client_that_goes_on_after_an_alert_is_told_once_and_left(ours):
    unwanted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unwanted.maximum_version = ssl.TLSVersion.TLSv1_2
    unwanted.set_ciphers("AES128-SHA")  # is for RSA
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        unwanted.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=HOST).do_handshake()
    told: list[str] = []
    async with (
        serving(RenewedContext(ServerTls(ours.sign()), lambda reason, peer: told.append(reason))) as port,
        asyncio.timeout(LIVENESS_S),
    ):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(hello.read())
        assert await reader.readexactly(7) == b"\x15\3\3\0\2\2\x28"  # handshake_failure, fatal (RFC 8446, 6)
        writer.write(bytes(100))
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert told == ["no TLS: no shared cipher"]


async def test_nobody_there_is_told_in_the_same_words_each_time(ours):
    """So that the log can count them."""
    async with serving(None) as port:
        pass
    told = set()
    for _ in range(2):
        with pytest.raises(ConnectionLost) as lost:
            await answered(port, ClientTls(ca=ours.file))
        told.add(lost.value.reason)
    assert told == {f"cannot connect to {HOST}:{port}: Connect call failed ('{HOST}', {port})"}


async def test_a_server_that_leaves_in_the_handshake_is_lost(ours):
    """As one without a file left for the connection, or a proxy before a server that is away."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionLost, match=f"^cannot connect to {HOST}:{port}: ") as lost:
            await answered(port, ClientTls(ca=ours.file))
    assert lost.value.answered
    assert not isinstance(lost.value, TlsFailed)


def fault(reason: str | None, *arguments: object) -> ssl.SSLError:
    """OpenSSL's error of that reason."""
    error = ssl.SSLError(*arguments)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        # What OpenSSL's versions, and servers of other protocols, make of the same.
        *(
            (fault(reason), "nas does not speak TLS there: write ws://")
            for reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
        ),
        *(
            (fault(reason), "nas wants to see a client certificate")
            for reason in (
                "TLSV13_ALERT_CERTIFICATE_REQUIRED",
                "SSLV3_ALERT_BAD_CERTIFICATE",
                "SSLV3_ALERT_HANDSHAKE_FAILURE",
            )
        ),
        (fault("TLSV1_ALERT_UNKNOWN_CA"), "nas does not accept this client's certificate (unknown ca): "),
        (fault("NO_PROTOCOLS_AVAILABLE", 1, "[SSL]"), "TLS with nas failed: no protocols available"),
        (fault(None, 1, "the handshake broke off"), "TLS with nas failed: the handshake broke off"),
        (fault(None), "TLS with nas failed: SSLError"),
    ],
)
def test_a_client_says_what_is_to_be_done(error, words):
    assert client_failure(error, "nas").startswith(words)


def test_a_server_says_that_there_is_no_reason():
    assert server_failure(fault(None)) == "no TLS: unknown reason"


# --- files that are renewed ---


async def test_a_renewed_certificate_counts_from_the_next_connection_on(ours):
    cert = ours.sign()
    before = ClientTls(fingerprint=fingerprint(der(cert)))
    context = RenewedContext(ServerTls(cert), lambda *_: None)
    async with serving(context) as port:
        async with connect(f"wss://{HOST}:{port}/", PROTOCOL, tls=before) as link:
            assert not context.renew()
            ours.sign(valid=(PAST[0], FUTURE[1]))
            assert context.renew()
            assert context.ends_s == FUTURE[1].replace(tzinfo=UTC).timestamp()
            assert not context.renew()
            await link.send("still here")
            assert await link.receive() == "still here"
        assert await answered(port, ClientTls(ca=ours.file, fingerprint=fingerprint(der(cert))))
        with pytest.raises(TlsFailed, match="not the pinned one"):
            await answered(port, before)


def test_each_of_its_files_may_be_renewed_by_itself(tmp_path):
    """A key may come after its certificate."""
    files = [tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem")]
    for file in files:
        file.write_text("old")
    tls = ServerTls(*files)
    for file in files:
        before = tls.state()
        file.write_text("renewed")
        assert tls.state() != before


def test_any_change_of_a_file_counts(tmp_path):
    """Its size, its time, and which file it is: copies keep the former, edits the latter."""
    file, copy = tmp_path / "cert.pem", tmp_path / "copy.pem"
    file.write_text("old")
    copy.write_text("new")
    tls, time_ns = ServerTls(file), file.stat().st_mtime_ns
    states = [tls.state()]
    os.utime(file, ns=(0, time_ns + 1))
    states.append(tls.state())
    file.write_text("longer")
    os.utime(file, ns=(0, time_ns + 1))
    states.append(tls.state())
    file.write_text("old")
    for each in (file, copy):
        os.utime(each, ns=(0, time_ns))
    assert tls.state() == states[0]
    copy.replace(file)
    states.append(tls.state())
    file.unlink()
    states.append(tls.state())
    assert len(set(states)) == 5


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("no certificate"), IndexError("cut short")])
def test_a_file_that_changes_while_it_is_read_is_told(ours, monkeypatch, error):
    cert = ours.sign()
    context = RenewedContext(ServerTls(cert), lambda *_: None)
    ends_s = context.ends_s
    monkeypatch.setattr(tls_module, "end_of_first", mock.Mock(side_effect=error))
    ours.sign(valid=(PAST[0], FUTURE[1]))
    with pytest.raises(BadCertificate, match=f"^{cert} is being written: try again"):
        context.renew()
    assert context.ends_s == ends_s


async def test_who_may_come_in_is_renewed_with_the_files(ours, others, tmp_path):
    """As Kubernetes does it: a folder is swapped behind a link."""
    link = tmp_path / "current"
    link.symlink_to(ours.folder)
    server = ServerTls(ours.sign(), client_ca=link / "ca.pem")
    client = ClientTls(ca=ours.file, cert=others.sign("camera@splitcast.example", file="client.pem"))
    context = RenewedContext(server, lambda *_: None)
    async with serving(context) as port:
        with pytest.raises(TlsFailed):
            await answered(port, client)
        swapped = tmp_path / "next"
        swapped.symlink_to(others.folder)
        swapped.replace(link)
        assert context.renew()
        assert await answered(port, client)


async def test_files_that_cannot_be_used_leave_those_before(ours, others):
    cert = ours.sign()
    good = cert.read_bytes()
    context = RenewedContext(ServerTls(cert), lambda *_: None)
    async with serving(context) as port:
        cert.write_text("half of a cert")
        with pytest.raises(BadCertificate, match="no certificate and key in"):
            context.renew()
        assert not context.renew()  # told once
        assert await answered(port, ClientTls(ca=ours.file))
        cert.unlink()
        with pytest.raises(BadCertificate, match="cannot read"):
            context.renew()
        cert.write_bytes(good)
        assert context.renew()


async def test_a_client_reads_its_files_at_every_connection(ours, others):
    async with serving(RenewedContext(ServerTls(ours.sign()), lambda *_: None)) as port:
        client = ClientTls(ca=others.file)
        with pytest.raises(TlsFailed):
            await answered(port, client)
        others.file.write_bytes(ours.file.read_bytes())
        assert await answered(port, client)
        others.file.unlink()  # no reason for a camera to give up
        with pytest.raises(TlsFailed, match="--tls-ca: cannot read"):
            await answered(port, client)


# --- files that cannot be used ---


def test_names_the_file_that_cannot_be_used(ours, others, tmp_path):
    cert, other = ours.sign(), others.sign()
    text, absent, folder = tmp_path / "text.pem", tmp_path / "absent.pem", tmp_path
    text.write_text("-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n")
    cases = [
        (ServerTls(absent), f"--tls-cert: cannot read {absent}: No such file or directory"),
        (ServerTls(folder), f"--tls-cert: cannot read {folder}: Is a directory"),
        (ServerTls(cert, absent), f"--tls-key: cannot read {absent}"),
        (ServerTls(cert, text), f"--tls-cert: no certificate and key in {cert} and {text}"),
        (ServerTls(ours.file), f"--tls-cert: no certificate and key in {ours.file}"),
        (ServerTls(cert, other), f"--tls-cert: {cert} is not the certificate of the key in {other}"),
        (ServerTls(cert, client_ca=text), f"--tls-client-ca: no certificate in {text}"),
        (ServerTls(absent, flags="--metrics-tls-"), "--metrics-tls-cert: "),
        (ClientTls(ca=absent), f"--tls-ca: cannot read {absent}"),
        (ClientTls(ca=text), f"--tls-ca: no certificate in {text}"),
        (ClientTls(cert=text), f"--tls-cert: no certificate and key in {text}"),
    ]
    for tls, words in cases:
        with pytest.raises(BadCertificate) as refused:
            tls.context()
        assert str(refused.value).startswith(words)


def test_asks_nobody_for_a_passphrase(ours, tmp_path):
    key = serialization.load_pem_private_key(ours.sign().read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    )
    with pytest.raises(BadCertificate, match=rf"--tls-key: .*{encrypted} .*without a passphrase"):
        ServerTls(ours.folder / "server.pem", encrypted).context()
    both = tmp_path / "both.pem"
    [certificate] = x509.load_pem_x509_certificates((ours.folder / "server.pem").read_bytes())[:1]
    both.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + encrypted.read_bytes())
    with pytest.raises(BadCertificate, match=rf"--tls-key: .*{both} .*without a passphrase"):
        ServerTls(both).context()


def test_a_fingerprint_is_the_sha256_of_the_certificate(ours):
    cert = x509.load_pem_x509_certificate(ours.file.read_bytes())
    assert fingerprint(der(ours.file)) == cert.fingerprint(hashes.SHA256()).hex()
