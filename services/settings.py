"""What settings of several commands share: their types, a network's flags, a service's environment and file.

Light, as `--help` waits for it: what checks a codec loads numpy, and is imported when there is one.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import structlog
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_settings import CliSuppress, SettingsConfigDict

from services.access.tokens import is_token
from services.command_settings import CommandSettings, GivenValue
from services.errors import SettingsError
from services.listening import is_loopback
from services.logs import LogSettings
from stream.canvas import parse_size
from stream.network.names import DEFAULT_SPLIT

log = structlog.get_logger(__name__)

DEFAULT_PORT = 8765
DEFAULT_CODEC = "feature:quality=6"
PREFIX = "SPLITCAST_"
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://[^/]+:\d+")
"""What Kubernetes sets SPLITCAST_PORT to in every pod beside a Service named splitcast."""


def expanded(text: str) -> str:
    """The text with the home folder in place of a `~` that it begins with, which no shell may have seen."""
    return os.path.expanduser(text)  # noqa: PTH111 - a text that may be a path, or an address


def own_name() -> str:
    """The host's name in the characters that a stream's name may have."""
    return re.sub(r"[^A-Za-z0-9._-]|^[^A-Za-z0-9]", "0", socket.gethostname() or "splitcast")[:64]


def any_name(value: Any, check: ValidatorFunctionWrapHandler) -> str:
    """A text as it is checked, or the name of a file that is not UTF-8, which pydantic takes for no text."""
    if isinstance(value, str) and value != value.encode(errors="replace").decode():
        return value
    text: str = check(value)
    return text


def expanded_path(path: Path) -> Path:
    """The path, `~` expanded."""
    return Path(expanded(str(path)))


def codec_text(text: str) -> str:
    from codec.errors import BadCodecSpec
    from codec.spec import parse_codec

    try:
        return str(parse_codec(text))
    except BadCodecSpec as error:
        raise ValueError(str(error)) from None


def size_text(text: str) -> str:
    parse_size(text)
    return text


def require_folder_of(file: Path | None, flag: str) -> None:
    """Raises SettingsError, which names the flag, where there is no folder to write `file` to."""
    if file and not file.absolute().parent.is_dir():
        raise SettingsError(f"{flag}: there is no folder {file.parent} to write {file.name} to")


def websocket_url(url: str) -> str:
    parts = urlsplit(url)  # raises ValueError itself, as `port` does
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an address such as ws://host:8765 or wss://host")
    return url.rstrip("/")


def origins(text: str) -> str:
    for origin in filter(None, map(str.strip, text.lower().split(","))):
        parts = urlsplit(origin)
        bare = f"{parts.scheme}://{parts.netloc}" == origin.rstrip("/") and len(origin.split()) == 1
        if origin != "*" and not (bare and parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError("must be origins such as https://dash.example, separated by commas, or *")
    return text


def require_certificate(settings: CommandSettings, prefix: str = "") -> None:
    """Raises ValueError where a server's TLS settings say something about a certificate that is not given."""
    for name in ("key", "client_ca"):
        if getattr(settings, f"{prefix}tls_{name}") and not getattr(settings, f"{prefix}tls_cert"):
            flag = f"--{prefix}tls-".replace("_", "-")
            raise ValueError(f"{flag}{name.replace('_', '-')}: is of no use without {flag}cert")


def certificate_fingerprint(text: str) -> str:
    """A SHA-256 in the hexadecimal digits of `openssl x509 -fingerprint -sha256`, with colons or without."""
    digits = text.strip().rpartition("=")[2].replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError(
            "must be the 64 hexadecimal digits of a SHA-256, as `openssl x509 -noout -fingerprint -sha256 -in FILE` "
            "prints them"
        )
    return digits


Seconds = Annotated[float, Field(gt=0, le=86400)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=256)]
PathSetting = Annotated[Path, AfterValidator(expanded_path)]
"""A file or folder. Every setting that is one has this type."""
PathText = Annotated[str, WrapValidator(any_name), AfterValidator(expanded)]
"""A text that may be a path: a source, a network, a profile."""
CodecText = Annotated[str, AfterValidator(codec_text)]
"""A codec of features, such as feature:quality=6, in its canonical form."""
EngineChoice = Literal["auto", "onnxruntime", "torch", "torch-half"]
EngineFlag = Annotated[
    EngineChoice,
    Field(
        description="what computes: onnxruntime on the CPU, or torch, torch-half in float16 "
        "(auto: torch where the device is no CPU)"
    ),
]
SizeText = Annotated[str, AfterValidator(size_text)]
"""A network's input, as `parse_size` takes it."""


class NetworkSettings(CommandSettings):
    """What a command is told of the network that it runs on this machine."""

    model: PathText = Field("yolov5n", description="network by name or path")
    size: SizeText = Field(
        "640", description="network input: longer side, or HEIGHTxWIDTH; multiples of its stride, 32 (P6: 64)"
    )
    threads: Threads = Field(1, description="threads that compute")
    device: str = Field("auto", description="torch device")


class EngineSettings(NetworkSettings):
    """What a command is told of a network that any engine may run."""

    engine: EngineFlag = "auto"


class SplitSettings(NetworkSettings):
    """What a command is told of the network that it cuts at a point."""

    split: str = Field(DEFAULT_SPLIT, description="split point")


def token_text(token: SecretStr) -> SecretStr:
    if not is_token(token.get_secret_value()):
        raise ValueError("is no token: one begins with spc_ and has 47 characters (`splitcast token create`)")
    return token


def with_variable(values: dict[str, GivenValue], name: str) -> dict[str, GivenValue]:
    """What was given, and that setting from its variable where nothing else gave it and the variable is not empty."""
    variable = f"{PREFIX}{name.upper()}"
    if name not in values and (text := os.environ.get(variable)):
        values[name] = GivenValue(text, variable)
    return values


