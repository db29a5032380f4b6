"""TLS of both ends: who they are, by files that may be renewed while they run, and what a failed handshake means.

The files are PEM (RFC 7468). A certificate's fingerprint is the SHA-256 of its DER form, in hexadecimal digits.
Reading them blocks for some milliseconds: that is for worker threads.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self, TypeAlias

from stream.errors import BadCertificate
from stream.transport.certificate import end_of_first

ACCEPTED_FROM: ContextVar[str] = ContextVar("accepted_from", default="")
"""Whose connection was accepted: asyncio serves each in a copy of the context that it accepted it in."""

OnFailure: TypeAlias = Callable[[str, str], None]
"""Called with what went wrong in a handshake, and the peer's address."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client knows its server, and shows itself."""

    ca: Path | None = None  # certificates of those who may sign the server's; None: whom this machine trusts
    fingerprint: str | None = (
        None  # of the server's own certificate; without `ca` it alone counts, and no name
    )
    cert: Path | None = None  # of this client, if the server wants to see one
    key: Path | None = None  # None: in the file of the certificate
    flags: str = "--tls-"  # how the names of the settings begin that name these files

    def context(self) -> ssl.SSLContext:
        """What a connection is made with, from the files as they are now. Raises BadCertificate."""
        if self.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            _trust(context, f"{self.flags}ca", self.ca)
        elif self.fingerprint is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context()
        if self.cert is not None:
            _show(context, f"{self.flags}cert", self.cert, self.key)
        return context

    @property
    def pinned(self) -> bytes | None:
        """The fingerprint's bytes, 32."""
        return bytes.fromhex(self.fingerprint) if self.fingerprint else None


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Who a server is, and whom it lets in."""

    cert: Path  # with those between it and the one that clients trust
    key: Path | None = None  # None: in the file of the certificate
    client_ca: Path | None = None  # certificates of those who sign clients'; None: clients need none
    flags: str = "--tls-"  # how the names of the settings begin that name these files

    def context(self) -> ssl.SSLContext:
        """What a connection is accepted with, from the files as they are now. Raises BadCertificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        _show(context, f"{self.flags}cert", self.cert, self.key)
        if self.client_ca is not None:
            _trust(context, f"{self.flags}client-ca", self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def state(self) -> tuple[tuple[int, ...] | None, ...]:
        """What changes when one of the files does; None stands for one that is not there."""
        return tuple(_file_state(file) for file in (self.cert, self.key, self.client_ca) if file is not None)


class RenewedContext(ssl.SSLContext):
    """A server's context that is made anew when its files change: connections keep the one that they began with.

    asyncio asks the context that it was given for a TLS object at every connection, and gets that of the newest one.
    `on_failure` is called on the event loop.
    """

    def __new__(cls, _tls: ServerTls, _on_failure: OnFailure) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, tls: ServerTls, on_failure: OnFailure) -> None:
        """Raises BadCertificate."""
        self._tls, self._on_failure = tls, on_failure
        self._state = tls.state()
        self._newest = tls.context()
        self._newest.sslobject_class = _ServerObject
        self.ends_s = _end(tls.cert)
        """When the certificate that counts ends, as Unix time."""

    def renew(self) -> bool:
        """Whether the files have changed, and count from now on. Raises BadCertificate, and keeps what it had."""
        state = self._tls.state()
        if state == self._state:
            return False
        self._state = state  # what cannot be used is told once, and tried again when it has changed
        newest = self._tls.context()
        newest.sslobject_class = _ServerObject
        self._newest, self.ends_s = newest, _end(self._tls.cert)
        return True

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **options: Any
    ) -> ssl.SSLObject:
        server = self._newest.wrap_bio(incoming, outgoing, *arguments, **options)
        assert isinstance(server, _ServerObject)
        server.outgoing, server.on_failure, server.peer = outgoing, self._on_failure, ACCEPTED_FROM.get()
        return server


class _ServerObject(ssl.SSLObject):
    """A connection's TLS, which tells why a handshake failed: this server, and the client.

    asyncio drops a connection whose handshake fails, with the alert (RFC 8446, 6) that would tell the client why. So it
    hears that more has to come, and sends what there is; then the client leaves, or is shut down as one that says
    nothing.
    """

    outgoing: ssl.MemoryBIO
    on_failure: OnFailure
    peer: str
    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:  # the client goes on all the same
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            self.on_failure(server_failure(error), self.peer)
            if not self.outgoing.pending:
                raise
            raise ssl.SSLWantReadError from None


