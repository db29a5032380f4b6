"""Why a broker is not there, for whoever reads it, and what that says of the next attempt."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from services.errors import SettingsError
from services.mqtt.broker import BrokerAddress
from services.mqtt.client import HungUp, Unwanted
from stream.errors import BadCertificate
from stream.tasks.backoff import Failure

# Reason codes of MQTT 5, section 2.4.
_WRONG_PROTOCOL, _BAD_LOGIN, _NOT_AUTHORIZED, _UNAVAILABLE, _BUSY = 132, 134, 135, 136, 137
_UNSPECIFIED, _STOPPING, _TAKEN_OVER = 128, 139, 142
_LOGIN = "the address names the user, as USER@HOST, and --mqtt-password-file the password"
_DENIED = {
    _BAD_LOGIN: f"user or password is wrong: {_LOGIN}",
    _NOT_AUTHORIZED: f"the broker does not let this client in: user or password is wrong, or missing: {_LOGIN}",
    _TAKEN_OVER: "another client has the same name: give each its own --mqtt-id",
}
_PASSING = {_UNAVAILABLE: "it is not available", _BUSY: "it is busy", _STOPPING: "it stops"}


def explain(error: Exception, address: BrokerAddress) -> tuple[Failure, str]:
    """What a failed attempt, or a broken connection, says of the broker."""
    for cause in _causes(error):
        match cause:
            case SettingsError() | BadCertificate():
                return Failure.REFUSED, str(cause)
            case ssl.SSLError():
                return Failure.REFUSED, _tls_reason(cause, address.host)
            case aiomqtt.MqttCodeError():
                return _of_code(cause)
            case Unwanted():
                return Failure.REFUSED, str(cause)
            case HungUp() if address.tls:
                return (
                    Failure.REFUSED,
                    f"{cause}: so does one that does not take the client's certificate, or wants one (--mqtt-cert; "
                    "watch: --tls-cert)",
                )
            case HungUp():
                return (
                    Failure.NOT_READY,
                    f"{cause}: so does one that stops, and a port that takes TLS alone (mqtts://)",
                )
            case ConnectionError():
                return Failure.NOT_READY, cause.strerror or str(cause)
            case socket.gaierror():
                return Failure.UNREACHABLE, f"{address.host} is not known: {cause.strerror}"
            case OSError():
                return Failure.UNREACHABLE, cause.strerror or str(cause) or "no answer"
    if isinstance(error, aiomqtt.MqttError):
        return Failure.UNREACHABLE, "it does not answer"
    return Failure.REFUSED, f"{type(error).__name__}: {error}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what is behind it: aiomqtt tells no more than words of what it caught."""
    seen = 0
    while error is not None and seen < 8:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _of_code(error: aiomqtt.MqttCodeError) -> tuple[Failure, str]:
    code = error.rc.value if isinstance(error.rc, ReasonCode) else None
    if code in _DENIED:
        return Failure.DENIED, _DENIED[code]
    if code in _PASSING:
        return Failure.NOT_READY, _PASSING[code]
    if code == _WRONG_PROTOCOL:
        return Failure.REFUSED, "it does not speak MQTT 5, as mosquitto does from 1.6 on"
    if isinstance(error, aiomqtt.exceptions.MqttConnectError):
        return Failure.REFUSED, f"it refuses this client: {error.rc}"
    # paho has numbers of its own for what the broker has said nothing of.
    said = f" ({error.rc})" if isinstance(error.rc, ReasonCode) and code != _UNSPECIFIED else ""
    return Failure.NOT_READY, f"the connection broke{said}"


def _tls_reason(error: ssl.SSLError, host: str) -> str:
    said = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
    words = said.replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {host} is not accepted ({words}): give the file of who signed it as --mqtt-ca "
            "(watch: --tls-ca), and connect by a name that it has"
        )
    return f"TLS with {host} failed ({words.lower()}): is it a port for TLS? mqtt:// is for one without"