class ClientSettings(CommandSettings):
    """What a command is told of how it knows the detector, and how the detector knows it."""

    tls_ca: PathSetting | None = Field(
        None,
        description="PEM file of who signs the detector's certificate (default: whom this machine trusts)",
    )
    tls_fingerprint: Annotated[str, AfterValidator(certificate_fingerprint)] | None = Field(
        None, title="SHA256", description="of the detector's certificate; without --tls-ca it alone counts"
    )
    tls_cert: PathSetting | None = Field(
        None, description="PEM file of the certificate to show to the detector, if it wants to see one"
    )
    tls_key: PathSetting | None = Field(
        None, description="PEM file of its key (default: in the certificate's)"
    )
    token: CliSuppress[Annotated[SecretStr, AfterValidator(token_text)] | None] = Field(
        None, description="what the detector asks for; no flag, as everybody on a machine sees those"
    )
    token_file: PathSetting | None = Field(
        None,
        description="file of the token that the detector asks for, read anew for each connection; the variable "
        "SPLITCAST_TOKEN may hold it instead",
    )
    insecure: bool = Field(
        False,
        description="send a token, and serve detections, even where the network could read them; certificates are "
        "checked all the same",
    )

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.tls_key and not self.tls_cert:
            raise ValueError("--tls-key: is of no use without --tls-cert")
        return self

    @model_validator(mode="after")
    def _check_token_source(self) -> Self:
        if self.token and self.token_file:
            raise ValueError("--token-file: SPLITCAST_TOKEN is set too; give one of them")
        if self.token_file and is_token(self.token_file.name):
            raise ValueError(
                "--token-file: this is a token itself, which everybody on this machine may have seen: revoke it, and "
                "write the new one to a file"
            )
        return self

    @classmethod
    def collect(cls, flags: Mapping[str, Any]) -> dict[str, GivenValue]:
        """And the token from its variable, which a command reads that has no others."""
        return with_variable(super().collect(flags), "token")

    def check_way(self, url: str) -> None:
        """Raises ValueError where there is a token that cannot go to that address, or should not."""
        if self.token is None and self.token_file is None:
            return
        what = f"--token{'' if self.token else '-file'}: the token"
        parts = urlsplit(url)
        if parts.username is not None:
            raise ValueError(f"{what} takes the header that user and password of the address need; give one")
        if parts.scheme == "ws" and not is_loopback(parts.hostname or "") and not self.insecure:
            raise ValueError(
                f"{what} would go to {parts.hostname} unencrypted, for everybody on the way to read: write wss:// "
                "and give the detector --tls-cert and --tls-key, or say --insecure where the network is trusted"
            )


class ServiceSettings(CommandSettings):
    """What both services share. Each field is a flag, a variable SPLITCAST_FIELD and a key of the TOML table."""

    model_config = SettingsConfigDict(
        coerce_numbers_to_str=True,  # `source = 0` in a file
        cli_enforce_required=False,  # the environment or the file may say it
        cli_implicit_flags=True,  # both forms of a switch, for the same reason
    )
    epilog: ClassVar[str | None] = (
        "Every flag is also a variable SPLITCAST_FLAG and a key of the TOML table; flags win over variables, "
        "variables over the file. An empty variable says nothing."
    )
    table: ClassVar[str]
    """Name of this service's table in the TOML file."""

    config: PathSetting | None = Field(
        None, description="TOML file; the table of the command's name, [camera] or [detector], is read"
    )
    model: PathText = Field(
        "yolov5n", description="network by name (yolov5n|s|m|l|x, yolov5nu..., demo) or path of a .pt"
    )
    cache: PathSetting | None = Field(
        None, description="folder of downloaded weights (default: ~/.cache/splitcast)"
    )
    device: str = Field(
        "auto", description="torch device: auto, cpu, cuda, cuda:1...; auto takes CUDA where it is"
    )
    engine: EngineFlag = "auto"
    threads: Threads = Field(1, description="threads that compute a network's layers together")
    drain_s: Seconds = Field(5.0, description="seconds that a stop may take to finish frames in flight")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else JSON lines"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level logged"
    )

    @property
    def logs(self) -> LogSettings:
        return LogSettings(self.log_format, self.log_level, repeats=False)

    @classmethod
    def collect(cls, flags: Mapping[str, Any]) -> dict[str, GivenValue]:
        """Flags, then the environment, then the file that either names. Raises SettingsError for that file."""
        values = _variables(cls) | super().collect(flags)
        if "config" not in values:
            return values
        return _toml_table(expanded_path(Path(str(values["config"].value))), cls.table) | values


def _variables(settings: type[ServiceSettings]) -> dict[str, GivenValue]:
    """What the environment says of the fields; an empty variable says nothing."""
    values = {}
    for variable, value in os.environ.items():
        name = variable.lower().removeprefix(PREFIX.lower())
        if not variable.upper().startswith(PREFIX) or name not in settings.model_fields or not value:
            continue
        if name.endswith("port") and _SERVICE_LINK.fullmatch(value):
            log.warning(
                "a service link of Kubernetes or Docker is no setting, and is ignored", variable=variable
            )
            continue
        values[name] = GivenValue(value, variable)
    return values


def _toml_table(file: Path, table: str) -> dict[str, GivenValue]:
    """Table `table` of a TOML file, which may have none. Raises SettingsError."""
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    values = tables.get(table, {})
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: [{table}] must be a table")
    if "config" in values:
        raise SettingsError(f"{file}: config in [{table}]: a file cannot name another one")
    return {name: GivenValue(value, f"{file}: {name} in [{table}]") for name, value in values.items()}
