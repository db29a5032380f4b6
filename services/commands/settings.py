"""Settings of the small commands. Light: no torch, so that `--help` is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from services.access.token_file import TokenEntry, make_entry
from services.access.tokens import Role
from services.command_settings import CommandSettings
from services.logs import LogSettings
from services.mqtt.broker import PORTS, Broker
from services.mqtt.settings import BrokerSettings
from services.settings import (
    DEFAULT_CODEC,
    DEFAULT_PORT,
    ClientSettings,
    CodecText,
    Count,
    NetworkSettings,
    PathSetting,
    PathText,
    SizeText,
)
from stream.network.names import DEFAULT_SPLIT
from stream.transport.tls import ClientTls

DEFAULT_URL = f"ws://127.0.0.1:{DEFAULT_PORT}"
_TYPE = "(detections|stream|gap)"


class WatchSettings(ClientSettings, BrokerSettings):
    """Settings of `splitcast watch`."""

    url: CliPositionalArg[tuple[str, ...]] = Field(
        (),
        title="url",
        description="detector, or several that share streams, or an MQTT broker that one publishes to: "
        f"mqtt://[USER@]HOST, mqtts://[USER@]HOST (default: {DEFAULT_URL})",
    )
    stream: str | None = Field(None, description="only this stream")
    types: Annotated[str, Field(pattern=rf"^{_TYPE}(,{_TYPE})*$")] | None = Field(
        None,
        title="TYPES",
        description="only messages of these types, of detections, stream and gap, with commas",
    )
    as_json: bool = Field(False, alias="json", description="JSON lines instead of readable ones")
    count: Count | None = Field(None, description="stop after so many messages")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to look, each once."""
        return tuple(dict.fromkeys(self.url)) or (DEFAULT_URL,)

    @property
    def mqtt_broker(self) -> Broker | None:
        """The broker that is watched; None: it is a detector. Raises ValueError where it does not fit the rest."""
        brokers = [address for address in self.addresses if address.partition("://")[0] in PORTS]
        if not brokers:
            return None
        if len(self.addresses) > 1:
            raise ValueError("url: a broker is watched alone: all detectors may publish to it")
        if self.tls_fingerprint:
            raise ValueError("--tls-fingerprint: is for detectors: give --tls-ca for a broker")
        if self.token_file:
            raise ValueError("--token-file: is for detectors: give --mqtt-password-file for a broker")
        return self.broker(brokers[0], ClientTls(self.tls_ca, None, self.tls_cert, self.tls_key), "url")

    @model_validator(mode="after")
    def _check_broker(self) -> Self:
        _ = self.mqtt_broker
        return self

    def check_machine(self) -> None:
        from services.certificates import check_files, client_tls
        from services.extras import require
        from services.own_token import token_headers

        check_files(client_tls(self))
        token_headers(self)
        if broker := self.mqtt_broker:
            require("mqtt", "splitcast watch of a broker")
            broker.password()


class DemoSettings(NetworkSettings):
    """Settings of `splitcast demo`."""

    source: PathText = Field(
        "demo", description="webcam number, rtsp://..., file, folder, or the virtual camera demo:scene=bus"
    )
    model: PathText = Field("demo", description="network by name or path; demo: the embedded one")
    codec: CodecText = Field(DEFAULT_CODEC, description="codec")
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        30.0, description="how long; 0: until Ctrl-C"
    )
    preview: bool = Field(False, description="show small pictures on the page, too")
    open: bool | None = Field(
        None, description="open the live page in a browser (default: where there is a screen)"
    )
    summary: PathSetting | None = Field(
        None, alias="json", title="OUT", description="write the summary there too"
    )

    @property
    def logs(self) -> LogSettings:
        return LogSettings("auto", "warning", repeats=False)


class PointsSettings(CommandSettings):
    """Settings of `splitcast points`."""

    model: PathText = Field("yolov5n", description="network by name or path")
    size: SizeText = Field("640x640", description="network input HEIGHTxWIDTH, multiples of its stride")
    as_json: bool = Field(False, alias="json", description="JSON instead of a table")


class ExportSettings(CommandSettings):
    """Settings of `splitcast export`."""

    model_config = SettingsConfigDict(cli_shortcuts={"output": "o"})

    model: PathText = Field("yolov5n", description="network by name or path")
    split: str = Field(DEFAULT_SPLIT, description="split point")
    output: PathSetting = Field(title="DIR", description="a new folder for both halves and their description")


class EncodeSettings(CommandSettings):
    """Settings of `splitcast encode`."""

    input: CliPositionalArg[PathSetting] = Field(title="IN.npz")
    output: CliPositionalArg[PathSetting] = Field(title="OUT.spc")
    codec: CodecText = Field("rle:bits=4", description="codec")


class DecodeSettings(CommandSettings):
    """Settings of `splitcast decode`."""

    input: CliPositionalArg[PathSetting] = Field(title="IN.spc")
    output: CliPositionalArg[PathSetting] = Field(title="OUT.npz")


class ProfileShowSettings(CommandSettings):
    """Settings of `splitcast profile show`."""

    profile: CliPositionalArg[PathText] = Field(
        title="FILE|HASH", description="a profile's file, or the hash of one that is bundled"
    )


class TokensSettings(CommandSettings):
    """Where the commands on tokens find them."""

    tokens: PathSetting = Field(
        Path("tokens.toml"), description="TOML file of the tokens, as the detector has it"
    )


class TokenCreateSettings(TokensSettings):
    """Settings of `splitcast token create`."""

    name: CliPositionalArg[str] = Field(title="NAME", description="whose token it is; shown in logs")
    role: Annotated[tuple[Role, ...], Field(min_length=1)] = Field(
        title="ROLE",
        description="camera, consumer (reads streams), metrics or page (the live page); may be repeated",
    )
    stream: tuple[str, ...] = Field(
        (),
        title="NAME",
        description="stream that may be sent or read, or a prefix as 'yard-*', or '*' for all; may be repeated",
    )
    frames_per_s: float | None = Field(None, title="N", description="most frames a second of a camera")
    max_packet_kib: int | None = Field(None, title="KIB", description="largest packet of a camera in KiB")
    max_side: int | None = Field(None, title="N", description="longest side of a camera's network input")
    no_preview: bool = Field(False, description="refuse a camera that sends previews")
    no_profiles: bool = Field(False, description="refuse a camera's calibration profile that is not at hand")
    out: PathSetting | None = Field(
        None, title="FILE", description="new file for the token, of mode 600 (default: print it)"
    )

    def entry(self, hash_: str) -> TokenEntry:
        """What the file will list. Raises SettingsError."""
        given: dict[str, Any] = {"name": self.name, "hash": hash_, "roles": self.role, "streams": self.stream}
        given |= {name: getattr(self, name) for name in ("frames_per_s", "max_packet_kib", "max_side")}
        given |= {"preview": False} if self.no_preview else {}
        given |= {"profiles": False} if self.no_profiles else {}
        return make_entry(given, "the new token")

    def check_machine(self) -> None:
        self.entry("0" * 64)


class TokenListSettings(TokensSettings):
    """Settings of `splitcast token list`."""


class TokenRevokeSettings(TokensSettings):
    """Settings of `splitcast token revoke`."""

    name: CliPositionalArg[str] = Field(title="NAME", description="whose token it is")