def server_failure(error: ssl.SSLError) -> str:
    """Why a server's handshake failed, for whoever reads its log."""
    reason = error.reason or ""
    if reason == "HTTP_REQUEST":
        return "plain HTTP, and this port takes TLS alone: the address has to begin with wss:// or https://"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the client shows no certificate, and has to: see --tls-cert of cameras and watch"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    if "ALERT" in reason:
        return f"the client does not accept this server: {_words(reason.partition('ALERT_')[2])}"
    return f"no TLS: {_words(reason) or 'unknown reason'}"


# --- what a client meets ---

# X509_V_ERR_* of OpenSSL, in verify_code.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64
_WANTS_CERTIFICATE = ("ALERT_CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_HANDSHAKE_FAILURE")
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")


def client_failure(error: ssl.SSLError, host: str) -> str:
    """Why TLS with `host` failed, and what to do about it."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, host)
    if any(part in reason for part in _NO_TLS):
        return f"{host} does not speak TLS there: write ws:// for wss://, or start the server with --tls-cert"
    if any(part in reason for part in _WANTS_CERTIFICATE):
        return f"{host} wants to see a client certificate: give --tls-cert and --tls-key"
    if "ALERT" in reason:
        return (
            f"{host} does not accept this client's certificate ({_words(reason.partition('ALERT_')[2])}): "
            "give --tls-cert one that its --tls-client-ca has signed"
        )
    return f"TLS with {host} failed: {_words(reason) or error.strerror or type(error).__name__}"


def other_fingerprint(got: bytes, host: str) -> str:
    """What to do about a certificate that has this fingerprint and not the pinned one."""
    return (
        f"the certificate of {host} is not the pinned one: its fingerprint is {got.hex()}; if it was "
        "renewed, and that is what its owner tells you, give it as --tls-fingerprint"
    )


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER, as hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    of_host = f"the certificate of {host}"
    if error.verify_code == _EXPIRED:
        return f"{of_host} has expired: renew it there, or set this machine's clock"
    if error.verify_code == _NOT_YET_VALID:
        return f"{of_host} is not valid yet: set this machine's clock, or wait"
    if error.verify_code in (_WRONG_NAME, _WRONG_ADDRESS):
        return (
            f"{of_host} is for other names: connect by one that it has, have one made for {host}, or pin it "
            "with --tls-fingerprint"
        )
    return (
        f"{of_host} is signed by nobody trusted here ({error.verify_message}): give the file of who signed it "
        "as --tls-ca, or pin it with --tls-fingerprint"
    )


# --- files ---


def _show(context: ssl.SSLContext, flag: str, cert: Path, key: Path | None) -> None:
    """Load a certificate and its key. Raises BadCertificate."""
    try:
        _readable(flag, cert)
        key_flag = flag.removesuffix("cert") + "key"
        if key is not None:
            _readable(key_flag, key)
        context.load_cert_chain(cert, key, password=partial(_refuse_passphrase, key_flag, key or cert))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(
                f"{flag}: {cert} is not the certificate of the key in {key or cert}"
            ) from None
        what = f"{cert} and {key}" if key else f"{cert}"
        raise BadCertificate(
            f"{flag}: no certificate and key in {what}: PEM files are needed, with BEGIN CERTIFICATE and "
            "BEGIN PRIVATE KEY"
        ) from None


def _end(cert: Path) -> float:
    """When the certificate in a file ends that was loaded before. Raises BadCertificate where it is another by now."""
    try:
        return end_of_first(cert.read_bytes())
    except (OSError, ValueError, IndexError):
        raise BadCertificate(f"{cert} is being written: try again") from None


def _trust(context: ssl.SSLContext, flag: str, file: Path) -> None:
    """Load certificates of who may sign others. Raises BadCertificate."""
    try:
        _readable(flag, file)
        context.load_verify_locations(file)
    except ssl.SSLError:
        raise BadCertificate(
            f"{flag}: no certificate in {file}: a PEM file is needed, with BEGIN CERTIFICATE"
        ) from None


def _readable(flag: str, file: Path) -> None:
    """Raises BadCertificate where the file cannot be read: OpenSSL would not say which one."""
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise BadCertificate(f"{flag}: cannot read {file}: {error.strerror}") from None


def _refuse_passphrase(flag: str, file: Path) -> NoReturn:
    """OpenSSL would ask the terminal."""
    raise BadCertificate(
        f"{flag}: the key in {file} is encrypted: give one without a passphrase (openssl pkey)"
    )


def _file_state(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()
