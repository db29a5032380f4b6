"""Certificates: the detector's as a camera meets it, and a service's own as others will meet it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from services.certificates import client_tls
from services.doctor.finding import Finding, doubtful, fine, wrong
from services.doctor.peer import ANSWER_S
from services.listening import is_loopback
from services.settings import ClientSettings
from stream.errors import TlsFailed
from stream.transport.certificate import end_of_first
from stream.transport.tls import ServerTls, client_failure, fingerprint, other_fingerprint
from stream.transport.websocket import client_context

FEW_DAYS = 21.0
_DAY_S = 86400.0
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - addresses to listen on, not to be asked by
_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED, _NOT_YET_VALID = 10, 9


async def look_at_detectors_certificate(detector: str, settings: ClientSettings) -> Finding:
    """The certificate that answers at a wss:// address, checked as the camera will. Raises TlsFailed, OSError."""
    parts, tls = urlsplit(detector), client_tls(settings)
    host, port = parts.hostname or "", parts.port or 443
    context = await client_context(detector, tls)
    assert isinstance(context, ssl.SSLContext)
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except TimeoutError:
        raise TlsFailed(f"no handshake within {ANSWER_S:g} s", answered=False) from None
    except ssl.SSLError as error:
        raise TlsFailed(client_failure(error, host)) from None
    peer = writer.get_extra_info("ssl_object")
    der = peer.getpeercert(binary_form=True)
    version = peer.version()
    writer.transport.abort()
    digest = fingerprint(der)
    if tls.fingerprint and digest != tls.fingerprint:
        raise TlsFailed(other_fingerprint(bytes.fromhex(digest), host))
    ends_s = _end(der)
    known = (
        "pinned"
        if tls.fingerprint
        else "signed by who --tls-ca names"
        if tls.ca
        else "signed by who is trusted"
    )
    checked = "" if tls.fingerprint and not tls.ca else f", for {host}"
    facts = {"fingerprint": digest, "days_left": _days(ends_s), "tls": version}
    if tls.fingerprint and not tls.ca and ends_s < time.time():
        return fine(f"{host}: {known}; it has ended, which does not matter to who pins it", **facts)
    return _judge_end(f"{host}: {known}{checked}, {version}", ends_s, "renew it at the detector", facts)


def look_at_own_certificate(tls: ServerTls, host: str) -> Finding:
    """A server's own certificate, by which others will know it at `host`. Raises BadCertificate. For a thread."""
    context = tls.context()
    context.verify_mode = ssl.CERT_NONE  # of clients, which are not asked here
    der, refusal = _shown(context, _trusting(tls.cert), None)
    if refusal and refusal.verify_code in (_EXPIRED, _NOT_YET_VALID):
        when = "has ended" if refusal.verify_code == _EXPIRED else "is not valid yet"
        return wrong(f"{tls.cert} {when}: no client takes it", "renew it; or set this machine's clock")
    if refusal or der is None:
        why = refusal.verify_message if refusal else "it shows none"
        return wrong(f"{tls.cert}: clients cannot use it ({why})", "have one made for a server (docs/tls.md)")
    digest, ends_s = fingerprint(der), _end(der)
    names = _own_names(host)
    matching = [name for name in names if _is_for(context, tls.cert, name)]
    trusted = _is_trusted(context, matching)
    facts = {"fingerprint": digest, "days_left": _days(ends_s), "matches": matching, "trusted_here": trusted}
    known = (
        "this machine trusts who signed it"
        if trusted
        else f"clients need --tls-ca or --tls-fingerprint {digest}"
    )
    measured = f"{tls.cert}: for {', '.join(matching) or 'other names'}; {known}"
    if not matching:
        return doubtful(
            f"{tls.cert} is for none of the names of this machine ({', '.join(names)})",
            f"have clients ask by a name that it has, or pin --tls-fingerprint {digest}",
            **facts,
        )
    return _judge_end(measured, ends_s, "renew it", facts)


def look_at_shown_certificate(cert: Path) -> Finding:
    """The certificate that a client shows, which was loaded before. For a thread."""
    ends_s = end_of_first(cert.read_bytes())
    facts: dict[str, object] = {"days_left": _days(ends_s)}
    if ends_s < time.time():
        return wrong(f"{cert} has ended: the detector will not take it", "have a new one signed", **facts)
    return _judge_end(f"{cert}", ends_s, "have a new one signed", facts)


def _judge_end(measured: str, ends_s: float, advice: str, facts: dict[str, object]) -> Finding:
    left = f"{measured}; {_days(ends_s):.0f} days left"
    return fine(left, **facts) if _days(ends_s) >= FEW_DAYS else doubtful(left, advice, **facts)


def _end(der: bytes) -> float:
    """When a certificate ends, as Unix time. Raises TlsFailed: a pinned one may be anything."""
    try:
        return end_of_first(ssl.DER_cert_to_PEM_cert(der).encode())
    except (ValueError, IndexError):
        raise TlsFailed("the certificate does not say when it ends in a form that is known here") from None


def _days(ends_s: float) -> float:
    return round((ends_s - time.time()) / _DAY_S, 1)


def _own_names(host: str) -> list[str]:
    """By which clients may ask for this machine."""
    own = [] if host in _WILDCARDS else [host.strip("[]")]
    others = ["localhost"] if is_loopback(host) else [socket.gethostname(), socket.getfqdn()]
    return list(dict.fromkeys([*own, *others]))


def _trusting(file: Path) -> ssl.SSLContext:
    """A client that takes the certificate in the file for what it says, and looks at no name."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever signed it
    client.load_verify_locations(file)
    return client


def _is_for(server: ssl.SSLContext, file: Path, name: str) -> bool:
    client = _trusting(file)
    client.check_hostname = True
    _, refusal = _shown(server, client, name)
    return refusal is None


def _is_trusted(server: ssl.SSLContext, names: list[str]) -> bool:
    """Whether a client on this machine takes it without being told of who signed it."""
    _, refusal = _shown(server, ssl.create_default_context(), names[0] if names else "localhost")
    return refusal is None or refusal.verify_code in _MISMATCH


def _shown(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[bytes | None, ssl.SSLCertVerificationError | None]:
    """The certificate in DER that a client is shown in a handshake within this process, and why it refuses it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):  # TLS 1.3 takes two rounds, TLS 1.2 three
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return None, error
    return ends[0].getpeercert(binary_form=True), None
