"""The MQTT broker that a service publishes to: it is there, and lets the service in."""

from __future__ import annotations

from services.doctor.finding import Finding, fine, wrong
from services.extras import require
from services.mqtt.settings import MqttSettings
from stream.tasks.backoff import Failure

_START = (
    "start the broker, have it listen for other machines (mosquitto: a listener), let firewalls pass it, or name it by "
    "--mqtt"
)
_MOST_BYTES = 1024  # of a message that a broker may send: none is asked for


async def look_at_broker(settings: MqttSettings) -> Finding:
    """Whether the broker takes this user and this machine's certificate; nothing is published.

    Connects as a client of a name that the broker makes up, so that a service that publishes is not replaced. Raises
    MissingExtra.
    """
    require("mqtt", "--mqtt")
    from services.mqtt.client import connected, make_client
    from services.mqtt.failures import explain

    broker = settings.mqtt_broker
    assert broker is not None
    facts = {"host": broker.address.host, "port": broker.address.port, "tls": broker.address.tls}
    try:
        client = await make_client(broker, max_incoming_bytes=_MOST_BYTES, max_incoming=1)
        async with connected(client):
            pass
    except Exception as error:  # as its publisher does: a library's defects are among them
        failure, reason = explain(error, broker.address)
        away = failure in (Failure.NOT_READY, Failure.UNREACHABLE)
        return wrong(f"{broker.address}: {reason}", _START if away else "", **facts)
    user = f"as {broker.address.user!r}" if broker.address.user else "without a user's name"
    return fine(f"{broker.address} lets this machine in, {user}", **facts)
