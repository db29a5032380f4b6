"""What is said of a broker that is not there, and how soon it is tried again."""

from __future__ import annotations

import socket
import ssl

import aiomqtt
import pytest
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from services.errors import SettingsError
from services.mqtt.broker import BrokerAddress
from services.mqtt.client import HungUp
from services.mqtt.failures import explain
from stream.errors import BadCertificate
from stream.redact import redact_url
from stream.tasks.backoff import Failure

ADDRESS = BrokerAddress("nas", 1883, tls=False)
OVER_TLS = BrokerAddress("nas", 8883, tls=True)


def refused(code: int) -> MqttConnectError:
    return MqttConnectError(ReasonCode(PacketTypes.CONNACK, identifier=code))


def broke(code: int) -> aiomqtt.MqttError:
    """As aiomqtt tells that a connection is over."""
    try:
        raise aiomqtt.MqttError("Disconnected during message iteration") from aiomqtt.MqttCodeError(
            ReasonCode(PacketTypes.DISCONNECT, identifier=code)
        )
    except aiomqtt.MqttError as error:
        return error


def wrapped(cause: Exception) -> aiomqtt.MqttError:
    """As aiomqtt tells what connecting failed with."""
    try:
        try:
            raise cause
        except Exception as caught:
            raise aiomqtt.MqttError(str(caught)) from None
    except aiomqtt.MqttError as error:
        return error


@pytest.mark.parametrize(
    ("error", "failure", "words"),
    [
        (refused(134), Failure.DENIED, "password is wrong"),
        (refused(135), Failure.DENIED, "as USER@HOST"),
        (refused(136), Failure.NOT_READY, "not available"),
        (refused(132), Failure.REFUSED, "MQTT 5"),
        (refused(133), Failure.REFUSED, "Client identifier not valid"),
        (broke(142), Failure.DENIED, "--mqtt-id"),
        (broke(139), Failure.NOT_READY, "stops"),
        (broke(128), Failure.NOT_READY, "the connection broke"),
        (broke(141), Failure.NOT_READY, "Keep alive timeout"),
        (wrapped(ConnectionRefusedError(111, "Connection refused")), Failure.NOT_READY, "Connection refused"),
        (wrapped(TimeoutError("timed out")), Failure.UNREACHABLE, "timed out"),
        (wrapped(OSError(113, "No route to host")), Failure.UNREACHABLE, "No route to host"),
        (wrapped(socket.gaierror(-2, "Name or service not known")), Failure.UNREACHABLE, "nas is not known"),
        (wrapped(ssl.SSLCertVerificationError("x")), Failure.REFUSED, "--mqtt-ca"),
        (wrapped(ssl.SSLError(1, "wrong version number")), Failure.REFUSED, "mqtt:// is for one without"),
        (HungUp("it hung up"), Failure.NOT_READY, "mqtts://"),
        (aiomqtt.MqttError("Operation timed out"), Failure.UNREACHABLE, "does not answer"),
        (SettingsError("--mqtt-password-file: absent"), Failure.REFUSED, "--mqtt-password-file"),
        (BadCertificate("--mqtt-ca: absent"), Failure.REFUSED, "--mqtt-ca"),
        (ValueError("a defect"), Failure.REFUSED, "ValueError: a defect"),
    ],
)
def test_each_failure_is_explained(error, failure, words):
    told, reason = explain(error, ADDRESS)
    assert told is failure
    assert words in reason
    assert redact_url(reason) == reason  # it is shown without what looks like credentials


def test_over_tls_a_broker_that_hangs_up_may_want_a_certificate():
    failure, reason = explain(HungUp("it hung up"), OVER_TLS)
    assert failure is Failure.REFUSED
    assert "--mqtt-cert" in reason


def test_a_circle_of_causes_ends():
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert explain(one, ADDRESS)[0] is Failure.REFUSED
