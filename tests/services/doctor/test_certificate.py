"""Certificates that clients take, and others."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta

import pytest

from services.doctor.certificate import (
    look_at_detectors_certificate,
    look_at_own_certificate,
    look_at_shown_certificate,
)
from services.doctor.settings import DoctorCameraSettings
from stream.errors import BadCertificate, TlsFailed
from stream.transport.tls import ServerTls, fingerprint
from tests.certificates import FUTURE, HOST, PAST, Authority, der


def ending(days: float) -> tuple[datetime, datetime]:
    """Of a certificate that ends after so many days."""
    return datetime(2020, 1, 1), datetime.now() + timedelta(days=days)  # noqa: DTZ001, DTZ005 - as trustme takes them


SOON = ending(3)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def served():
    """Serves TLS with a certificate, and returns the address."""
    import asyncio

    servers = []

    async def hang_up(_reader, writer):
        writer.close()

    async def serve(cert) -> str:
        server = await asyncio.start_server(hang_up, HOST, 0, ssl=ServerTls(cert).context())
        servers.append(server)
        return f"wss://{HOST}:{server.sockets[0].getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()


async def look(url: str, **settings):
    config = DoctorCameraSettings.load({"source": "demo", "detector": url, **settings})
    return await look_at_detectors_certificate(url, config)


async def test_a_good_one(authority, served):
    cert = authority.sign()
    finding = await look(await served(cert), tls_ca=str(authority.file))
    assert finding.level == "ok"
    assert finding.facts["days_left"] > 21
    assert finding.facts["fingerprint"] == fingerprint(der(cert))


async def test_one_that_ends_soon(authority, served):
    finding = await look(await served(authority.sign(valid=SOON)), tls_ca=str(authority.file))
    assert (finding.level, finding.advice) == ("warning", "renew it at the detector")
    assert 2 <= finding.facts["days_left"] <= 4


@pytest.mark.parametrize(
    ("names", "valid", "words"),
    [
        ((), PAST, "has expired"),
        ((), FUTURE, "is not valid yet"),
        (("elsewhere.example",), None, "is for other names"),
    ],
)
async def test_what_a_camera_would_not_take(authority, served, names, valid, words):
    url = await served(authority.sign(*names, valid=valid))
    with pytest.raises(TlsFailed, match=words):
        await look(url, tls_ca=str(authority.file))


async def test_one_that_nobody_trusted_has_signed(authority, served):
    with pytest.raises(TlsFailed, match="signed by nobody trusted here"):
        await look(await served(authority.sign()))


async def test_a_pinned_one(authority, served):
    cert = authority.sign("elsewhere.example", valid=PAST)
    url = await served(cert)
    finding = await look(url, tls_fingerprint=fingerprint(der(cert)))
    assert finding.level == "ok"
    with pytest.raises(TlsFailed, match="is not the pinned one"):
        await look(url, tls_fingerprint="ab" * 32)


def test_a_servers_own(authority):
    finding = look_at_own_certificate(ServerTls(authority.sign()), HOST)
    assert finding.level == "ok"
    assert (finding.facts["matches"], finding.facts["trusted_here"]) == ([HOST], False)
    both = authority.sign(HOST, "localhost", file="both.pem")
    assert look_at_own_certificate(ServerTls(both), HOST).facts["matches"] == [HOST, "localhost"]
    assert f"--tls-fingerprint {finding.facts['fingerprint']}" in finding.measured


def test_a_servers_own_that_wants_clients_certificates(authority):
    tls = ServerTls(authority.sign(), client_ca=authority.file)
    assert look_at_own_certificate(tls, HOST).level == "ok"


def test_a_servers_own_for_every_address(authority):
    tls = ServerTls(authority.sign(socket.gethostname(), file="named.pem"))
    assert look_at_own_certificate(tls, "0.0.0.0").level == "ok"


@pytest.mark.parametrize(
    ("names", "valid", "level", "words"),
    [
        ((), PAST, "error", "has ended"),
        ((), FUTURE, "error", "is not valid yet"),
        ((), SOON, "warning", "days left"),
        (("elsewhere.example",), None, "warning", "none of the names of this machine"),
    ],
)
def test_a_servers_own_that_clients_would_not_take(authority, names, valid, level, words):
    finding = look_at_own_certificate(ServerTls(authority.sign(*names, valid=valid)), HOST)
    assert finding.level == level
    assert words in finding.measured
    assert finding.advice


def test_a_servers_own_that_is_none(tmp_path):
    (tmp_path / "none.pem").write_text("none")
    with pytest.raises(BadCertificate):
        look_at_own_certificate(ServerTls(tmp_path / "none.pem"), HOST)


def test_a_servers_own_that_this_machine_trusts(authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    finding = look_at_own_certificate(ServerTls(authority.sign()), HOST)
    assert finding.facts["trusted_here"]
    assert "--tls-ca" not in finding.measured


@pytest.mark.parametrize(
    ("valid", "level"),
    [(None, "ok"), (ending(23), "ok"), (ending(19), "warning"), (SOON, "warning"), (PAST, "error")],
)
def test_one_that_a_client_shows(authority, valid, level):
    assert look_at_shown_certificate(authority.sign(valid=valid)).level == level
