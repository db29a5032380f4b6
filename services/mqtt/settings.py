"""What commands are told of an MQTT broker. Light: nothing of MQTT is imported, so that `--help` is there at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import CliSuppress

from services.command_settings import CommandSettings, GivenValue
from services.mqtt.broker import Broker, BrokerAddress
from services.settings import PathSetting, own_name, with_variable
from stream.session.messages import StreamName
from stream.transport.tls import ClientTls

_LEVEL = "[A-Za-z0-9][A-Za-z0-9._-]*"
TopicPrefix = Annotated[str, Field(pattern=rf"^{_LEVEL}(/{_LEVEL})*$", max_length=128)]
"""First words of topics: neither wildcards nor what brokers keep for themselves."""


def broker_url(url: str) -> str:
    BrokerAddress.parse(url)
    return url


class BrokerSettings(CommandSettings):
    """What a command is told that talks to a broker, whatever it does there."""

    mqtt_prefix: TopicPrefix = Field("splitcast", description="first word of the topics at an MQTT broker")
    mqtt_password: CliSuppress[SecretStr | None] = Field(
        None, description="of the broker's user; no flag, as everybody on a machine sees those"
    )
    mqtt_password_file: PathSetting | None = Field(
        None,
        description="file of the password at the broker, read anew for each connection; the variable "
        "SPLITCAST_MQTT_PASSWORD may hold it instead",
    )

    @model_validator(mode="after")
    def _check_password_source(self) -> Self:
        if self.mqtt_password and self.mqtt_password_file:
            raise ValueError("--mqtt-password-file: SPLITCAST_MQTT_PASSWORD is set too; give one of them")
        return self

    @classmethod
    def collect(cls, flags: Mapping[str, Any]) -> dict[str, GivenValue]:
        """And the password from its variable, which a command reads that has no others."""
        return with_variable(super().collect(flags), "mqtt_password")

    def broker(self, url: str, tls: ClientTls, flag: str) -> Broker:
        """The broker at that address, which `flag` gave. Raises ValueError where it does not fit the rest."""
        address = BrokerAddress.parse(url)
        own = self.mqtt_password.get_secret_value() if self.mqtt_password else None
        if address.user is None and (own or self.mqtt_password_file):
            raise ValueError(f"{flag}: there is a password, and no user: write USER@ before the host")
        if address.password is not None and (own or self.mqtt_password_file):
            raise ValueError(f"{flag}: there is a password in the address, and another one: leave one out")
        if not address.tls and (tls.ca or tls.cert):
            used = "ca" if tls.ca else "cert"
            raise ValueError(f"{tls.flags}{used}: is of no use without TLS: write mqtts:// for mqtt://")
        return Broker(address, tls if address.tls else None, own, self.mqtt_password_file)


class MqttSettings(BrokerSettings):
    """What a service is told that publishes to a broker."""

    mqtt: Annotated[str, AfterValidator(broker_url)] | None = Field(
        None,
        title="URL",
        description="MQTT broker to publish to: mqtt://[USER@]HOST[:1883], mqtts://[USER@]HOST[:8883] "
        "(default: none)",
    )
    mqtt_id: StreamName = Field(
        default_factory=own_name,
        description="name of this publisher at the broker, of its own (default: host name)",
    )
    mqtt_ca: PathSetting | None = Field(
        None,
        description="PEM file of who signs the broker's certificate (default: whom this machine trusts)",
    )
    mqtt_cert: PathSetting | None = Field(
        None, description="PEM file of the certificate to show to the broker, if it wants to see one"
    )
    mqtt_key: PathSetting | None = Field(
        None, description="PEM file of its key (default: in the certificate's)"
    )
    mqtt_discovery: TopicPrefix | None = Field(
        None,
        title="PREFIX",
        description="make streams known to the Home Assistant that listens below this prefix, usually homeassistant "
        "(default: to none)",
    )
    mqtt_queue: Annotated[int, Field(ge=1, le=65536)] = Field(
        1024, description="messages kept for a broker that is slow or away before the oldest goes"
    )

    @property
    def mqtt_broker(self) -> Broker | None:
        """The broker to publish to."""
        if self.mqtt is None:
            return None
        tls = ClientTls(self.mqtt_ca, None, self.mqtt_cert, self.mqtt_key, flags="--mqtt-")
        return self.broker(self.mqtt, tls, "--mqtt")

    @model_validator(mode="after")
    def _check_broker(self) -> Self:
        if self.mqtt_key and not self.mqtt_cert:
            raise ValueError("--mqtt-key: is of no use without --mqtt-cert")
        _ = self.mqtt_broker
        return self

    def check_machine(self) -> None:
        from services.certificates import check_files
        from services.extras import require

        super().check_machine()
        if broker := self.mqtt_broker:
            require("mqtt", "--mqtt")
            check_files(broker.tls)
            broker.password()
